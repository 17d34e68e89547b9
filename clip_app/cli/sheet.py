"""A contact sheet as one page of HTML that loads nothing: for a browser, by mail, on a disk."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath

from clip_app.cli.writers import shown
from clip_app.collection.thumbnails import TALL, thumbnail
from clip_app.errors import ClipAppError
from clip_app.intake import Intake
from clip_app.settings import Settings

__all__ = ["render"]

STYLE = Path(__file__).with_name("sheet.css")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{count}</p>
<ol>
{pictures}
</ol>
</main>
</body>
</html>
"""


def render(title: str, pictures: Sequence[tuple[str, str]], settings: Settings) -> bytes:
    """Return the page of pictures, each by its path and with a note beneath it."""
    intake = Intake(settings, decoders=1)
    items = "\n".join(_item(path, note, intake, settings) for path, note in pictures)
    count = f"{len(pictures)} picture{'' if len(pictures) == 1 else 's'}"
    style = STYLE.read_text(encoding="utf-8")
    return PAGE.format(title=escape(title), style=style, count=count, pictures=items).encode("utf-8", "replace")


def _item(path: str, note: str, intake: Intake, settings: Settings) -> str:
    name, where = escape(shown(PurePath(path).name)), escape(shown(path))
    try:
        data = base64.b64encode(thumbnail(path, intake, settings)).decode()
        picture = f'<img alt="{name}" height="{TALL}" src="data:image/jpeg;base64,{data}">'
    except ClipAppError as error:
        picture = f'<p class="missing">{escape(error.message)}</p>'
    return f'<li title="{where}">{picture}<p><span>{name}</span> {escape(note)}</p></li>'
