"""Connections: so many as there are descriptors for, a share for everybody, and no waiting for half a request."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from clip_app.middleware.forwarded import Proxies
from clip_app.middleware.request_id import address_of

__all__ = ["ACCEPTED_AT_ONCE", "Connections", "descriptors", "protocol"]

logger = logging.getLogger("clip_app")

HEADER_SECONDS = 15.0  # in which a request's head must have come
UNREAD_SECONDS = 60  # after which a client that takes nothing of its answer is given up
WANTED = 65_536  # descriptors, where the system lets us have them
ACCEPTED_AT_ONCE = 32  # before the first of them is looked at
MOST = 4096
SHARE = 0.75  # of the connections, for one client
SILENT_SECONDS = 0.2  # after which one that sent no request may be given up for another
UPLOADING_SECONDS = 10.0  # and one whose request's body has not come
REFUSED_AT_ONCE, REFUSED_SECONDS = 16, 0.5  # who may hear why they are not let in, and for how long we listen
WARN_SECONDS = 60.0
TOGETHER = 65_536  # bytes that are held for the rest of a turn

MESSAGE = "All connections are taken. Try again in a moment."
BUSY = {"error": {"code": "busy", "message": MESSAGE}}


def descriptors() -> int:
    """Raise the limit of open files as far as the system allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return WANTED if soft == resource.RLIM_INFINITY else soft


class Connections:
    """The book of all connections: who may come in, and who is given up for them."""

    def __init__(self, most: int, *, proxies: Sequence[str] = ()) -> None:
        """Let in so many, of one client a share; of ``proxies``, which bring many, as many as there are."""
        self.refused = 0  # who are being told so
        self._most = most
        self._share = max(1, int(SHARE * most))
        self._proxies = Proxies(proxies)
        self._held: Counter[str] = Counter()
        # Since when each waits for a request, or for the answer to one; the longest first.
        self._silent: dict[Connection, float] = {}
        self._working: dict[Connection, float] = {}
        self._warned = -WARN_SECONDS

    @classmethod
    def within(cls, files: int, *, proxies: Sequence[str] = ()) -> Connections:
        """As many as half of so many descriptors: the others are for uploads, the model, and what was just accepted."""
        return cls(max(8, min(MOST, files // 2)), proxies=proxies)

    def enter(self, connection: Connection) -> bool:
        """Let a new one in, if need be for one that has nothing to say; False where none can be given up."""
        full = sum(self._held.values()) >= self._most
        greedy = self._held[connection.peer] >= self._share and connection.peer not in self._proxies
        if (full or greedy) and not self._give_up_one(connection.peer if greedy else None):
            self._warn()
            return False
        self._held[connection.peer] += 1
        self.waits(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Strike out one that is gone."""
        self._silent.pop(connection, None)
        self._working.pop(connection, None)
        self._held[connection.peer] -= 1
        if not self._held[connection.peer]:
            del self._held[connection.peer]

    def waits(self, connection: Connection) -> None:
        """Note that it has no request that is being answered."""
        self._working.pop(connection, None)
        self._silent[connection] = time.monotonic()

    def works(self, connection: Connection) -> None:
        """Note that it has one."""
        if self._silent.pop(connection, None) is not None:
            self._working[connection] = time.monotonic()

    def _give_up_one(self, peer: str | None) -> bool:
        """Close the one that has been silent for longest, or slow with its body, of ``peer`` or whoever has most."""
        now = time.monotonic()
        idle = [c for c, since in self._silent.items() if now - since >= SILENT_SECONDS]
        slow = [c for c, since in self._working.items() if now - since >= UPLOADING_SECONDS and c.uploading]
        for candidates in (idle, slow):
            if chosen := _of_whoever_has_most([c for c in candidates if peer in (None, c.peer)]):
                chosen.drop()
                return True
        return False

    def _warn(self) -> None:
        if time.monotonic() - self._warned > WARN_SECONDS:
            self._warned = time.monotonic()
            logger.warning("all %d connections are taken; raise the limit of open files", self._most)


class Connection(H11Protocol):
    """A connection whose requests must come in time, as one of a book of them."""

    book: Connections

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.peer = ""
        self._entered = False
        self._deadline: asyncio.TimerHandle | None = None
        self._refusing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, Together(transport, self.loop)))
        self.peer = address_of(self.client[0] if self.client else "")
        _bound_unread(transport)
        self._entered = self.book.enter(self)
        if self._entered:
            self._expect_head()
        else:
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect_nothing()
        if self._refusing is not None:
            self._answer_busy()
        if self._entered:
            self._entered = False
            self.book.leave(self)

    def data_received(self, data: bytes) -> None:
        if not self._entered:  # refused or given up
            if self._refusing is not None:
                self._answer_busy()
            return
        if self._idle and self._deadline is None:
            self._expect_head()
        super().data_received(data)
        if not self._idle:
            self._expect_nothing()
            self.book.works(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._entered and self._idle:
            self.book.waits(self)

    def drop(self) -> None:
        """Close at once, for somebody else."""
        self._entered = False
        self.book.leave(self)
        self.transport.abort()

    @property
    def uploading(self) -> bool:
        """Whether its request's body has not come yet."""
        return not self._idle and bool(self.cycle.more_body)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._late)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._idle and not self.transport.is_closing():
            self._answer("408 Request Timeout", b"")

    def _refuse(self) -> None:
        """Say so once the request is there, for before that nobody listens; but wait for few, and briefly."""
        if self.book.refused >= REFUSED_AT_ONCE:
            self._answer_busy()
            return
        self.book.refused += 1
        self._refusing = self.loop.call_later(REFUSED_SECONDS, self._answer_busy)

    def _answer_busy(self) -> None:
        if self._refusing is not None:
            self._refusing.cancel()
            self._refusing = None
            self.book.refused -= 1
        if not self.transport.is_closing():
            self._answer("503 Service Unavailable", json.dumps(BUSY).encode(), "Retry-After: 1\r\n")

    def _answer(self, status: str, body: bytes, more: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}{more}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()


class Together:
    """A transport that sends what is written in one turn of the loop, an answer's head and body, in one piece.

    Each piece costs a call into the system, which is a good part of what a refusal costs.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(bytes(data))
        if sum(map(len, self._written)) > TOGETHER:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._written and not self._transport.is_closing():
            self._transport.write(b"".join(self._written))
        self._written = []


def _of_whoever_has_most(connections: Sequence[Connection]) -> Connection | None:
    by_client = Counter(connection.peer for connection in connections)
    return max(connections, key=lambda connection: by_client[connection.peer], default=None)


def protocol(book: Connections) -> type[asyncio.Protocol]:
    """Make the class of the connections of one server."""
    return cast(type[asyncio.Protocol], type("Connection", (Connection,), {"book": book}))


def _bound_unread(transport: asyncio.Transport) -> None:
    """Let the system end a connection whose other side takes nothing, where it can."""
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
