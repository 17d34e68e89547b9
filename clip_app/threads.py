"""What one request may take of the house: so many pictures, so many of them at once, in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

__all__ = ["IMAGES_AT_ONCE", "IMAGES_PER_REQUEST", "Threads"]

IMAGES_PER_REQUEST = 16
# Of one request: several share a forward pass, and others still get a turn.
IMAGES_AT_ONCE = 4
SPARE_THREADS = 16

Answer = TypeVar("Answer")


class Threads:
    """Threads for work that blocks: more than there are places, so that one picture too many is told so at once."""

    def __init__(self, places: int) -> None:
        """``places`` is how many pictures may be in the works."""
        self.at_once = min(IMAGES_AT_ONCE, places)
        self._places = places
        self._limiter: list[CapacityLimiter] = []  # made on first use, inside the event loop

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """Do the work in a thread, and return or raise what it does."""
        if not self._limiter:
            self._limiter.append(CapacityLimiter(self._places + SPARE_THREADS))
        return await anyio.to_thread.run_sync(work, limiter=self._limiter[0])
