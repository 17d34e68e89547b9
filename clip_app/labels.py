"""Label groups: text files that a person can edit, each with its prompt templates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clip_app.errors import BadOption, LabelFileError
from clip_app.example_pictures import Example, find_examples, folders_in

__all__ = [
    "DEFAULT_NEUTRAL",
    "DEFAULT_TEMPLATE",
    "REQUEST_GROUP",
    "LabelGroup",
    "choose_groups",
    "fill",
    "group_names",
    "load_groups",
    "preset_folder",
    "query_group",
    "read_labels",
    "request_group",
    "split_labels",
    "with_examples",
]

DEFAULT_TEMPLATE = "a photo of a {}."
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
REQUEST_GROUP = "labels"  # the name of the group that a request brings
DEFAULT_NEUTRAL = ("a photo.", "an image.", "a picture of something.", "a photo of something.")
PRESETS = ("objects", "scenes", "content")
MAX_LABELS = 1000
MAX_LABEL_LENGTH = 200
GROUP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# Commas and semicolons of Latin, Chinese, Japanese and Arabic, and what tables are pasted with.
SEPARATORS = ",;\\t\\r\\n\uff0c\u3001\uff1b\u060c\u061b"
QUOTES = {'"': '"', "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb", "\u300c": "\u300d"}
QUOTED = "|".join(f"{start}(?:[^{end}]*){end}" for start, end in QUOTES.items())
LABEL = re.compile(rf"\s*(?:(?P<quoted>{QUOTED})(?=\s*(?:[{SEPARATORS}]|$))|(?P<plain>[^{SEPARATORS}]+))")
ARTICLE = re.compile(r"(?:an?|the)\s", re.IGNORECASE)
ARTICLE_BEFORE = re.compile(r"\b(?:an?|the)\s+\{\}", re.IGNORECASE)
HEADER = re.compile(r"(title|template|neutral):\s*(.*)")


@dataclass(frozen=True, kw_only=True)
class LabelGroup:
    """Labels that are scored against each other and against prompts that name nothing; some with pictures."""

    name: str
    title: str
    labels: tuple[str, ...]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    neutral: tuple[str, ...] = DEFAULT_NEUTRAL
    examples: tuple[Example, ...] = ()


def preset_folder() -> Path:
    """The folder of the groups that come with the package: objects, scenes, content."""
    return Path(__file__).parent / "label_groups"


def load_groups(*folders: Path) -> dict[str, LabelGroup]:
    """Read every ``*.txt`` of the folders, a later one replacing a group of the same name, with its pictures.

    The pictures of ``NAME.txt`` are in ``NAME/LABEL/``; a group may have pictures alone.

    Raises:
        LabelFileError: a file has no labels, a label twice, or a template without {}; a picture cannot be used.
    """
    groups = {}
    for folder in folders:
        for path in sorted(folder.glob("*.txt"), key=_reading_order):
            try:
                text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
            except (OSError, UnicodeDecodeError):
                raise LabelFileError(f"{path.name}: it cannot be read as UTF-8 text") from None
            groups[path.stem] = parse_group(path.stem, text)
        for pictures in folders_in(folder, folder.name):
            groups[pictures.name] = with_examples(groups.get(pictures.name), pictures, root=folder)
    return groups


def group_names(folder: Path) -> set[str]:
    """Name the groups of a folder without reading them."""
    return {path.stem for path in folder.glob("*.txt")} | {path.name for path in folders_in(folder, folder.name)}


def with_examples(words: LabelGroup | None, folder: Path, *, root: Path, name: str | None = None) -> LabelGroup:
    """Add the pictures of a folder to a group; without one, make it of them: the folders' names are its labels.

    Raises:
        LabelFileError: there is none, or one cannot be used.
    """
    name = name or folder.name
    found = find_examples(folder, root, name)
    if not found:
        raise LabelFileError(f"{name}: there is no folder of pictures in it. Make one for each label")
    if words is None:
        _check_name(name, f"the folder {name}")
        words = LabelGroup(name=name, title=name.capitalize(), labels=())
    spelt = {label.casefold(): label for label in words.labels}
    for example in found:
        spelt.setdefault(example.label.casefold(), example.label)
    examples = tuple(replace(example, label=spelt[example.label.casefold()]) for example in found)
    return replace(words, labels=tuple(spelt.values()), examples=examples)


def _reading_order(path: Path) -> tuple[int, str]:
    """The groups of the package in the order people ask, then others by name."""
    return (PRESETS.index(path.stem) if path.stem in PRESETS else len(PRESETS), path.stem)


def parse_group(name: str, text: str) -> LabelGroup:
    """Parse a label file: comments, ``title:``, ``template:`` and ``neutral:`` lines, then labels."""
    _check_name(name, f"{name}.txt")
    headers: dict[str, list[str]] = {"title": [], "template": [], "neutral": []}
    labels: dict[str, None] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        if match := HEADER.fullmatch(line):
            headers[match[1]].append(match[2])
            if match[1] == "template" and match[2].count("{}") != 1:
                raise LabelFileError(f"{name}.txt, line {number}: a template needs {{}} once, for the label")
        elif line in labels:
            raise LabelFileError(f"{name}.txt, line {number}: the label {line!r} is there twice")
        else:
            labels[line] = None
    if not labels:
        raise LabelFileError(f"{name}.txt: there are no labels in it")
    return LabelGroup(
        name=name,
        title=headers["title"][-1] if headers["title"] else name.capitalize(),
        labels=tuple(labels),
        templates=tuple(headers["template"]) or (DEFAULT_TEMPLATE,),
        neutral=tuple(headers["neutral"]) or DEFAULT_NEUTRAL,
    )


def _check_name(name: str, file: str) -> None:
    if not GROUP_NAME.fullmatch(name):
        raise LabelFileError(f"{file}: name it in lower-case letters, digits, - and _")
    if name == REQUEST_GROUP:
        raise LabelFileError(f"{file}: a request's own labels have this name; choose another")


def split_labels(text: str) -> tuple[str, ...]:
    """Split labels as people write them, each once.

    At commas of any script, semicolons, tabs and line ends, but not within quotes; or a JSON
    list of texts. A byte order mark and spaces around a label are no part of it.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("[") and (listed := _json_list(text)) is not None:
        return _tidy(listed)
    return _tidy(match["quoted"][1:-1] if match["quoted"] else match["plain"] for match in LABEL.finditer(text))


