"""A collection's folder: a row for each picture in SQLite, and its embedding in one file of float32.

A search reads one file from front to back, as fast as the disk gives it. The rows say how much of that file counts,
in the same transaction that adds to them: whoever is killed leaves what it had said before, and no more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clip_app.errors import CollectionError
from clip_app.hub.locks import LocksUnsupported, LockTimeout, hold
from clip_app.ranking import Matrix

if TYPE_CHECKING:
    from clip_app.model import Model

__all__ = ["Collection", "Counts", "Identity", "Known", "Row", "collection_folder"]

ROWS, VECTORS, LOCK = "pictures.sqlite", "vectors.f32", "lock"
LAYOUT = 1
WAIT_SECONDS = 30.0  # for somebody else's transaction
PIECE = 500  # of what goes into one statement
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (path BLOB PRIMARY KEY);
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    stamp TEXT NOT NULL,
    bytes INTEGER,
    sha256 BLOB,
    width INTEGER,
    height INTEGER,
    flat INTEGER NOT NULL DEFAULT 0,
    indexed REAL NOT NULL,
    error TEXT,
    vector INTEGER UNIQUE,
    gone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX gone ON pictures (gone) WHERE gone;
CREATE INDEX failed ON pictures (id) WHERE error IS NOT NULL;
CREATE TABLE replaced (vector INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True)
class Identity:
    """What made the embeddings, [N, ``dimension``]: those of two models must never be compared."""

    model: str
    revision: str
    preprocessing: str
    dimension: int

    @classmethod
    def of(cls, model: Model, dimension: int | None = None) -> Identity:
        """Return what makes the embeddings of a model its own; a ``dimension`` that is known need not be found out."""
        if dimension is None:
            dimension = model.encode_texts(["a photo."]).shape[1]
        return cls(model.info.id, model.info.revision, repr(model.preprocessing), dimension)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A picture as it is kept; with an ``error`` it has no embedding.

    ``stamp`` tells whether it has changed, without reading it; ``vector`` is its row in the file of embeddings.
    """

    path: str
    stamp: str
    size: int | None = None
    sha256: bytes | None = None
    width: int | None = None
    height: int | None = None
    flat: bool = False
    error: str | None = None
    vector: int | None = None


@dataclass(frozen=True)
class Known:
    """What is known of a path already."""

    id: int
    stamp: str
    failed: bool
    gone: bool


@dataclass(frozen=True)
class Counts:
    """How many pictures there are, of which kind."""

    pictures: int
    failed: int
    gone: int


def collection_folder(name: str) -> Path:
    """Return the folder of a name, among the user's data, or the folder itself where a path is given.

    Raises:
        CollectionError: it is no name.
    """
    if os.sep in name or name.startswith("~"):
        return Path(name).expanduser()
    if not name or name.startswith(".") or not name.isprintable():
        raise CollectionError(f"--collection {name!r}: give a name, such as holidays, or a folder with a / in it.")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "clip_app" / "collections" / name


