"""``clip-app label``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from clip_app.cli.flags import errors, with_options, with_settings
from clip_app.cli.inputs import read_labels_file
from clip_app.cli.opened import Name, opened_collection, opened_loader
from clip_app.cli.rows import PATH, RowFormat, path_text, write_rows
from clip_app.cli.sidecars import write_sidecars
from clip_app.cli.writers import opened_output
from clip_app.collection.labelling import Labelled, LabelRows
from clip_app.collection.labelling import label as label_collection
from clip_app.collection.store import Identity
from clip_app.errors import SOME_FAILED, BadOption
from clip_app.log import configure_logging
from clip_app.options import Options
from clip_app.serving import Serving
from clip_app.settings import Settings

__all__ = ["label"]

COLUMNS = {
    PATH: "string",
    "group": "string",
    "rank": "int32",
    "label": "string",
    "confidence": "float",
    "similarity": "float",
    "no_match": "float",
}
ROWS_AT_ONCE = 100_000  # of a Parquet file's row group


class LabelFormat(str, Enum):
    """How labels are written."""

    csv = "csv"
    jsonl = "jsonl"
    json = "json"
    table = "table"
    parquet = "parquet"
    xmp = "xmp"


@with_settings
@with_options
def label(
    settings: Settings,
    asked: dict[str, Any],
    collection: Name,
    labels_file: Annotated[Path | None, typer.Option(help="A file of labels, one a line; # begins a comment.")] = None,
    format: Annotated[
        LabelFormat, typer.Option(help="How to write them; xmp puts a sidecar beside each picture.")
    ] = LabelFormat.csv,
    output: Annotated[Path | None, typer.Option(help="A file for the results, instead of standard output.")] = None,
) -> None:
    """Label all pictures of a collection, from their embeddings: a million in seconds. No picture is read again.

    Example: clip-app label --collection home --labels "cat, dog" --output labels.csv
    """
    configure_logging(settings, "critical")
    _check(format, output)
    options = Options.of(**asked)
    if labels_file is not None:
        options = options.model_copy(update={"labels": (options.labels or ()) + read_labels_file(labels_file)})
    with opened_collection(collection) as opened, opened_loader(settings) as loader:
        serving = loader.serving()
        opened.check(Identity.of(serving.model))
        pictures = label_collection(
            opened,
            _groups(serving, options),
            serving.model.logit_scale,
            independent=options.independent,
            threshold=options.threshold or 0.0,
        )
        shown = track(
            pictures,
            "Labelling",
            opened.counts().pictures,
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        )
        _write(format, output, shown)


def _check(form: LabelFormat, output: Path | None) -> None:
    """Look before the model is loaded."""
    if form is LabelFormat.parquet and output is None:
        raise BadOption("Parquet is not written to standard output. Name a file with --output.")
    if form is LabelFormat.parquet and find_spec("pyarrow") is None:
        raise BadOption("Parquet needs pyarrow: pip install 'clip-app[parquet]'. Or choose --format csv or jsonl.")
    if form is LabelFormat.xmp and output is not None:
        raise BadOption("Sidecars lie beside the pictures: --format xmp takes no --output.")


def _groups(serving: Serving, options: Options) -> list[LabelRows]:
    groups = []
    for group in options.resolve(serving.groups, serving.default_groups):
        group, _ = serving.bank.as_read(group)
        labels, neutral = serving.bank.group(group)
        groups.append(
            LabelRows(
                name=group.name, labels=group.labels, embeddings=labels, neutral=neutral, most=options.limit(group)
            )
        )
    return groups


def _write(form: LabelFormat, output: Path | None, pictures: Iterable[list[Labelled]]) -> None:
    if form is LabelFormat.xmp:
        written, kept = write_sidecars(pictures)
        typer.echo(f"{written:,} sidecars written; {len(kept):,} left as they were")
        for path, reason in kept:
            errors.print(f"{path}: {reason}", style="yellow", markup=False)
        if kept:
            raise typer.Exit(SOME_FAILED)
    elif form is LabelFormat.parquet:
        assert output is not None  # noqa: S101  # it was looked at
        _write_parquet(output, pictures)
    else:
        with opened_output(output) as out:
            write_rows(out, RowFormat(form.value), list(COLUMNS), _rows(pictures))


def _rows(pictures: Iterable[list[Labelled]]) -> Iterator[dict[str, Any]]:
    return (_row(one) for labels in pictures for one in labels)


def _row(one: Labelled) -> dict[str, Any]:
    scores = {"confidence": one.confidence, "similarity": one.similarity, "no_match": one.no_match}
    return {PATH: path_text(one.row.path), "group": one.group, "rank": one.rank, "label": one.label} | scores


def _write_parquet(output: Path, pictures: Iterable[list[Labelled]]) -> None:
    # An extra, and a tenth of a second to import.
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    schema = pa.schema(list(COLUMNS.items()))
    rows: list[dict[str, Any]] = []
    try:
        with parquet.ParquetWriter(output, schema) as writer:
            for row in _rows(pictures):
                rows.append(row | {PATH: row[PATH].encode("utf-8", "surrogateescape").decode("utf-8", "replace")})
                if len(rows) == ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows.clear()
            writer.write_table(pa.Table.from_pylist(rows, schema))
    except OSError as error:
        raise BadOption(f"--output {output}: {error.strerror or error}.") from None
