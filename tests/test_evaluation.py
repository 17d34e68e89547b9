"""The figures of merit, against cases that were reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clip_app.evaluation import (
    Answers,
    Confusion,
    answer,
    calibration,
    calibration_error,
    compare,
    confusion_matrix,
    confusions,
    first_right,
    label_figures,
    no_match_curve,
    share,
    trade_off,
)
from clip_app.scoring import score


def flags(*values: int) -> np.ndarray:
    return np.array(values, bool)


@pytest.fixture
def answers() -> Answers:
    """Six pictures of labels 0, 1 and 2; label 3 is in none. Right: the first, second and fifth."""
    return Answers(
        truth=np.array([0, 0, 0, 1, 1, 2]),
        best=np.array([0, 0, 1, 0, 1, 1]),
        rank=np.array([0, 0, 1, 3, 0, 1]),
        confidence=np.array([0.9, 0.3, 0.5, 0.4, 0.8, 0.2]),
        no_match=np.array([0.05, 0.6, 0.3, 0.2, 0.1, 0.7]),
    )


def test_the_right_label_is_found_at_its_place() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.3]])
    right = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    assert first_right(scores, right).tolist() == [1, 0, 1, 3], "of equals the earlier goes first; none is behind all"
    several = first_right(scores[:1], np.array([[1, 0, 1]], bool))
    assert several.tolist() == [1], "of several right ones the better counts"


def test_top_1_and_top_5_and_what_the_app_withholds(answers: Answers) -> None:
    assert answers.among(1).tolist() == [True, True, False, False, True, False]
    assert (share(answers.among(1)).value, share(answers.among(3)).value) == (0.5, 5 / 6)
    assert answers.withheld.tolist() == [False, True, False, False, False, True]
    assert answers.only(answers.among(1)).best.tolist() == [0, 0, 1]


def test_a_share_has_wilsons_interval() -> None:
    found = share(flags(*[1] * 8, *[0] * 2))
    assert found.value == 0.8
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)
    assert share(flags(1, 1, 1)).high == 1.0
    assert share(flags(0, 0)).low == 0.0


def test_a_paired_difference_counts_pictures_that_one_run_alone_has_right() -> None:
    found = compare(flags(1, 1, 0, 0, 0), flags(1, 0, 1, 1, 0))
    assert (found.gained, found.lost) == (2, 1)
    assert found.value == pytest.approx(0.2)
    # (2 + 1 - (1 + 1)) / 7, and 1.96 * sqrt((5 / 7 - 1 / 49) / 7) around it.
    assert [found.low, found.high] == pytest.approx([-0.4743, 0.7600], abs=1e-4)
    assert found.verdict == "no real difference"


@pytest.mark.parametrize(("gained", "lost", "says"), [(5, 0, "no real difference"), (6, 0, "better"), (0, 6, "worse")])
def test_a_difference_is_real_where_mcnemars_exact_test_says_so(gained: int, lost: int, says: str) -> None:
    first = flags(*[0] * gained, *[1] * lost, *[1] * 94)
    other = flags(*[1] * gained, *[0] * lost, *[1] * 94)
    assert compare(first, other).verdict == says


@pytest.mark.parametrize("count", [30, 300])
def test_the_interval_of_a_difference_covers_it_as_often_as_it_says(count: int) -> None:
    random = np.random.default_rng(0)
    kinds = random.choice(4, (2000, count), p=[0.5, 0.25, 0.15, 0.1])  # both, other alone, first alone, neither
    found = [compare((row == 0) | (row == 2), (row == 0) | (row == 1)) for row in kinds]
    covered = np.mean([item.low <= 0.1 <= item.high for item in found])
    assert 0.935 <= covered <= 0.975


def test_calibration_is_the_mean_gap_of_bins() -> None:
    confidence, right = np.array([0.05, 0.15, 0.95, 1.0]), flags(0, 1, 1, 1)
    found = [(item.count, round(item.confidence, 3), item.accuracy) for item in calibration(confidence, right)]
    assert found == [(1, 0.05, 0.0), (1, 0.15, 1.0), (2, 0.975, 1.0)]
    assert calibration_error(confidence, right) == pytest.approx((0.05 + 0.85 + 2 * 0.025) / 4)
    assert calibration_error(np.array([1.0, 0.0]), flags(1, 0)) == 0.0


def test_confusions_come_with_the_most_frequent_first(answers: Answers) -> None:
    assert confusions(answers) == [Confusion(0, 1, 1), Confusion(1, 0, 1), Confusion(2, 1, 1)]
    twice = Answers(*(np.append(row, row[-1]) for row in vars(answers).values()))
    assert confusions(twice)[0] == Confusion(2, 1, 2)
    assert confusion_matrix(answers, [0, 1, 2]).tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert confusion_matrix(answers, [2, 1]).tolist() == [[0, 1], [0, 1]]


def test_each_label_has_its_recall_precision_and_share_of_no_match(answers: Answers) -> None:
    found = label_figures(answers, 4)
    assert [(item.count, item.right, item.answered) for item in found] == [(3, 2, 3), (2, 1, 3), (1, 0, 0), (0, 0, 0)]
    assert [item.recall for item in found] == [pytest.approx(2 / 3), 0.5, 0.0, None]
    assert [item.precision for item in found] == [pytest.approx(2 / 3), pytest.approx(1 / 3), None, None]
    assert [item.withheld for item in found] == [pytest.approx(1 / 3), 0.0, 1.0, None]


def test_the_curve_of_no_match_says_what_a_threshold_costs(answers: Answers) -> None:
    curve = {item.threshold: item for item in no_match_curve(answers)}
    assert len(curve) == 51
    assert (curve[0.0].withheld, curve[0.0].lost, curve[0.0].accuracy) == (1.0, 0.5, None)
    half = curve[0.5]
    assert [half.withheld, half.lost] == pytest.approx([2 / 6, 1 / 6])
    assert half.accuracy == 0.5
    assert (curve[1.0].withheld, curve[1.0].accuracy) == (0.0, 0.5)


def test_the_surest_pictures_are_traded_against_all(answers: Answers) -> None:
    curve = trade_off(answers)
    assert [round(item.coverage * 6) for item in curve] == [1, 2, 3, 4, 5, 6]
    assert [item.by_no_match for item in curve] == pytest.approx([1, 1, 2 / 3, 1 / 2, 3 / 5, 1 / 2])
    assert [item.by_confidence for item in curve] == pytest.approx([1, 1, 2 / 3, 1 / 2, 3 / 5, 1 / 2])


def test_pictures_are_scored_as_the_app_scores_them() -> None:
    random = np.random.default_rng(0)
    images, labels, neutral = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        for rows in (random.standard_normal((count, 8)) for count in (5, 7, 2))
    )
    truth, flat = np.arange(5), flags(0, 0, 0, 0, 1)
    found = answer(images, truth, flat, labels, neutral, 20.0)
    for i, image in enumerate(images[:4]):
        scores = score(image, labels, neutral, 20.0)
        assert found.best[i] == scores.confidence.argmax()
        assert found.rank[i] == (scores.similarity > scores.similarity[i]).sum()
        assert (found.confidence[i], found.no_match[i]) == (scores.confidence.max(), scores.no_match)
    assert (found.confidence[4], found.no_match[4], found.withheld[4]) == (0.0, 1.0, True)
