from __future__ import annotations

import re
from pathlib import Path

import pytest

from clip_app.errors import BadOption, LabelFileError
from clip_app.labels import (
    DEFAULT_TEMPLATE,
    choose_groups,
    fill,
    load_groups,
    parse_group,
    preset_folder,
    read_labels,
    request_group,
    split_labels,
)


@pytest.mark.parametrize(("name", "least"), [("objects", 400), ("scenes", 150), ("content", 100)])
def test_the_preset_groups_are_large_and_clean(name: str, least: int) -> None:
    group = load_groups(preset_folder())[name]
    assert len(group.labels) >= least
    assert len({label.casefold() for label in group.labels}) == len(group.labels)
    assert len(group.templates) >= 3
    assert len(group.neutral) >= 3
    assert all(re.fullmatch(r"[\w '&/-]+", label) for label in group.labels)


def test_the_presets_come_in_the_order_people_ask() -> None:
    assert list(load_groups(preset_folder())) == ["objects", "scenes", "content"]


def test_an_operators_group_replaces_a_preset_and_adds_to_them(tmp_path: Path) -> None:
    (tmp_path / "objects.txt").write_text("title: Ours\nhammer\nsaw\n")
    (tmp_path / "birds.txt").write_text("# birds\ntemplate: a bird: {}.\nneutral: nothing.\nwren\n")
    groups = load_groups(preset_folder(), tmp_path)
    assert (groups["objects"].title, groups["objects"].labels) == ("Ours", ("hammer", "saw"))
    assert groups["objects"].templates == (DEFAULT_TEMPLATE,)
    assert (groups["birds"].title, groups["birds"].templates) == ("Birds", ("a bird: {}.",))
    assert groups["birds"].neutral == ("nothing.",)
    assert set(groups) == {"objects", "scenes", "content", "birds"}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a", "", "no labels"),
        ("a", "cat\ndog\ncat\n", "line 3: the label 'cat' is there twice"),
        ("a", "template: a photo\ncat\n", "line 1: a template needs {} once"),
        ("A b", "cat\n", "name it in lower-case"),
    ],
)
def test_a_bad_file_is_named_with_its_line(name: str, text: str, complaint: str) -> None:
    with pytest.raises(LabelFileError, match=re.escape(complaint)):
        parse_group(name, text)


def test_a_file_that_is_no_text_is_named_and_a_byte_order_mark_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_bytes("title: Pets\ncat\n".encode("utf-8-sig"))
    assert load_groups(tmp_path)["pets"].title == "Pets"
    (tmp_path / "odd.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(LabelFileError, match=r"odd\.txt"):
        load_groups(tmp_path)


def test_typed_labels_are_split_trimmed_and_taken_once() -> None:
    assert split_labels(" a cat,dog ,\n a  cat\nred car,, ") == ("a cat", "dog", "red car")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a cat\uff0ca dog\u3001a bird\uff1bfish\u060cowl", ("a cat", "a dog", "a bird", "fish", "owl")),
        ("\ufeffcup of coffee; tea\twater\r\nmilk", ("cup of coffee", "tea", "water", "milk")),
        ('"Washington, D.C.", Rome', ("Washington, D.C.", "Rome")),
        ("\u201cbig, red\u201d, \u00absmall; blue\u00bb", ("big, red", "small; blue")),
        ('["a, b", " c "]', ("a, b", "c")),
        ("[a, b]", ("[a", "b]")),
        ('5" pipe, the so-called "cat"', ('5" pipe', 'the so-called "cat"')),
        ('"open, end', ('"open', "end")),
        ("Cat, cat, CAT , dog", ("Cat", "dog")),
        (" , ;\n", ()),
        ("[]", ()),
    ],
)
def test_labels_are_split_as_people_write_them(text: str, labels: tuple[str, ...]) -> None:
    assert split_labels(text) == labels


