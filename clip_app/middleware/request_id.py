"""The id of a request: in the log, in the answer's header and in error messages. Pure ASGI."""

from __future__ import annotations

import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "HEADER",
    "Promise",
    "RequestContext",
    "RequestIds",
    "address_of",
    "client_of",
    "context_of",
    "current_request",
    "enter",
]

HEADER = "X-Request-ID"
# What an exemplar, a log line and a header all hold without quoting.
WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,64}")
LONGEST_NAME = 64
CLIENTS = 4096  # whose names are remembered
HOUSEHOLD = 64  # bits of an IPv6 address; the rest anybody may change at will
KEY = "clip_app.middleware.request_id"


class Promise(Protocol):
    """A place that is kept for a picture that is on its way."""

    def take(self) -> bool:
        """Whether it was still kept; it is whoever's who took it, once."""


@dataclass
class RequestContext:
    """One request: its id, who sent it, when it came, and how many analyses it was counted as so far.

    ``client`` is an address, or what several of one household share; never logged. ``status`` is that of the error it
    ends in, where who answers knows none but 500; ``refusal`` what it is refused with once its turn comes; ``promise``
    the place that its picture was promised.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    client: str = ""
    started: float = field(default_factory=time.perf_counter)
    analyses: int = 0
    status: int | None = None
    refusal: str | None = None
    promise: Promise | None = None


# Follows a request through tasks and threads, so that any line of the log can name it.
_current: ContextVar[RequestContext | None] = ContextVar("call", default=None)


def current_request() -> RequestContext | None:
    """Return the request that is being answered, None outside of any."""
    return _current.get()


def enter(context: RequestContext) -> None:
    """Answer this request from here on, in this task and the threads it starts."""
    _current.set(context)


def context_of(scope: Scope) -> RequestContext:
    """Return the request behind an ASGI scope."""
    context = scope.get(KEY)
    return context if isinstance(context, RequestContext) else RequestContext()


def client_of(scope: Scope) -> str:
    """Return who sends a request, as :func:`address_of` names them."""
    return address_of(str((scope.get("client") or ("",))[0]))


@lru_cache(CLIENTS)
def address_of(host: str) -> str:
    """Name a client by an address, of IPv6 by the network that one household has."""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:LONGEST_NAME] or "unknown"
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or ip_network((int(address), HOUSEHOLD), strict=False))


class RequestIds:
    """Gives every request an id, its own where it brings a well-formed one, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        context = RequestContext(given) if WELL_FORMED.fullmatch(given) else RequestContext()
        context.client = client_of(scope)
        # Never taken back: the server logs what the application lets through after it has returned,
        # and every request has a task of its own.
        enter(context)

        async def label(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 500 and context.status is not None:
                    message["status"] = context.status
                headers = MutableHeaders(scope=message)
                headers[HEADER] = context.id
                if message["status"] == 503 and scope["method"] == "POST":  # Gradio's full queue says not when
                    headers.setdefault("Retry-After", "1")
            await send(message)

        # In the scope as well: Gradio runs queued events in tasks that know only the scope.
        await self.app(dict(scope, **{KEY: context}), receive, label)
