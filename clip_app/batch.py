"""Many pictures in one call: read one after the other, a few of them in the works at once, answered in their order.

All calls share the threads that work on their pictures, so that whoever sends one picture finds the same room beside
one batch as beside ten.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, Field

from clip_app.archives import Allowance, Archive, is_archive
from clip_app.errors import BadArchive, BadOption, ClipAppError, NotReady
from clip_app.images import display_name
from clip_app.middleware.request_id import current_request
from clip_app.results import AnalysisResult, FailedImage

__all__ = ["MOST_PICTURES", "Batch", "Crowd", "Pace", "Picture", "Upload", "count", "pictures", "updates"]

MOST_PICTURES = 1000  # of one call, those in archives too
AHEAD = 2  # pictures of one call that are read while as many as may be are in the works
UPDATE_SECONDS = 0.2  # between two updates
SILENCE_SECONDS = 1.0  # after which an update comes without news: only between two is it seen that a client is gone

Answer = TypeVar("Answer")


class Batch(BaseModel):
    """How far a batch is; the last one is the answer.

    While ``done`` is less than ``total``, ``results`` are those that are new since the update before; once they are
    equal, they are all of them, in the order of the pictures.
    """

    done: int = Field(description="Pictures that are answered.")
    total: int = Field(description="Pictures in the files that were sent, those in archives too.")
    results: list[AnalysisResult | FailedImage]


@dataclass(frozen=True)
class Upload:
    """A file that was sent: a picture or an archive of them; without a path, why it cannot be had."""

    name: str
    path: Path | None = None
    problem: ClipAppError | None = None


@dataclass(frozen=True)
class Picture:
    """One picture of many, by a name fit to be shown; or why its bytes cannot be had."""

    name: str
    data: bytes = b""
    problem: ClipAppError | None = None

    def read(self) -> bytes:
        """Return its bytes, or raise what is wrong with them."""
        if self.problem is not None:
            raise self.problem
        return self.data

    def failed(self, error: ClipAppError) -> FailedImage:
        """Make the row of a picture that could not be used; what is wrong with the question is raised again."""
        if isinstance(error, (BadOption, NotReady)) and error is not self.problem:
            raise error
        context = current_request()
        return FailedImage.of(self.name, error, context.id if context else None)


def count(uploads: Iterable[Upload]) -> int:
    """Count the pictures in the files, without unpacking any.

    Raises:
        BadOption: there are none, or more than go into one call.
    """
    total = sum(_count(upload) for upload in uploads)
    if not total:
        raise BadOption("There is no picture. Upload one first.")
    if total > MOST_PICTURES:
        raise BadOption(
            f"{total:,} pictures were sent; at most {MOST_PICTURES:,} are taken at once. Send the rest in another call."
        )
    return total


def pictures(uploads: Iterable[Upload], *, max_bytes: int) -> Iterator[Picture]:
    """Read the pictures of all files, one at a time; one that cannot be read stands in its place with its problem."""
    allowance = Allowance()
    for upload in uploads:
        yield from _pictures(upload, max_bytes, allowance)


def updates(rows: Iterable[AnalysisResult | FailedImage | None], total: int) -> Iterator[Batch]:
    """Put rows together into updates as they come, the last of which has all; None says that nothing came."""
    results: list[AnalysisResult | FailedImage] = []
    pace, sent = Pace(), 0
    for row in rows:
        if row is not None:
            results.append(row)
        if len(results) < total and pace.due(silent=row is None):
            yield Batch(done=len(results), total=total, results=results[sent:])
            sent = len(results)
    yield Batch(done=len(results), total=len(results), results=results)


class Pace:
    """When the next update is due: the first at once."""

    def __init__(self) -> None:
        self._last = 0.0

    def due(self, *, silent: bool) -> bool:
        """Whether it is now; always after a silence."""
        now = time.perf_counter()
        if not silent and now - self._last < UPDATE_SECONDS:
            return False
        self._last = now
        return True


class Crowd:
    """The threads that work on the pictures of all calls that bring many."""

    def __init__(self, size: int) -> None:
        """Work on so many pictures at once."""
        self._ahead = size + AHEAD
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="batch")

    def answers(self, pictures: Iterable[Picture], work: Callable[[Picture], Answer]) -> Iterator[Answer | None]:
        """Work on pictures, and yield what becomes of each, in their order; None where nothing came for a while.

        Closed early, it begins no further picture.
        """
        waiting: deque[Future[Answer]] = deque()
        try:
            for picture in pictures:
                waiting.append(self._pool.submit(copy_context().run, work, picture))
                if len(waiting) == self._ahead:
                    yield from _first(waiting)
            while waiting:
                yield from _first(waiting)
        finally:
            for future in waiting:
                future.cancel()


def _first(waiting: deque[Future[Answer]]) -> Iterator[Answer | None]:
    while not wait((waiting[0],), SILENCE_SECONDS).done:
        yield None
    yield waiting.popleft().result()


def _count(upload: Upload) -> int:
    """Count the pictures of a file; what cannot be read, and an archive without any, will be one row with an error."""
    try:
        with _opened(upload) as file:
            if not is_archive(file.read(4)):
                return 1
            with Archive(file) as archive:
                return max(1, len(archive.files))
    except ClipAppError:
        return 1


def _pictures(upload: Upload, max_bytes: int, allowance: Allowance) -> Iterator[Picture]:
    name = display_name(upload.name)
    try:
        with _opened(upload) as file:
            if not is_archive(file.read(4)):
                file.seek(0)
                yield Picture(name, file.read(max_bytes + 1))
                return
            with Archive(file) as archive:
                yield from _unpacked(archive, name, max_bytes, allowance)
    except ClipAppError as error:
        yield Picture(name, problem=error)


def _unpacked(archive: Archive, name: str, max_bytes: int, allowance: Allowance) -> Iterator[Picture]:
    if not archive.files:
        yield Picture(name, problem=BadArchive("There is no picture in the archive. Put some in and resend it."))
    for packed in archive.files:
        try:
            data = archive.read(packed, max_bytes=max_bytes, allowance=allowance)
        except ClipAppError as error:
            yield Picture(packed.name, problem=error)
        else:
            yield Picture(packed.name, data)


@contextmanager
def _opened(upload: Upload) -> Iterator[BinaryIO]:
    if upload.path is None:
        raise upload.problem or BadOption("There is no picture. Upload one first.")
    try:
        file = upload.path.open("rb")
    except OSError:  # it was removed meanwhile
        raise BadOption("The file is gone. Upload it again.") from None
    with file:
        yield file
