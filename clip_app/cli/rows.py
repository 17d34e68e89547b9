"""Rows about the pictures of a collection, as a table, JSON, JSON lines, CSV or paths alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TextIO

from rich.table import Table

from clip_app.cli.writers import Lines, OutputConsole, json_text, no_formula, no_formula_path, shown

__all__ = ["PATH", "RowFormat", "path_text", "write_rows"]

PATH = "path"
Row = Mapping[str, Any]


class RowFormat(str, Enum):
    """How rows are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    paths = "paths"


def path_text(path: str) -> str:
    """A path for results: written as UTF-8 with surrogateescape, it is the same bytes in any locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def write_rows(out: TextIO, form: RowFormat, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as they come, each with those columns."""
    WRITE[form](out, columns, rows)


def _table(out: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    table = Table()
    for name in columns:
        table.add_column(
            name, overflow="fold", no_wrap=name != PATH, justify="left" if name in (PATH, "label", "group") else "right"
        )
    for row in rows:
        table.add_row(*(shown("" if row[name] is None else str(row[name])) for name in columns))
    OutputConsole(file=out, highlight=False, markup=False, emoji=False).print(table)


def _json(out: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    before = ""
    out.write("[")
    for row in rows:
        out.write(f"{before}\n  {json_text({name: row[name] for name in columns})}")
        before = ","
    out.write("\n]\n")


def _json_lines(out: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    for row in rows:
        out.write(json_text({name: row[name] for name in columns}) + "\n")


def _csv(out: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    writer = csv.writer(Lines(out), lineterminator=Lines.end)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(name, row[name]) for name in columns])


def _cell(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return no_formula_path(value) if name == PATH else no_formula(value)


def _paths(out: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    out.writelines(f"{row[PATH]}\n" for row in rows)


WRITE: dict[RowFormat, Callable[[TextIO, Sequence[str], Iterable[Row]], None]] = {
    RowFormat.table: _table,
    RowFormat.json: _json,
    RowFormat.jsonl: _json_lines,
    RowFormat.csv: _csv,
    RowFormat.paths: _paths,
}
