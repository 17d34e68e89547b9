"""Zip archives, good and bad in every way."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def packed(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files:
            # Of one date, so that the bytes are the same in every process.
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return made.getvalue()


def patched(data: bytes, signature: bytes, offset: int, form: str, value: int) -> bytes:
    """An archive with a field of every header of this kind overwritten."""
    changed = bytearray(data)
    at = changed.find(signature)
    while at >= 0:
        struct.pack_into(form, changed, at + offset, value)
        at = changed.find(signature, at + 4)
    return bytes(changed)


def damaged_content() -> bytes:
    content = bytes(range(256)) * 40
    return packed(("a.jpg", content), method=zipfile.ZIP_STORED).replace(content, content[::-1])


def overlapping() -> bytes:
    """Two files that share one content: what zip bombs are made of."""
    body = zlib.compress(bytes(50_000))[2:-4]
    crc, name = zlib.crc32(bytes(50_000)), b"a.jpg"
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(body), 50_000, len(name), 0)
    local = LOCAL + common + name + body
    listed = b"".join(CENTRAL + struct.pack("<H", 20) + common + bytes(10) + struct.pack("<I", 0) + name for _ in "12")
    return local + listed + END + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(listed), len(local), 0)


A = packed(("a.jpg", bytes(5000)))
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a password": (lambda: patched(A, CENTRAL, 8, "<H", 1), "has a password"),
    "a strong password": (lambda: patched(A, CENTRAL, 8, "<H", 0x41), "has a password"),
    "bzip2": (lambda: packed(("a.jpg", b"x"), method=zipfile.ZIP_BZIP2), "ordinary zip"),
    "lzma": (lambda: packed(("a.jpg", b"x"), method=zipfile.ZIP_LZMA), "ordinary zip"),
    "a method that there is not": (lambda: patched(A, CENTRAL, 10, "<H", 77), "ordinary zip"),
    "an archive in it": (lambda: packed(("a.zip", A)), "Send it by itself"),
    "wrong bytes": (damaged_content, "damaged"),
    "no header where it should be": (lambda: patched(A, CENTRAL, 42, "<I", 4), "damaged"),
    "another name in the header": (lambda: A.replace(b"a.jpg", b"b.jpg", 1), "damaged"),
    "more than it says": (lambda: patched(A, CENTRAL, 24, "<I", 10), "damaged"),
    "bytes that are another's": (overlapping, "damaged"),
    "a place outside": (lambda: patched(A, CENTRAL, 42, "<I", 0xFFFFFF), "damaged"),
    "a size beyond the end": (lambda: patched(A, CENTRAL, 20, "<I", 0xFFFFFF), "damaged"),
}
