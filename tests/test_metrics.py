from __future__ import annotations

import io
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import need, served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from clip_app.endpoints import ENDPOINTS

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Samples:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def fresh() -> Iterator[str]:
    """A server of its own, whose counts nobody else moves."""
    with served("--model", "bundled") as url:
        yield url


def test_every_face_is_counted_once_with_its_outcome(fresh: str, photographs: dict[str, Path], tmp_path: Path) -> None:
    rest = f"{fresh}/api/analyze"
    good = photographs["cat"].read_bytes()
    for _ in range(3):
        assert httpx.post(rest, files={"image": good}).status_code == 200
    assert httpx.post(rest, files={"image": b"no picture"}).status_code == 400
    assert httpx.post(rest, files={"image": good}, data={"groups": "birds"}).status_code == 422
    client = Client(fresh, verbose=False)
    client.predict(handle_file(photographs["cat"]), api_name="/analyze")
    client.predict(handle_file(photographs["cat"]), "cat", api_name="/classify")
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(AppError):
        client.predict(handle_file(tmp_path / "bad.png"), api_name="/analyze")

    samples = scrape(fresh)
    analyses = {
        (dict(labels)["endpoint"], dict(labels)["outcome"]): count
        for (name, labels), count in samples.items()
        if name == "clip_app_analyses_total" and count
    }
    assert analyses == {
        ("rest", "ok"): 3,
        ("rest", "invalid"): 2,
        ("analyze", "ok"): 1,
        ("analyze", "invalid"): 1,
        ("classify", "ok"): 1,
    }
    assert value(samples, "clip_app_images_uploaded_total", source="rest") == 5
    assert value(samples, "clip_app_images_uploaded_total", source="api") == 3
    assert value(samples, "clip_app_analysis_duration_seconds_count", endpoint="rest") == 5
    for stage in ("queue", "encode", "score"):
        assert value(samples, "clip_app_stage_duration_seconds_count", stage=stage) == 5
    assert value(samples, "clip_app_batch_size_sum") == 5, "the first inference, before readiness, is nobody's picture"
    assert value(samples, "clip_app_in_flight") == value(samples, "clip_app_queue_depth") == 0


def test_the_model_and_the_process_are_described(fresh: str) -> None:
    samples = scrape(fresh)
    (info,) = [dict(labels) for (name, labels) in samples if name == "clip_app_model_info"]
    assert set(info) == {"model", "revision", "engine", "precision", "device", "bundled"}
    assert (info["model"], info["bundled"], info["engine"]) == ("bundled", "true", "openvino")
    assert value(samples, "clip_app_model_ready") == 1
    assert value(samples, "clip_app_model_load_seconds") > 0
    assert value(samples, "process_resident_memory_bytes") > 1e8
    assert value(samples, "process_cpu_seconds_total") > 0


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_both_spellings_answer_without_a_redirect(fresh: str, path: str) -> None:
    answer = httpx.get(f"{fresh}{path}", follow_redirects=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")


def test_openmetrics_is_spoken_to_who_asks_for_it(fresh: str) -> None:
    answer = httpx.get(f"{fresh}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@need("promtool")
def test_promtool_finds_nothing_to_complain_about(fresh: str) -> None:
    text = httpx.get(f"{fresh}/metrics").content
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")


def test_a_scrape_does_not_wait_for_the_model(tmp_path: Path) -> None:
    """The Hub takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"}
        with served(env=env | {"HF_HOME": str(tmp_path)}, ready=False) as url, httpx.Client(base_url=url) as client:
            while "fetched" not in client.get("/readyz").json()["message"]:
                time.sleep(0.05)
            assert value(scrape(url), "clip_app_model_ready") == 0
            assert "fetched" in client.get("/readyz").json()["message"], "the model is still on its way"


def test_hundreds_of_requests_with_distinct_labels_and_names_add_no_series(fresh: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    before = scrape(fresh)

    def ask(client: httpx.Client, i: int) -> int:
        picture = {"image": (f"secret-name-{i}.png", out.getvalue())}
        broken = {"image": (f"secret-name-{i}.png", b"no picture")}
        match i % 10:
            case 0:  # analysed
                answer = client.post("/api/analyze", files=picture, data={"labels": f"secret-label-{i}, cat"})
            case 1:
                answer = client.post("/api/analyze", files=picture)
            case 2 | 3 | 4:  # looked at and refused
                answer = client.post("/api/analyze", files=broken, data={"labels": f"secret-label-{i}"})
            case 5 | 6:
                answer = client.post("/api/analyze", files=picture, data={"groups": f"secret-group-{i}"})
            case 7:  # refused before
                answer = client.post("/api/analyze", files=picture, data={"top_k": f"secret-{i}"})
            case 8:
                answer = client.post(f"/gradio_api/call/analyze?secret={i}", content=f'{{"secret-{i}":')
            case _:
                answer = client.get(f"/secret-{i}", headers={"X-Request-ID": f"secret-{i}"})
        return answer.status_code

    def some(start: int) -> list[int]:
        with httpx.Client(base_url=fresh, timeout=60) as client:
            return [ask(client, i) for i in range(start, 400, 8)]

    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(status for part in pool.map(some, range(8)) for status in part)
    assert statuses == {200: 80, 400: 120, 422: 160, 404: 40}
    after = scrape(fresh)
    assert set(after) == set(before)
    assert len(after) < 40 * len(ENDPOINTS), "a histogram and some counters for each endpoint"
    assert "secret" not in httpx.get(f"{fresh}/metrics").text
    moved = value(after, "clip_app_images_uploaded_total", source="rest")
    assert moved - value(before, "clip_app_images_uploaded_total", source="rest") == 320
