"""The prefix under which a proxy serves the app, whether it keeps it in the path or takes it off. Pure ASGI."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["RootPath"]


class RootPath:
    """Puts ROOT_PATH into every request's scope, and in front of the path where the proxy took it off."""

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        """``root_path`` is a prefix such as ``/clip``, or the public address that ends in one."""
        self.app = app
        self._prefix = urlsplit(root_path).path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._prefix:
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        if path != self._prefix and not path.startswith(f"{self._prefix}/"):
            path = self._prefix + path
        await self.app(dict(scope, root_path=self._prefix, path=path, raw_path=quote(path).encode()), receive, send)