def read_labels(text: str) -> tuple[str, ...]:
    """Split the labels of a file, whose lines may be comments."""
    lines = text.removeprefix("\ufeff").splitlines()
    return split_labels("\n".join(line for line in lines if not line.lstrip().startswith("#")))


def fill(template: str, label: str) -> str:
    """Put a label into a template; an article that it brings takes the place of the template's."""
    if ARTICLE.match(label):
        template = ARTICLE_BEFORE.sub("{}", template)
    return template.replace("{}", label)


def _json_list(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(label, str) for label in found) else None


def _tidy(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels without needless spaces and what moves a terminal, each once; capitals are the same to a text encoder."""
    found: dict[str, str] = {}
    for raw in labels:
        if label := " ".join(CONTROLS.sub(" ", raw).split()):
            found.setdefault(label.casefold(), label)
    return tuple(found.values())


def request_group(labels: Iterable[str], template: str | None = None) -> LabelGroup:
    """Make a group of labels that came with a request.

    Raises:
        BadOption: no labels, too many or too long, or a template without {}.
    """
    unique = _tidy(labels)
    if not unique:
        raise BadOption("No labels were given. Give some, separated by commas.")
    if len(unique) > MAX_LABELS:
        raise BadOption(f"{len(unique)} labels were given; at most {MAX_LABELS} are accepted.")
    if any(len(label) > MAX_LABEL_LENGTH for label in unique):
        raise BadOption(f"A label has more than {MAX_LABEL_LENGTH} characters. Shorten it.")
    template = template or DEFAULT_TEMPLATE
    if template.count("{}") != 1 or len(template) > MAX_LABEL_LENGTH:
        raise BadOption("The template needs {} once, where the label goes, such as: a photo of a {}.")
    return LabelGroup(name=REQUEST_GROUP, title="Your labels", labels=unique, templates=(template,))


def query_group(text: str) -> LabelGroup:
    """Make a group of the one text that pictures are searched by; commas in it are its own.

    Raises:
        BadOption: there is no text, or it is too long.
    """
    if not " ".join(text.split()):
        raise BadOption("There is nothing to search by. Say in a few words what to look for.")
    if len(text) > MAX_LABEL_LENGTH:
        raise BadOption(f"The text to search by has more than {MAX_LABEL_LENGTH} characters. Shorten it.")
    return request_group([text])


def choose_groups(groups: Mapping[str, LabelGroup], names: Iterable[str]) -> list[LabelGroup]:
    """Return the groups of those names, in that order.

    Raises:
        BadOption: a name is not one of the groups.
    """
    chosen = []
    for name in dict.fromkeys(names):
        if name not in groups:
            raise BadOption(f"There is no label group {name[:40]!r}. There are: {', '.join(groups)}.")
        chosen.append(groups[name])
    if not chosen:
        raise BadOption(f"No label group was chosen. There are: {', '.join(groups)}.")
    return chosen
