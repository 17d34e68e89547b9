"""The image, built for real and run as locked down as a cluster runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from conftest import free_port
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from real_image import Engine, engine_program, make_engine

SWITCH = "CLIP_TESTS_IMAGE"
UID = 10001
MEMORY = 1 << 30
# Only to end what hangs.
READY_SECONDS = 300
STOP_SECONDS = 120
LARGEST_MB = 2000  # the CUDA build of torch would take it far beyond
CLIENTS, PICTURES = 8, 4

pytestmark = [
    pytest.mark.skipif(not os.environ.get(SWITCH), reason=f"{SWITCH}=1 builds the image; make image-test sets it"),
    pytest.mark.skipif(
        bool(os.environ.get(SWITCH)) and engine_program() is None,
        reason="neither docker nor podman is here; .ci/run installs podman",
    ),
]

LOOK = """
import json, os, pathlib, shutil, subprocess, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status") if ":\\t" in line)
def writable(path):
    try:
        pathlib.Path(path, "probe").write_text("x")
    except OSError as error:
        return error.strerror
    return "yes"
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "first": pathlib.Path("/proc/1/cmdline").read_text().split("\\0")[:-1],
    "status": {name: status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
    "writable": {path: writable(path) for path in ("/", "/opt/app", "/cache", "/tmp")},
    "programs": [name for name in ("gcc", "cc", "make", "git", "curl", "wget", "pip", "pip3") if shutil.which(name)],
    "pip": subprocess.run([sys.executable, "-m", "pip"], capture_output=True).returncode == 0,
}))
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def with_model(engine: Engine) -> str:
    return engine.build("with-model", BASE_IMAGE=engine.base_image(), MODEL="bundled")


@pytest.fixture(scope="module")
def runtime(engine: Engine) -> str:
    return engine.build("runtime", BASE_IMAGE=engine.base_image())


def locked_down(engine: Engine, *, network: str = "host", memory: int = MEMORY) -> tuple[str, ...]:
    options = ["--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges", "--cpus=1"]
    # Podman would add writable folders of its own, which a cluster has not.
    options += ["--read-only-tmpfs=false"] if engine.is_podman else []
    return (*options, f"--user={UID}:{UID}", f"--memory={memory}", f"--memory-swap={memory}", f"--network={network}")


@dataclass
class Served:
    """A container that serves on loopback, and the seconds from its start to the first 200 of a path."""

    name: str
    url: str
    started: float
    seconds: dict[str, float] = field(default_factory=dict)

    def wait(self, path: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.url + path).status_code == 200:
                    self.seconds[path] = time.monotonic() - self.started
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{path} did not answer within {READY_SECONDS} s")


@contextmanager
def served(engine: Engine, image: str, *options: str) -> Iterator[Served]:
    port = free_port()
    settings = {"CLIP_APP_HOST": "127.0.0.1", "CLIP_APP_PORT": str(port), "CLIP_APP_LOG_FORMAT": "json"}
    settings |= {"CLIP_APP_MODEL": "bundled"}
    environment = tuple(f"--env={name}={value}" for name, value in settings.items())
    started = time.monotonic()
    with engine.running(image, options=(*locked_down(engine), *environment, *options)) as name:
        container = Served(name, f"http://127.0.0.1:{port}", started)
        try:
            for path in ("/healthz", "/readyz", "/"):
                container.wait(path)
        except AssertionError:
            print(engine("logs", name).stderr[-4000:])
            raise
        yield container


@pytest.fixture(scope="module")
def container(engine: Engine, with_model: str) -> Iterator[Served]:
    with served(engine, with_model) as container:
        yield container


def scrape(container: Served) -> list[Sample]:
    text = httpx.get(container.url + "/metrics").text
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    """The one sample of that name with these labels among its own."""
    (found,) = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return found


def test_it_runs_as_an_unprivileged_user_who_can_write_nowhere_but_tmp(engine: Engine, container: Served) -> None:
    found = json.loads(engine("exec", container.name, "python3", "-c", LOOK).stdout)
    assert (found["uid"], found["gid"]) == (UID, UID)
    assert found["status"] == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert found["writable"].pop("/tmp") == "yes"
    assert set(found["writable"].values()) == {"Read-only file system"}


def test_the_app_itself_is_the_first_process_and_no_tool_to_build_with_is_there(
    engine: Engine, container: Served
) -> None:
    found = json.loads(engine("exec", container.name, "python3", "-c", LOOK).stdout)
    assert found["first"] == ["/opt/venv/bin/python", "/opt/app/bin/clip-app", "serve"]
    assert not found["programs"]
    assert not found["pip"]


def test_it_analyses_a_photograph_and_is_scraped(container: Served, photographs: dict[str, Path]) -> None:
    answer = httpx.post(f"{container.url}/api/analyze", files={"image": photographs["coffee"].read_bytes()})
    (result,) = answer.json()["results"]
    assert result["groups"][0]["labels"][0]["label"] == "cup of coffee"
    samples = scrape(container)
    assert value(samples, "clip_app_analyses_total", endpoint="rest", outcome="ok") == 1
    assert value(samples, "clip_app_model_info", engine="openvino") == 1, "what the build converted is what serves"
    assert value(samples, "clip_app_memory_limit_bytes") == MEMORY
    assert value(samples, "clip_app_cpu_limit_cores") == 1
    assert 0 < value(samples, "process_resident_memory_bytes") < MEMORY
    assert httpx.get(container.url).status_code == 200


