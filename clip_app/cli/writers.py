"""Results as a table, JSON, JSON lines or CSV, under the paths that were given.

A path may hold bytes that are no UTF-8, as surrogates (PEP 383): what is written here goes
into a text file of UTF-8 with ``surrogateescape``, which makes the same bytes of them.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clip_app.cli.inputs import STANDARD_INPUT
from clip_app.errors import BadOption, ClipAppError
from clip_app.results import AnalysisResult, GroupResult

__all__ = [
    "WRITERS",
    "Lines",
    "OutputConsole",
    "OutputFormat",
    "Writer",
    "json_text",
    "no_formula",
    "no_formula_path",
    "opened_output",
    "shown",
]

# What a spreadsheet takes for the beginning of a formula.
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class OutputFormat(str, Enum):
    """How results are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class Writer(Protocol):
    """Takes answers one by one."""

    def write(self, path: str, answer: AnalysisResult | ClipAppError) -> None:
        """Write what is in the picture of that path, or why there is no answer, as soon as it is there."""

    def close(self) -> None:
        """Write what belongs at the end, after however many answers."""


class TableWriter:
    """A table per picture, for people."""

    def __init__(self, out: TextIO) -> None:
        self._console = OutputConsole(file=out, highlight=False, markup=False, emoji=False)

    def write(self, path: str, answer: AnalysisResult | ClipAppError) -> None:
        if isinstance(answer, AnalysisResult):
            for group in answer.groups:
                self._line(f"{shown(path)}: {group.name}", "table.title")
                self._console.print(_table(group))
            for warning in _warnings(answer):
                self._line(f"{shown(path)}: {warning}")
        elif not self._console.is_terminal:  # where the report on standard error is seen
            self._line(f"{shown(path)}: {answer.message}")

    def close(self) -> None:
        pass

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)


class JsonWriter:
    """One list, which is whole wherever it is broken off."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._before = ""
        out.write("[")

    def write(self, path: str, answer: AnalysisResult | ClipAppError) -> None:
        entry = json_text(_entry(path, answer), indent=2).replace("\n", "\n  ")
        self._out.write(f"{self._before}\n  {entry}")
        self._before = ","

    def close(self) -> None:
        self._out.write("\n]\n")


class JsonLinesWriter:
    """One answer a line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, path: str, answer: AnalysisResult | ClipAppError) -> None:
        self._out.write(json_text(_entry(path, answer)) + "\n")
        self._out.flush()

    def close(self) -> None:
        pass


class CsvWriter:
    """One row per picture, group and label; one for a group without any, and for a file without an answer."""

    HEADER = (
        "image",
        "width",
        "height",
        "group",
        "rank",
        "label",
        "confidence",
        "similarity",
        "no_match",
        "model",
        "warnings",
        "error",
    )

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._csv = csv.DictWriter(Lines(out), self.HEADER, lineterminator=Lines.end)
        self._csv.writeheader()

    def write(self, path: str, answer: AnalysisResult | ClipAppError) -> None:
        image = path if path == STANDARD_INPUT else no_formula_path(path)
        if isinstance(answer, AnalysisResult):
            size = {"width": answer.image.width, "height": answer.image.height}
            about = {"image": image, "model": answer.model.id, "warnings": " ".join(_warnings(answer))} | size
            self._csv.writerows(about | row for group in answer.groups for row in _rows(group))
        else:
            self._csv.writerow({"image": image, "error": answer.message})
        self._out.flush()

    def close(self) -> None:
        pass


class Lines:
    """Ends with one character what csv ends with two: before Python 3.13 it quotes only those two where they end."""

    end = "\r\n"

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix(self.end) + "\n")


class OutputConsole(Console):
    """Writes for people, wherever it goes."""

    def on_broken_pipe(self) -> None:
        """Leave it to the command line's one handler."""
        raise BrokenPipeError


def shown(path: str) -> str:
    """The path for people: whatever a terminal would obey, or cannot show, is escaped."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _table(group: GroupResult) -> Table:
    table = Table("label", "confidence", "similarity")
    for column in table.columns[1:]:
        column.justify = "right"
    for score in group.labels:
        table.add_row(score.label, f"{score.confidence:.1%}", f"{score.similarity:.3f}")
    table.add_row("none of these", f"{group.no_match:.1%}", "", style="dim")
    return table


def _warnings(result: AnalysisResult) -> list[str]:
    return [*result.image.warnings, *(warning for group in result.groups for warning in group.warnings)]


def _entry(path: str, answer: AnalysisResult | ClipAppError) -> dict[str, Any]:
    if isinstance(answer, ClipAppError):
        return {"image": {"name": path}, "error": {"code": answer.code, "message": answer.message}}
    entry = answer.model_dump()
    entry["image"]["name"] = path
    return entry


def json_text(value: Any, indent: int | None = None) -> str:
    """Write text as it is, and a byte that is no UTF-8 as JSON's escape of its surrogate: JSON is UTF-8."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace").decode()


def _rows(group: GroupResult) -> Iterator[dict[str, Any]]:
    common = {"group": group.name, "no_match": group.no_match}
    if not group.labels:
        yield common
    for rank, score in enumerate(group.labels, 1):
        scores = {"confidence": score.confidence, "similarity": score.similarity}
        yield common | {"rank": rank, "label": no_formula(score.label)} | scores


def no_formula_path(path: str) -> str:
    """A path that names the same file, and is no formula."""
    return f"./{path}" if path.startswith(FORMULA) else path


def no_formula(text: str) -> str:
    """A text that a spreadsheet takes for one."""
    return f"'{text}" if text.startswith(FORMULA) else text


WRITERS: dict[OutputFormat, Callable[[TextIO], Writer]] = {
    OutputFormat.table: TableWriter,
    OutputFormat.json: JsonWriter,
    OutputFormat.jsonl: JsonLinesWriter,
    OutputFormat.csv: CsvWriter,
}


@contextmanager
def opened_output(output: Path | None) -> Iterator[TextIO]:
    """Open what results are written to: a file, or standard output.

    Raises:
        BadOption: the file cannot be written.
    """
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        yield sys.stdout
        return
    try:
        file = output.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise BadOption(f"--output {output}: {error.strerror}") from None
    with file:
        yield file
