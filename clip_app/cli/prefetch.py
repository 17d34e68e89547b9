"""``clip-app prefetch``."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from clip_app.cli.flags import errors, fail, with_settings
from clip_app.errors import SOME_FAILED, PinFileError
from clip_app.hub.fetch import fetch
from clip_app.hub.pins import read_pins
from clip_app.hub.pins import write_pins as write_pins_file
from clip_app.hub.prune import prune as prune_cache
from clip_app.hub.volume import cache_root
from clip_app.loading import Loader
from clip_app.log import configure_logging
from clip_app.preparation import of_the_hub, prepare
from clip_app.settings import Settings
from clip_app.source import artifacts_folder
from clip_app.status import describe

__all__ = ["prefetch"]


@with_settings
def prefetch(
    settings: Settings,
    write_pins: Annotated[
        Path | None, typer.Option(help="Write the hashes of the files to this file, for CLIP_APP_PINS.")
    ] = None,
    deadline: Annotated[float, typer.Option(help="Give up after so many seconds.", min=1)] = 900,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Embed the labels too.")] = True,
    convert: Annotated[
        bool, typer.Option("--convert/--no-convert", help="Convert for OpenVINO, where it serves.")
    ] = True,
    photographs: Annotated[
        Path | None,
        typer.Option(help="A folder of photographs to calibrate int8 on.", exists=True, file_okay=False),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what was made of revisions and folders that are there no more.")
    ] = False,
) -> None:
    """Put the model, converted, and its label embeddings into the cache, verified, and exit."""
    configure_logging(settings, "warning")
    if of_the_hub(settings):
        if write_pins is not None:
            _check_pins_file(write_pins)
        _fetch(settings, write_pins, deadline)
    else:
        errors.print("nothing to fetch: CLIP_APP_MODEL is not a model of the Hub")
    if convert:
        _prepare(settings, photographs)
    if labels:
        _embed_labels(settings)
    if prune:
        _prune()


def _check_pins_file(path: Path) -> None:
    """Before anything is downloaded: that the file can be written, and is one of pins where it is there."""
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise PinFileError(f"--write-pins {path}: it cannot be written. Name a file in a folder that can be.")
    if path.exists():
        read_pins(path)


def _fetch(settings: Settings, write_pins: Path | None, deadline: float) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"Fetching {settings.model}", total=None)
        fetched = fetch(
            settings,
            lambda done, total: progress.update(task, completed=done, total=total),
            deadline_seconds=deadline,
            ask=True,
        )
    snapshot = fetched.snapshot
    how = "verified" if fetched.verified else "match their pins; the connection was NOT verified"
    size = sum(pin.size for pin in snapshot.files.values())
    typer.echo(f"{settings.model} at {snapshot.revision}: {len(snapshot.files)} files, {size / 1e6:.1f} MB, {how}")
    if write_pins is not None:
        write_pins_file(write_pins, settings.model, snapshot.revision, snapshot.files)
        typer.echo(f"pins written to {write_pins}")


def _prepare(settings: Settings, photographs: Path | None) -> None:
    with errors.status("Converting the model ...") if errors.is_terminal else nullcontext():
        made = prepare(
            settings, photographs, lambda said: errors.print(f"warning: {said}", style="yellow", markup=False)
        )
    if made:
        typer.echo(made)


def _prune() -> None:
    """Say what goes, by the names that a listing of the cache shows."""
    removed = prune_cache(artifacts_folder)
    for path, size in removed.items():
        typer.echo(f"removed {path.relative_to(cache_root())}, {size / 1e6:.1f} MB")
    typer.echo(f"pruned: {len(removed)} removed, {sum(removed.values()) / 1e6:.1f} MB")


def _embed_labels(settings: Settings) -> None:
    with errors.status("Embedding the labels ...") if errors.is_terminal else nullcontext():
        loader = Loader(settings.model_copy(update={"fallback": "none"}))
        loader.run()
    if not loader.status.ready:
        fail(describe(loader.status), SOME_FAILED)
    typer.echo(f"label groups: {', '.join(loader.serving().default_groups)}")
    loader.close()
