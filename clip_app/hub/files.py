"""Files that must be what they were: hashes, markers that list them, and writing whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Pin",
    "Pins",
    "changed",
    "decode_files",
    "encode_files",
    "git_blob_hash",
    "hash_file",
    "read_marker",
    "write_atomically",
    "write_marker",
    "wrong_sizes",
]

CHUNK = 1 << 20


@dataclass(frozen=True)
class Pin:
    """What a file must be."""

    size: int
    sha256: str


Pins = Mapping[str, Pin]


def hash_file(path: Path) -> Pin:
    """Return the size and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Pin(size, digest.hexdigest())


def git_blob_hash(path: Path) -> str:
    """Return git's SHA-1 of a file, which is how the Hub's tree lists small files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def wrong_sizes(folder: Path, files: Pins) -> list[str]:
    """Return the names of files that are missing or of another size."""
    return [name for name, pin in files.items() if _size(folder / name) != pin.size]


def changed(folder: Path, files: Pins) -> list[str]:
    """Return the names of files that are missing or not the bytes they must be: each is hashed."""
    wrong = wrong_sizes(folder, files)
    return [name for name, pin in files.items() if name in wrong or hash_file(folder / name) != pin]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def encode_files(files: Pins) -> dict[str, Any]:
    """Return files as every marker and file of pins lists them."""
    return {name: asdict(pin) for name, pin in sorted(files.items())}


def decode_files(listed: Any) -> dict[str, Pin]:
    """Return files that :func:`encode_files` wrote.

    Raises:
        ValueError: they are not of that form.
    """
    try:
        return {str(name): Pin(int(pin["size"]), str(pin["sha256"])) for name, pin in listed.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no list of files") from error


def read_marker(path: Path) -> tuple[dict[str, Pin], dict[str, Any]] | None:
    """Return the files that a marker lists and what else it says; None where there is none that can be understood."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return decode_files(said.pop("files")), said
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_marker(path: Path, files: Pins, **said: Any) -> None:
    """Write a marker, with what else it is to say; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(said | {"files": encode_files(files)}, indent=2) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing.

    Another user's file in a folder where each may remove only their own is written in place, as far as its mode lets.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(PermissionError):  # some network volumes know no modes
            Path(name).chmod(0o664)
        Path(name).replace(path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        if not (isinstance(error, OSError) and error.errno == errno.EPERM and os.access(path, os.W_OK)):
            raise
        path.write_bytes(content)
