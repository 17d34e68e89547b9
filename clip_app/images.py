"""Bytes to a decoded picture: bounded before decoding, made smaller while it is read, upright, RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

from PIL import Image, ImageFile, UnidentifiedImageError

from clip_app.bounds import MOST_BYTES, check_cost, check_size, cost
from clip_app.containers import ends_early, kind_of, only_pixels, orientation_in, strips_are_whole, unsupported
from clip_app.errors import ClipAppError, ImageTooLarge, UndecodableImage
from clip_app.streamed import is_streamable, read_smaller, streamed_cost
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
Room = Callable[[int], AbstractContextManager[None]]
_NAMES = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF"

# decode() has bounds of its own, given by a setting; Pillow's is a fixed number.
Image.MAX_IMAGE_PIXELS = None
# Blocks larger than glibc ever keeps for itself: what a large picture took goes back to the system.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]


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


def decode(
    data: bytes, *, max_bytes: int, max_pixels: int, target: int | None = None, room: Room | None = None
) -> Decoded:
    """Decode a picture to RGB.

    The size in bytes and, from the header, in pixels and in memory is checked before anything
    is decoded; ``room`` lends the memory. EXIF orientation is applied, and nothing else of any
    metadata; of an animation the first frame is taken, of a TIFF the largest page; transparency
    is laid on white, deep grey scaled to 8 bits. A file that ends a little early is read as far
    as it goes.

    What is larger is made smaller while both sides still are at least three times ``target``:
    a JPEG by the DCT scaling of libjpeg, others by the mean of squares of pixels; with None
    every picture is decoded in full.

    Raises:
        ImageTooLarge: more than max_bytes or max_pixels, or more memory than one picture may take.
        UndecodableImage: no picture, not an accepted format or variety, truncated or damaged.
    """
    if len(data) > max_bytes:
        size = f"{len(data) / 1e6:.1f}"
        if float(size) <= max_bytes / 1e6:  # by a hair, or no more of it was read than to know that
            size = f"more than {max_bytes / 1e6:g}"
        raise ImageTooLarge(
            f"The picture has {size} MB; at most {max_bytes / 1e6:g} MB are accepted. "
            "Send a smaller one, or raise CLIP_APP_MAX_UPLOAD_MB."
        )
    if not data:
        raise UndecodableImage("The file is empty. Send a picture.")
    try:
        return _decode(only_pixels(data), max_pixels, target, room or _free)
    except ClipAppError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly every kind there is
        raise _undecodable(data, error) from error


def _decode(data: bytes, max_pixels: int, target: int | None, room: Room) -> Decoded:
    with _opened(data, max_pixels, smaller=target is not None) as image:
        warnings = _choose_page(image, max_pixels)
        full = image.size
        _draft(image, target)
        factor = 1 if target is None else max(1, min(image.size) // (DRAFT_SIDES * target))
        rgb = None
        if is_streamable(image, factor):
            with room(streamed_cost(image)):
                smaller = read_smaller(image, data, factor)
                rgb = smaller and to_rgb(smaller)
        if rgb is None:
            needed = cost(image, data, full, factor)
            check_cost(needed, image, full, max_pixels)
            with room(needed):
                loaded, missing = _load(image, data, target)
                rgb = to_rgb(loaded, factor)
                warnings = (*warnings, *missing)
        orientation = _orientation(image)
    if orientation in TURNS:
        rgb = rgb.transpose(TURNS[orientation])
    width, height = reversed(full) if orientation in SIDEWAYS else full
    if flat := is_flat(rgb):
        warnings = (*warnings, "The picture is of one colour all over: there is nothing to be seen in it.")
    return Decoded(rgb, width, height, warnings, flat)


def _free(size: int) -> AbstractContextManager[None]:
    """Room that nobody shares."""
    return nullcontext()


def _opened(data: bytes, max_pixels: int, *, smaller: bool) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(data), formats=_formats())
    check_size(image, max_pixels, smaller=smaller)
    return image


def _draft(image: ImageFile.ImageFile, target: int | None) -> None:
    """Have a JPEG decoded at a smaller scale, and of a HEIC a smaller picture beside the large one."""
    if target is None:
        return
    image.draft(None, (DRAFT_SIDES * target,) * 2)
    if image.format == "HEIF" and cost(image, b"", image.size, 2) > MOST_BYTES:
        image.draft(None, (target, target))  # such as phones put there


def _load(image: ImageFile.ImageFile, data: bytes, target: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Load the pixels, of a file that ends early those that are there, and say how many are not."""
    try:
        image.load()
    except OSError as error:
        if not ends_early(data, error):
            raise
    else:
        return image, ()

    def again(content: bytes) -> ImageFile.ImageFile:
        found = Image.open(io.BytesIO(content), formats=_formats())
        _draft(found, target)
        return found

    loaded, missing = read_truncated(image, data, again)
    if missing > MOST_MISSING:
        raise _truncated(missing)
    share = f"{max(missing, 0.001):.1%} of the picture" if missing else "its end mark, and no pixel,"
    return loaded, (f"The file ends early: {share} is missing.",)


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
    check_size(image, max_pixels, smaller=False)
    return () if largest == 0 else (f"Page {largest + 1} of the file, the largest, was taken.",)


def _orientation(image: ImageFile.ImageFile) -> int:
    found = orientation_in(image.info.get("exif") or b"")
    if image.format == "PNG":
        return found  # there is no more, and to look for it would load the pixels
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
    kind = kind_of(data)
    if kind and (str(error).startswith("Unsupported") or (kind == "TIFF" and strips_are_whole(data))):
        return unsupported(kind)
    return UndecodableImage("The picture is damaged. Export it again and resend it.")


def _truncated(missing: float | None = None) -> UndecodableImage:
    share = "" if missing is None else f": {missing:.0%} of the picture is missing"
    return UndecodableImage(f"The picture is truncated{share}. Send the whole file.")


def display_name(name: str | None) -> str:
    """Return the last part of a file name a client sent, without control characters."""
    last = PurePath((name or "").replace("\\", "/")).name
    return "".join(c for c in last if c.isprintable())[:255]


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
