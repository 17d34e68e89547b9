"""``/mcp`` before its tools: who may ask, how, and that the tools are imported once somebody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clip_app.middleware.body_limit import refusal

__all__ = ["McpRoute", "Sessions"]

logger = logging.getLogger("clip_app")

MISSING = (
    "The server is installed without its tools for language models. "
    "Install its extra, pip install 'clip-app[mcp]', and start it again."
)
POST_ONLY = "Send JSON-RPC by POST. There is no stream to listen to and no session to end: each request stands alone."
OTHER_SITE = "Pages of other sites may not ask. Name the site in CLIP_APP_CORS_ORIGINS."


class Sessions(Protocol):
    """What answers the requests, as long as it runs."""

    def run(self) -> AbstractAsyncContextManager[None]: ...

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class McpRoute:
    """The route: its framework takes a second to import, so the first who asks waits, and nobody else."""

    def __init__(
        self, build: Callable[[], Sessions], *, after: Callable[[], Awaitable[None]], origins: Sequence[str]
    ) -> None:
        """Take what imports and makes the tools, what to wait for before, and the other sites whose pages may ask."""
        self._build = build
        self._after = after
        self._origins = origins
        self._installed = find_spec("mcp") is not None
        self._sessions: Sessions | None = None
        self._asked = asyncio.Event()
        self._built = asyncio.Event()
        self._stopped = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (answer := self._refusal(scope)) is not None:
            await answer(scope, receive, send)
            return
        self._asked.set()
        await self._built.wait()
        if self._sessions is None:
            raise RuntimeError("the tools could not be made")
        await self._sessions.handle_request(scope, receive, send)

    async def run(self) -> None:
        """Wait for the first who asks, make the tools, and keep alive what they run in until :meth:`stop`."""
        await self._asked.wait()
        await self._after()
        if self._stopped.is_set():
            return
        try:
            sessions = await asyncio.to_thread(self._build)
            async with sessions.run():
                self._sessions = sessions
                self._built.set()
                await self._stopped.wait()
        except Exception:
            logger.exception("/mcp does not work; everything else does")
        finally:
            self._built.set()

    def stop(self) -> None:
        """Let :meth:`run` end."""
        self._stopped.set()
        self._asked.set()

    def _refusal(self, scope: Scope) -> Response | None:
        if not self._installed:
            return refusal(scope, 501, "not_installed", MISSING)
        if scope["method"] != "POST":
            return refusal(scope, 405, "http_error", POST_ONLY, {"Allow": "POST"})
        if not self._may_ask(Headers(scope=scope)):
            return refusal(scope, 403, "forbidden", OTHER_SITE)
        return None

    def _may_ask(self, headers: Headers) -> bool:
        """Look at where a browser says that the page comes from; programs say nothing.

        The protocol asks for it. The framework's own check wants to know every host name that the app is
        served under, which an app behind proxies does not, and would refuse all others. What it protects are
        servers on a desktop that hold something: these tools know nothing but what is sent to them.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        return urlsplit(origin).netloc == headers.get("host", "")
