"""The route of the tools before they are there; test_mcp.py is about the tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.types import Receive, Scope, Send

from clip_app.mcp_route import McpRoute


class Answers:
    """Stands for what is built: it answers with nothing."""

    def run(self) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def running() -> AsyncIterator[None]:
            yield

        return running()

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})


def test_its_framework_is_imported_once_somebody_asks_and_not_beside_the_page() -> None:
    """Gradio imports the same package, and two threads that import one at once may find half of it."""
    done: list[str] = []

    async def ask() -> None:
        page = asyncio.Event()

        async def after() -> None:
            await page.wait()

        def build() -> Answers:
            done.append("imported")
            return Answers()

        async def receive() -> dict[str, object]:
            return {"type": "http.request"}

        async def send(message: object) -> None:
            done.append("answered")

        route = McpRoute(build, after=after, origins=())
        running = asyncio.create_task(route.run())
        await asyncio.sleep(0)
        assert done == [], "nobody asked"
        asked = asyncio.create_task(route({"type": "http", "method": "POST", "headers": []}, receive, send))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert done == [], "the page is not there yet"
        page.set()
        await asyncio.wait_for(asked, 30)
        route.stop()
        await running

    asyncio.run(ask())
    assert done == ["imported", "answered"]
