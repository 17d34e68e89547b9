"""Micro-batching: pictures that wait together are encoded together, those of whoever had least first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

import numpy as np

from clip_app.engines import Embeddings
from clip_app.errors import EncodingFailed
from clip_app.preprocessing import Pixels
from clip_app.telemetry import BATCH_SIZE, QUEUE_DEPTH
from clip_app.turns import Ledger, asking, seconds_left, too_late

__all__ = ["Encoded", "MicroBatcher"]

logger = logging.getLogger("clip_app")

LEAST_SECONDS = 1e-3  # of a picture, before one was encoded
CLOSE_SECONDS = 60.0


@dataclass(frozen=True)
class Encoded:
    """A unit image embedding, shape [D], and the seconds it waited and took."""

    embedding: Embeddings
    queue_seconds: float
    encode_seconds: float


@dataclass(eq=False)
class _Waiting:
    pixels: Pixels
    client: str = field(default_factory=asking)
    since: float = field(default_factory=time.perf_counter)
    future: Future[Encoded] = field(default_factory=Future)


class MicroBatcher:
    """One thread feeds the image encoder; a batch is whatever waits when it is free.

    Nothing ever waits for a batch to fill. Whoever had least of the encoder lately is first, and among equals
    whoever came first. How many may wait is bounded by whoever calls :meth:`encode`.
    """

    def __init__(
        self, encode_images: Callable[[Pixels], Embeddings], *, max_batch_size: int, ledger: Ledger | None = None
    ) -> None:
        self._encode_images = encode_images
        self._max_batch_size = max_batch_size
        self._ledger = ledger or Ledger()
        self._waiting: list[_Waiting] = []
        self._seconds_each = 0.0  # of the batch before
        self._since: float | None = None  # when the encoder began with what it is at
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="image-encoder", daemon=True)
        self._thread.start()

    def encode(self, pixels: Pixels) -> Encoded:
        """Encode one picture, pixels of shape [3, H, W], and wait for its embedding.

        Raises:
            EncodingFailed: the encoder failed on this picture, or does not come back from it.
            Busy: its turn did not come before it was due.
        """
        item = _Waiting(pixels)
        with self._changed:
            if self._closed:
                raise EncodingFailed("The server is shutting down. Send the picture again.")
            self._waiting.append(item)
            QUEUE_DEPTH.inc()
            self._changed.notify()
        try:
            return item.future.result(seconds_left())
        except FutureTimeout:
            self._give_up(item)
        return item.future.result()  # it was just done

    @property
    def busy_for(self) -> float:
        """For how many seconds the encoder has been at what it is at; 0 where it waits."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def _give_up(self, item: _Waiting) -> None:
        with self._changed:
            if item in self._waiting:
                self._waiting.remove(item)
                QUEUE_DEPTH.dec()
                raise too_late()
        if not item.future.done():
            raise EncodingFailed("The image encoder does not come back from this picture. Try again in a moment.")

    def close(self) -> None:
        """Answer what waits, then end the thread; one that does not come back is left behind."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._answer(batch)
            except Exception as error:
                if len(batch) == 1:
                    self._fail(batch[0], error)
                else:  # so that an error hits only its own picture
                    self._answer_singly(batch)

    def _next_batch(self) -> list[_Waiting]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            had: dict[str, float] = {item.client: self._ledger.used(item.client) for item in self._waiting}
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < self._max_batch_size:
                item = min(self._waiting, key=lambda item: had[item.client])
                self._waiting.remove(item)
                had[item.client] += self._seconds_each or LEAST_SECONDS
                batch.append(item)
            QUEUE_DEPTH.dec(len(batch))
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        self._since = time.monotonic()
        try:
            self._encode(batch)
        finally:
            self._since = None

    def _encode(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        BATCH_SIZE.observe(len(batch))
        embeddings = self._encode_images(np.stack([item.pixels for item in batch]))
        seconds = time.perf_counter() - started
        self._seconds_each = seconds / len(batch)
        for item in batch:
            self._ledger.add(item.client, self._seconds_each)
        for item, embedding in zip(batch, embeddings, strict=True):
            item.future.set_result(Encoded(embedding, started - item.since, seconds))

    def _answer_singly(self, batch: list[_Waiting]) -> None:
        for item in batch:
            try:
                self._answer([item])
            except Exception as error:
                self._fail(item, error)

    def _fail(self, item: _Waiting, error: Exception) -> None:
        logger.error("the image encoder failed: %s", type(error).__name__, exc_info=error)
        item.future.set_exception(
            EncodingFailed("The image encoder failed on this picture. The server's log says why.")
        )
