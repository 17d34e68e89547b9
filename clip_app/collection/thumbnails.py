"""A picture of a collection, small."""

from __future__ import annotations

import io

from clip_app.collection.sources import read_picture
from clip_app.intake import Intake
from clip_app.settings import Settings

__all__ = ["TALL", "thumbnail"]

TALL = 240  # pixels: the height of a thumbnail, shown on screens with up to two pixels to a point
WIDEST = 3  # heights
QUALITY = 80


def thumbnail(path: str, intake: Intake, settings: Settings) -> bytes:
    """Return a JPEG of the picture that a collection keeps under a path; nothing of its metadata is in it.

    Raises:
        UnreadablePath: it is not there any more.
        UndecodableImage, ImageTooLarge: it is no picture that can be used any more.
    """
    image = intake.decode(read_picture(path, settings.max_upload_bytes), TALL).image
    image.thumbnail((WIDEST * TALL, TALL))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=QUALITY)
    return written.getvalue()
