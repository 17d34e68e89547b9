"""Bounds every body, in bytes and in time, before it is parsed, and closes doors that are not used. Pure ASGI."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_app.endpoints import ENDPOINTS, MCP
from clip_app.gradio_routes import CLOSED, JOIN, PREFIX, RUN, UNTRUSTED_HEADERS, UPLOAD
from clip_app.middleware.request_id import context_of, current_request

__all__ = [
    "JSON_LIMIT",
    "NOT_FETCHED",
    "BodyLimit",
    "answer_unread",
    "error_response",
    "in_base64",
    "no_room",
    "refusal",
    "route_path",
]

logger = logging.getLogger("clip_app")

MEGABYTE = 1_000_000
JSON_LIMIT = MEGABYTE
MULTIPART_OVERHEAD = MEGABYTE
INVALID_REQUEST, INTERNAL_ERROR = -32600, -32603  # of JSON-RPC
# Of a body that comes slowly: so many seconds may be waited for it, and more for what came.
GRACE_SECONDS = 15.0
SLOWEST = 1000  # bytes a second
# What is read of a body that nobody looks at, so that who sends it gets to read the answer.
LINGER_BYTES, LINGER_SECONDS = MEGABYTE, 2.0
SMALL = 65_536
NOT_FETCHED = "Pictures are not fetched from the web. Download it and upload the file."


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as the REST route answers it, with the id of the request that is being answered."""
    context = current_request()
    error = {"code": code, "message": message} | ({"request_id": context.id} if context else {})
    return JSONResponse({"error": error}, status, headers)


def refusal(scope: Scope, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error before any route, in the shape that who asks reads: clients of MCP show none but JSON-RPC's."""
    if route_path(scope).rstrip("/") != MCP.path:
        return error_response(status, code, message, headers)
    context = current_request()
    data = {"code": code} | ({"request_id": context.id} if context else {})
    error = {"code": INVALID_REQUEST if status < 500 else INTERNAL_ERROR, "message": message, "data": data}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status, headers)


def no_room(error: OSError) -> JSONResponse:
    """The answer where a body could not be kept in a file while it came."""
    logger.error("a body cannot be kept: %s", error.strerror)
    message = "The server has no room for what was sent. Try again later; who runs it makes room in its TMPDIR."
    return error_response(507, "no_room", message)