def test_in_a_file_of_labels_lines_may_be_comments() -> None:
    text = "\ufeff# animals\n  # more of them\ncat\n dog, bird\n\n#1 fan"
    assert read_labels(text) == ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("template", "label", "prompt"),
    [
        ("a photo of a {}.", "cat", "a photo of a cat."),
        ("a photo of a {}.", "a cat", "a photo of a cat."),
        ("a photo of a {}.", "an owl", "a photo of an owl."),
        ("The {}, seen.", "the sea", "the sea, seen."),
        ("a photo of {}.", "a cat", "a photo of a cat."),
        ("a photo of a {}.", "anchovy", "a photo of a anchovy."),
        ("a photo of a {}.", "theatre", "a photo of a theatre."),
    ],
)
def test_an_article_is_not_said_twice(template: str, label: str, prompt: str) -> None:
    assert fill(template, label) == prompt


@pytest.mark.parametrize(
    ("labels", "template"),
    [((), None), (("x" * 201,), None), (("cat",), "no place"), (("cat",), "{} and {}"), (map(str, range(1001)), None)],
)
def test_own_labels_that_cannot_be_used_are_refused(labels: tuple[str, ...], template: str | None) -> None:
    with pytest.raises(BadOption):
        request_group(labels, template)


def test_an_unknown_group_is_answered_with_those_there_are() -> None:
    with pytest.raises(BadOption, match="objects, scenes, content"):
        choose_groups(load_groups(preset_folder()), ["birds"])


def test_labels_and_templates_may_be_as_long_and_as_many_as_the_bound_and_no_more() -> None:
    longest, template = "x" * 200, "{}" + "x" * 198
    group = request_group([longest], template)
    assert (group.labels, group.templates) == ((longest,), (template,))
    assert len(request_group(map(str, range(1000))).labels) == 1000
    for labels, prompt in (([longest + "x"], None), (["cat"], template + "x"), (map(str, range(1001)), None)):
        with pytest.raises(BadOption):
            request_group(labels, prompt)


def test_own_labels_are_taken_once_and_in_their_order() -> None:
    group = request_group(["b", "a", "b"], "")
    assert (group.labels, group.templates) == (("b", "a"), (DEFAULT_TEMPLATE,))


def test_a_group_may_be_named_with_forty_characters_and_not_like_a_requests_own() -> None:
    assert parse_group("a" * 40, "cat").name == "a" * 40
    for name in ("a" * 41, "", "-a", "labels"):
        with pytest.raises(LabelFileError, match=f"^{name}.txt: "):
            parse_group(name, "cat")


def test_of_titles_the_last_counts_of_templates_and_neutral_prompts_all() -> None:
    group = parse_group(
        "pets", "title: A\n# no label\n\n title: B \ntemplate: {}\ntemplate: my {}\nneutral: x\nneutral: y\n cat \n"
    )
    assert (group.title, group.templates, group.neutral) == ("B", ("{}", "my {}"), ("x", "y"))
    assert group.labels == ("cat",)


def test_a_file_is_as_good_as_its_worst_line(tmp_path: Path) -> None:
    for template in ("no place", "{} and {}"):
        with pytest.raises(LabelFileError, match=r"line 2: a template needs \{\} once"):
            parse_group("a", f"cat\ntemplate: {template}\n")
    with pytest.raises(LabelFileError, match="no labels"):
        parse_group("a", "# cat\ntitle: A\n")


def test_groups_of_the_package_come_first_and_others_by_name(tmp_path: Path) -> None:
    for name in ("zebras", "content", "ants", "objects", "scenes"):
        (tmp_path / f"{name}.txt").write_text("cat\n")
    (tmp_path / "README.md").write_text("no group\n")
    assert list(load_groups(tmp_path)) == ["objects", "scenes", "content", "ants", "zebras"]


def test_groups_are_chosen_once_in_the_order_asked_for_and_none_is_an_error() -> None:
    groups = load_groups(preset_folder())
    assert [group.name for group in choose_groups(groups, ["scenes", "objects", "scenes"])] == ["scenes", "objects"]
    with pytest.raises(BadOption, match="No label group was chosen"):
        choose_groups(groups, [])


def test_of_an_unknown_groups_name_only_the_beginning_is_repeated() -> None:
    with pytest.raises(BadOption, match=f"'{'y' * 40}'"):
        choose_groups(load_groups(preset_folder()), ["y" * 50])
