"""The real huggingface_hub client, in the real program, against a Hub of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import READY_SECONDS, free_port, served, small_checkpoint, warm
from fake_hub import REVISION, FakeHub, size


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(small_checkpoint()).running() as hub:
        yield hub


def environment(cache: Path, endpoint: str) -> dict[str, str]:
    return {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


def analyze(photo: Path, env: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clip_app", "analyze", str(photo), "--labels", "cat,dog", "--format", "json"]
    return subprocess.run([*command, *flags], env=os.environ | env, capture_output=True, text=True, timeout=120)


def test_the_model_is_fetched_once_and_then_needs_no_request(
    hub: FakeHub, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    env = environment(warm(tmp_path, hub.repo, REVISION), hub.endpoint)
    flags = ("--model", hub.repo, "--revision", REVISION, "--fallback", "none")
    first = analyze(photographs["cat"], env, *flags)
    assert first.returncode == 0, first.stderr
    model = json.loads(first.stdout)[0]["model"]
    assert (model["id"], model["revision"], model["bundled"]) == (hub.repo, REVISION, False)
    assert any("model.safetensors" in line for line in hub.log)
    assert not any("README" in line for line in hub.log), "only what the model needs is fetched"

    hub.requests.clear()
    second = analyze(photographs["cat"], env, *flags)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)[0]["groups"] == json.loads(first.stdout)[0]["groups"]
    assert hub.log == []


def test_the_page_is_up_and_tells_the_progress_while_the_model_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    hub.open.clear()
    env = environment(warm(tmp_path, hub.repo, REVISION), hub.endpoint)
    with served("--model", hub.repo, "--revision", REVISION, env=env, ready=False) as url:
        assert httpx.get(url).status_code == 200
        deadline = time.monotonic() + READY_SECONDS
        while (state := httpx.get(f"{url}/readyz")).json()["phase"] != "fetching" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert state.status_code == 503
        assert "fetched from the Hub" in state.json()["message"]
        refused = httpx.post(f"{url}/api/analyze", files={"image": b"x"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "not_ready"
        hub.open.set()
        while (state := httpx.get(f"{url}/readyz")).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert state.json() | {"message": ""} == {
            "ready": True,
            "phase": "ready",
            "progress": 1.0,
            "done_bytes": None,
            "total_bytes": None,
            "message": "",
            "reason": None,
            "left_out": [],
        }
        scrape = httpx.get(f"{url}/metrics").text
        downloaded = next(line for line in scrape.splitlines() if line.startswith("clip_app_hub_download_bytes_total "))
        assert float(downloaded.split()[1]) >= size(hub.files["model.safetensors"])


@pytest.mark.parametrize(
    ("repo", "revision", "says"),
    [
        ("acme/nothing", REVISION, "CLIP_APP_MODEL"),
        ("acme/tiny-clip", "f" * 40, "CLIP_APP_REVISION"),
    ],
)
def test_what_the_hub_does_not_have_names_the_setting_to_change(
    hub: FakeHub, tmp_path: Path, photographs: dict[str, Path], repo: str, revision: str, says: str
) -> None:
    env = environment(tmp_path, hub.endpoint)
    run = analyze(photographs["cat"], env, "--model", repo, "--revision", revision, "--fallback", "none")
    assert run.returncode == 1
    assert says in run.stderr
    assert str(tmp_path) not in run.stderr


def test_a_repository_without_safetensors_is_refused(
    hub: FakeHub, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")
    env = environment(tmp_path, hub.endpoint)
    run = analyze(photographs["cat"], env, "--model", hub.repo, "--revision", REVISION, "--fallback", "none")
    assert run.returncode == 1
    assert "safetensors" in run.stderr
    assert not any("pytorch_model.bin" in line for line in hub.log)


def test_an_unreachable_hub_lets_the_bundled_model_serve_and_says_why(tmp_path: Path) -> None:
    env = environment(tmp_path, f"http://127.0.0.1:{free_port()}")
    with served(env=env) as url:
        state = httpx.get(f"{url}/readyz").json()
        assert state["ready"]
        assert "The Hub cannot be reached" in state["reason"]
        assert 'clip_app_hub_failures_total{reason="network"} 1.0' in httpx.get(f"{url}/metrics").text


def test_without_a_fallback_it_stays_not_ready_with_the_reason(tmp_path: Path) -> None:
    env = environment(tmp_path, f"http://127.0.0.1:{free_port()}")
    with served("--fallback", "none", env=env, ready=False) as url:
        deadline = time.monotonic() + READY_SECONDS
        while (state := httpx.get(f"{url}/readyz")).json()["phase"] != "failed" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert state.status_code == 503
        assert "The Hub cannot be reached" in state.json()["reason"]
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_local_folder_is_a_model_and_a_missing_one_is_named(photographs: dict[str, Path], tmp_path: Path) -> None:
    run = analyze(photographs["cat"], {}, "--model", str(small_checkpoint()), "--fallback", "none")
    assert json.loads(run.stdout)[0]["model"]["id"] == "small-clip"
    assert json.loads(run.stdout)[0]["model"]["revision"] == "local"
    run = analyze(photographs["cat"], {}, "--model", str(tmp_path / "none"), "--fallback", "none")
    assert run.returncode == 1
    assert "CLIP_APP_MODEL names a folder that does not exist" in run.stderr
