"""Where the pictures of a collection lie: files, folders, zip and tar archives, and object stores."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from clip_app.errors import BadOption, UnreadablePath
from clip_app.images import ACCEPTED_SUFFIXES
from clip_app.junk import is_junk

__all__ = ["Found", "absolute", "find_pictures", "read_picture"]

ZIP_ENDINGS, TAR_ENDINGS = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What the readers of archives raise on those that are not as they should be.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Found:
    """A picture by its path, and what tells whether it changed; ``problem`` where it cannot be had.

    ``read`` gives its bytes, of at most one more than the most that is accepted. With ``at_once`` it is to be read
    before the next one is asked for: an archive is read from front to back.
    """

    path: str
    stamp: str
    read: Callable[[], bytes]
    at_once: bool = False
    problem: UnreadablePath | None = None


def absolute(path: str) -> str:
    """Return a path or address as a collection keeps it, the same from every folder."""
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100  # links are the user's own


def find_pictures(paths: Sequence[str], *, max_bytes: int) -> Iterator[Found]:
    """Yield the pictures at and below absolute paths and addresses, in an order that does not depend on the disk.

    In folders and archives hidden files are left out, and whatever has no ending of a picture.

    Raises:
        BadOption: an address is of a kind that cannot be read here.
    """
    for path in paths:
        if "://" in path:
            yield from _in_store(path, max_bytes)
        elif Path(path).is_dir():
            yield from _in_folder(path, max_bytes)
        else:
            yield from _in_file(path, max_bytes)


def read_picture(path: str, max_bytes: int) -> bytes:
    """Read one picture again, by the path that it was found under.

    Raises:
        UnreadablePath: it is not there any more.
    """
    if "://" in path:
        return _fetch(*_store(path), max_bytes)
    if Path(path).is_file():
        return _read_file(path, max_bytes)
    archive = next((str(parent) for parent in Path(path).parents if parent.is_file()), None)
    if archive is not None:
        for found in _in_file(archive, max_bytes):
            if found.path == path:
                return found.read()
    raise UnreadablePath("There is no such file any more. Run clip-app index again.")


def _in_folder(folder: str, max_bytes: int) -> Iterator[Found]:
    failed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        for name in sorted(names):
            if not is_junk(name) and name.lower().endswith((*ACCEPTED_SUFFIXES, *ZIP_ENDINGS, *TAR_ENDINGS)):
                yield from _in_file(f"{parent.rstrip(os.sep)}{os.sep}{name}", max_bytes)
    for error in failed:
        yield _unusable(str(error.filename), _unreadable(error))


def _in_file(path: str, max_bytes: int) -> Iterator[Found]:
    try:
        status = os.stat(path)  # noqa: PTH116  # bytes that are no text are kept
        if not stat.S_ISREG(status.st_mode):
            raise UnreadablePath("It is not a file.")
    except OSError as error:
        yield _unusable(path, _unreadable(error))
        return
    except UnreadablePath as error:
        yield _unusable(path, error)
        return
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    opened = {ZIP_ENDINGS: _in_zip, TAR_ENDINGS: _in_tar}
    packed = next((members for endings, members in opened.items() if path.lower().endswith(endings)), None)
    if packed is None:
        yield Found(path, stamp, partial(_read_file, path, max_bytes))
        return
    try:
        for name, size, read in packed(path):
            if not is_junk(name) and PurePosixPath(name).suffix.lower() in ACCEPTED_SUFFIXES:
                yield Found(f"{path}/{name}", f"{stamp} {size}", partial(_unpack, read, max_bytes), at_once=True)
    except DAMAGE as error:
        yield _unusable(path, UnreadablePath(f"The archive cannot be read to its end: {error}."))


def _in_zip(path: str) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, info.file_size, partial(archive.open, info)


def _in_tar(path: str) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """From front to back, as a compressed one must be read."""
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isfile():
                yield member.name, member.size, partial(_extracted, archive, member)


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return archive.extractfile(member) or io.BytesIO()


def _in_store(address: str, max_bytes: int) -> Iterator[Found]:
    filesystem, path = _store(address)
    try:
        listed: dict[str, dict[str, Any]] = filesystem.find(path, detail=True)
    except Exception as error:  # whatever the library of that store raises
        yield _unusable(address, UnreadablePath(f"It cannot be listed: {error or type(error).__name__}."))
        return
    if not listed:
        yield _unusable(address, UnreadablePath("There is nothing there."))
    for name, info in sorted(listed.items()):
        if not is_junk(name) and PurePosixPath(name).suffix.lower() in ACCEPTED_SUFFIXES:
            changed = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime") if info.get(key)), "")
            read = partial(_fetch, filesystem, name, max_bytes)
            yield Found(filesystem.unstrip_protocol(name), f"{info.get('size')} {changed}", read)


def _store(address: str) -> tuple[Any, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        kind = address.partition("://")[0]
        raise BadOption(f"Addresses of {kind}:// cannot be read here: {error}") from None
    return filesystem, path


def _fetch(filesystem: Any, path: str, max_bytes: int) -> bytes:
    try:
        return bytes(filesystem.cat_file(path, start=0, end=max_bytes + 1))
    except Exception as error:  # whatever the library of that store raises
        raise UnreadablePath(f"It cannot be read: {error or type(error).__name__}.") from error


def _read_file(path: str, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # bytes that are no text are kept
            return file.read(max_bytes + 1)
    except OSError as error:
        raise _unreadable(error) from None


def _unpack(opened: Callable[[], IO[bytes]], max_bytes: int) -> bytes:
    try:
        with opened() as file:
            return file.read(max_bytes + 1)
    except DAMAGE as error:
        raise UnreadablePath(f"It cannot be unpacked: {error}.") from error


def _unusable(path: str, problem: UnreadablePath) -> Found:
    def read() -> bytes:
        raise problem

    return Found(path, "", read, problem=problem)


def _unreadable(error: OSError) -> UnreadablePath:
    return UnreadablePath(f"{error.strerror or 'It cannot be read'}.")
