"""Deep grey, transparency and flatness: a picture to RGB as people see it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["is_flat", "to_rgb"]

# Of the values, those outside are outliers: dead pixels of a sensor, infinities of a computation.
ROBUST = (0.1, 99.9)
DEPTHS = (8, 10, 12, 14, 16)
# Deep grey that fills less of its range than this is a scan of low contrast.
NARROW = 0.125
# Grey levels within which everything of one colour lies, noise and all.
FLAT = 3
SAMPLE = 1_000_000  # values are enough to know the range
LOOK = 64  # a picture is looked at in this size
WHITE, DARK = (255, 255, 255, 255), (64, 64, 64, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn any mode into RGB: deep grey to 8 bits, what is transparent on a ground that shows the rest."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _scale_grey(image)
    if image.has_transparency_data:
        image = _on_ground(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


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


def _scale_grey(image: Image.Image) -> Image.Image:
    """Scale deep grey to 8 bits: whole numbers over the depth that they have, floats over what they hold.

    Ten, twelve or fourteen bits in sixteen are common, from scanners, microscopes and cameras.
    """
    values = np.asarray(image, np.float32)
    grey = np.where(np.isfinite(values), values, np.nan)
    sample = grey.ravel()[:: max(1, grey.size // SAMPLE)]
    if np.isnan(sample).all():
        return Image.new("L", image.size)
    # Values that occur, none between two of them: of a few pixels none is an outlier.
    at = np.nanpercentile(sample, (0, *ROBUST, 100), method="nearest")
    lowest, low, high, highest = (float(value) for value in at)
    if image.mode != "F" and lowest >= 0 and highest <= 65535:
        full = float(next(2**depth - 1 for depth in DEPTHS if high <= 2**depth - 1))
        narrow = (high - low) < NARROW * full
        low, high = (low, high) if narrow else (0.0, full)
    if high <= low:
        low, high = (0.0, max(high, 1.0)) if image.mode == "F" else (0.0, 65535.0)
    scaled = np.clip((np.nan_to_num(grey, nan=low) - low) * (255 / (high - low)), 0, 255)
    return Image.fromarray(scaled.round().astype(np.uint8))
