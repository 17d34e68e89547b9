from __future__ import annotations

import json
from collections.abc import Mapping
from typing import get_args

import pytest
from asgi import answer, ask, read
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_app.endpoints import ANALYZE, CLASSIFY, ENDPOINTS, EXPLAIN, GRADIO, PAGE, REST, Endpoint
from clip_app.errors import Outcome
from clip_app.middleware.body_limit import JSON_LIMIT
from clip_app.middleware.counting import Counting
from clip_app.middleware.request_id import RequestIds, context_of

FUNCTIONS = {0: PAGE, 1: ANALYZE, 3: CLASSIFY}


def answers(status: int) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await answer(send, status)

    return app


def counted() -> dict[tuple[str, str], float]:
    found = {}
    for endpoint in ENDPOINTS:
        for outcome in get_args(Outcome):
            labels = {"endpoint": endpoint, "outcome": outcome}
            found[endpoint, outcome] = REGISTRY.get_sample_value("clip_app_analyses_total", labels) or 0.0
    return found


def refused(app: ASGIApp, path: str, body: bytes = b"", **options: str) -> dict[tuple[str, str], float]:
    """Ask, and return what was counted for it."""
    before = counted()
    ask(RequestIds(Counting(app, functions=FUNCTIONS)), path, body, **options)  # type: ignore[arg-type]
    return {key: value - before[key] for key, value in counted().items() if value != before[key]}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, "invalid"), (413, "invalid"), (429, "rejected"), (499, "invalid"), (500, "error"), (503, "rejected")],
)
def test_the_answers_status_says_how_it_ended(status: int, outcome: str) -> None:
    assert refused(answers(status), "/api/analyze") == {("rest", outcome): 1}
    assert refused(answers(status), "/api/analyze/") == {("rest", outcome): 1}
    assert refused(answers(status), "/api/analyze", root_path="/clip") == {("rest", outcome): 1}
    assert refused(answers(status), "/api/explain") == {("rest_explain", outcome): 1}


@pytest.mark.parametrize("status", [200, 204, 307, 399])
def test_what_was_not_refused_is_not_counted(status: int) -> None:
    assert refused(answers(status), "/api/analyze") == {}


@pytest.mark.parametrize("path", ["/api/status", "/", "/gradio_api/queue/data", "/gradio_api/callx/analyze"])
def test_what_asks_for_no_analysis_is_not_counted(path: str) -> None:
    assert refused(answers(400), path) == {}


def test_a_look_at_the_route_is_not_counted() -> None:
    assert refused(answers(405), "/api/analyze", method="GET") == {}


def test_what_was_counted_as_an_analysis_is_not_counted_again() -> None:
    async def analyses(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).analyses += 1
        await answer(send, 400)

    assert refused(analyses, "/api/analyze") == {}


def test_an_application_that_fails_without_an_answer_is_an_error() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("no answer")

    before = counted()
    with pytest.raises(RuntimeError):
        ask(RequestIds(Counting(fails, functions=FUNCTIONS)), "/api/analyze")
    assert counted()["rest", "error"] - before["rest", "error"] == 1


def test_an_upload_of_the_page_is_told_from_a_programs() -> None:
    assert refused(answers(413), "/gradio_api/upload", query="upload_id=7") == {("ui", "invalid"): 1}
    assert refused(answers(413), "/gradio_api/upload", query="other=7") == {("gradio", "invalid"): 1}


JOINS: list[tuple[object, Mapping[Endpoint, float]]] = [
    ({"fn_index": 0}, {PAGE: 1}),
    ({"fn_index": 1}, {ANALYZE: 1}),
    ({"fn_index": 2}, {}),
    ({"fn_index": "0"}, {GRADIO: 1}),
    ({}, {GRADIO: 1}),
    ([], {GRADIO: 1}),
]


@pytest.mark.parametrize(("body", "expected"), JOINS)
def test_a_full_queue_counts_for_whom_the_function_is(body: object, expected: Mapping[Endpoint, float]) -> None:
    found = refused(answers(503), "/gradio_api/queue/join", json.dumps(body).encode())
    assert found == {(endpoint.name, "rejected"): count for endpoint, count in expected.items()}


@pytest.mark.parametrize("way", ["call/v2", "call", "run", "api"])
def test_a_named_function_counts_by_its_name(way: str) -> None:
    for name, expected in (("analyze", ANALYZE), ("classify", CLASSIFY), ("explain", EXPLAIN)):
        assert refused(answers(422), f"/gradio_api/{way}/{name}", b"{") == {(expected.name, "invalid"): 1}
    assert refused(answers(422), f"/gradio_api/{way}/status", b"{}") == {}


def test_a_refused_picture_is_an_uploaded_one() -> None:
    def uploaded(source: str) -> float:
        return REGISTRY.get_sample_value("clip_app_images_uploaded_total", {"source": source}) or 0.0

    before = uploaded("rest"), uploaded("ui")
    refused(answers(413), "/api/analyze")
    assert (uploaded("rest") - before[0], uploaded("ui") - before[1]) == (1, 0)
    assert REST.source == "rest"


@pytest.mark.parametrize("size", [900_000, JSON_LIMIT + 1, 2 * JSON_LIMIT])
def test_a_question_of_the_page_is_known_however_large_its_picture(size: int) -> None:
    body = json.dumps({"data": ["A" * size], "fn_index": 0}).encode()
    assert refused(answers(500), "/gradio_api/run/predict", body) == {("ui", "error"): 1}


@pytest.mark.parametrize("size", [900_000, JSON_LIMIT, JSON_LIMIT + 1])
def test_a_body_is_listened_to_until_it_is_larger_than_json_may_be(size: int) -> None:
    body = json.dumps({"fn_index": 0}).encode().rjust(size)
    before = counted()["ui", "rejected"]
    ask(
        RequestIds(Counting(answers(503), functions=FUNCTIONS)),
        "/gradio_api/queue/join",
        body[:JSON_LIMIT],
        body[JSON_LIMIT:],
    )
    assert counted()["ui", "rejected"] - before == 1
