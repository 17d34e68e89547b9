"""Counts the requests for an analysis that are refused before one begins. Pure ASGI."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_app.endpoints import ENDPOINTS, GRADIO, MCP, PAGE, Endpoint
from clip_app.errors import Outcome
from clip_app.gradio_routes import JOIN, NAMED, RUN, UPLOAD
from clip_app.middleware.body_limit import JSON_LIMIT, route_path
from clip_app.middleware.request_id import context_of
from clip_app.observation import refuse

__all__ = ["Counting"]

PATHS = {row.path: row for row in ENDPOINTS.values() if row.path is not None}
OTHERS = (GRADIO, MCP)
BY_NAME = {
    row.name: row for row in ENDPOINTS.values() if row.source == "api" and row.tool is None and row not in OTHERS
}


class Counting:
    """Stands before the body limits and Gradio, and sees what never reaches an analysis.

    Too large a body, a form or JSON that is not understood, too many pictures, a full queue:
    the answer's status says so, and that no analysis was counted for it yet.
    """

    def __init__(self, app: ASGIApp, *, functions: Mapping[int, Endpoint]) -> None:
        """``functions`` says which of Gradio's functions, by their index, analyse pictures for whom."""
        self.app = app
        self._functions = functions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope).rstrip("/") if scope["type"] == "http" and scope["method"] == "POST" else ""
        if path not in (*PATHS, UPLOAD, JOIN) and not path.startswith(NAMED):
            await self.app(scope, receive, send)
            return
        body = bytearray()
        status = 500  # what the server answers where the application does not

        async def overhear() -> Message:
            message = await receive()
            if path not in (*PATHS, UPLOAD) and len(body) <= JSON_LIMIT:
                body.extend(message.get("body", b""))
            return message

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, overhear, watch)
        finally:
            context = context_of(scope)
            if (
                status >= 400
                and not context.analyses
                and (endpoint := self._endpoint(scope, path, bytes(body), status))
            ):
                seconds = time.perf_counter() - context.started
                refuse(context, endpoint, _outcome(status), f"http_{status}", seconds=seconds)

    def _endpoint(self, scope: Scope, path: str, body: bytes, status: int) -> Endpoint | None:
        """Say for whom it was; None where it was for something else, such as the status."""
        if path == MCP.path:  # most of it is talk; only pictures are too large
            return MCP if status == 413 else None
        if path in PATHS:
            return PATHS[path]
        if path == UPLOAD:
            # The page follows its uploads by an id; programs do not.
            return PAGE if "upload_id" in parse_qs(scope["query_string"].decode("latin-1")) else GRADIO
        if path == RUN and len(body) > JSON_LIMIT:  # which only the page's questions may be
            return PAGE
        try:
            index = json.loads(body).get("fn_index")
        except (ValueError, AttributeError, RecursionError):
            index = None
        if isinstance(index, int):
            return self._functions.get(index)
        return GRADIO if path == JOIN else BY_NAME.get(path.rpartition("/")[2])


def _outcome(status: int) -> Outcome:
    if status in (429, 503):
        return "rejected"
    return "invalid" if status < 500 else "error"
