"""``clip-app duplicates``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from clip_app.cli.flags import errors, with_settings
from clip_app.cli.opened import Name, opened_collection
from clip_app.cli.rows import PATH, RowFormat, path_text, write_rows
from clip_app.cli.writers import opened_output
from clip_app.collection.searching import Group, duplicate_groups
from clip_app.ranking import NEARLY_THE_SAME
from clip_app.settings import Settings

__all__ = ["duplicates"]

COLUMNS = ("group", PATH, "cosine", "width", "height", "bytes")


@with_settings
def duplicates(
    settings: Settings,
    collection: Name,
    above: Annotated[
        float, typer.Option(help="The least cosine of two that are nearly the same.", min=0, max=1)
    ] = NEARLY_THE_SAME,
    format: Annotated[RowFormat, typer.Option(help="How to write the results.")] = RowFormat.table,
    output: Annotated[Path | None, typer.Option(help="A file for the results, instead of standard output.")] = None,
) -> None:
    """Group pictures of a collection that are nearly the same: the largest first, with the others' cosine to it.

    Example: clip-app duplicates --collection home --format csv --output copies.csv
    """
    del settings  # no model is asked
    with (
        opened_collection(collection) as opened,
        errors.status("Comparing ...") if errors.is_terminal else nullcontext(),
    ):
        groups = duplicate_groups(opened, above=above)
    with opened_output(output) as out:
        write_rows(out, format, COLUMNS, _rows(groups))


def _rows(groups: list[Group]) -> Iterator[dict[str, Any]]:
    for number, group in enumerate(groups, 1):
        for row, cosine in group:
            size = {"width": row.width, "height": row.height, "bytes": row.size}
            yield {"group": number, PATH: path_text(row.path), "cosine": cosine} | size
