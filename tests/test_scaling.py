"""Two replicas behind a load balancer: docs/scaling.md says what works there, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from balancer import balancing
from conftest import served
from gradio_client import Client, handle_file
from playwright.sync_api import expect
from real_browser import add_label, answered, chromium, put_in, verdict, visit

FILE = {"_type": "gradio.FileData"}
TRIES = 6


@pytest.fixture(scope="module")
def replicas(server: str) -> Iterator[list[str]]:
    with served("--model", "bundled") as other:
        yield [server, other]


def ask_in_three_steps(client: httpx.Client, picture: Path, replicas: tuple[str, str, str] = ("", "", "")) -> str:
    """Upload, call and fetch the answer, as gradio_client does; return what the stream of the answer says."""
    upload, call, answer = replicas
    with picture.open("rb") as file:
        (path,) = client.post(f"{upload}/gradio_api/upload", files={"files": file}).json()
    data = {"data": [{"path": path, "meta": FILE}, None, 2]}
    event = client.post(f"{call}/gradio_api/call/analyze", json=data).json()["event_id"]
    with client.stream("GET", f"{answer}/gradio_api/call/analyze/{event}") as events:
        return next(line for line in events.iter_lines() if line.startswith("event: "))


def test_rest_works_behind_any_balancer(replicas: list[str], photographs: dict[str, Path]) -> None:
    with balancing(replicas) as balancer, httpx.Client(base_url=balancer.url, timeout=60) as client:
        for _ in range(2 * TRIES):
            with photographs["coffee"].open("rb") as picture:
                answer = client.post("/api/analyze", files={"image": picture})
            assert answer.json()["results"][0]["groups"][0]["labels"][0]["label"] == "cup of coffee"
        assert balancer.seen == {0: TRIES, 1: TRIES}


def test_each_question_of_the_page_may_go_to_another_replica(replicas: list[str], photographs: dict[str, Path]) -> None:
    with chromium() as browser, balancing(replicas) as balancer:
        failed: list[str] = []
        for _ in range(TRIES):  # each a visitor of its own
            with visit(browser, balancer.url) as page:
                page.on("response", lambda r: failed.append(r.url) if r.status >= 400 else None)
                put_in(page, photographs["coffee"])
                answered(page)
                assert verdict(page).startswith("Best match: cup of coffee")
                add_label(page, "a mug")
                expect(page.locator('[data-group="labels"] .ca-row').first).to_be_attached()
        assert failed == []
        assert min(balancer.seen.values()) > TRIES


@pytest.mark.parametrize("says_so", [True, False], ids=["502", "connection closed"])
def test_a_replica_that_ends_between_two_answers_goes_unnoticed(
    replicas: list[str], photographs: dict[str, Path], says_so: bool
) -> None:
    with chromium() as browser, balancing(list(replicas)) as balancer:
        balancer.says_so = says_so
        with visit(browser, balancer.url) as page:
            put_in(page, photographs["coffee"])
            answered(page)
            balancer.replicas[1] = "http://127.0.0.1:1"  # gone, and the balancer does not know it yet
            for label in ("a mug", "a dog", "a cup"):
                add_label(page, label)
                expect(page.locator('[data-group="labels"] .ca-label').filter(has_text=label)).to_be_attached()
                assert "cannot be reached" not in verdict(page)


@pytest.mark.parametrize(
    ("upload", "call", "answer", "end"),
    [
        (0, 0, 0, "event: complete"),
        (0, 1, 1, "event: error"),  # the upload lies on the disk of the other one
        (0, 0, 1, "event: error"),  # the call waits in the queue of the other one
    ],
)
def test_a_program_that_uploads_first_needs_one_and_the_same_replica(
    replicas: list[str], photographs: dict[str, Path], upload: int, call: int, answer: int, end: str
) -> None:
    chosen = (replicas[upload], replicas[call], replicas[answer])
    with httpx.Client(timeout=60) as client:
        assert ask_in_three_steps(client, photographs["coffee"], chosen) == end


def test_with_a_cookie_programs_work_and_spread(replicas: list[str], photographs: dict[str, Path]) -> None:
    with balancing(replicas, sticky=True) as balancer:
        for _ in range(TRIES):  # each with cookies of its own
            with httpx.Client(base_url=balancer.url, timeout=60) as client:
                assert ask_in_three_steps(client, photographs["coffee"]) == "event: complete"
        assert balancer.seen == {0: 3 * TRIES // 2, 1: 3 * TRIES // 2}


def test_gradios_client_keeps_the_cookie(replicas: list[str], photographs: dict[str, Path]) -> None:
    with balancing(replicas, sticky=True) as balancer:
        for _ in range(2):
            client = Client(balancer.url, verbose=False)
            result = client.predict(handle_file(photographs["coffee"]), top_k=1, api_name="/analyze")
            assert result["groups"][0]["labels"][0]["label"] == "cup of coffee"
        assert all(balancer.seen.values())
