"""Bytes to a decoded picture: bounded before decoding, upright, RGB on white."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

from PIL import Image, ImageFile, UnidentifiedImageError

from clip_app.containers import ends_early, kind_of, only_pixels, orientation_in, strips_are_whole, unsupported
from clip_app.errors import ClipAppError, ImageTooLarge, UndecodableImage
from clip_app.tones import is_flat, to_rgb
from clip_app.truncated import read_truncated

__all__ = ["ACCEPTED_SUFFIXES", "Decoded", "decode", "display_name"]

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "HEIF")
ACCEPTED_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".heic", ".heif"}
)
# With two, a cosine of 0.995 to the full decode is missed by a hair on a few photographs.
DRAFT_SIDES = 3
ORIENTATION = 0x0112  # of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
MOST_MISSING = 0.05  # of a picture whose file ends early
MOST_PAGES = 20
_NAMES = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF"

# decode() has bounds of its own, given by a setting; Pillow's is a fixed number.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Decoded:
    """A picture, mode "RGB", upright; ``width`` and ``height`` are those it has in full.

    ``warnings`` says what was wrong with a file that could be read all the same; ``flat``
    that there is one colour all over, and so nothing to be seen.
    """

    image: Image.Image
    width: int
    height: int
    warnings: tuple[str, ...] = ()
    flat: bool = False


def decode(data: bytes, *, max_bytes: int, max_pixels: int, target: int | None = None) -> Decoded:
    """Decode a picture to RGB.

    The size in bytes and, from the header, in pixels is checked before anything is
    decoded. EXIF orientation is applied, and nothing else of any metadata; of an animation
    the first frame is taken, of a TIFF the largest page; transparency is laid on white,
    deep grey scaled to 8 bits. A file that ends a little early is read as far as it goes.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where both sides still are at least three
    times ``target`` (the DCT scaling of libjpeg); with None every picture is decoded in full.

    Raises:
        ImageTooLarge: more than max_bytes or max_pixels.
        UndecodableImage: no picture, not an accepted format or variety, truncated or damaged.
    """
    if len(data) > max_bytes:
        raise ImageTooLarge(
            f"The picture has {len(data) / 1e6:.1f} MB; at most {max_bytes / 1e6:g} MB are accepted. "
            "Send a smaller one, or raise CLIP_APP_MAX_UPLOAD_MB."
        )
    if not data:
        raise UndecodableImage("The file is empty. Send a picture.")
    try:
        return _decode(only_pixels(data), max_pixels, target)
    except ClipAppError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly every kind there is
        raise _undecodable(data, error) from error


def _decode(data: bytes, max_pixels: int, target: int | None) -> Decoded:
    def opened(content: bytes) -> ImageFile.ImageFile:
        found = Image.open(io.BytesIO(content), formats=_formats())
        _check_pixels(found, max_pixels)
        return found

    with opened(data) as image:
        warnings = _choose_page(image, max_pixels)
        width, height = image.size
        draft = (DRAFT_SIDES * target, DRAFT_SIDES * target) if target is not None else None
        loaded: Image.Image = image
        try:
            if draft is not None:
                image.draft(None, draft)
            image.load()
        except OSError as error:
            if not ends_early(data, error):
                raise
            loaded, missing = read_truncated(image, data, opened, draft)
            if missing > MOST_MISSING:
                raise _truncated(missing) from None
            share = f"{max(missing, 0.001):.1%} of the picture" if missing else "its end mark, and no pixel,"
            warnings = (*warnings, f"The file ends early: {share} is missing.")
        orientation = _orientation(image)  # only now: a PNG is loaded to look for it
        if orientation in TURNS:
            loaded = loaded.transpose(TURNS[orientation])
        if orientation in SIDEWAYS:
            width, height = height, width
        rgb = to_rgb(loaded)
    if flat := is_flat(rgb):
        warnings = (*warnings, "The picture is of one colour all over: there is nothing to be seen in it.")
    return Decoded(rgb, width, height, warnings, flat)


def _choose_page(image: ImageFile.ImageFile, max_pixels: int) -> tuple[str, ...]:
    """Go to the largest page of a TIFF: the first may be a thumbnail."""
    pages = min(getattr(image, "n_frames", 1), MOST_PAGES) if image.format == "TIFF" else 1
    if pages == 1:
        return ()
    sizes = []
    for page in range(pages):
        image.seek(page)
        sizes.append(image.width * image.height)
    largest = max(range(pages), key=sizes.__getitem__)
    image.seek(largest)
    _check_pixels(image, max_pixels)
    return () if largest == 0 else (f"Page {largest + 1} of the file, the largest, was taken.",)


def _orientation(image: ImageFile.ImageFile) -> int:
    found = orientation_in(image.info.get("exif") or b"")
    with suppress(Exception):  # XMP may have it, too; whatever is wrong with it, the pixels decide
        found = found if found != 1 else int(image.getexif().get(ORIENTATION, 1))
    return found


def _unidentified(data: bytes) -> UndecodableImage:
    kind = kind_of(data)
    if kind is None:
        return UndecodableImage(f"This is not a picture that can be read. Send {_kinds()}.")
    return _truncated() if ends_early(data) else unsupported(kind)


def _undecodable(data: bytes, error: Exception) -> UndecodableImage:
    """Tell a file that is cut from one of a variety that cannot be read, and both from damage."""
    if ends_early(data, error):
        return _truncated()
    if kind_of(data) == "TIFF" and strips_are_whole(data):
        return unsupported("TIFF")
    return UndecodableImage("The picture is damaged. Export it again and resend it.")


def _truncated(missing: float | None = None) -> UndecodableImage:
    share = "" if missing is None else f": {missing:.0%} of the picture is missing"
    return UndecodableImage(f"The picture is truncated{share}. Send the whole file.")


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
