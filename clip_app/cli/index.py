"""``clip-app index``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clip_app.bulk import embed_all
from clip_app.cli.flags import errors, with_settings
from clip_app.cli.inputs import listed_paths
from clip_app.cli.opened import Name, opened_loader
from clip_app.cli.writers import shown
from clip_app.collection.indexing import Embed
from clip_app.collection.indexing import Progress as Done
from clip_app.collection.indexing import index as index_pictures
from clip_app.collection.sources import absolute, find_pictures
from clip_app.collection.store import Collection, Identity, collection_folder
from clip_app.errors import SOME_FAILED, BadOption
from clip_app.log import configure_logging
from clip_app.settings import Settings

__all__ = ["index"]


@with_settings
def index(
    settings: Settings,
    collection: Name,
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures, folders, zip or tar archives, or addresses such as s3://…", metavar="PATH"),
    ] = None,
    files_from: Annotated[
        str | None, typer.Option(help="A list of more paths, one a line; - reads it from standard input.")
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="The list is that of find -print0.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Read again what failed before.")] = False,
) -> None:
    """Put pictures into a collection, to be searched and labelled at once. Again, only what is new or changed.

    Example: clip-app index ~/Pictures --collection home
    """
    configure_logging(settings, "critical")
    given = [*(paths or []), *(listed_paths(files_from, null=null) if files_from is not None else [])]
    if not given:
        raise BadOption("There is nothing to index. Name pictures or folders, or a list of them with --files-from.")
    roots = list(dict.fromkeys(map(absolute, given)))
    folder = collection_folder(collection)
    with opened_loader(settings) as loader:
        model = loader.serving().model
        with Collection.writing(folder, Identity.of(model)) as opened:
            done = _index(opened, roots, partial(embed_all, model, settings), settings.max_upload_bytes, retry)
    typer.echo(
        f"{opened.name}: {done.embedded:,} embedded, {done.unchanged:,} unchanged, {done.failed:,} failed, "
        f"{done.gone:,} gone"
    )
    if done.failed:
        raise typer.Exit(SOME_FAILED)


def _index(collection: Collection, roots: list[str], embed: Embed, max_bytes: int, retry: bool) -> Done:
    """Show how far it is, and what fails; the total is counted first where somebody looks on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    done = Done()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("Counting", total=None, rate="")
        if errors.is_terminal:
            counted = sum(1 for _ in _counted(roots, max_bytes))
            progress.update(task, description="Indexing", total=counted)
        with closing(index_pictures(collection, roots, embed, max_bytes=max_bytes, retry=retry)) as steps:
            for row, done in steps:
                if row is not None and row.error is not None:
                    errors.print(f"{shown(row.path)}: {row.error}", style="red", markup=False)
                speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
                progress.update(task, completed=done.found, rate=f"{speed:,.0f}/s" if speed else "")
    return done


def _counted(roots: list[str], max_bytes: int) -> Iterator[None]:
    """One for each picture that is there, without reading any."""
    return (None for found in find_pictures(roots, max_bytes=max_bytes) if found.problem is None)