class Collection:
    """An open collection. Its rows may be read by many at once, and written by one."""

    def __init__(self, folder: Path, rows: sqlite3.Connection) -> None:
        self.name = folder.name
        self.folder = folder
        self._rows = rows
        about = dict(rows.execute("SELECT name, value FROM about"))
        if about.get("layout") != str(LAYOUT):
            raise CollectionError(f"The collection {self.name} was made by another version of clip-app. Index it anew.")
        self.identity = Identity(about["model"], about["revision"], about["preprocessing"], int(about["dimension"]))

    @classmethod
    def open(cls, folder: Path) -> Collection:
        """Open one to read it; nothing is written, so that the folder may be read-only.

        Raises:
            CollectionError: there is none, or it cannot be read.
        """
        if not (folder / ROWS).is_file():
            raise CollectionError(
                f"There is no collection {folder.name}. Make it: clip-app index PATH --collection {folder.name}"
            )
        with _explained(folder):
            address = f"{(folder / ROWS).absolute().as_uri()}?mode=ro"
            return cls(folder, sqlite3.connect(address, WAIT_SECONDS, uri=True, check_same_thread=False))

    @classmethod
    @contextmanager
    def writing(cls, folder: Path, identity: Identity) -> Iterator[Collection]:
        """Open one to add to it, made where there is none; nobody else adds to it meanwhile.

        Raises:
            CollectionError: it is of another model, somebody else adds to it, or it cannot be written.
        """
        with ExitStack() as stack:
            with _explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(folder / LOCK, time.monotonic()))
                rows = sqlite3.connect(folder / ROWS, WAIT_SECONDS, isolation_level=None)
                stack.callback(rows.close)
                _make(rows, identity)
                collection = cls(folder, rows)
                collection.check(identity)
                collection._cut()
            yield collection

    def close(self) -> None:
        """Let go of its files."""
        self._rows.close()

    def check(self, identity: Identity) -> None:
        """Refuse what is not of the collection's own model.

        Raises:
            CollectionError: naming both.
        """
        mine, asked = self.identity, identity
        if (mine.model, mine.revision) != (asked.model, asked.revision):
            raise CollectionError(
                f"The collection {self.name} was made with {mine.model} at {mine.revision}, and {asked.model} at "
                f"{asked.revision} serves: their embeddings cannot be compared. Set CLIP_APP_MODEL and "
                "CLIP_APP_REVISION to the collection's, or index into another one."
            )
        if mine != asked:
            raise CollectionError(
                f"The collection {self.name} was made with {mine.model} prepared otherwise than now: its "
                "preprocessor_config.json has changed. Index into another one."
            )

    # What is in it.

    def counts(self) -> Counts:
        """Count the pictures that can be found, those that could not be read, and those whose files are gone."""
        ((pictures, failed, gone),) = self._rows.execute(
            "SELECT count(*) FILTER (WHERE error IS NULL AND NOT gone), "
            "count(*) FILTER (WHERE error IS NOT NULL AND NOT gone), count(*) FILTER (WHERE gone) FROM pictures"
        )
        return Counts(pictures, failed, gone)

    def known(self, path: str) -> Known | None:
        """Return what is known of a path."""
        query = "SELECT id, stamp, error IS NOT NULL, gone FROM pictures WHERE path = ?"
        found = self._rows.execute(query, (os.fsencode(path),)).fetchone()
        return Known(found[0], found[1], bool(found[2]), bool(found[3])) if found else None

    def vectors(self) -> Matrix:
        """Return all embeddings ever kept, shape [N, D], as they lie in the file: read as they are used."""
        count = self._count()
        if not count:
            return np.empty((0, self.identity.dimension), np.float32)
        shape = (count, self.identity.dimension)
        return np.memmap(self.folder / VECTORS, np.dtype("<f4"), "r", shape=shape)

    def hidden(self) -> list[int]:
        """Return the rows of :meth:`vectors` that stand for no picture any more."""
        query = "SELECT vector FROM replaced UNION SELECT vector FROM pictures WHERE gone AND vector IS NOT NULL"
        return [vector for (vector,) in self._rows.execute(query)]

    def at(self, vectors: Sequence[int]) -> list[Row]:
        """Return the pictures of rows of :meth:`vectors`, in that order."""
        found: dict[int, Row] = {}
        for start in range(0, len(vectors), PIECE):
            piece = [int(vector) for vector in vectors[start : start + PIECE]]
            marks = ",".join("?" * len(piece))
            for row in self._read(f"vector IN ({marks})", piece):
                found[row.vector or 0] = row
        return [found[int(vector)] for vector in vectors]

    def found(self) -> Iterator[Row]:
        """Yield every picture that can be found, in the order of :meth:`vectors`."""
        return self._read("vector IS NOT NULL AND NOT gone ORDER BY vector")

    def failures(self) -> Iterator[Row]:
        """Yield every picture that could not be read."""
        return self._read("error IS NOT NULL AND NOT gone ORDER BY path")

    def roots(self) -> list[str]:
        """Return what it was made from."""
        return [os.fsdecode(path) for (path,) in self._rows.execute("SELECT path FROM roots ORDER BY path")]

    # Adding to it.

    def add(self, rows: Sequence[Row], vectors: Matrix) -> None:
        """Keep pictures, all of them or none; ``vectors`` [M, D] are those of the rows without an error, in order.

        Raises:
            CollectionError: the folder is full or cannot be written.
        """
        with _explained(self.folder):
            start = self._count()
            with (self.folder / VECTORS).open("ab") as file:
                file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
            places = iter(range(start, start + len(vectors)))
            with self._transaction():
                for row in rows:
                    self._put(row, None if row.error is not None else next(places))
                self._set("vectors", start + len(vectors))

    def returned(self, ids: Iterable[int]) -> None:
        """Say that pictures that were gone are there again, as they were."""
        with self._transaction():
            self._rows.executemany("UPDATE pictures SET gone = 0 WHERE id = ?", ((one,) for one in ids))

    def last_id(self) -> int:
        """Return the id of the picture that was added last, 0 where there is none."""
        ((last,),) = self._rows.execute("SELECT coalesce(max(id), 0) FROM pictures")
        return int(last)

    def mark_gone(self, roots: Sequence[str], seen: set[int], last: int) -> int:
        """Mark what lies below the roots, was there up to the ``last`` id and was not seen; return how many."""
        missing = [
            one
            for root in roots
            for (one,) in self._rows.execute(
                "SELECT id FROM pictures WHERE NOT gone AND id <= ?4 AND (path = ?1 OR (path >= ?2 AND path < ?3))",
                (*_below(root), last),
            )
            if one not in seen
        ]
        with self._transaction():
            self._rows.executemany("UPDATE pictures SET gone = 1 WHERE id = ?", ((one,) for one in missing))
            self._rows.executemany("INSERT OR IGNORE INTO roots VALUES (?)", ((os.fsencode(root),) for root in roots))
        return len(missing)

    def _put(self, row: Row, vector: int | None) -> None:
        path = os.fsencode(row.path)
        self._rows.execute(
            "INSERT OR IGNORE INTO replaced SELECT vector FROM pictures WHERE path = ? AND vector IS NOT NULL", (path,)
        )
        self._rows.execute(
            "INSERT INTO pictures (path, stamp, bytes, sha256, width, height, flat, indexed, error, vector) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET stamp = excluded.stamp, "
            "bytes = excluded.bytes, sha256 = excluded.sha256, width = excluded.width, height = excluded.height, "
            "flat = excluded.flat, indexed = excluded.indexed, error = excluded.error, vector = excluded.vector, "
            "gone = 0",
            (
                path,
                row.stamp,
                row.size,
                row.sha256,
                row.width,
                row.height,
                row.flat,
                time.time(),
                row.error,
                vector,
            ),
        )

    def _read(self, where: str, values: Sequence[int] = ()) -> Iterator[Row]:
        columns = "path, stamp, bytes, sha256, width, height, flat, error, vector"
        # Nothing of a user's is in the text: marks for values, and conditions from here.
        for found in self._rows.execute(f"SELECT {columns} FROM pictures WHERE {where}", values):  # noqa: S608
            path, stamp, size, sha256, width, height, flat, error, vector = found
            yield Row(
                path=os.fsdecode(path),
                stamp=stamp,
                size=size,
                sha256=sha256,
                width=width,
                height=height,
                flat=bool(flat),
                error=error,
                vector=vector,
            )

    def _count(self) -> int:
        ((count,),) = self._rows.execute("SELECT value FROM about WHERE name = 'vectors'")
        return int(count)

    def _set(self, name: str, value: object) -> None:
        self._rows.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, str(value)))

    def _cut(self) -> None:
        """Take away what somebody who was killed had written and not yet said."""
        path = self.folder / VECTORS
        counted = self._count() * self.identity.dimension * 4
        written = path.stat().st_size if path.exists() else 0
        if written < counted:
            raise CollectionError(f"The collection {self.name} is damaged: its embeddings are missing. Index it anew.")
        if written > counted:
            os.truncate(path, counted)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._rows.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._rows.execute("ROLLBACK")
            raise
        self._rows.execute("COMMIT")


