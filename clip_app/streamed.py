"""A large picture made smaller while it is read: never are all of its pixels in memory.

libvips reads a PNG or TIFF a few rows at a time, and has libwebp scale while it decodes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image, ImageFile

__all__ = ["STREAMED_FROM", "is_streamable", "read_smaller", "streamed_cost"]

STREAMED_FROM = 16_000_000  # pixels; of fewer, Pillow's way costs no more
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "TIFF": ("L", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
}
OF_BANDS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
ROWS = 160_000_000  # bytes that reading in rows takes at most, and hardly grows with the picture
OF_WEBP = 4.0  # bytes a pixel, where it is lossless


def is_streamable(image: ImageFile.ImageFile, factor: int) -> bool:
    """Say whether a picture can be read that way, and is large enough to be worth it."""
    large = image.width * image.height >= STREAMED_FROM and factor > 1
    return large and image.mode in MODES.get(image.format or "", ()) and not image.info.get("interlace")


def streamed_cost(image: ImageFile.ImageFile) -> int:
    """Estimate the bytes that the process grows by."""
    return ROWS if image.format != "WEBP" else ROWS // 4 + int(OF_WEBP * image.width * image.height)


def read_smaller(image: ImageFile.ImageFile, data: bytes, factor: int) -> Image.Image | None:
    """Return the picture ``factor`` times smaller, modes L, LA, RGB or RGBA; the mean of each square of pixels.

    None where it cannot be read like that, be it damaged or of a rare variety: Pillow says which.
    """
    vips = _vips()
    try:
        source = _loaders(vips)[image.format or ""](data, image.tell(), factor)
        if source.bands not in OF_BANDS or source.interpretation == "cmyk":
            return None
        if source.format != "uchar":
            source = source.cast("uchar", shift=True)
        scale = max(1, round(min(source.width, source.height) / (min(image.size) / factor)))  # WebP's is done
        small = _mean(source, scale)
        return Image.frombytes(OF_BANDS[source.bands], (small.width, small.height), bytes(small.write_to_memory()))
    except vips.Error:
        return None


def _mean(source: Any, scale: int) -> Any:
    """Average over squares; what is transparent has no part in it."""
    if scale == 1:
        return source
    if not source.hasalpha():
        return source.shrink(scale, scale)
    return source.premultiply().shrink(scale, scale).unpremultiply().rint().cast("uchar")


def _loaders(vips: Any) -> dict[str, Callable[[bytes, int, int], Any]]:
    """By the format's name: nothing that comes in chooses among the many that there are."""
    how = {"access": "sequential", "fail_on": "error"}
    return {
        "PNG": lambda data, page, factor: vips.Image.pngload_buffer(data, **how),
        "TIFF": lambda data, page, factor: vips.Image.tiffload_buffer(data, page=page, **how),
        "WEBP": lambda data, page, factor: vips.Image.webpload_buffer(data, scale=1 / factor, **how),
    }


@cache
def _vips() -> Any:
    import pyvips  # noqa: PLC0415  # when the first large picture comes: it takes longer than the rest of the start

    logging.getLogger("pyvips").setLevel(logging.ERROR)  # it tells of each operation
    pyvips.cache_set_max(0)  # a picture of somebody's is not kept
    return pyvips
