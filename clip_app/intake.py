"""Where pictures are taken in: so many at a time, and a few of them being decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clip_app import images
from clip_app.bounds import MOST_BYTES
from clip_app.budget import ByteBudget
from clip_app.errors import Busy
from clip_app.settings import Settings
from clip_app.telemetry import IN_FLIGHT, QUEUE_DEPTH

__all__ = ["Intake"]

MOST_IN_BACKGROUND = 4  # pictures of batches in the works; whoever comes waits for one forward pass of them
GIVE_WAY_SECONDS = 1.0  # where others never pause, the background goes on so often


class Intake:
    """The bounds that whatever is asked about pictures shares. Thread-safe.

    ``in_background`` is how many pictures are best worked on in the background at once.
    """

    def __init__(self, settings: Settings, *, decoders: int) -> None:
        self.exact = settings.decode == "exact"
        # Half the cores stay free for others, and where there are several places, one of them.
        self.in_background = max(1, min(MOST_IN_BACKGROUND, decoders // 2, settings.queue_size - 1))
        self._settings = settings
        self._changed = threading.Condition()
        self._held = 0  # places
        self._others = 0  # places that are not held in the background
        # Decoding computes, so as many at once as there are cores, and large ones share what memory they take.
        self._decoders = threading.BoundedSemaphore(decoders)
        self._memory = ByteBudget(MOST_BYTES)

    @contextmanager
    def place(self, *, background: bool = False) -> Iterator[None]:
        """Hold one of the places for pictures in the works.

        In the background, wait for one, and a little while others have pictures in the works.

        Raises:
            Busy: there is none.
        """
        with self._changed:
            if background:
                self._changed.wait_for(lambda: not self._others, GIVE_WAY_SECONDS)
                self._changed.wait_for(lambda: self._held < self._settings.queue_size)
            elif self._held >= self._settings.queue_size:
                message = f"{self._settings.queue_size} pictures are already in the works. Try again in a moment."
                raise Busy(message)
            self._held += 1
            self._others += not background
        try:
            with IN_FLIGHT.track_inprogress():
                yield
        finally:
            with self._changed:
                self._held -= 1
                self._others -= not background
                self._changed.notify_all()

    @contextmanager
    def decoder(self) -> Iterator[None]:
        """Wait for a turn to decode a picture and make it small."""
        with QUEUE_DEPTH.track_inprogress():
            self._decoders.acquire()
        try:
            yield
        finally:
            self._decoders.release()

    def decode(self, data: bytes, target: int | None) -> images.Decoded:
        """Decode a picture within the settings' bounds, in full where they say so.

        Raises:
            UndecodableImage, ImageTooLarge: it cannot be used.
        """
        return images.decode(
            data,
            max_bytes=self._settings.max_upload_bytes,
            max_pixels=self._settings.max_pixels,
            target=None if self.exact else target,
            room=self._memory.room,
        )
