"""A model for a command that asks it several things, and the collection that it is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer

from clip_app.cli.flags import errors
from clip_app.collection.store import Collection, collection_folder
from clip_app.loading import Loader
from clip_app.settings import Settings

__all__ = ["Name", "opened_collection", "opened_loader", "tell_bundled"]

Name = Annotated[
    str,
    typer.Option("--collection", "-c", help="A name, or a folder with a / in it.", metavar="NAME", show_default=False),
]


@contextmanager
def opened_loader(settings: Settings) -> Iterator[Loader]:
    """Load the model, with no labels, and let go of it afterwards.

    Raises:
        NotReady: it cannot be had, with the reason.
    """
    loader = Loader(settings, preload=())
    with errors.status("Loading the model ...") if errors.is_terminal else nullcontext():
        loader.run()
    loader.serving()
    tell_bundled(loader)
    try:
        yield loader
    finally:
        loader.close()


@contextmanager
def opened_collection(name: str) -> Iterator[Collection]:
    """Open a collection to read it.

    Raises:
        CollectionError: there is none of that name.
    """
    collection = Collection.open(collection_folder(name))
    try:
        yield collection
    finally:
        collection.close()


def tell_bundled(loader: Loader) -> None:
    """Say so where the small model in the package answers, and why."""
    if loader.serving().model.info.bundled:
        why = f" ({loader.status.reason})" if loader.status.reason else ""
        errors.print(f"note: the small demonstration model answers{why}", style="yellow", markup=False)
