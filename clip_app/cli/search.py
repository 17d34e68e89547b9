"""``clip-app search``."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from clip_app.analyzer import Analyzer
from clip_app.cli.flags import errors, with_settings
from clip_app.cli.inputs import Input
from clip_app.cli.opened import Name, opened_collection, opened_loader
from clip_app.cli.rows import PATH, RowFormat, path_text, write_rows
from clip_app.cli.sheet import render
from clip_app.cli.writers import opened_output
from clip_app.collection.asking import ask
from clip_app.collection.searching import Hit
from clip_app.collection.searching import search as search_collection
from clip_app.collection.store import Identity
from clip_app.endpoints import CLI
from clip_app.errors import BadOption
from clip_app.log import configure_logging
from clip_app.observation import Observation
from clip_app.settings import Settings

__all__ = ["search"]

COLUMNS = (PATH, "score", "relevant", "width", "height")


@with_settings
def search(
    settings: Settings,
    collection: Name,
    text: Annotated[str | None, typer.Argument(help="What the pictures should show, in a few words.")] = None,
    image: Annotated[str | None, typer.Option(help="A picture that they should be like; - reads it.")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--not", help="What they should not show; again for more.", metavar="TEXT")
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="All of at least this score, relevant or not.", min=-1, max=1)
    ] = None,
    top: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    format: Annotated[RowFormat, typer.Option(help="How to write the results.")] = RowFormat.table,
    output: Annotated[Path | None, typer.Option(help="A file for the results, instead of standard output.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="A file for a page with the pictures.", metavar="FILE.html")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Look at the pictures in a browser.")] = False,
) -> None:
    """Find pictures of a collection by a text, by a picture, or by both: the best first, as far as they are relevant.

    Example: clip-app search "a dog on a beach" --collection home --format paths
    """
    configure_logging(settings, "critical")
    if text is None and image is None:
        raise BadOption("There is nothing to search by. Give a text, a picture with --image, or both.")
    with opened_collection(collection) as opened, opened_loader(settings) as loader:
        opened.check(Identity.of(loader.serving().model))
        picture = Input(image).read(settings.max_upload_bytes) if image is not None else None
        with Observation(CLI.again()) as observation:
            question = ask(
                Analyzer(loader, settings, decoders=1), observation, text=text, picture=picture, without=without or ()
            )
        hits = search_collection(opened, question, most=top, above=above)
    if not hits:
        errors.print("nothing in the collection fits; --above 0 shows what comes nearest", style="yellow", markup=False)
    with opened_output(output) as out:
        write_rows(out, format, COLUMNS, map(_row, hits))
    if sheet is not None or open_:
        _show(sheet, text or str(image), hits, settings, open_=open_)


def _row(hit: Hit) -> dict[str, object]:
    row = hit.row
    return {
        PATH: path_text(row.path),
        "score": hit.score,
        "relevant": hit.relevant,
        "width": row.width,
        "height": row.height,
    }


def _show(sheet: Path | None, title: str, hits: list[Hit], settings: Settings, *, open_: bool) -> None:
    page = render(title, [(hit.row.path, f"{hit.score:.3f}") for hit in hits], settings)
    if sheet is None:
        with tempfile.NamedTemporaryFile("wb", prefix="clip-app-", suffix=".html", delete=False) as file:
            file.write(page)
        sheet = Path(file.name)
    else:
        try:
            sheet.write_bytes(page)
        except OSError as error:
            raise BadOption(f"--sheet {sheet}: {error.strerror}.") from None
    if open_ and not webbrowser.open(sheet.absolute().as_uri()):
        errors.print(f"there is no browser to open {sheet} with", style="yellow", markup=False)
