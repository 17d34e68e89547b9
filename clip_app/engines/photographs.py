"""The photographs on which int8 is calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from clip_app import images
from clip_app.errors import CheckpointError, ClipAppError

__all__ = ["read_photographs"]

MAX_BYTES = 100_000_000
MAX_PIXELS = 200_000_000
MAX_PHOTOGRAPHS = 300


def read_photographs(folder: Path) -> list[Image.Image]:
    """Decode the photographs of a folder, by name, at most 300.

    Raises:
        CheckpointError: there are fewer than two.
    """
    pictures = list(_decoded(folder))
    if len(pictures) < 2:
        raise CheckpointError("int8 is calibrated on photographs, and --photographs names a folder with hardly any.")
    return pictures


def _decoded(folder: Path) -> Iterator[Image.Image]:
    names = sorted(path for path in folder.iterdir() if path.suffix.lower() in images.ACCEPTED_SUFFIXES)
    for path in names[:MAX_PHOTOGRAPHS]:
        try:
            yield images.decode(path.read_bytes(), max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS).image
        except (ClipAppError, OSError):
            continue
