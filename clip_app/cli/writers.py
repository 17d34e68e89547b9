"""Results as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.table import Table

from clip_app.results import AnalysisResult

__all__ = ["WRITERS", "OutputFormat", "Writer"]


class OutputFormat(str, Enum):
    """How results are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class Writer(Protocol):
    """Takes results one by one."""

    def write(self, result: AnalysisResult) -> None:
        """Write one result, or keep it until the end."""

    def close(self) -> None:
        """Write what was kept."""


class TableWriter:
    """A table per picture, for people."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False)

    def write(self, result: AnalysisResult) -> None:
        for group in result.groups:
            title = f"{result.image.name}: {group.name}"
            table = Table("label", "confidence", "similarity", title=title, title_justify="left")
            for column in table.columns[1:]:
                column.justify = "right"
            for score in group.labels:
                table.add_row(score.label, f"{score.confidence:.1%}", f"{score.similarity:.3f}")
            table.add_row("none of these", f"{group.no_match:.1%}", "", style="dim")
            self._console.print(table)
        for warning in result.image.warnings:
            self._console.print(f"{result.image.name}: {warning}", markup=False)

    def close(self) -> None:
        pass


class JsonWriter:
    """One list of results."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._results: list[Any] = []

    def write(self, result: AnalysisResult) -> None:
        self._results.append(result.model_dump())

    def close(self) -> None:
        self._out.write(json.dumps(self._results, indent=2, ensure_ascii=False) + "\n")


class JsonLinesWriter:
    """One result a line, as soon as it is there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, result: AnalysisResult) -> None:
        self._out.write(json.dumps(result.model_dump(), ensure_ascii=False) + "\n")
        self._out.flush()

    def close(self) -> None:
        pass


class CsvWriter:
    """One row per picture, group and label."""

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
    )

    def __init__(self, out: TextIO) -> None:
        self._csv = csv.writer(out, lineterminator="\n")
        self._csv.writerow(self.HEADER)

    def write(self, result: AnalysisResult) -> None:
        image = result.image
        for group in result.groups:
            for rank, score in enumerate(group.labels, 1):
                picture = (_no_formula(image.name), image.width, image.height)
                scores = (_no_formula(score.label), score.confidence, score.similarity, group.no_match)
                self._csv.writerow((*picture, group.name, rank, *scores, result.model.id, " ".join(image.warnings)))

    def close(self) -> None:
        pass


def _no_formula(text: str) -> str:
    """Keep a spreadsheet from running a name as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


WRITERS: dict[OutputFormat, Callable[[TextIO], Writer]] = {
    OutputFormat.table: TableWriter,
    OutputFormat.json: JsonWriter,
    OutputFormat.jsonl: JsonLinesWriter,
    OutputFormat.csv: CsvWriter,
}
