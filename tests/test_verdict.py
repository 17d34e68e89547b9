from __future__ import annotations

import pytest

from clip_app.results import GroupResult, LabelScore
from clip_app.verdict import verdict


def group(name: str, best: float, no_match: float) -> GroupResult:
    scores = [LabelScore(label=f"{name} {i}", confidence=best / (i + 1), similarity=0.2) for i in range(2)]
    return GroupResult(name=name, no_match=no_match, labels=scores)


@pytest.mark.parametrize(
    ("best", "no_match", "level"),
    [(0.9, 0.05, "clear"), (0.5, 0.5, "clear"), (0.49, 0.2, "unsure"), (0.2, 0.2, "unsure"), (0.2, 0.21, "none")],
)
def test_the_best_label_is_clear_with_half_of_all_and_nothing_below_the_neutral_prompts(
    best: float, no_match: float, level: str
) -> None:
    found = verdict([group("objects", best, no_match)])
    assert found.level == level
    assert found.label == (None if level == "none" else "objects 0")


def test_a_group_that_loses_to_its_neutral_prompts_is_passed_over() -> None:
    found = verdict([group("objects", 0.3, 0.6), group("scenes", 0.2, 0.1)])
    assert (found.group, found.level, found.confidence) == ("scenes", "unsure", 0.2)


def test_a_visitors_own_labels_go_before_surer_ones() -> None:
    assert verdict([group("objects", 0.9, 0.0), group("labels", 0.3, 0.1)]).group == "labels"
    assert verdict([group("objects", 0.9, 0.0), group("labels", 0.1, 0.3)]).group == "objects"


def test_of_several_groups_the_surest_is_told() -> None:
    assert verdict([group("objects", 0.4, 0.0), group("scenes", 0.6, 0.1)]).group == "scenes"


def test_without_any_label_there_is_nothing() -> None:
    assert verdict([]).level == "none"
    assert verdict([GroupResult(name="labels", no_match=0, labels=[])]).level == "none"