async def answer_unread(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose body is not wanted: little of it is read, and after that the connection ends."""
    length = Headers(scope=scope).get("content-length", "")
    small = int(length) <= SMALL if length.isdigit() else scope["method"] in ("GET", "HEAD")
    if small:
        await answer(scope, receive, send)
        return
    answer.headers["Connection"] = "close"

    async def linger(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send(dict(message, more_body=True))
        with anyio.move_on_after(LINGER_SECONDS):
            await _BoundedBody(receive, LINGER_BYTES // 2).drain()
        await send({"type": "http.response.body", "body": b""})

    await answer(scope, receive, linger)


class BodyLimit:
    """Bounds every body before it is parsed, and closes what is not needed."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int, request_bytes: int) -> None:
        """Let through pictures of ``upload_bytes`` of Gradio's, ``request_bytes`` where an endpoint takes files.

        What holds pictures in base64 is read into memory as a whole, unlike a form: it may be as large as one picture.
        """
        self.app = app
        paths = [row.path for row in ENDPOINTS.values() if row.path is not None and row.takes_files]
        in_memory = dict.fromkeys((RUN, MCP.path, f"{MCP.path}/"), in_base64(upload_bytes))
        self._limits = {UPLOAD: upload_bytes} | in_memory | dict.fromkeys(paths, request_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = route_path(scope)
        if path.startswith(CLOSED):
            await error_response(404, "not_found", "There is nothing here.")(scope, receive, send)
            return
        scope = dict(scope, headers=[h for h in scope["headers"] if h[0].lower() not in UNTRUSTED_HEADERS])
        bounded = path in self._limits
        limit = self._limits[path] + MULTIPART_OVERHEAD if bounded else JSON_LIMIT
        body = _BoundedBody(receive, limit)
        if int(Headers(scope=scope).get("content-length", "0")) > limit:
            await body.drain()
            await _too_large(scope, limit)(scope, receive, send)
        elif path.startswith(PREFIX) and path != UPLOAD:
            await self._json(scope, body, send)
        else:
            await self._stream(scope, body, send)

    async def _stream(self, scope: Scope, body: _BoundedBody, send: Send) -> None:
        """Let the body through as it comes; a body over the limit turns any answer into 413."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            if not (body.exceeded or body.late) or started:
                started = True
                await send(message)

        with suppress(_BodyTooLarge, _BodyTooSlow):
            await self.app(scope, body, watch)
        if started:
            return
        if body.exceeded:
            await body.drain()
            await _too_large(scope, body.limit)(scope, body, send)
        elif body.late:
            await _too_slow(scope)(scope, body, send)

    async def _json(self, scope: Scope, body: _BoundedBody, send: Send) -> None:
        """Read the whole body first: Gradio downloads any URL it finds in it, however large.

        Its clients for Python and JavaScript, which ask through the queue, show what an event ends in and of
        a refused request no more than its status: those are let into the queue without the URL.
        """
        try:
            content = await body.read()
        except _BodyTooLarge:
            await body.drain()
            await _too_large(scope, body.limit)(scope, body, send)
            return
        except _BodyTooSlow:
            await _too_slow(scope)(scope, body, send)
            return
        if content and (without := _without_remote_files(content)) is not None:
            if route_path(scope) != JOIN:
                await error_response(422, "bad_option", NOT_FETCHED)(scope, body, send)
                return
            context_of(scope).refusal = NOT_FETCHED
            content = without
        await self.app(scope, _replay(content, body), send)


def in_base64(size: int) -> int:
    """The length of so many bytes inside JSON."""
    return 4 * (size // 3 + 1)


def route_path(scope: Scope) -> str:
    """The path without ROOT_PATH, which the server puts in front of it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class _BodyTooLarge(Exception):
    pass


class _BodyTooSlow(Exception):
    pass


class _BoundedBody:
    """A receive channel that counts bytes and the time that they are waited for, and raises past the limits."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.limit = limit
        self.exceeded = False
        self._receive = receive
        self._count = 0
        self._more = True
        self.late = False
        self._waited = 0.0

    async def __call__(self) -> Message:
        message = await (self._in_time() if self._more else self._receive())
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._count > self.limit:
                self.exceeded = True
                raise _BodyTooLarge
        return message

    async def _in_time(self) -> Message:
        """Wait for a piece of the body for as long as the pieces before allow; only the client's time counts."""
        since = time.monotonic()
        with anyio.move_on_after(GRACE_SECONDS + self._count / SLOWEST - self._waited):
            message = await self._receive()
            self._waited += time.monotonic() - since
            return message
        self.late = True
        raise _BodyTooSlow

    async def read(self) -> bytes:
        content = bytearray()
        while self._more:
            message = await self()
            if message["type"] == "http.disconnect":
                break
            content += message.get("body", b"")
        return bytes(content)

    async def drain(self) -> None:
        """Throw away some of the rest, so that a client still sending gets to read the answer."""
        bound = self._count + 2 * self.limit
        while self._more and self._count < bound:
            try:
                message = await self._in_time()
            except _BodyTooSlow:
                return
            if message["type"] == "http.disconnect":
                return
            self._count += len(message.get("body", b""))
            self._more = message.get("more_body", False)


def _replay(content: bytes, after: Receive) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return await after()
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


def _too_large(scope: Scope, limit: int) -> JSONResponse:
    megabytes = max(1, (limit - MULTIPART_OVERHEAD) // MEGABYTE)
    message = f"The request is larger than {megabytes} MB. Send less, or raise CLIP_APP_MAX_UPLOAD_MB."
    return refusal(scope, 413, "too_large", message)


def _too_slow(scope: Scope) -> JSONResponse:
    message = f"The request's body came too slowly: less than {SLOWEST:,} bytes a second. Send it again."
    return refusal(scope, 408, "too_slow", message, {"Connection": "close"})


def _without_remote_files(content: bytes) -> bytes | None:
    """Return JSON without the URLs that Gradio would fetch; None where there are none."""
    try:
        whole: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    pending, found = [whole], False
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http://", "https://")):
                value |= {"path": "", "url": None}
                found = True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return json.dumps(whole).encode() if found else None
