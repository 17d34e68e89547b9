from __future__ import annotations

import asyncio
import base64
import json

import pytest
from asgi import answer, ask, read
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_app.middleware.basic_auth import BasicAuth
from clip_app.middleware.body_limit import JSON_LIMIT, BodyLimit, error_response, route_path
from clip_app.middleware.request_id import RequestIds

OVERHEAD = 1_000_000  # what a form may have around its pictures
UPLOAD, REQUEST = 2_000_000, 3_000_000
LIMITS = {
    "/gradio_api/upload": UPLOAD + OVERHEAD,
    "/api/analyze": REQUEST + OVERHEAD,
    "/gradio_api/run/predict": 2_666_668 + OVERHEAD,  # the same picture in base64
    "/gradio_api/queue/join": JSON_LIMIT,
    "/": JSON_LIMIT,
}


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body and the names of the headers."""
    body = await read(receive)
    await answer(send, 200, [len(body), [name.decode() for name, _ in scope["headers"]]])


def guarded(app: ASGIApp = reads_all) -> ASGIApp:
    return BodyLimit(app, upload_bytes=UPLOAD, request_bytes=REQUEST)


@pytest.mark.parametrize(("path", "limit"), LIMITS.items())
@pytest.mark.parametrize("told", [True, False], ids=["with its length told", "in pieces"])
def test_a_body_of_the_limit_passes_and_a_byte_more_does_not(path: str, limit: int, told: bool) -> None:
    for size, status in ((limit, 200), (limit + 1, 413)):
        headers = {"Content-Length": str(size)} if told else {}
        half = bytes(size // 2)
        found = ask(guarded(), path, half, bytes(size - len(half)), headers=headers)
        assert found.status == status
        if status == 200:
            assert json.loads(found.body)[0] == size


@pytest.mark.parametrize(("path", "megabytes"), [("/gradio_api/upload", 2), ("/api/analyze", 3), ("/", 1)])
def test_too_large_a_body_is_answered_with_the_limit_and_the_setting(path: str, megabytes: int) -> None:
    found = ask(guarded(), path, headers={"Content-Length": "999999999"})
    assert (found.status, found.error["code"]) == (413, "too_large")
    assert f"larger than {megabytes} MB" in found.error["message"]
    assert "CLIP_APP_MAX_UPLOAD_MB" in found.error["message"]


def test_of_too_large_a_body_twice_the_limit_is_thrown_away_and_no_more() -> None:
    tenth = bytes(JSON_LIMIT // 10)
    assert ask(guarded(), "/", *[tenth] * 15, headers={"Content-Length": "1500000"}).unread == 0
    assert ask(guarded(), "/", *[tenth] * 40, headers={"Content-Length": "4000000"}).unread == 20


def test_an_application_cannot_answer_for_a_body_that_it_did_not_get() -> None:
    async def shrugs(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await read(receive)
        except Exception:
            await answer(send, 400)

    assert ask(guarded(shrugs), "/", bytes(JSON_LIMIT), b"x").status == 413


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 202)
        await read(receive)

    assert ask(guarded(hasty), "/", bytes(JSON_LIMIT), b"x").status == 202


@pytest.mark.parametrize("root_path", ["", "/clip"])
@pytest.mark.parametrize(
    "path", ["/gradio_api/file=https://example.com/x", "/gradio_api/proxy=x", "/gradio_api/runs", "/monitoring/summary"]
)
def test_doors_that_are_not_used_are_closed(path: str, root_path: str) -> None:
    found = ask(guarded(), path, root_path=root_path, method="GET")
    assert (found.status, found.error["code"]) == (404, "not_found")
    assert ask(guarded(), "/gradio_api/file=/x.png", root_path=root_path, method="GET").status == 200


def test_headers_that_anybody_can_forge_do_not_reach_the_page() -> None:
    headers = {"X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil.example", "Accept": "text/html"}
    assert json.loads(ask(guarded(), "/", headers=headers, method="GET").body)[1] == ["accept"]


REMOTE = [
    {"path": "http://example.com/x.png"},
    {"data": [1, [{"deep": {"path": "https://example.com"}}], {}]},
    [{"path": "  HTTPS://example.com"}],
]


@pytest.mark.parametrize("value", REMOTE)
def test_a_body_that_names_a_picture_on_the_web_goes_no_further(value: object) -> None:
    found = ask(guarded(), "/gradio_api/call/analyze", json.dumps(value).encode())
    assert (found.status, found.error["code"]) == (422, "bad_option")
    assert "Download it and upload the file" in found.error["message"]
    assert ask(guarded(), "/api/analyze", json.dumps(value).encode()).status == 200, "only Gradio would fetch it"


HARMLESS = [b"", b"[]", b'{"path": "/tmp/x.png"}', b'{"path": 7, "url": "http://x"}', b"no JSON", b"[" * 100_000]


@pytest.mark.parametrize("body", HARMLESS, ids=["empty", "list", "file", "other name", "text", "nested too deep"])
def test_any_other_body_arrives_whole(body: bytes) -> None:
    async def echoes(scope: Scope, receive: Receive, send: Send) -> None:
        content = await read(receive)
        await answer(send, 200, [content.decode(), (await receive())["type"]])

    found = ask(guarded(echoes), "/gradio_api/call/analyze", body[: len(body) // 2], body[len(body) // 2 :])
    assert json.loads(found.body) == [body.decode(), "http.disconnect"]


def test_whoever_hangs_up_half_way_is_not_waited_for() -> None:
    assert json.loads(ask(guarded(), "/gradio_api/call/analyze", b"[1,", hang_up=True).body)[0] == 3
    too_much = ask(guarded(), "/", b"x", headers={"Content-Length": "9999999"}, hang_up=True)
    assert too_much.status == 413


def credentials(text: str, kind: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{kind} {base64.b64encode(text.encode()).decode()}"}


def test_the_right_password_opens_every_door() -> None:
    app = BasicAuth(reads_all, credentials="me:pass:wörd")
    assert ask(app, "/", headers=credentials("me:pass:wörd")).status == 200
    assert ask(app, "/", headers=credentials("me:pass:wörd", "bAsIc")).status == 200


@pytest.mark.parametrize(
    "headers",
    [{}, credentials("me:wrong"), credentials("me:passx"), credentials("me:pass", "Bearer"), {"Authorization": "Basic"}]
    + [{"Authorization": text} for text in ("Basic me:pass", "Basic ????", "Basic bWU6cGFzc")],
)
def test_anything_else_is_asked_for_it(headers: dict[str, str]) -> None:
    found = ask(BasicAuth(reads_all, credentials="me:pass"), "/", headers=headers)
    assert (found.status, found.error["code"]) == (401, "unauthorized")
    assert found.headers["www-authenticate"].startswith('Basic realm="clip_app"')


@pytest.mark.parametrize("root_path", ["", "/clip"])
def test_health_and_metrics_need_no_password_and_nothing_else_does_without(root_path: str) -> None:
    app = BasicAuth(reads_all, credentials="me:pass")
    for path in ("/healthz", "/readyz", "/metrics", "/metrics/"):
        assert ask(app, path, method="GET", root_path=root_path).status == 200
    for path in ("/", "/healthz/", "/api/analyze", "/metrics/x"):
        assert ask(app, path, method="GET", root_path=root_path).status == 401


def test_what_is_no_request_goes_through_both() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing() -> Message:
        return {}

    async def nowhere(message: Message) -> None:
        return None

    scope: Scope = {"type": "lifespan"}
    asyncio.run(BasicAuth(guarded(app), credentials="me:pass")(scope, nothing, nowhere))
    assert seen == [scope]


def test_an_error_names_the_request_that_it_answers() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(418, "teapot", "No coffee.", {"X-Pot": "tea"})(scope, receive, send)

    found = ask(RequestIds(fails), "/", headers={"X-Request-ID": "seven"})
    assert found.error == {"code": "teapot", "message": "No coffee.", "request_id": "seven"}
    assert found.headers["x-pot"] == "tea"
    assert ask(fails, "/").error == {"code": "teapot", "message": "No coffee."}


def test_the_path_of_a_route_is_the_one_behind_the_proxy() -> None:
    assert route_path({"path": "/clip/api", "root_path": "/clip"}) == "/api"
    assert route_path({"path": "/clip/api"}) == "/clip/api"
