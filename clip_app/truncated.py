"""A file that ends early: what of its pixels is there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

__all__ = ["read_truncated"]

END = b"\xff\xd9"
# Two ends that a decoder of entropy-coded data makes different pixels of.
FILLERS = (b"\x55" * 48, b"\xa6\x31" * 24)
MCU = 16  # pixels: JPEG's largest unit
BAND = 2_000_000  # pixels are looked at together


def read_truncated(
    image: ImageFile.ImageFile,
    data: bytes,
    opened: Callable[[bytes], ImageFile.ImageFile],
) -> tuple[Image.Image, float]:
    """Return what an image whose ``load`` failed holds, and the share of it that is missing.

    Raises:
        OSError: nothing of it can be read.
    """
    if image.format in ("JPEG", "MPO"):
        return _read_jpeg(data, opened)
    image.tile = []  # what could be decoded is there, and nothing more will be
    gaps = image.format == "GIF" or bool(image.info.get("interlace"))
    return _without_missing_rows(image, gaps=gaps)


def _read_jpeg(data: bytes, opened: Callable[[bytes], ImageFile.ImageFile]) -> tuple[Image.Image, float]:
    """Let libjpeg fill up what is missing; what two fillers make different was not in the file."""
    body = data.removesuffix(b"\xff")

    def load(end: bytes) -> Image.Image:
        found = opened(body + end + END)
        found.load()
        return found

    filled, *others = (load(end) for end in (b"", *FILLERS))
    pictures = [np.asarray(other.convert("L"), np.int16) for other in others]
    rows, columns = np.nonzero(pictures[0] != pictures[1])
    if not len(rows):
        return filled, 0.0
    first = int(rows.min())
    left = int(columns[rows < first + MCU].min())
    missing = (filled.height - first) * filled.width - left * min(MCU, filled.height - first)
    return filled, missing / (filled.width * filled.height)


def _without_missing_rows(image: Image.Image, *, gaps: bool) -> tuple[Image.Image, float]:
    """Cut the rows at the end, or at the start of a file from below, that no pixel was written to.

    Where rows are written in passes, there are ``gaps`` between them, which count and are not cut.
    """
    written = _written_rows(image)
    if not len(written):
        return image, 1.0
    top, bottom = int(written[0]), int(written[-1]) + 1
    if gaps:
        return image, 1 - len(written) / image.height
    if top and bottom < image.height:  # a dark border
        top = 0
    return image.crop((0, top, image.width, bottom)), 1 - (bottom - top) / image.height


def _written_rows(image: Image.Image) -> npt.NDArray[np.int64]:
    """The numbers of the rows that are not all zero."""
    rows = max(1, BAND // image.width)
    found = []
    for top in range(0, image.height, rows):
        band = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        found.append(top + np.flatnonzero(band.reshape(len(band), -1).any(axis=1)))
    return np.concatenate(found)
