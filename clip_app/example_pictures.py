"""The pictures that a label group gives beside its words: a folder for each label."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from clip_app.errors import LabelFileError
from clip_app.junk import is_junk

__all__ = ["MOST_OF_A_LABEL", "Example", "find_examples", "folders_in"]

MOST_OF_A_LABEL = 100
MOST_BYTES = 100_000_000  # of one picture


@dataclass(frozen=True)
class Example:
    """A picture of a label, known by its bytes: two of the same are one, and a changed one is another."""

    label: str
    sha256: str
    path: Path = field(compare=False)


def find_examples(folder: Path, root: Path, group: str) -> list[Example]:
    """Find a group's pictures in the folders of its labels; in their names ``_`` stands for a space.

    A link is followed as long as it stays below ``root``: so does Kubernetes mount files.

    Raises:
        LabelFileError: a label's folder is empty or has too many, a picture cannot be read or lies elsewhere.
    """
    found = []
    for inner in folders_in(folder, group):
        label = " ".join(inner.name.replace("_", " ").split())
        where = f"{group}/{inner.name}"
        paths = [path for path in _listed(inner, where) if path.is_file()]
        if not paths:
            raise LabelFileError(f"{where}: there is no picture in it. Put some in, or remove the folder")
        if len(paths) > MOST_OF_A_LABEL:
            raise LabelFileError(f"{where}: it has {len(paths)} pictures; at most {MOST_OF_A_LABEL} are taken")
        found += [Example(label, _hash(path, root, where), path) for path in paths]
    return found


def folders_in(folder: Path, where: str) -> list[Path]:
    """List the folders in a folder, by name.

    Raises:
        LabelFileError: it may not be read.
    """
    return [path for path in _listed(folder, where) if path.is_dir()]


def _listed(folder: Path, where: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_junk(path.name))
    except OSError as error:
        raise LabelFileError(f"{where}: the folder cannot be read: {error.strerror}") from None


def _hash(path: Path, root: Path, where: str) -> str:
    if not path.resolve().is_relative_to(root.resolve()):
        raise LabelFileError(f"{where}/{path.name}: it is a link that leads out of the folder. Copy the picture")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise LabelFileError(f"{where}/{path.name}: it has more than {MOST_BYTES // 1_000_000} MB")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise LabelFileError(f"{where}/{path.name}: it cannot be read: {error.strerror}") from None
