"""What the pods of k8s/ do, with their own commands and environment: the job fills, the others wait, then serve."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import free_port, need, small_checkpoint, wait_for, warm
from fake_hub import REVISION, Authority, FakeHub
from manifests import Manifests, Object
from test_prefetch import needs_mount

from clip_app.errors import USAGE

pytestmark = [need("kubectl"), needs_mount]


class Node:
    """Starts containers as processes: the volume is a folder, which those who only read see read-only."""

    def __init__(self, folder: Path, hub: FakeHub, ca: Path, exits: ExitStack) -> None:
        self.volume, self.read_only, self.tmp = (folder / name for name in ("volume", "read-only", "tmp"))
        for path in (self.volume, self.read_only, self.tmp):
            path.mkdir()
        shutil.copytree(folder / "made", self.volume, dirs_exist_ok=True)
        subprocess.run(["mount", "--bind", self.volume, self.read_only], check=True)
        exits.callback(lambda: subprocess.run(["umount", "--lazy", self.read_only], check=True))
        subprocess.run(["mount", "-o", "remount,ro,bind", self.read_only], check=True)
        self.manifests = Manifests.of("single-node, auth, private-ca")
        self.logs = folder
        self._exits = exits
        # What is of this place, and not of the manifests.
        self._here = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CLIP_APP_MODEL": hub.repo,
            "CLIP_APP_REVISION": REVISION,
            "HF_ENDPOINT": hub.endpoint,
            "NO_PROXY": "localhost,127.0.0.1",
            "HOME": str(self.tmp),
            "TMPDIR": str(self.tmp),
        }
        self._ca = str(ca)

    def start(self, container: Object, **other: str) -> subprocess.Popen[Any]:
        env = self.manifests.environment(container) | self._here | other
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "cache"]
        env["HF_HOME"] = str(self.read_only if mount.get("readOnly") else self.volume)
        if "CLIP_APP_CA_BUNDLE" in env:
            env["CLIP_APP_CA_BUNDLE"] = self._ca
        log = (self.logs / f"{container['name']}.log").open("wb")
        self._exits.callback(log.close)
        process = subprocess.Popen(container["command"], env=env, stdout=log, stderr=log, start_new_session=True)
        self._exits.callback(end, process)
        return process

    def said(self, container: Object) -> str:
        return (self.logs / f"{container['name']}.log").read_text(encoding="utf-8")


def end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def hub() -> Iterator[tuple[FakeHub, Authority]]:
    authority = Authority()
    with FakeHub(small_checkpoint(), tls=authority.context()).running() as hub:
        yield hub, authority


@pytest.fixture
def node(tmp_path: Path, hub: tuple[FakeHub, Authority]) -> Iterator[Node]:
    with ExitStack() as exits:
        warm(tmp_path / "made", hub[0].repo, REVISION)
        yield Node(tmp_path, hub[0], hub[1].write(tmp_path), exits)


def wait_until_it_says(node: Node, container: Object, text: str, times: int = 1) -> None:
    deadline = time.monotonic() + 60
    while node.said(container).count(text) < times:
        assert time.monotonic() < deadline, node.said(container)
        time.sleep(0.1)


def test_pods_that_come_before_the_job_wait_and_then_serve_from_a_read_only_cache(
    node: Node, hub: tuple[FakeHub, Authority], photographs: dict[str, Path]
) -> None:
    writer, waiter, server = node.manifests.containers
    waiting = node.start(waiter)
    wait_until_it_says(node, waiter, "HF_HUB_OFFLINE is set, and the cache lacks")
    hub[0].open.clear()
    job = node.start(writer)
    while not hub[0].downloads("model.safetensors"):
        assert job.poll() is None, node.said(writer)
        time.sleep(0.05)
    wait_until_it_says(node, waiter, "HF_HUB_OFFLINE is set, and the cache lacks", times=3)
    assert waiting.poll() is None, "half a download is not a model"
    hub[0].open.set()
    assert job.wait(120) == 0, node.said(writer)
    assert waiting.wait(30) == 0, node.said(waiter)

    asked = len(hub[0].requests)
    port = free_port()
    apart = str(free_port())
    serving = node.start(server, CLIP_APP_PORT=str(port), CLIP_APP_METRICS_PORT=apart, CLIP_APP_HOST="127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    wait_for(f"{url}/readyz", serving)
    with photographs["coffee"].open("rb") as picture:
        answer = httpx.post(f"{url}/api/analyze", files={"image": picture}, timeout=30).json()
    model = answer["results"][0]["model"]
    assert (model["id"], model["engine"], model["bundled"]) == (hub[0].repo, "openvino", False)
    assert "clip_app_model_ready 1.0" in httpx.get(f"http://127.0.0.1:{apart}/metrics").text
    assert httpx.get(f"{url}/metrics").status_code == 404
    serving.terminate()
    assert serving.wait(30) == 0
    assert len(hub[0].requests) == asked, "who serves asks the Hub for nothing"
    assert node.start(writer).wait(60) == 0, "a job on a complete cache has nothing to do"
    assert len(hub[0].requests) == asked


def test_a_server_that_is_not_made_to_wait_stays_without_a_model(node: Node) -> None:
    """Why there is an init container."""
    server = node.manifests.server
    port = free_port()
    serving = node.start(server, CLIP_APP_PORT=str(port), CLIP_APP_HOST="127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    wait_for(f"{url}/healthz", serving)
    wait_until_it_says(node, server, "no model")
    assert node.start(node.manifests.writer).wait(120) == 0
    time.sleep(1)
    assert httpx.get(f"{url}/readyz").status_code == 503


def test_a_pod_that_waits_in_vain_ends_and_says_why(node: Node) -> None:
    """A cache without a model is waited for; a setting that no cache helps is not."""
    waiter = node.manifests.waiter
    waiting = node.start(waiter, CLIP_APP_ENGINE="steam")
    assert waiting.wait(60) == USAGE
    assert "CLIP_APP_ENGINE" in node.said(waiter)


def test_a_pod_waits_while_the_job_converts(node: Node) -> None:
    shutil.rmtree(node.volume / "hub")
    writer, waiter, _ = node.manifests.containers
    fetching = writer | {"command": [*writer["command"], "--no-convert", "--no-labels"]}
    assert node.start(fetching).wait(120) == 0
    waiting = node.start(waiter)
    wait_until_it_says(node, waiter, "cannot be written")
    assert waiting.poll() is None
    assert node.start(writer).wait(120) == 0
    assert waiting.wait(60) == 0, node.said(waiter)


def test_a_pod_that_waits_ends_at_once_when_it_is_told_to(node: Node) -> None:
    waiter = node.manifests.waiter
    shell, option, script = waiter["command"]
    assert "sleep 5 &" in script
    # A pause that nobody waits for to its end.
    waiting = node.start(
        waiter | {"command": [shell, option, script.replace("sleep 5 &", "echo pausing; sleep 600 &")]}
    )
    wait_until_it_says(node, waiter, "pausing")
    waiting.terminate()
    assert waiting.wait(60) == 143
