"""Where pictures are taken in: so many at a time, a share for everybody, and a few of them being decoded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from clip_app import images
from clip_app.bounds import MOST_BYTES
from clip_app.budget import ByteBudget
from clip_app.errors import Busy
from clip_app.middleware.request_id import current_request
from clip_app.settings import Settings
from clip_app.telemetry import IN_FLIGHT, QUEUE_DEPTH
from clip_app.turns import Ledger, Turns, asking, due_within

__all__ = ["Intake", "Promised"]

MOST_IN_BACKGROUND = 4  # pictures of batches in the works; whoever comes waits for one forward pass of them
GIVE_WAY_SECONDS = 1.0  # where others never pause, the background goes on so often


def spare_places(size: int) -> int:
    """How many places there are beside so many, for those who have less than their share."""
    return max(1, size // 4)


class Promised:
    """A place that is kept; taken or given back once, from any thread."""

    def __init__(self, intake: Intake, client: str) -> None:
        self._intake = intake
        self._client = client
        self._lock = threading.Lock()
        self._kept = True

    def take(self) -> bool:
        """Whether it was still kept; who takes it gives the place back."""
        with self._lock:
            kept, self._kept = self._kept, False
            return kept

    def give_back(self) -> None:
        """Give the place back, unless it was taken."""
        if self.take():
            self._intake.give_back(self._client)


class Intake:
    """The bounds that whatever is asked about pictures shares. Thread-safe.

    ``in_background`` is how many pictures are best worked on in the background at once.
    """

    def __init__(self, settings: Settings, *, decoders: int, ledger: Ledger | None = None) -> None:
        """Decode so many at once; ``ledger`` says who had how much of the work lately."""
        self.exact = settings.decode == "exact"
        # Half the cores stay free for others, and where there are several places, one of them.
        self.in_background = max(1, min(MOST_IN_BACKGROUND, decoders // 2, settings.queue_size - 1))
        self._settings = settings
        self._changed = threading.Condition()
        self._held: Counter[str] = Counter()  # places, by who asks; those that are promised, too
        self._others = 0  # places that are not held in the background
        # Decoding computes, so as many at once as there are cores, and large ones share what memory they take.
        self._decoders = Turns(ledger or Ledger(), decoders)
        self._memory = ByteBudget(MOST_BYTES)

    @contextmanager
    def place(self, *, background: bool = False) -> Iterator[None]:
        """Hold one of the places for pictures in the works, until what is done there is due.

        In the background, wait for one, and a little while others have pictures in the works; nothing is due there.

        Raises:
            Busy: there is none.
        """
        client = asking()
        context = current_request()
        promised = not background and context is not None and context.promise is not None and context.promise.take()
        with self._changed:
            if background:
                self._changed.wait_for(lambda: not self._others, GIVE_WAY_SECONDS)
                self._changed.wait_for(lambda: self._held.total() < self._settings.queue_size)
            if not promised:
                self._hold(client)
            self._others += not background
        try:
            with (
                IN_FLIGHT.track_inprogress(),
                nullcontext() if background else due_within(self._settings.answer_seconds),
            ):
                yield
        finally:
            with self._changed:
                self._others -= not background
                self._let_go(client)

    def promise(self) -> Promised:
        """Keep a place for a picture that is on its way, until it is taken or given back.

        Raises:
            Busy: there is none.
        """
        client = asking()
        with self._changed:
            self._hold(client)
        return Promised(self, client)

    def _hold(self, client: str) -> None:
        """Take a place; whoever has less than their share of a full house gets one of a few more."""
        size, held = self._settings.queue_size, self._held.total()
        if held >= size:
            share = max(1, size // len({*self._held, client}))
            if held >= size + spare_places(size) or self._held[client] >= share:
                raise Busy(f"{size} pictures are already in the works. Try again in a moment.")
        self._held[client] += 1

    def _let_go(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._changed.notify_all()

    def give_back(self, client: str) -> None:
        """Give back a place that was promised to a client."""
        with self._changed:
            self._let_go(client)

    @contextmanager
    def decoder(self) -> Iterator[None]:
        """Wait for a turn to decode a picture and make it small."""
        with ExitStack() as stack:
            with QUEUE_DEPTH.track_inprogress():
                stack.enter_context(self._decoders.turn())
            yield

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
