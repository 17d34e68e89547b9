from __future__ import annotations

import json

import pytest
from asgi import answer, ask
from starlette.types import Receive, Scope, Send

from clip_app.middleware.root_path import RootPath


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, 200, [scope["root_path"], scope["path"]])


def seen(root_path: str, path: str) -> list[str]:
    return list(json.loads(ask(RootPath(echo, root_path=root_path), path, method="GET").body))


@pytest.mark.parametrize("root_path", ["/clip", "/clip/", "https://example.org/clip", "https://example.org/clip/"])
@pytest.mark.parametrize("path", ["/api/analyze", "/clip/api/analyze"])
def test_a_prefix_is_in_the_path_once_whether_the_proxy_keeps_it_or_not(root_path: str, path: str) -> None:
    assert seen(root_path, path) == ["/clip", "/clip/api/analyze"]


def test_a_path_that_only_begins_alike_is_another() -> None:
    assert seen("/clip", "/clipboard") == ["/clip", "/clip/clipboard"]
    assert seen("/clip", "/clip") == ["/clip", "/clip"]


@pytest.mark.parametrize("root_path", ["", "/", "https://example.org"])
def test_without_a_prefix_nothing_changes(root_path: str) -> None:
    assert seen(root_path, "/api/analyze") == ["", "/api/analyze"]
