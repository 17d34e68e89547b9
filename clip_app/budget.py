"""Bytes of memory that large decodes share: whoever comes first is served first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ByteBudget"]


class ByteBudget:
    """Lends bytes, and lets wait who asks for more than are left. Thread-safe.

    In the order they came, so that a large one is not overtaken for ever by small ones.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Hold so many bytes, at most all there are."""
        size = min(size, self._total)
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._left >= size)
            self._waiting.popleft()
            self._left -= size
            self._changed.notify_all()  # the next may fit as well
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()
