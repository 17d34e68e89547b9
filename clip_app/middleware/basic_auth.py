"""The password before everything but health and metrics. Pure ASGI."""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_app.middleware.body_limit import refusal, route_path

__all__ = ["BasicAuth"]


class BasicAuth:
    """HTTP Basic authentication for everything but health and metrics."""

    OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/metrics/"})

    def __init__(self, app: ASGIApp, *, credentials: str) -> None:
        """Let in whoever sends ``credentials``, which read ``user:password``."""
        self.app = app
        self._expected = credentials.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in self.OPEN or self._allowed(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        challenge = {"WWW-Authenticate": 'Basic realm="clip_app", charset="UTF-8"'}
        response = refusal(scope, 401, "unauthorized", "A user name and a password are needed.", challenge)
        await response(scope, receive, send)

    def _allowed(self, headers: Headers) -> bool:
        kind, _, value = headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(value, validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, self._expected)
