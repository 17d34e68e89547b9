"""What is to be analysed: files, folders, standard input and lists of paths."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath

from clip_app.errors import BadOption, UnreadablePath
from clip_app.images import ACCEPTED_SUFFIXES
from clip_app.labels import read_labels

__all__ = ["STANDARD_INPUT", "Input", "find_inputs", "listed_paths", "read_labels_file"]

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Input:
    """A path as it was given, or as it was found below one; ``problem`` where it is known to be none to read."""

    path: str
    problem: UnreadablePath | None = None

    @property
    def name(self) -> str:
        """The path for results: written as UTF-8 with surrogateescape, it is the same bytes in any locale."""
        return os.fsencode(self.path).decode("utf-8", "surrogateescape")

    def read(self, most: int) -> bytes:
        """Read it, and no more than one byte over ``most``, which decides that it is too large.

        Raises:
            UnreadablePath: it cannot be read.
        """
        if self.problem is not None:
            raise self.problem
        if self.path == STANDARD_INPUT:
            return sys.stdin.buffer.read(most + 1)
        try:
            path = Path(self.path)
            if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe without a writer never answers
                raise UnreadablePath("It is not a file.")
            with path.open("rb") as file:
                return file.read(most + 1)
        except OSError as error:
            raise _unreadable(error) from None


def find_inputs(paths: Sequence[str], *, recursive: bool) -> Iterator[Input]:
    """Yield what is named and, of folders, the pictures in them, in an order that does not depend on the disk.

    A picture that is found in a folder comes once, and not again where it is named by itself:
    ``find`` lists a folder and what is in it.
    """
    seen = set(paths)
    for path in paths:
        if path == STANDARD_INPUT or not _is_folder(path):
            yield Input(path)
            continue
        found = _in_folder(path, recursive)
        yield from (one for one in found if one.path not in seen or one.problem)
        seen.update(one.path for one in found)


def listed_paths(source: str, *, null: bool) -> list[str]:
    """Read a list of paths from a file or standard input, one a line or, with ``null``, as find -print0 writes them.

    Raises:
        BadOption: the list cannot be read, or is one of the other kind.
    """
    try:
        data = sys.stdin.buffer.read() if source == STANDARD_INPUT else Path(source).read_bytes()
    except OSError as error:
        raise BadOption(f"--files-from cannot be read: {error.strerror}: {source}") from None
    if not null and b"\0" in data:
        raise BadOption("The list of --files-from has zero bytes, as find -print0 writes them. Add --null.")
    paths = data.split(b"\0") if null else _lines(data)
    # In a list a dash is a file's name.
    return [f"./{path}" if path == STANDARD_INPUT else path for path in map(os.fsdecode, paths) if path]


def read_labels_file(path: Path) -> tuple[str, ...]:
    """Read the labels of a file that --labels-file names.

    Raises:
        BadOption: it cannot be read.
    """
    try:
        return read_labels(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"--labels-file cannot be read: {error}") from None


def _lines(data: bytes) -> Iterator[bytes]:
    """Split lines as editors of any system end them; the mark that some begin a file with is no part of a path."""
    return (line.removesuffix(b"\r") for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n"))


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # too long a name, or in a folder that may not be entered: reading it says so
        return False


def _in_folder(folder: str, recursive: bool) -> list[Input]:
    levels = _levels(folder)
    found = next(levels, [])
    if recursive:
        found.extend(chain.from_iterable(levels))
    if found:
        return sorted(found, key=lambda one: PurePath(one.path).parts)
    deeper = any(one.problem is None for level in levels for one in level)
    hint = " There are some in folders within it: add --recursive." if deeper else ""
    return [Input(folder, UnreadablePath(f"There is no picture in this folder.{hint}"))]


def _levels(folder: str) -> Iterator[list[Input]]:
    """Yield the pictures of each folder, the outermost first, and at last the folders that cannot be read.

    Hidden files and folders are left out, and links to folders are not followed, which might lead in circles.
    """
    failed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=failed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield [Input(f"{parent.rstrip(os.sep)}{os.sep}{name}") for name in names if _is_picture(parent, name)]
    yield [Input(error.filename, _unreadable(error)) for error in failed]


def _is_picture(parent: str, name: str) -> bool:
    ending = PurePath(name).suffix.lower()
    return not name.startswith(".") and ending in ACCEPTED_SUFFIXES and Path(parent, name).is_file()


def _unreadable(error: OSError) -> UnreadablePath:
    return UnreadablePath(f"{error.strerror or 'It cannot be read'}.")
