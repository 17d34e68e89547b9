"""Whose turn it is at what is scarce: whoever has had least of it lately."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from clip_app.errors import Busy
from clip_app.middleware.request_id import current_request

__all__ = ["HOUSE", "Ledger", "Turns", "asking", "due_within", "seconds_left", "too_late"]

HOUSE = ""  # nobody's request: what the app does by itself, after everybody else
HALF_LIFE = 10.0  # seconds after which half of what somebody had is forgotten
MOST_CLIENTS = 4096

# When who is being answered in this context stops waiting, by time.monotonic; each picture has a time of its own.
_due: ContextVar[float] = ContextVar("due", default=math.inf)


def asking() -> str:
    """Return who asks in this context, the house outside of any request."""
    context = current_request()
    return context.client if context else HOUSE


@contextmanager
def due_within(seconds: float) -> Iterator[None]:
    """Whatever waits for a turn in this context gives up after so many seconds."""
    token = _due.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _due.reset(token)


def seconds_left() -> float | None:
    """Return for how long to go on waiting in this context; None: for ever."""
    due = _due.get()
    return None if math.isinf(due) else max(0.0, due - time.monotonic())


def too_late() -> Busy:
    """The refusal of what has waited until it was due."""
    return Busy("It did not get its turn in time: others are being answered. Try again in a moment.")


class Ledger:
    """How many seconds of work each client had lately: what was longer ago counts for less. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._had: dict[str, tuple[float, float]] = {}  # seconds, and when they were counted
        self._lock = threading.Lock()

    def used(self, client: str) -> float:
        """Return the seconds that a client had; the house comes after everybody."""
        if client == HOUSE:
            return math.inf
        with self._lock:
            return self._used(client)

    def add(self, client: str, seconds: float) -> None:
        """Take note of work that was done for a client."""
        if client == HOUSE:
            return
        with self._lock:
            self._had[client] = self._used(client) + seconds, self._clock()
            if len(self._had) > MOST_CLIENTS:
                del self._had[min(self._had, key=self._used)]

    def _used(self, client: str) -> float:
        seconds, at = self._had.get(client, (0.0, 0.0))
        return seconds * math.pow(0.5, max(0.0, self._clock() - at) / HALF_LIFE)


@dataclass(eq=False)
class _Ticket:
    client: str
    cost: float
    called: threading.Event = field(default_factory=threading.Event)


class Turns:
    """Lends so many places at once; the next is for whoever had least, with what they are about to take. Thread-safe.

    Among equals whoever came first. A client's large request gives way to others' small ones, and not for ever: what
    they take is counted.
    """

    def __init__(self, ledger: Ledger, places: int = 1) -> None:
        self._ledger = ledger
        self._free = places
        self._waiting: list[_Ticket] = []
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, cost: float = 0.0) -> Iterator[None]:
        """Wait for a turn and hold it; ``cost`` is how many seconds the whole of the request will take yet.

        Raises:
            Busy: its turn did not come before it was due.
        """
        ticket = _Ticket(asking(), cost)
        self._ask(ticket)
        started = time.perf_counter()
        try:
            yield
        finally:
            self._ledger.add(ticket.client, time.perf_counter() - started)
            self._hand_on()

    def _ask(self, ticket: _Ticket) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            self._waiting.append(ticket)
        if ticket.called.wait(seconds_left()):
            return
        with self._lock:
            if not ticket.called.is_set():
                self._waiting.remove(ticket)
                raise too_late()

    def _hand_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            ticket = min(self._waiting, key=lambda ticket: self._ledger.used(ticket.client) + ticket.cost)
            self._waiting.remove(ticket)
            ticket.called.set()
