"""What a stranger may send to every route: nothing is answered with a fault of the server's, and good ones go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

VALUES: list[Any] = [
    *(
        [],
        [None],
        [1],
        ["x"],
        [{}],
        [{"path": None}],
        [{"path": 3}],
        [[1]],
        [{"path": "a"}, None, "x"],
        [None, None, -1],
    ),
    *([{"path": "x", "url": 3}, 1, 2], [{"path": "\0"}], "x", None, 3, {"a": 1}),
]
NAMES = ("analyze", "classify", "explain", "search", "analyze_batch", "status", "nope")
CALLS: list[Any] = [
    {"fn_index": 99999, "data": []},
    {"fn_index": -1, "data": []},
    {"fn_index": "a", "data": []},
    {"fn_index": None, "data": []},
    {"fn_index": 10**30, "data": []},
    {"fn_index": 0},
    {"fn_index": 0, "data": [], "session_hash": 5},
    {"fn_index": 0, "data": [], "session_hash": "x", "trigger_id": "q"},
    {"fn_index": 2, "data": [None] * 50, "session_hash": "y"},
    *([], "x", None),
]
RANGES = (
    "bytes=0-0",
    "bytes=5-1",
    "bytes=-",
    "bytes=99999999-",
    "bytes=-99999999999",
    "x",
    "bytes=0-1,3-4",
    "bytes=a-b",
)
FILES = ("/page/page.js", "/theme.css", "/examples/coffee.jpg", "/static/img/logo.svg", "/")
NAMES_OF_FILES = ("", None, "a\0b", "../../x", "a" * 5000, ".", "..", "/", "\u202e.png", "\x1b[31mred")
PART = b'--b\r\nContent-Disposition: form-data; name=""; filename=""\r\n\r\nx\r\n--b--\r\n'
BODIES = (
    *(
        PART,
        PART.replace(b'; name=""', b""),
        PART.replace(b"Content-Disposition: ", b"X: "),
        b"--b\r\n",
        b"",
        b"--b--\r\n",
    ),
    PART.replace(b'filename=""', b'filename="\xff\xfe"'),
    PART.replace(b'filename=""', b"filename*=UTF-8''%00%2e"),
)
PATHS = (
    *("/gradio_api/queue/data", "/gradio_api/queue/status", "/gradio_api/upload_progress", "/gradio_api/file="),
    *("/gradio_api/file=%00", "/gradio_api/file=a%0ab", "/gradio_api/stream/a/b/c/d", "/gradio_api/component_server"),
    *(
        "/gradio_api/deep_link",
        "/gradio_api/proxy=http://x",
        "/custom_component/a/b/c/d",
        "/assets/..%2f..%2fx",
        "/%ff",
    ),
    *(
        "/svelte/x",
        "/monitoring",
        "/pwa_icon",
        "/pwa_icon/x",
        "/manifest.json",
        "/login",
        "/token",
        "/user",
        "/dev/reload",
    ),
    *("/static/%00", "/page/%00", "/page/..", "/assets/%00", f"/static/{'a' * 3000}", f"/assets/{'a' * 3000}"),
    *(
        f"/gradio_api/file={'a' * 3000}",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/simple_predict/analyze",
    ),
)
JSON = ("/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/component_server", "/gradio_api/call/analyze")
MORE_JSON = ("/gradio_api/call/nope", "/v1/embeddings", "/api/search", "/api/analyze", "/mcp")
THINGS: list[Any] = [
    *({}, [], "x", None, {"data": None}, {"session_hash": None, "fn_index": None, "event_id": None}),
    *({"session_hash": "a", "fn_index": 1, "event_id": "e"}, {"data": [[]] * 1000}, {"input": [1, {}]}),
]

Case = dict[str, Any]


def form(name: str | None) -> Any:
    return [("files", (name, b"x"))]


def cases() -> Iterator[tuple[str, str, str, Case]]:
    """What, the method, the path and the rest of each request."""
    for name in NAMES:
        yield from (
            (f"run {name} {value}", "POST", f"/gradio_api/run/{name}", {"json": {"data": value}}) for value in VALUES
        )
    for call in CALLS:
        for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
            yield f"{path} {call}", "POST", path, {"json": call}
    for asked in RANGES:
        yield from ((f"{asked} of {path}", "GET", path, {"headers": {"Range": asked}}) for path in FILES)
    for path in ("/gradio_api/upload", "/api/analyze"):
        yield from ((f"{path} {name!r:.20}", "POST", path, {"files": form(name)}) for name in NAMES_OF_FILES)
    for path in ("/gradio_api/upload", "/api/analyze", "/api/explain"):
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        yield from ((f"{path} {body[:60]!r}", "POST", path, {"content": body, "headers": kind}) for body in BODIES)
    for path in PATHS:
        yield from ((f"{method} {path:.60}", method, path, {}) for method in ("GET", "POST", "PUT", "OPTIONS"))
    for path in (*JSON, *MORE_JSON):
        yield from ((f"{path} {thing!s:.40}", "POST", path, {"json": thing}) for thing in THINGS)
        yield (
            f"{path} rubbish",
            "POST",
            path,
            {"content": b"\xff\xfe{", "headers": {"Content-Type": "application/json"}},
        )


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


def test_nothing_that_is_sent_is_answered_with_a_fault_of_the_server(
    client: httpx.Client, photographs: dict[str, Path]
) -> None:
    faults, told, count = [], [], 0
    for what, method, path, rest in cases():
        count += 1
        answer = client.request(method, path, **rest)
        # Busy is an answer; so is what a closed door says.
        if answer.status_code >= 500 and answer.status_code != 503:
            faults.append((answer.status_code, what))
        if answer.status_code >= 400 and (
            "/tmp/" in answer.text or "site-packages" in answer.text or "\x1b" in answer.text
        ):
            told.append((what, answer.text[:200]))
    assert faults == []
    assert told == [], "no path of the server, and nothing that a terminal obeys"
    assert count >= 400
    with photographs["coffee"].open("rb") as file:
        assert client.post("/api/analyze", files={"image": file}).status_code == 200
