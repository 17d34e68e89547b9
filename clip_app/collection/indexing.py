"""Pictures into a collection: what is new or changed is read, embedded and kept, a batch at a time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clip_app.bulk import Seen
from clip_app.collection.sources import Found, find_pictures
from clip_app.collection.store import Collection, Row
from clip_app.errors import ClipAppError
from clip_app.ranking import Matrix

__all__ = ["Embed", "Progress", "index"]

KEPT_AT_ONCE = 64  # pictures of one transaction: what whoever is killed loses at most

# Bytes of pictures to what was seen in each, in their order.
Embed = Callable[[Iterable[Callable[[], bytes]]], Iterator[Seen | ClipAppError]]


@dataclass
class Progress:
    """How far an index is. ``found`` are all pictures, of which so many were there unchanged."""

    found: int = 0
    unchanged: int = 0
    embedded: int = 0
    failed: int = 0
    gone: int = 0


def index(
    collection: Collection,
    roots: Sequence[str],
    embed: Embed,
    *,
    max_bytes: int,
    retry: bool = False,
) -> Generator[tuple[Row | None, Progress]]:
    """Bring a collection up to date with what lies below absolute paths and addresses.

    Yields after each picture how far it is, with its row where it is new. A picture is read again where its size or
    time has changed, or, with ``retry``, where it failed before. What is not there any more is marked, unless
    something below its root could not be looked at. Closed early, what was embedded is kept.
    """
    run = _Run(collection, retry)
    last = collection.last_id()
    rows: list[Row] = []
    vectors: list[Matrix] = []

    def keep() -> None:
        collection.add(rows, np.stack(vectors) if vectors else np.empty((0, collection.identity.dimension), np.float32))
        rows.clear()
        vectors.clear()

    try:
        for row, vector in run.embedded(find_pictures(roots, max_bytes=max_bytes), embed):
            rows.append(row)
            if vector is not None:
                vectors.append(vector)
            if len(rows) == KEPT_AT_ONCE:
                keep()
            yield row, run.progress
    finally:
        keep()
        collection.returned(run.returned)
    yield from ((row, run.progress) for row in run.unlisted)
    whole = [root for root in roots if not run.is_unlisted(root)]
    run.progress.gone = collection.mark_gone(whole, run.seen, last)
    yield None, run.progress


@dataclass
class _Run:
    """One pass over the pictures."""

    collection: Collection
    retry: bool
    progress: Progress = field(default_factory=Progress)
    seen: set[int] = field(default_factory=set)
    returned: list[int] = field(default_factory=list)
    unlisted: list[Row] = field(default_factory=list)

    def is_unlisted(self, root: str) -> bool:
        """Whether something at or below a root could not be looked at."""
        below = f"{root.rstrip('/')}/"
        return any(row.path == root or row.path.startswith(below) for row in self.unlisted)

    def embedded(self, pictures: Iterable[Found], embed: Embed) -> Iterator[tuple[Row, Matrix | None]]:
        """Yield each new or changed picture's row and embedding, shape [D]."""
        reading: deque[_Reading] = deque()

        def reads() -> Iterator[Callable[[], bytes]]:
            for found in self._new(pictures):
                reading.append(_Reading(found))
                yield reading[-1]

        for seen in embed(reads()):
            failed = isinstance(seen, ClipAppError)
            self.progress.failed += failed
            self.progress.embedded += not failed
            yield reading.popleft().row(seen), None if isinstance(seen, ClipAppError) else seen.embedding

    def _new(self, pictures: Iterable[Found]) -> Iterator[Found]:
        for found in pictures:
            if found.problem is not None:
                self.progress.failed += 1
                self.unlisted.append(Row(path=found.path, stamp="", error=found.problem.message))
                continue
            self.progress.found += 1
            known = self.collection.known(found.path)
            if known is not None:
                self.seen.add(known.id)
            if known is None or known.stamp != found.stamp or (self.retry and known.failed):
                yield found
                continue
            self.progress.unchanged += 1
            if known.gone:
                self.returned.append(known.id)


class _Reading:
    """A picture that is read in any thread, once, and what its bytes were."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._size: int | None = None
        self._sha256: bytes | None = None
        self._ready: bytes | ClipAppError | None = None
        if found.at_once:
            try:
                self._ready = found.read()
            except ClipAppError as error:
                self._ready = error

    def __call__(self) -> bytes:
        data = self._ready if self._ready is not None else self._found.read()
        self._ready = None
        if isinstance(data, ClipAppError):
            raise data
        self._size, self._sha256 = len(data), hashlib.sha256(data).digest()
        return data

    def row(self, seen: Seen | ClipAppError) -> Row:
        """Return what is kept of it."""
        row = Row(path=self._found.path, stamp=self._found.stamp, size=self._size, sha256=self._sha256)
        if isinstance(seen, ClipAppError):
            return replace(row, error=seen.message)
        return replace(row, width=seen.width, height=seen.height, flat=seen.flat)
