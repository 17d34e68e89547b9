"""Many pictures to embeddings, for whoever has all of them at once: decoded in threads, encoded in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from clip_app.engines import Embeddings
from clip_app.errors import ClipAppError, EncodingFailed
from clip_app.intake import Intake
from clip_app.machine import available_cpus
from clip_app.model import Model
from clip_app.preprocessing import Pixels
from clip_app.settings import Settings

__all__ = ["Seen", "embed_all"]

Read = Callable[[], bytes]


@dataclass(frozen=True)
class Seen:
    """A picture's unit embedding, shape [D], and its size; ``flat``: there is nothing to be seen in it."""

    embedding: Embeddings
    width: int
    height: int
    flat: bool


@dataclass(frozen=True)
class _Ready:
    pixels: Pixels
    width: int
    height: int
    flat: bool


def embed_all(model: Model, settings: Settings, reads: Iterable[Read]) -> Iterator[Seen | ClipAppError]:
    """Yield, in the order of ``reads``, each picture's embedding or why there is none.

    The batches are the same whenever the pictures are, so that two runs can be compared, and
    at most two batches of pixels are in memory.
    """
    threads = available_cpus()
    intake = Intake(settings, decoders=threads)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decoder")
    try:
        size = settings.max_batch_size
        decoded = _ahead(pool, lambda read: _decode(model, intake, read), reads, size)
        while batch := list(islice(decoded, size)):
            yield from _encode(model, batch)
    finally:  # who interrupts need not wait for pictures that nobody looks at
        pool.shutdown(wait=False, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Read], _Ready | ClipAppError], reads: Iterable[Read], most: int
) -> Iterator[_Ready | ClipAppError]:
    """Do the work in the pool's threads, at most so many pieces before they are asked for."""
    pending: deque[Future[_Ready | ClipAppError]] = deque()
    for read in reads:
        pending.append(pool.submit(work, read))
        if len(pending) > most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _decode(model: Model, intake: Intake, read: Read) -> _Ready | ClipAppError:
    try:
        decoded = intake.decode(read(), model.preprocessing.target)
        pixels = model.preprocessing(decoded.image, exact=intake.exact)
        return _Ready(pixels, decoded.width, decoded.height, decoded.flat)
    except ClipAppError as error:
        return error


def _encode(model: Model, batch: Sequence[_Ready | ClipAppError]) -> Iterator[Seen | ClipAppError]:
    """Encode what could be decoded in one forward pass, and each by itself where that fails."""
    pixels = [item.pixels for item in batch if isinstance(item, _Ready)]
    found = iter(_rows(model, pixels))
    for item in batch:
        if isinstance(item, ClipAppError):
            yield item
            continue
        row = next(found)
        yield row if isinstance(row, ClipAppError) else Seen(row, item.width, item.height, item.flat)


def _rows(model: Model, pixels: Sequence[Pixels]) -> list[Embeddings | ClipAppError]:
    if not pixels:
        return []
    try:
        return list(model.encode_images(np.stack(pixels)))
    except Exception:  # as MicroBatcher does: an error hits only its own picture
        if len(pixels) == 1:
            return [EncodingFailed("The image encoder failed on this picture.")]
        return [row for one in pixels for row in _rows(model, [one])]
