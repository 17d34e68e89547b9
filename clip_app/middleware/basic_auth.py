"""The password before everything but health and metrics. Pure ASGI."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_app.middleware.body_limit import answer_unread, refusal, route_path
from clip_app.middleware.request_id import client_of

__all__ = ["BasicAuth", "Failures"]

HEALTH = frozenset({"/healthz", "/readyz"})
METRICS = frozenset({"/metrics", "/metrics/"})
CHALLENGE = {"WWW-Authenticate": 'Basic realm="clip_app", charset="UTF-8"'}
BURST = 10  # wrong passwords
SECONDS_EACH = 6.0  # after which one more may be tried
MOST_CLIENTS = 10_000


class Failures:
    """How many wrong passwords came from whom lately; whoever sent too many waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when each would be forgotten

    def wait(self, client: str) -> int:
        """Return for how many seconds a client may not try; 0: now."""
        over = self._free_at.get(client, 0.0) - self._clock() - (BURST - 1) * SECONDS_EACH
        return max(0, math.ceil(over))

    def add(self, client: str) -> None:
        """Take note of a wrong password."""
        self._free_at[client] = max(self._clock(), self._free_at.pop(client, 0.0)) + SECONDS_EACH
        while len(self._free_at) > MOST_CLIENTS:
            self._free_at.popitem(last=False)


class BasicAuth:
    """HTTP Basic authentication for everything but health and, unless they are to be closed, metrics."""

    def __init__(self, app: ASGIApp, *, credentials: str, for_metrics: bool = False) -> None:
        """Let in whoever sends ``credentials``, which read ``user:password``; ``for_metrics`` closes those as well."""
        self.app = app
        self._expected = credentials.encode()
        self._open = HEALTH if for_metrics else HEALTH | METRICS
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in self._open:
            await self.app(scope, receive, send)
            return
        client, given = client_of(scope), Headers(scope=scope).get("authorization", "")
        if given and (wait := self._failures.wait(client)):
            message = f"Too many wrong passwords came from your address. Try again in {wait} seconds."
            answer = refusal(scope, 429, "too_many_attempts", message, {"Retry-After": str(wait)})
            await answer_unread(answer, scope, receive, send)
        elif self._allowed(given):
            await self.app(scope, receive, send)
        else:
            if given:
                self._failures.add(client)
            answer = refusal(scope, 401, "unauthorized", "A user name and a password are needed.", CHALLENGE)
            await answer_unread(answer, scope, receive, send)

    def _allowed(self, header: str) -> bool:
        kind, _, value = header.partition(" ")
        try:
            given = base64.b64decode(value, validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, self._expected)
