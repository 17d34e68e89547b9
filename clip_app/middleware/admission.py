"""Refuses a picture before its body is read where there is no place for it. Pure ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_app.endpoints import ENDPOINTS
from clip_app.errors import Busy
from clip_app.gradio_routes import RUN
from clip_app.middleware.body_limit import answer_unread, error_response, route_path
from clip_app.middleware.request_id import Promise, context_of

__all__ = ["Admission"]

FILES = frozenset(row.path for row in ENDPOINTS.values() if row.takes_files)
# Gradio's direct calls: the page's question has its picture in the body, others are small. The tools for language
# models are not here: what the model is to read is an answer to a request whose number is in the body.
PICTURE = 16_384  # bytes of such a body that has one
# A body that takes longer than this to come keeps no place from others.
KEPT_SECONDS = 1.0


class _Promise(Promise, Protocol):
    def give_back(self) -> None: ...


class Admission:
    """Keeps a place for a picture while its body comes, for a moment; where there is none, says so at once."""

    def __init__(self, app: ASGIApp, *, promise: Callable[[], _Promise]) -> None:
        """``promise`` keeps a place, or raises :class:`Busy`."""
        self.app = app
        self._promise = promise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _brings_a_picture(scope):
            await self.app(scope, receive, send)
            return
        try:
            promise = self._promise()
        except Busy as error:
            answer = error_response(error.status, error.code, error.message, {"Retry-After": str(error.retry_after)})
            await answer_unread(answer, scope, receive, send)
            return
        context_of(scope).promise = promise
        kept = asyncio.get_running_loop().call_later(KEPT_SECONDS, promise.give_back)
        try:
            await self.app(scope, receive, send)
        finally:
            kept.cancel()
            promise.give_back()


def _brings_a_picture(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path = route_path(scope).rstrip("/")
    length = Headers(scope=scope).get("content-length", "")
    return path in FILES or (path == RUN and not (length.isdigit() and int(length) < PICTURE))
