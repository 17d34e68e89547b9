"""What is asked of a picture, however a client says it."""

from __future__ import annotations

from typing import Any

import pytest

from clip_app.errors import BadOption
from clip_app.labels import LabelGroup
from clip_app.options import Options

GROUPS = {
    name: LabelGroup(name=name, title=name, labels=tuple(f"{name} {i}" for i in range(9))) for name in ("pets", "tools")
}


def names(options: Options, default: tuple[str, ...] = ("tools",)) -> list[str]:
    return [group.name for group in options.resolve(GROUPS, default)]


def test_with_nothing_said_the_models_own_groups_are_asked() -> None:
    assert names(Options()) == ["tools"]
    assert names(Options.of(groups=None, labels=None, template=None, top_k=None)) == ["tools"]


def test_own_labels_are_asked_instead_of_the_models_groups_and_beside_those_that_are_named() -> None:
    assert names(Options.of(labels="a cat")) == ["labels"]
    assert names(Options.of(labels="a cat", groups="pets")) == ["pets", "labels"]
    assert names(Options.of(groups="pets")) == ["pets"]


@pytest.mark.parametrize("said", ["a cat, two dogs", ["a cat", "two dogs"], ("a cat", "two dogs")])
def test_one_text_with_commas_says_the_same_as_a_list(said: object) -> None:
    (group,) = Options.of(labels=said).resolve(GROUPS, ())
    assert group.labels == ("a cat", "two dogs")


def test_in_a_list_a_comma_belongs_to_the_label() -> None:
    assert Options.of(labels=["a dog, small"]).labels == ("a dog, small",)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"labels": 7}, "labels: names are a list"),
        ({"labels": ["a cat", 7]}, "labels: names are a list"),
        ({"labels": {"a": "cat"}}, "labels: names are a list"),
        ({"groups": [None]}, "groups: names are a list"),
        ({"independent": "perhaps"}, "independent: "),
        ({"template": 3}, "template: "),
        ({"colour": "red"}, "colour: "),
    ],
)
def test_what_cannot_be_understood_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadOption) as caught:
        Options.of(**given)
    assert str(caught.value).startswith(says)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize("value", [1, 1000, "7", " 7 ", 7.0, "7.0"])
def test_a_number_of_labels_may_be_written_in_any_way(value: object) -> None:
    assert Options.of(top_k=value).top_k == int(float(str(value)))


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_number_of_labels_is_none(value: object) -> None:
    assert Options.of(top_k=value).top_k is None


@pytest.mark.parametrize("value", [0, -1, 1001, "1001"])
def test_a_number_of_labels_has_bounds_that_are_said(value: object) -> None:
    with pytest.raises(BadOption, match=r"^top_k: it must be from 1 to 1000\.$"):
        Options.of(top_k=value)


@pytest.mark.parametrize("value", ["many", 2.5, "2.5", True, [3], "inf", "nan", "1e999"])
def test_what_is_no_whole_number_is_said_to_be_none(value: object) -> None:
    with pytest.raises(BadOption, match=r"^top_k: it must be a whole number\.$"):
        Options.of(top_k=value)


def test_of_a_group_the_best_few_are_returned_and_of_own_labels_all() -> None:
    (own,) = Options.of(labels=[f"label {i}" for i in range(30)]).resolve(GROUPS, ())
    few = Options().limit(GROUPS["pets"])
    assert 1 < few < len(GROUPS["pets"].labels)
    assert Options().limit(own) == 30
    assert [Options.of(top_k=2).limit(group) for group in (GROUPS["pets"], own)] == [2, 2]


def test_how_many_are_returned_unless_asked_is_what_the_description_says() -> None:
    description = Options.model_fields["top_k"].description or ""
    assert f"; {Options().limit(GROUPS['pets'])}, or all of your own" in description


@pytest.mark.parametrize("given", [{"groups": "birds"}, {"groups": []}, {"labels": ""}, {"labels": []}])
def test_a_choice_of_nothing_or_of_what_is_not_there_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        Options.of(**given).resolve(GROUPS, ("pets",))


def test_a_prompt_of_its_own_goes_with_own_labels_alone() -> None:
    pets, own = Options.of(groups="pets", labels="cat", template="a drawing of a {}").resolve(GROUPS, ())
    assert own.templates == ("a drawing of a {}",)
    assert pets.templates == GROUPS["pets"].templates
