"""Micro-batching: pictures that wait together are encoded together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from clip_app.engines import Embeddings
from clip_app.errors import EncodingFailed
from clip_app.preprocessing import Pixels
from clip_app.telemetry import BATCH_SIZE, QUEUE_DEPTH

__all__ = ["Encoded", "MicroBatcher"]

logger = logging.getLogger("clip_app")


@dataclass(frozen=True)
class Encoded:
    """A unit image embedding, shape [D], and the seconds it waited and took."""

    embedding: Embeddings
    queue_seconds: float
    encode_seconds: float


@dataclass
class _Waiting:
    pixels: Pixels
    since: float = field(default_factory=time.perf_counter)
    future: Future[Encoded] = field(default_factory=Future)


class MicroBatcher:
    """One thread feeds the image encoder; a batch is whatever waits when it is free.

    Nothing ever waits for a batch to fill. First come, first served. How many may wait
    is bounded by whoever calls :meth:`encode`.
    """

    def __init__(self, encode_images: Callable[[Pixels], Embeddings], *, max_batch_size: int) -> None:
        self._encode_images = encode_images
        self._max_batch_size = max_batch_size
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="image-encoder", daemon=True)
        self._thread.start()

    def encode(self, pixels: Pixels) -> Encoded:
        """Encode one picture, pixels of shape [3, H, W], and wait for its embedding.

        Raises:
            EncodingFailed: the encoder failed on this picture.
        """
        item = _Waiting(pixels)
        with self._changed:
            if self._closed:
                raise EncodingFailed("The server is shutting down. Send the picture again.")
            self._waiting.append(item)
            QUEUE_DEPTH.inc()
            self._changed.notify()
        return item.future.result()

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

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
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch_size))]
            QUEUE_DEPTH.dec(len(batch))
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        BATCH_SIZE.observe(len(batch))
        embeddings = self._encode_images(np.stack([item.pixels for item in batch]))
        seconds = time.perf_counter() - started
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
