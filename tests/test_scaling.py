"""Two replicas behind a load balancer: docs/scaling.md says what works there, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from balancer import balancing
from conftest import served

FILE = {"_type": "gradio.FileData"}
TRIES = 6


@pytest.fixture(scope="module")
def replicas(server: str) -> Iterator[list[str]]:
    with served("--model", "bundled") as other:
        yield [server, other]


def ask_the_page(client: httpx.Client, picture: Path) -> str:
    """Upload, ask, fetch the answer, as the page does; return what Gradio says at the end."""
    with picture.open("rb") as file:
        (path,) = client.post("/gradio_api/upload", files={"files": file}).json()
    asked = client.post("/gradio_api/call/analyze", json={"data": [{"path": path, "meta": FILE}, None, 2]})
    if asked.status_code != 200:
        return f"refused with {asked.status_code}"
    with client.stream("GET", f"/gradio_api/call/analyze/{asked.json()['event_id']}") as events:
        return next((line for line in events.iter_lines() if line.startswith("event: ")), f"{events.status_code}")


def test_rest_works_behind_any_balancer(replicas: list[str], photographs: dict[str, Path]) -> None:
    with balancing(replicas) as balancer, httpx.Client(base_url=balancer.url, timeout=60) as client:
        for _ in range(2 * TRIES):
            with photographs["coffee"].open("rb") as picture:
                answer = client.post("/api/analyze", files={"image": picture})
            assert answer.json()["results"][0]["groups"][0]["labels"][0]["label"] == "cup of coffee"
        assert balancer.seen == {0: TRIES, 1: TRIES}


def test_the_page_needs_one_and_the_same_replica(replicas: list[str], photographs: dict[str, Path]) -> None:
    """The upload lies on the disk of one replica, and its queue knows the call."""
    with balancing(replicas) as balancer, httpx.Client(base_url=balancer.url, timeout=60) as client:
        answers = [ask_the_page(client, photographs["coffee"]) for _ in range(TRIES)]
    assert "event: complete" not in answers, answers


def test_with_a_cookie_the_page_works_and_visitors_spread(replicas: list[str], photographs: dict[str, Path]) -> None:
    with balancing(replicas, sticky=True) as balancer:
        for _ in range(TRIES):  # each a visitor with cookies of its own
            with httpx.Client(base_url=balancer.url, timeout=60) as client:
                assert ask_the_page(client, photographs["coffee"]) == "event: complete"
        assert balancer.seen == {0: 3 * TRIES // 2, 1: 3 * TRIES // 2}
