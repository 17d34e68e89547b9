"""Deep grey, transparency and flatness: a picture to RGB as people see it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["by_bands", "is_flat", "to_rgb"]

Convert = Callable[[Image.Image], Image.Image]

# Of the values, those outside are outliers: dead pixels of a sensor, infinities of a computation.
ROBUST = (0.1, 99.9)
DEPTHS = (8, 10, 12, 14, 16)
# Deep grey that fills less of its range than this is a scan of low contrast.
NARROW = 0.125
# Grey levels within which everything of one colour lies, noise and all.
FLAT = 3
SAMPLE = 1_000_000  # values are enough to know the range
BAND = 2_000_000  # pixels are converted at once
LOOK = 64  # a picture is looked at in this size
WHITE, DARK = (255, 255, 255, 255), (64, 64, 64, 255)


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Turn any mode into RGB: deep grey to 8 bits, what is transparent on a ground that shows the rest.

    It comes out ``factor`` times smaller, each pixel the mean of a square of them.
    """
    if factor > 1 or image.mode not in ("L", "RGB") or image.has_transparency_data:
        image = by_bands(image, _to_eight_bits(image), factor)
    if image.has_transparency_data:
        image = _on_ground(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def by_bands(image: Image.Image, convert: Convert, factor: int) -> Image.Image:
    """Convert and reduce an image a band of rows at a time: the whole of it is never there twice."""
    width, height = image.size
    rows = factor * max(1, BAND // (width * factor))
    whole: Image.Image | None = None
    for top in range(0, height, rows):
        band = convert(image.crop((0, top, width, min(top + rows, height))))
        band = band.reduce(factor) if factor > 1 else band
        if whole is None:
            whole = Image.new(band.mode, (-(-width // factor), -(-height // factor)))
        whole.paste(band, (0, top // factor))
    return image if whole is None else whole


def is_flat(image: Image.Image) -> bool:
    """Say whether an RGB picture is of one colour all over."""
    small = np.asarray(image.resize((LOOK, LOOK), Image.Resampling.BOX), np.int16)
    extremes: npt.NDArray[np.int16] = small.max((0, 1)) - small.min((0, 1))
    if int(extremes.max()) > FLAT:
        return False
    # A thin drawing vanishes in the average: look again at every pixel.
    return all(high - low <= FLAT for low, high in _extrema(image))


def _on_ground(image: Image.Image) -> Image.Image:
    """Lay it on white, or on dark grey where a white drawing would vanish; alpha of zero everywhere is no alpha."""
    low, high = _extrema(image.getchannel("A"))[0]
    if high == 0:
        return image.convert("RGB")
    if low == 255:
        return image.convert("RGB")
    laid = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    if not is_flat(laid):
        return laid
    other = Image.alpha_composite(Image.new("RGBA", image.size, DARK), image).convert("RGB")
    return laid if is_flat(other) else other


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    found = image.getextrema()
    return found if isinstance(found[0], tuple) else (found,)  # type: ignore[return-value]


def _to_eight_bits(image: Image.Image) -> Convert:
    """How a part of an image becomes one of modes whose mean can be taken."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        low, high = _levels(image)
        return lambda part: _scale_grey(part, low, high)
    if image.has_transparency_data:
        return lambda part: part.convert("RGBA")
    return lambda part: part if part.mode in ("L", "RGB") else part.convert("RGB")


def _levels(image: Image.Image) -> tuple[float, float]:
    """What is black and what is white in deep grey: the depth that whole numbers have, what floats hold.

    Ten, twelve or fourteen bits in sixteen are common, from scanners, microscopes and cameras.
    """
    sample = _sample(image)
    if not len(sample):
        return 0.0, 1.0
    # Values that occur, none between two of them: of a few pixels none is an outlier.
    at = np.percentile(sample, (0, *ROBUST, 100), method="nearest")
    lowest, low, high, highest = (float(value) for value in at)
    if image.mode != "F" and lowest >= 0 and highest <= 65535:
        full = float(next(2**depth - 1 for depth in DEPTHS if high <= 2**depth - 1))
        narrow = (high - low) < NARROW * full
        low, high = (low, high) if narrow else (0.0, full)
    if high <= low:
        low, high = (0.0, max(high, 1.0)) if image.mode == "F" else (0.0, 65535.0)
    return low, high


def _sample(image: Image.Image) -> npt.NDArray[np.float32]:
    """Values from all over an image, of a small one all; those that are no numbers are left out."""
    stride = max(1, math.isqrt(image.width * image.height // SAMPLE))
    rows = stride * max(1, BAND // (image.width * stride))
    tops = range(0, image.height, rows)
    bands = (image.crop((0, top, image.width, min(top + rows, image.height))) for top in tops)
    values: npt.NDArray[np.float32] = np.concatenate(
        [np.asarray(band, np.float32)[::stride, ::stride].ravel() for band in bands]
    )
    finite: npt.NDArray[np.float32] = values[np.isfinite(values)]
    return finite


def _scale_grey(image: Image.Image, low: float, high: float) -> Image.Image:
    """Scale deep grey to 8 bits; what is no number is black."""
    if image.mode.startswith("I;16"):  # by a table, which is several times faster
        return Image.fromarray(_eight_bits(np.arange(65536, dtype=np.float32), low, high)[np.asarray(image)])
    values = np.asarray(image, np.float32)
    return Image.fromarray(_eight_bits(np.where(np.isfinite(values), values, low), low, high))


def _eight_bits(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint8]:
    scaled: npt.NDArray[np.float32] = np.clip((values - low) * (255 / (high - low)), 0, 255)
    grey: npt.NDArray[np.uint8] = scaled.round().astype(np.uint8)
    return grey
