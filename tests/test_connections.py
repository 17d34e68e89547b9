"""Slow and greedy clients at a real server that may open 256 files."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from conftest import served, served_here

from clip_app.connections import Connections

FILES = 256
HALF = b"POST /api/analyze HTTP/1.1\r\nHost: x\r\nContent-Le"
OTHER = "127.0.0.9"  # another client: all of 127.0.0.0/8 is this machine
PATIENCE = 60


@pytest.fixture(scope="module")
def tight() -> Iterator[str]:
    """A server with few descriptors."""
    with served("--model", "bundled", files=FILES) as url:
        yield url


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE, source_address=(source, 0))


def read_all(sock: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):  # what it had to say was there before
        while chunk := sock.recv(65_536):
            received += chunk
    return received


def ask(
    url: str, source: str, request: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
) -> int:
    with connect(url, source) as sock:
        sock.sendall(request)
        return int(read_all(sock).split(b" ", 2)[1])


def test_320_half_open_connections_do_not_stop_a_server_with_256_files(
    tight: str, photographs: dict[str, Path]
) -> None:
    with ExitStack() as stack:
        for _ in range(320):
            stack.enter_context(connect(tight)).sendall(HALF)
        answers = [ask(tight, OTHER) for _ in range(20)]
        assert set(answers) == {200}
        picture = photographs["coffee"].read_bytes()
        transport = httpx.HTTPTransport(local_address=OTHER)
        with httpx.Client(transport=transport, timeout=PATIENCE) as client:
            answer = client.post(f"{tight}/api/analyze", files={"image": picture})
        assert answer.status_code == 200
        assert ask(tight, "127.0.0.1") == 200, "even from the address that they come from"


def test_one_client_may_not_hold_all_connections_with_requests_that_are_being_answered(tight: str) -> None:
    """Streams that never end cannot be given up: whoever has many of them is refused more, and says so honestly."""
    stream = b"GET /gradio_api/heartbeat/x%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(tight)) for _ in range(FILES // 2)]
        for number, sock in enumerate(socks):
            sock.sendall(stream % number)
        with connect(tight) as one_more:
            one_more.sendall(stream % 999)
            head, _, body = read_all(one_more).partition(b"\r\n\r\n")
        assert b" 503 " in head.splitlines()[0]
        assert b"Retry-After: 1" in head
        assert json.loads(body)["error"]["code"] == "busy"
        assert {ask(tight, OTHER) for _ in range(5)} == {200}
    # Once they are gone there is room again.
    deadline = time.monotonic() + PATIENCE
    while ask(tight, "127.0.0.1") != 200:
        assert time.monotonic() < deadline


def test_a_body_that_trickles_is_given_up_and_one_that_makes_progress_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clip_app.middleware.body_limit.GRACE_SECONDS", 0.3)
    monkeypatch.setattr("clip_app.middleware.body_limit.SLOWEST", 1000)
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    asked = b'{"input": "' + b"x" * 1500 + b'"}'
    with served_here() as url:
        for size, pause, status in ((300, 0.05, 200), (1, 0.05, 408)):
            with connect(url) as sock:
                sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(asked))
                try:
                    for start in range(0, len(asked), size):
                        sock.sendall(asked[start : start + size])
                        time.sleep(pause)
                except OSError:
                    pass  # it hung up, and its answer is there
                answer = read_all(sock)
            assert int(answer.split(b" ", 2)[1]) == status
        assert b"CLIP_APP" not in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_slow"


class Line:
    """Stands for a connection in the book."""

    def __init__(self, peer: str, *, uploading: bool = False) -> None:
        self.peer = peer
        self.uploading = uploading
        self.dropped = False
        self.book: Connections | None = None

    def drop(self) -> None:
        self.dropped = True
        assert self.book is not None
        self.book.leave(self)  # type: ignore[arg-type]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr("clip_app.connections.time.monotonic", lambda: clock[0])
    return clock


def enter(book: Connections, *peers: str, uploading: bool = False) -> list[Line]:
    lines = [Line(peer, uploading=uploading) for peer in peers]
    for line in lines:
        line.book = book
        assert book.enter(line)  # type: ignore[arg-type]
    return lines


def test_whoever_has_most_silent_ones_loses_the_oldest(now: list[float]) -> None:
    book = Connections(8)
    lines = enter(book, "a", "b", "b", "c", "b", "d", "e", "f")
    now[0] += 1
    enter(book, "g")
    assert [line.dropped for line in lines] == [False, True, False, False, False, False, False, False]


def test_nobody_is_given_up_who_just_came_or_is_being_answered(now: list[float]) -> None:
    book = Connections(2)
    first, second = enter(book, "a", "b")
    assert not book.enter(Line("c"))  # type: ignore[arg-type]
    now[0] += 1
    book.works(first)  # type: ignore[arg-type]
    book.works(second)  # type: ignore[arg-type]
    assert not book.enter(Line("c"))  # type: ignore[arg-type]
    book.waits(first)  # type: ignore[arg-type]
    now[0] += 1
    enter(book, "c")
    assert first.dropped
    assert not second.dropped


def test_a_body_that_does_not_come_is_given_up_after_a_while(now: list[float]) -> None:
    book = Connections(1)
    (slow,) = enter(book, "a", uploading=True)
    book.works(slow)  # type: ignore[arg-type]
    now[0] += 5
    assert not book.enter(Line("b"))  # type: ignore[arg-type]
    now[0] += 10
    enter(book, "b")
    assert slow.dropped


def test_a_client_keeps_to_its_share_and_a_named_proxy_has_none(now: list[float]) -> None:
    book = Connections(8, proxies=["10.0.0.0/8"])
    for line in enter(book, *["a"] * 6):
        book.works(line)  # type: ignore[arg-type]
    assert not book.enter(Line("a"))  # type: ignore[arg-type]
    enter(book, "10.1.2.3", "10.1.2.3")
    assert not book.enter(Line("b"))  # type: ignore[arg-type]


def test_half_of_the_files_are_for_connections() -> None:
    assert Connections.within(256)._most == 128
    assert Connections.within(1_000_000)._most == 4096
    assert Connections.within(4)._most == 8
