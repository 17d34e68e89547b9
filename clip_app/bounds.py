"""What a picture costs to decode, known from its header, and what it may cost.

The bytes a pixel were measured with ``benchmarks/decoding.py``, as the growth of the process.
"""

from __future__ import annotations

from PIL import Image, ImageFile

from clip_app.containers import ends_early, scans_apart
from clip_app.errors import ImageTooLarge

__all__ = ["MOST_BYTES", "check_cost", "check_size", "cost"]

# One picture's, and all at once: a process grows by no more than 400 MB.
MOST_BYTES = 380_000_000
# Longer ones cost seconds for their rows alone, however few pixels are in each.
MOST_SIDE = 1_000_000
# A JPEG and a HEIC can be read at a smaller size, so they may have so many times MAX_PIXELS.
READ_SMALLER = {"JPEG": 2.5, "MPO": 2.5, "HEIF": 2.5}
# Bytes of a pixel in Pillow's memory; of modes that are not named, four.
OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
# Bytes a pixel besides: what the decoders of these formats hold while they work.
OF_FORMAT = {"WEBP": 11.5, "AVIF": 5.0, "HEIF": 3.2, "GIF": 1.0}
COEFFICIENT = 2  # bytes, of a JPEG that comes in several scans
# What is missing of a file that ends early is found by comparing two pictures, of a JPEG four.
ENDS_EARLY = {"JPEG": 4.0, "MPO": 4.0}
TRANSPARENT = 5.0  # times: a ground, what is laid on it and the result, where nothing is made smaller
SMALL = 16_000_000  # bytes, beside which the rest does not matter


def check_size(image: ImageFile.ImageFile, max_pixels: int, *, smaller: bool) -> None:
    """Refuse by the header what has more pixels than are accepted.

    Raises:
        ImageTooLarge: naming what it has and what it may have.
    """
    pixels = image.width * image.height
    most = max_pixels * (READ_SMALLER.get(image.format or "", 1) if smaller else 1)
    if pixels > most:
        raise ImageTooLarge(
            f"The picture has {pixels / 1e6:.1f} million pixels ({image.width}x{image.height}); "
            f"at most {most / 1e6:g} million are accepted. Scale it down, or raise CLIP_APP_MAX_PIXELS."
        )
    if max(image.size) > MOST_SIDE:
        raise ImageTooLarge(
            f"The picture is {max(image.size)} pixels long ({image.width}x{image.height}); "
            f"at most {MOST_SIDE} are accepted. Crop it."
        )


def check_cost(needed: int, image: ImageFile.ImageFile, full: tuple[int, int], max_pixels: int) -> None:
    """Refuse what would take too much memory at the size it is about to be decoded at.

    Raises:
        ImageTooLarge: naming what it would take.
    """
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"The picture has {full[0] * full[1] / 1e6:.1f} million pixels ({full[0]}x{full[1]}) and cannot be read at "
            f"a smaller size; at most {max_pixels / 1e6:g} million are accepted. Scale it down, or raise "
            "CLIP_APP_MAX_PIXELS."
        )
    if needed > MOST_BYTES:
        kind = "progressive JPEG" if image.info.get("progressive") else image.format
        raise ImageTooLarge(
            f"The picture ({full[0]}x{full[1]}, {kind}) would take {needed / 1e6:.0f} MB of memory to decode; at most "
            f"{MOST_BYTES / 1e6:.0f} MB are given to one. Scale it down, or save it as a plain JPEG."
        )


def cost(image: ImageFile.ImageFile, data: bytes, full: tuple[int, int], factor: int) -> int:
    """Estimate the bytes that the process grows by, to decode an image at ``image.size`` and reduce it by ``factor``.

    ``full`` is the size that the header tells.
    """
    pixels = image.width * image.height
    a_pixel = OF_MODE.get(image.mode, 4) + OF_FORMAT.get(image.format or "", 0.0)
    if factor == 1 and image.has_transparency_data:
        a_pixel *= TRANSPARENT
    elif factor == 1 and image.mode != "RGB":
        a_pixel += 4
    needed = pixels * a_pixel
    if image.format == "TIFF":
        needed += _strip(image)
    if image.format in ("JPEG", "MPO") and (image.info.get("progressive") or scans_apart(data)):
        needed += _coefficients(image, full)
    if needed > SMALL and ends_early(data):
        needed *= ENDS_EARLY.get(image.format or "", 2.0)
    return int(needed)


def _strip(image: ImageFile.ImageFile) -> float:
    """The bytes of a strip or tile of a TIFF, which is unpacked on its own."""
    tags = getattr(image, "tag_v2", {})
    rows = min(image.height, int(tags.get(278, image.height)))  # RowsPerStrip
    rows, width = (int(tags[323]), int(tags[322])) if 322 in tags else (rows, image.width)
    return rows * width * OF_MODE.get(image.mode, 4)


def _coefficients(image: Image.Image, full: tuple[int, int]) -> float:
    """The bytes of a JPEG's coefficients, all of which are held until the last scan is read."""
    layers = [(h, v) for _, h, v, _ in getattr(image, "layer", ())] or [(1, 1)] * 3
    most = max(h for h, _ in layers) * max(v for _, v in layers)
    units: float = sum(h * v for h, v in layers) / most
    return COEFFICIENT * units * full[0] * full[1]
