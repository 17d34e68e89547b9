"""Who asks, where a proxy that is trusted says so. Pure ASGI."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

__all__ = ["Forwarded", "Proxies"]

CLIENTS = 4096  # of whom it is remembered
PREFIX = b"x-forwarded-"


class Proxies:
    """Addresses and networks of proxies that are trusted."""

    def __init__(self, named: Sequence[str]) -> None:
        self._networks = [ip_network(proxy) for proxy in named]
        self._known = lru_cache(CLIENTS)(self._is_one)

    def __contains__(self, host: str) -> bool:
        return self._known(host)

    def _is_one(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class Forwarded:
    """Believes X-Forwarded-For and X-Forwarded-Proto of proxies that are named, and takes them off whoever else."""

    def __init__(self, app: ASGIApp, *, proxies: Sequence[str]) -> None:
        """``proxies`` are addresses or networks."""
        self.app = app
        self._proxies = Proxies(proxies)
        self._believing = cast(ASGIApp, ProxyHeadersMiddleware(app, trusted_hosts=list(proxies)))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope.get("client") or ("",))[0] not in self._proxies:
            scope = dict(scope, headers=[h for h in scope["headers"] if not h[0].lower().startswith(PREFIX)])
            await self.app(scope, receive, send)
            return
        await self._believing(scope, receive, send)
