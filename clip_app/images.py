"""Bytes to a decoded picture: bounded before decoding, upright, RGB on white."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from clip_app.errors import ClipAppError, ImageTooLarge, UndecodableImage

__all__ = ["ACCEPTED_SUFFIXES", "Decoded", "decode", "display_name"]

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "HEIF")
ACCEPTED_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".heic", ".heif"}
)
# With two, a cosine of 0.995 to the full decode is missed by a hair on a few photographs.
DRAFT_SIDES = 3
ORIENTATION = 0x0112  # of EXIF
SIDEWAYS = (5, 6, 7, 8)
_NAMES = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF"

# decode() has bounds of its own, given by a setting; Pillow's is a fixed number.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Decoded:
    """A picture, mode "RGB", upright; ``width`` and ``height`` are those it has in full."""

    image: Image.Image
    width: int
    height: int


def decode(data: bytes, *, max_bytes: int, max_pixels: int, target: int | None = None) -> Decoded:
    """Decode a picture to RGB.

    The size in bytes and, from the header, in pixels is checked before anything is
    decoded. EXIF orientation is applied, the first frame of an animation taken,
    transparency laid on white, 16-bit and floating-point grey scaled to 8 bits.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where both sides still are at least three
    times ``target`` (the DCT scaling of libjpeg); with None every picture is decoded in full.

    Raises:
        ImageTooLarge: more than max_bytes or max_pixels.
        UndecodableImage: not a picture, not an accepted format, or damaged.
    """
    if len(data) > max_bytes:
        raise ImageTooLarge(
            f"The picture has {len(data) / 1e6:.1f} MB; at most {max_bytes / 1e6:g} MB are accepted. "
            "Send a smaller one, or raise CLIP_APP_MAX_UPLOAD_MB."
        )
    if not data:
        raise UndecodableImage("The file is empty. Send a picture.")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            _check_pixels(image, max_pixels)
            width, height = image.size
            if target is not None:
                image.draft(None, (DRAFT_SIDES * target, DRAFT_SIDES * target))
            image.load()
            if image.getexif().get(ORIENTATION) in SIDEWAYS:
                width, height = height, width
            return Decoded(_to_rgb(ImageOps.exif_transpose(image)), width, height)
    except ClipAppError:
        raise
    except UnidentifiedImageError:
        raise UndecodableImage(f"This is not a picture that can be read. Send {_kinds()}.") from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly every kind there is
        raise UndecodableImage("The picture is damaged or incomplete. Export it again and resend it.") from error


def display_name(name: str | None) -> str:
    """Return the last part of a file name a client sent, without control characters."""
    last = PurePath((name or "").replace("\\", "/")).name
    return "".join(c for c in last if c.isprintable())[:255]


def _check_pixels(image: ImageFile.ImageFile, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"The picture has {pixels / 1e6:.1f} million pixels ({image.width}x{image.height}); "
            f"at most {max_pixels / 1e6:g} million are accepted. Scale it down, or raise CLIP_APP_MAX_PIXELS."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _scale_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Scale deep grey to 8 bits: 16-bit over its range, 32-bit and float over what they hold."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    grey = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    low, high = float(grey.min()), float(grey.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    return Image.fromarray(scaled.round().astype(np.uint8))


@cache
def _formats() -> tuple[str, ...]:
    """The accepted formats that this Pillow can read."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # noqa: PLC0415

        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _kinds() -> str:
    return f"{_NAMES} or HEIC" if "HEIF" in _formats() else f"{_NAMES}; HEIC needs the server's 'heic' extra"
