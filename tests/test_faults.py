"""What breaks beside the model: it is said where an operator looks, and the rest goes on."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import READY_SECONDS, free_port, served, small_checkpoint, wait_for, warm
from PIL import Image

from clip_app.uploads import upload_folder


def test_a_page_that_cannot_be_built_is_told_by_readyz_and_the_rest_answers(
    tmp_path: Path, photographs: dict[str, Path]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['gradio'] = None\n")
    with served("--model", "bundled", env={"PYTHONPATH": str(tmp_path)}, ready=False) as url:
        page = httpx.get(url)
        assert page.status_code == 503
        assert page.json()["error"]["message"].startswith("The page could not be built; everything else works. It was ")
        state = httpx.get(f"{url}/readyz")
        assert (state.status_code, state.json()["ready"]) == (503, False)
        assert "ModuleNotFoundError" in state.json()["reason"]
        assert httpx.get(f"{url}/healthz").status_code == 200
        deadline = time.monotonic() + READY_SECONDS
        with photographs["coffee"].open("rb") as file:
            picture = file.read()
        while (answer := httpx.post(f"{url}/api/analyze", files={"image": picture})).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert answer.json()["results"][0]["groups"]


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTPS_PROXY"])
def test_a_socks_proxy_in_the_environment_stops_nothing(variable: str) -> None:
    quiet = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    with served("--model", "bundled", env=quiet | {variable: "socks5://localhost:9"}) as url:
        client = httpx.Client(trust_env=False)
        assert client.get(url).status_code == 200
        assert client.get(f"{url}/config").status_code == 200


def test_what_a_killed_server_left_is_swept_at_the_next_start_and_a_living_one_s_is_not(
    tmp_path: Path, photographs: dict[str, Path]
) -> None:
    shared = {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "clip_app", "serve", "--model", "bundled", "--port", str(port := free_port())]
    killed = subprocess.Popen(command, env=os.environ | shared)
    wait_for(f"http://127.0.0.1:{port}/readyz", killed)
    with photographs["coffee"].open("rb") as file:
        httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files={"files": file}).raise_for_status()
    (theirs,) = tmp_path.glob("clip_app-uploads-*")
    assert list(theirs.rglob("*.png"))
    (tmp_path / "clip_app-uploads-link").symlink_to(tmp_path)
    with living(tmp_path) as ours:
        assert theirs.exists(), "its server lives"
        killed.kill()
        killed.wait()
    with living(tmp_path) as ours:
        assert not theirs.exists()
        assert ours.exists()
    assert (tmp_path / "clip_app-uploads-link").is_symlink(), "it was made by somebody else, and leads elsewhere"


@contextmanager
def living(folder: Path) -> Iterator[Path]:
    """Hold a folder of uploads in this process."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        with upload_folder() as ours:
            yield ours
    finally:
        tempfile.tempdir = before


FULL = """
import errno, tempfile
class Full(tempfile._TemporaryFileWrapper):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")
tempfile._TemporaryFileWrapper = Full
def rollover(self):
    raise OSError(errno.ENOSPC, "No space left on device")
tempfile.SpooledTemporaryFile.rollover = rollover
"""


def test_a_disk_without_room_is_told_and_what_needs_none_goes_on(tmp_path: Path, photographs: dict[str, Path]) -> None:
    (tmp_path / "sitecustomize.py").write_text(FULL)
    large = io.BytesIO()
    with Image.open(photographs["coffee"]) as image:
        image.convert("RGB").resize((1200, 900)).save(large, "BMP")  # larger than what is kept in memory
    with served("--model", "bundled", env={"PYTHONPATH": str(tmp_path)}) as url:
        for path, field in (("/api/analyze", "image"), ("/gradio_api/upload", "files")):
            answer = httpx.post(f"{url}{path}", files={field: ("x.bmp", large.getvalue())})
            assert answer.status_code == 507, path
            assert "no room" in answer.json()["error"]["message"]
            assert str(tmp_path) not in answer.text
        small = photographs["coffee"].read_bytes()
        assert httpx.post(f"{url}/api/analyze", files={"image": small}).status_code == 200


def test_a_stop_under_load_answers_what_was_accepted_though_streams_are_open(photographs: dict[str, Path]) -> None:
    picture = photographs["coffee"].read_bytes()
    with ThreadPoolExecutor(9) as pool, served("--model", "bundled") as url:
        streaming = threading.Event()

        def stream() -> None:
            with httpx.stream("GET", f"{url}/gradio_api/heartbeat/one") as answer:
                for _ in answer.iter_raw():
                    streaming.set()

        open_stream = pool.submit(stream)
        assert streaming.wait(60)
        asked = [pool.submit(httpx.post, f"{url}/api/analyze", files={"image": picture}) for _ in range(8)]
        while not any(future.done() for future in asked):
            time.sleep(0.01)
    statuses = [future.result().status_code if future.exception() is None else None for future in asked]
    assert set(statuses) <= {200, 503, None}, "answered, refused, or never accepted"
    assert 200 in statuses
    open_stream.exception(60)


def test_cache_files_that_vanish_under_a_running_server_stop_nothing(
    tmp_path: Path, photographs: dict[str, Path]
) -> None:
    """What serves is in memory; the next start fetches again."""
    picture = photographs["coffee"].read_bytes()
    with served("--model", str(small_checkpoint()), env={"HF_HOME": str(warm(tmp_path))}) as url:
        before = httpx.post(f"{url}/api/analyze", files={"image": picture}, data={"groups": "objects"})
        shutil.rmtree(tmp_path / "hub")
        after = httpx.post(f"{url}/api/analyze", files={"image": picture}, data={"groups": "objects"})
        new = httpx.post(f"{url}/api/analyze", files={"image": picture}, data={"labels": "never seen, before"})
    assert [answer.status_code for answer in (before, after, new)] == [200] * 3
    assert before.json()["results"][0]["groups"] == after.json()["results"][0]["groups"]
