"""Zip archives of pictures: read in memory, one picture at a time, and bounded in everything.

What an archive says of itself is believed only where it is against it: the bytes are counted as they come.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import BinaryIO, cast

from clip_app.errors import BadArchive, ClipAppError, ImageTooLarge
from clip_app.images import display_name
from clip_app.junk import is_junk

__all__ = ["MOST_UNPACKED", "Allowance", "Archive", "Packed", "is_archive"]

MOST_UNPACKED = 2_000_000_000  # bytes, of all archives of one call
MOST_LISTED = 1_000_000  # bytes of an archive's list of files, which is read at once: some 5,000 files
MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive, and of one with nothing in it
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may take any memory
ENCRYPTED = 0x41  # bits of the flags: by the old way and by the strong one
SAYS_UTF8 = 0x800
HEADER = 30  # bytes, the least before a file's own
PIECE = 1 << 16  # bytes that are unpacked at once
LONGEST_NAME = 255
# What zipfile raises on archives that are not as they should be.
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass
class Allowance:
    """How many bytes may still be unpacked, of all archives of one call."""

    left: int = MOST_UNPACKED


@dataclass(frozen=True)
class Packed:
    """A file of an archive: the path that it has in there, fit to be shown, and how to find it."""

    name: str
    info: zipfile.ZipInfo


def is_archive(head: bytes) -> bool:
    """Tell a zip archive by the first four bytes."""
    return head[:4] in MAGIC


class Archive:
    """An open zip archive; its ``files`` are those that are not left by some system beside the pictures.

    Raises:
        BadArchive: it is damaged, or has too many files.
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._zip = zipfile.ZipFile(cast(BinaryIO, _Bounded(file)))
        except DAMAGE as error:
            raise _damaged() from error
        self._room = _room((info.header_offset for info in self._zip.infolist()), self._zip.start_dir)
        named = [Packed(_shown(info), info) for info in self._zip.infolist() if not info.is_dir()]
        self.files = [packed for packed in named if not is_junk(packed.name)]

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def read(self, packed: Packed, *, max_bytes: int, allowance: Allowance) -> bytes:
        """Unpack one file, of at most ``max_bytes``, and take its bytes off the allowance.

        Raises:
            BadArchive: it is behind a password, damaged, packed in a way that is not read, an archive itself, or
                more than the allowance.
            ImageTooLarge: it has more bytes than one picture may have.
        """
        info = packed.info
        if info.flag_bits & ENCRYPTED:
            raise BadArchive("The archive has a password. Pack the pictures without one.")
        if info.compress_type not in METHODS:
            raise BadArchive("The archive is packed in a way that is not read. Pack it as an ordinary zip (deflate).")
        if self._room[info.header_offset] < HEADER + info.compress_size:
            raise _damaged()  # files that share their bytes, of which a small archive has any number
        try:
            data = b"".join(self._pieces(info, max_bytes, allowance))
        except ClipAppError:
            raise
        except DAMAGE as error:
            raise _damaged() from error
        return data

    def _pieces(self, info: zipfile.ZipInfo, max_bytes: int, allowance: Allowance) -> Iterator[bytes]:
        with self._zip.open(info) as file:
            head = file.read(4)
            if is_archive(head):
                raise BadArchive("An archive inside an archive is not opened. Send it by itself.")
            if info.file_size > max_bytes:
                raise ImageTooLarge(
                    f"The picture has {info.file_size / 1e6:.1f} MB; at most {max_bytes / 1e6:g} MB are accepted. "
                    "Send a smaller one, or raise CLIP_APP_MAX_UPLOAD_MB."
                )
            piece = head  # zipfile reads no more than is declared, whatever is there
            while piece:
                allowance.left -= len(piece)
                if allowance.left < 0:
                    allowance.left = 0
                    raise BadArchive(
                        f"The archives unpack to more than {MOST_UNPACKED / 1e9:g} GB. Send the rest in another call."
                    )
                yield piece
                piece = file.read(PIECE)


class _Bounded:
    """A file of which no one read takes more than the longest list of files: zipfile reads that as one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(MOST_LISTED + 1 if size < 0 else min(size, MOST_LISTED + 1))
        if len(data) > MOST_LISTED:
            raise BadArchive("The archive has too many files. Send the pictures as several archives.")
        return data


def _room(starts: Iterable[int], end: int) -> dict[int, int]:
    """How many bytes each file has, by where it begins: until the next one does, none where two begin at one place."""
    ordered = [*sorted(starts), end]
    return {start: after - start for start, after in reversed([*pairwise(ordered)])}


def _shown(info: zipfile.ZipInfo) -> str:
    """The path of a file in its archive, fit to be shown."""
    name = info.filename
    if not info.flag_bits & SAYS_UTF8:
        with suppress(UnicodeError):  # many programs write UTF-8 and do not say so
            name = name.encode("cp437").decode("utf-8")
    parts = (display_name(part) for part in name.replace("\\", "/").split("/"))
    return "/".join(part for part in parts if part not in ("", ".", ".."))[-LONGEST_NAME:]


def _damaged() -> BadArchive:
    return BadArchive("The archive is damaged. Pack the pictures again and resend it.")
