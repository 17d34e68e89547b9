from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import need, served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from prometheus_client.parser import text_string_to_metric_families

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
    assert value(samples, "clip_app_batch_size_sum") == 5 + 1  # and the first inference, before readiness
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
