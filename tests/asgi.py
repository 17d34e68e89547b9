"""Speaks ASGI to an application in this process: no server and no socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    unread: int  # how many pieces of the request's body nobody took

    @property
    def error(self) -> dict[str, str]:
        return dict(json.loads(self.body)["error"])


def ask(
    app: ASGIApp,
    path: str,
    *pieces: bytes,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    query: str = "",
    root_path: str = "",
    hang_up: bool = False,
) -> Answer:
    """Send a body in pieces, hang up after them if asked to, and return what was answered."""
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
        "method": method,
        "path": root_path + path,
        "root_path": root_path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    waiting: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": hang_up or i < len(pieces)}
        for i, piece in enumerate(pieces or (b"",), 1)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(_run(app, scope, receive, send))
    (start,) = [message for message in sent if message["type"] == "http.response.start"]
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    names = {name.decode(): value.decode() for name, value in start.get("headers", [])}
    return Answer(start["status"], names, body, len(waiting))


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def answer(send: Send, status: int, value: Any = None) -> None:
    """Answer with a JSON value, as an application does."""
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def read(receive: Receive) -> bytes:
    """Read a request's whole body, as an application does."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    return body
