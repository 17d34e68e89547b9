"""Pictures whose right label is known: sorted into folders, or listed in a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clip_app.cli.inputs import Input, find_inputs
from clip_app.errors import BadOption, ClipAppError, UnreadablePath

__all__ = ["Labelled", "Truth", "find_truth"]

HEADERS = ("label", "labels", "class")


@dataclass(frozen=True)
class Labelled:
    """A picture, and the right label."""

    picture: Input
    label: str


@dataclass
class Truth:
    """The pictures, by label in order; and what is none, with the reason."""

    pictures: list[Labelled] = field(default_factory=list)
    problems: list[tuple[str, ClipAppError]] = field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that have a picture, in order, each once."""
        return tuple(dict.fromkeys(item.label for item in self.pictures))


def find_truth(path: Path) -> Truth:
    """Find the pictures of a folder with a sub-folder a label, or of a CSV file of paths and labels.

    Labels that differ in capitals or spaces alone are one, as they are to the text encoder.

    Raises:
        BadOption: there are no labels, only one, or no pictures.
    """
    if not path.exists():
        raise BadOption(f"{path} does not exist. Name a folder with a sub-folder for each label, or a CSV file.")
    truth = _in_folders(path) if path.is_dir() else _in_table(path)
    if not truth.pictures and not truth.problems:
        advice = "sub-folders. Put the pictures of each label into one of the label's name."
        raise BadOption(f"{path} has no {advice if path.is_dir() else 'rows of a path and a label.'}")
    if not truth.pictures:
        raise BadOption(f"There is no picture with a label in {path}: {truth.problems[0][1].message}")
    if len(truth.labels) == 1:
        raise BadOption(f"All pictures have one label, {truth.labels[0]!r}. Two are needed to be right or wrong.")
    return truth


def _in_folders(folder: Path) -> Truth:
    truth, spelling = Truth(), dict[str, str]()
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise BadOption(f"{folder}: {error.strerror}.") from None
    for name in names:
        below = str(folder / name)
        readable = os.fsencode(name).decode("utf-8", "replace")
        _add(truth, spelling, find_inputs([below], recursive=True), readable.replace("_", " "), below)
    return truth


def _in_table(path: Path) -> Truth:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise BadOption(f"{path} cannot be read as a CSV file: {reason}.") from None
    truth, spelling = Truth(), dict[str, str]()
    for number, row in _rows(path, text):
        where = f"{path}, row {number}"
        if len(row) < 2 or not row[0].strip():
            truth.problems.append((where, UnreadablePath("It needs a path and a label, with a comma between them.")))
            continue
        _add(truth, spelling, [Input(str(path.parent / row[0].strip()))], row[1], where)
    return truth


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with their numbers, blank ones and a header left out."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for number, row in enumerate(reader, 1):
            header = number == 1 and len(row) > 1 and row[1].strip().casefold() in HEADERS
            if not header and any(cell.strip() for cell in row):
                yield number, row
    except csv.Error as error:
        raise BadOption(f"{path} cannot be read as a CSV file: {error}.") from None


def _add(truth: Truth, spelling: dict[str, str], found: Iterator[Input] | list[Input], name: str, where: str) -> None:
    label = " ".join(name.split())
    if not label:
        truth.problems.append((where, UnreadablePath("The label is empty.")))
        return
    label = spelling.setdefault(label.casefold(), label)
    for picture in found:
        if picture.problem is not None:
            truth.problems.append((picture.name, picture.problem))
        else:
            truth.pictures.append(Labelled(picture, label))