def _make(rows: sqlite3.Connection, identity: Identity) -> None:
    """Make the tables, all at once, where there are none."""
    if rows.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
        return
    about = {
        "layout": LAYOUT,
        "model": identity.model,
        "revision": identity.revision,
        "preprocessing": identity.preprocessing,
        "dimension": identity.dimension,
        "vectors": 0,
    }
    rows.execute("BEGIN")
    for statement in SCHEMA.split(";\n"):
        rows.execute(statement)
    rows.executemany("INSERT INTO about VALUES (?, ?)", ((name, str(value)) for name, value in about.items()))
    rows.execute("COMMIT")


def _below(root: str) -> tuple[bytes, bytes, bytes]:
    """The path itself, and the bounds of all that lies in it; a slash sorts right before a zero."""
    path = os.fsencode(root).rstrip(b"/")
    return path, path + b"/", path + b"0"


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say what an error of the disk, of a lock or of the rows means."""
    name = folder.name
    try:
        yield
    except LockTimeout:
        raise CollectionError(f"Somebody else adds to the collection {name}. Wait for them to finish.") from None
    except LocksUnsupported:
        raise CollectionError(
            f"The collection {name} lies on a volume without file locks. Choose another folder with --collection."
        ) from None
    except sqlite3.Error as error:
        raise CollectionError(f"The collection {name} cannot be used: {error}.") from error
    except OSError as error:
        raise CollectionError(f"The collection {name} cannot be used: {error.strerror or error}.") from error
