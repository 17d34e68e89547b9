"""What a picture's file has around its pixels, and whether it ends before they do.

Only the orientation is needed of all metadata; none of it may stop a picture whose pixels decode.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from PIL import Image

from clip_app.errors import UndecodableImage

__all__ = [
    "ends_early",
    "kind_of",
    "only_pixels",
    "orientation_in",
    "scans_apart",
    "strips_are_whole",
    "unsupported",
]

PNG = b"\x89PNG\r\n\x1a\n"
# What the pixels need, and the orientation. Text, profiles, times and all else is left out.
NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
SIGNATURES = {
    "PNG": (PNG,),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
}
BRANDS = {"AVIF": (b"avif", b"avis"), "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")}
# Where a TIFF's strips and tiles begin, and how long they are.
PLACES = {273: 279, 324: 325}
ORIENTATION = 0x0112


def kind_of(data: bytes) -> str | None:
    """Name the format by its first bytes, None where they are of no picture that is known."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return next((kind for kind, brands in BRANDS.items() if data[8:12] in brands), None)
    return next((kind for kind, starts in SIGNATURES.items() if data.startswith(starts)), None)


def unsupported(kind: str) -> UndecodableImage:
    """The error for a file that is whole and of a variety that cannot be read."""
    return UndecodableImage(f"This variety of {kind} is not supported. Save it as a plain PNG or JPEG and send that.")


def only_pixels(data: bytes) -> bytes:
    """Return a PNG without the chunks that its pixels do not need; other files as they are.

    The orientation, wherever it is, comes right behind the header, so that it can be had without the pixels.

    Raises:
        UndecodableImage: it has a critical chunk of another maker, such as Apple's CgBI.
    """
    if not data.startswith(PNG):
        return data
    kept, exif = [PNG], b""
    for name, start, stop in _chunks(data):
        if name in NEEDED:
            kept.append(data[start:stop])
        elif name == b"eXIf":  # its checksum may be wrong; that of pixels is theirs
            content = data[start + 4 : max(start + 8, stop - 4)]
            exif = data[start : start + 4] + content + struct.pack(">I", zlib.crc32(content))
        elif name.isalpha() and name[:1].isupper() and kept == [PNG]:
            raise unsupported("PNG")  # PNG's own rule: who does not know a critical chunk cannot read the picture
    kept.insert(2, exif)
    return b"".join(kept)


def ends_early(data: bytes, error: Exception | None = None) -> bool:
    """Say whether a file ends before it says that it does; of what says nothing, the decoder's ``error`` decides."""
    kind = kind_of(data)
    if kind is None:
        return "truncated" in str(error)
    if kind == "PNG":
        return not any(name == b"IEND" for name, _, _ in _chunks(data))
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-64:]
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "WebP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    if kind == "TIFF":
        return not strips_are_whole(data)
    if kind in BRANDS:
        return _boxes_end(data) > len(data)
    return False


def orientation_in(exif: bytes) -> int:
    """Find the orientation in EXIF, whatever else is in it; 1 where there is none.

    Exif 2.32, 4.6: a TIFF header, then entries of 12 bytes: tag, type, count and value.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[at : at + 2], order) == ORIENTATION:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return 1


def scans_apart(data: bytes) -> bool:
    """Say whether a JPEG's colours come one after the other, so that all are held until the last is there.

    ITU-T T.81, B.2.3: a scan says how many components it has.
    """
    at, components = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = data[at + 9]
        if marker == 0xDA:  # the first scan
            return data[at + 4] < components
        at += 2 + length
    return False


def strips_are_whole(data: bytes) -> bool:
    """Say whether all the pixels that a TIFF names lie inside the file."""
    if int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big") + 2 > len(data):
        return False  # where it says what it holds
    with suppress(Exception), Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        tags = getattr(image, "tag_v2", {})
        for starts, lengths in PLACES.items():
            for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False):
                if start + length > len(data):
                    return False
    return True


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the start and the end of each chunk of a PNG, the last one cut where the file is."""
    at = len(PNG)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], at, min(at + 12 + length, len(data))
        at += 12 + length


def _boxes_end(data: bytes) -> int:
    """Where the last box of an ISO media file ends."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1 and at + 16 <= len(data):
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # to the end of the file, or nonsense
            return len(data)
        at += size
    return at