def test_its_health_check_tells_ready_from_not(engine: Engine, container: Served) -> None:
    kind, *command = engine.inspect(container.name)["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert engine("exec", container.name, *command).returncode == 0
    elsewhere = f"--env=CLIP_APP_PORT={free_port()}"
    assert engine("exec", elsewhere, container.name, *command, check=False).returncode == 1


def test_it_says_what_it_is(engine: Engine, with_model: str) -> None:
    labels = engine.inspect(with_model)["Config"]["Labels"]
    names = {name.removeprefix("org.opencontainers.image.") for name in labels}
    assert {"title", "description", "licenses", "version", "revision"} <= names


def test_it_is_small_and_says_how_fast_it_starts(engine: Engine, with_model: str) -> None:
    size = engine.inspect(with_model)["Size"] / 1e6
    with served(engine, with_model) as container:
        resident = value(scrape(container), "process_resident_memory_bytes") / 1e6
    seconds = ", ".join(f"{path} after {took:.1f} s" for path, took in container.seconds.items())
    print(f"\nimage {size:.0f} MB; {seconds} on one CPU; {resident:.0f} MB resident")
    assert size < LARGEST_MB


def test_with_its_model_it_needs_no_network_at_all(engine: Engine, with_model: str) -> None:
    picture = Path(__file__).parent.parent / "clip_app" / "examples" / "coffee.jpg"
    options = locked_down(engine, network="none")
    with picture.open("rb") as file:
        done = engine("run", "--rm", "-i", *options, with_model, "analyze", "-", "--format=json", stdin=file)
    (result,) = json.loads(done.stdout)
    assert result["groups"][0]["labels"][0]["label"] == "cup of coffee"


def test_one_container_fills_the_volume_and_others_serve_from_it_read_only(
    engine: Engine, runtime: str, small_clip: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "model"))
    for path in (folder, *folder.iterdir()):  # the image's user is another
        path.chmod(0o755)
    model = (f"--volume={folder}:/model:ro", "--env=CLIP_APP_MODEL=/model")
    volume = f"clip_app-test-{uuid.uuid4().hex[:8]}"
    engine("volume", "create", volume)
    try:
        writer = locked_down(engine, network="none", memory=2 * MEMORY)
        said = engine("run", "--rm", *writer, *model, f"--volume={volume}:/cache", runtime, "prefetch")
        assert "converted for OpenVINO" in said.stdout
        options = (*model, f"--volume={volume}:/cache:ro", "--env=HF_HUB_OFFLINE=1")
        with served(engine, runtime, *options) as one, served(engine, runtime, *options) as other:
            for container in (one, other):
                assert value(scrape(container), "clip_app_model_info", engine="openvino") == 1
                found = json.loads(engine("exec", container.name, "python3", "-c", LOOK).stdout)
                assert found["writable"]["/cache"] == "Read-only file system"
    finally:
        engine("volume", "rm", "--force", volume)


class Load:
    """Clients that send requests one after the other, each on a connection of its own, until the server is gone."""

    def __init__(self, url: str, picture: bytes) -> None:
        self.sent: dict[str, float] = {}
        self.answered: dict[str, int] = {}
        self.failed: dict[str, httpx.TransportError] = {}
        self._url, self._picture, self._end = url, picture, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def _run(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self._url, timeout=30, limits=limits) as client:
            while not self._end.is_set():
                name = uuid.uuid4().hex
                files = [("image", ("picture.png", self._picture))] * PICTURES
                self.sent[name] = time.monotonic()
                try:
                    answer = client.post("/api/analyze", files=files, headers={"X-Request-ID": name})
                    self.answered[name] = answer.status_code
                except httpx.TransportError as error:
                    self.failed[name] = error
                    time.sleep(0.05)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_stopped_under_load_it_loses_no_accepted_request(
    engine: Engine, with_model: str, photographs: dict[str, Path]
) -> None:
    with served(engine, with_model) as container:
        first = engine.inspect(container.name)["State"]["Pid"]
        with Load(container.url, photographs["china"].read_bytes()) as load:
            time.sleep(3)
            signalled = time.monotonic()
            waiting = load.sent.keys() - load.answered.keys() - load.failed.keys()
            # Not by the engine, which takes its time under load: those who wait would have their answers by then.
            os.kill(first, signal.SIGTERM)
            code = engine("wait", container.name, timeout=STOP_SECONDS).stdout.strip()
            took = time.monotonic() - signalled
        log = engine("logs", container.name).stderr
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    analysed = {line["request_id"] for line in lines if "outcome" in line}
    after = [name for name in load.answered if load.sent[name] > signalled]
    print(
        f"\nSIGTERM under load: {len(load.answered)} requests answered, {len(waiting)} of them waiting at the signal, "
        f"{len(after)} sent after it; {len(load.failed)} found the port closed; ended after {took:.1f} s"
    )
    assert code == "0"
    assert set(load.answered.values()) == {200}
    assert waiting & analysed, "the load was a load"
    assert analysed == set(load.answered), "whatever the server began, its client has the answer to"
