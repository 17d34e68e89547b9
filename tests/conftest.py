"""Real photographs, the bundled checkpoint, and the app served for real."""

# ruff: noqa: E402

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import httpx
import pytest
import uvicorn

# Before anything imports the Hub's client, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
# One cache for a run: what is converted once serves all its processes, and nothing of this machine's is touched.
CACHE = os.environ.setdefault("CLIP_TESTS_CACHE", tempfile.mkdtemp(prefix="clip_app-tests-"))
os.environ["HF_HOME"] = CACHE
os.environ.pop("HF_HUB_CACHE", None)
# As in the converting process: what OpenVINO's tools report, they report from a process of their own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
# Several workers and servers share the cores: threads that wait for each other only burn them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CLIP_APP_THREADS", "1")

from checkpoint import make_checkpoint

from clip_app.bank import LabelBank, LabelStore
from clip_app.engines import Choice, Device, Precision
from clip_app.hub.cache import RepoCache
from clip_app.model import Model, load_model
from clip_app.server import create_app
from clip_app.settings import load_settings
from clip_app.source import Source, bundled_source, folder_source

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest_plugins = ("hub_machine",)

MAY_SKIP = "CLIP_TESTS_MAY_SKIP"  # the reasons, separated by |, for which a test may be skipped; unset: any
NO_CUDA = "no CUDA device"
READY_SECONDS = 240  # only to end what hangs
STOP_SECONDS = 120  # to end a hang
# On a busy machine the five seconds of httpx are few.
for _name in ("get", "head", "post", "request", "stream"):
    setattr(httpx, _name, functools.partial(getattr(httpx, _name), timeout=STOP_SECONDS))
CURSED = "unobtainium"  # the word on which the damaged checkpoint fails


# Files whose tests start servers, browsers, builds or other programs.
PROCESSES = (
    "test_api_docs.py",
    "test_batch.py",
    "test_cli.py",
    "test_cli_collection.py",
    "test_cli_evaluate.py",
    "test_connections.py",
    "test_counting.py",
    "test_dockerfile.py",
    "test_doors.py",
    "test_embeddings.py",
    "test_engines.py",
    "test_examples.py",
    "test_faults.py",
    "test_gradio_api.py",
    "test_hostile.py",
    "test_hub.py",
    "test_image.py",
    "test_k8s.py",
    "test_k8s_start.py",
    "test_lock.py",
    "test_mcp.py",
    "test_metrics.py",
    "test_models.py",
    "test_monitoring.py",
    "test_page.py",
    "test_page_manners.py",
    "test_page_many.py",
    "test_page_picture.py",
    "test_page_proxies.py",
    "test_page_question.py",
    "test_page_where.py",
    "test_prefetch.py",
    "test_prefetch_networks.py",
    "test_prefetch_places.py",
    "test_preparation.py",
    "test_readme.py",
    "test_render.py",
    "test_rest.py",
    "test_scaling.py",
    "test_search.py",
    "test_security.py",
    "test_workflows.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what make check leaves out."""
    for item in items:
        if item.path.name in PROCESSES:
            item.add_marker(pytest.mark.processes)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed, a test skipped for another reason is a failure; and nothing is left behind."""
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(CACHE, ignore_errors=True)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or MAY_SKIP not in os.environ:
        return
    skipped = [report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])]
    if wrong := set(skipped) - set(os.environ[MAY_SKIP].split("|")):
        print(f"\nskipped, and must not be here: {'; '.join(sorted(wrong))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _log_as_it_was() -> None:
    """Whatever the test before made of the log."""
    log = logging.getLogger("clip_app")
    log.disabled, log.propagate = False, True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def photographs() -> dict[str, Path]:
    """CC0, public-domain and CC BY photographs out of PyPI packages."""
    skimage, sklearn = files("skimage.data"), files("sklearn.datasets.images")
    names = {
        "cat": skimage / "chelsea.png",
        "coffee": skimage / "coffee.png",
        "astronaut": skimage / "astronaut.png",
        "rocket": skimage / "rocket.jpg",
        "china": sklearn / "china.jpg",
        "flower": sklearn / "flower.jpg",
    }
    return {name: Path(str(path)) for name, path in names.items()}


@pytest.fixture(scope="session")
def bundled() -> Model:
    """The model inside the package: for tests in which the labels mean something."""
    return load_model(bundled_source(), Choice("openvino", "float32"))


@pytest.fixture(scope="session")
def small(small_clip: Path) -> Model:
    """The small CLIP with random weights, on torch: for tests of the numbers."""
    return open_folder(small_clip)


@pytest.fixture(scope="session")
def small_clip() -> Path:
    return small_checkpoint()


@functools.cache
def small_checkpoint() -> Path:
    """A small CLIP in transformers' format with random weights, written once for all processes of a run."""
    folder = Path(CACHE, "small-clip")
    with filelock.FileLock(f"{CACHE}/small-clip.lock"):
        if not folder.exists():
            make_checkpoint(folder.with_suffix(".part"), small=True).rename(folder)
    return folder


def open_folder(
    folder: Path,
    *,
    engine: str = "torch",
    precision: Precision = "float32",
    device: Device = "cpu",
) -> Model:
    """Open a checkpoint that lies anywhere with one engine, what is made of it kept beside it."""
    artifacts = folder.parent / f"{folder.name}-artifacts"
    source = Source(folder=folder, name="test", revision="test", artifacts=artifacts)
    return load_model(source, Choice(engine, precision, device))


@pytest.fixture(scope="session")
def bank(bundled: Model) -> LabelBank:
    return LabelBank(bundled, store=LabelStore(embedded()))


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory, small_clip: Path) -> Path:
    """A checkpoint whose tokenizer knows a word more than its network: texts with that word fail."""
    folder = tmp_path_factory.mktemp("damaged") / "checkpoint"
    shutil.copytree(small_clip, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"].append(last | {"id": last["id"] + 1, "content": CURSED, "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def prepared() -> Path:
    """Convert the small CLIP and embed its labels, once for all processes of a run; where that lies."""
    with filelock.FileLock(f"{CACHE}/prepared.lock"):
        if not (done := Path(CACHE, "prepared")).exists():
            command = [sys.executable, "-m", "clip_app", "prefetch", "--model", str(small_checkpoint())]
            subprocess.run(command, check=True, capture_output=True)
            done.touch()
    return folder_source(small_checkpoint()).artifacts


def embedded() -> Path:
    """Embed the bundled model's labels, once for all processes of a run; the file that they are in."""
    with filelock.FileLock(f"{CACHE}/embedded.lock"):
        if not (done := Path(CACHE, "embedded")).exists():
            command = [sys.executable, "-m", "clip_app", "prefetch", "--model", "bundled"]
            subprocess.run(command, check=True, capture_output=True)
            done.touch()
    (file,) = bundled_source().artifacts.glob("labels-*.safetensors")
    return file


def lend_labels(home: Path) -> None:
    """Give a cache of its own the labels of the model that stands in: for tests that are not about embedding them."""
    target = home / "hub" / embedded().relative_to(Path(CACHE, "hub"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(embedded(), target)


def warm(home: Path, repo: str | None = None, revision: str = "") -> Path:
    """Give a cache of its own what was made of the small CLIP: for tests that are not about making it.

    With ``repo``, as if it had been made of that repository's revision, which holds the same files.
    """
    made = prepared()
    target = RepoCache(home / "hub", repo).artifacts if repo else home / "hub" / "clip_app" / made.name
    shutil.copytree(made, target, dirs_exist_ok=True)
    for path in [target / "openvino" / "local", *target.glob("labels-local-*")] if repo else []:
        path.rename(path.with_name(path.name.replace("local", revision)))
    return home


@contextmanager
def served(
    *flags: str,
    env: dict[str, str] | None = None,
    ready: bool = True,
    log: Path | None = None,
    port: int | None = None,
    files: int | None = None,
) -> Iterator[str]:
    """Run ``clip-app serve`` on a free port, wait for it, and stop it as an operator does; with so many open files."""
    lend_labels(Path(env["HF_HOME"])) if env and "HF_HOME" in env else embedded()
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "clip_app", "serve", "--port", str(port), *flags]
    uploads = Path(tempfile.mkdtemp())
    quiet = {"CLIP_APP_LOG_LEVEL": "warning", "TMPDIR": str(uploads)}
    with log.open("wb") if log else nullcontext() as stderr:
        limit = ["prlimit", f"--nofile={files}:{files}"] if files else []
        process = subprocess.Popen([*limit, *command], env=os.environ | quiet | (env or {}), stderr=stderr)
    try:
        wait_for(f"{url}/readyz" if ready else f"{url}/healthz", process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
        assert not list(uploads.glob("clip_app-*")), "a stopped server leaves no uploads behind"


@contextmanager
def served_here(**given: object) -> Iterator[str]:
    """Serve the bundled model on a free port by a thread of this process.

    For tests of the answers alone: what is counted is this process's, and signals and uploads are the test's.
    """
    embedded()
    settings = load_settings(**({"model": "bundled"} | given))
    config = uvicorn.Config(
        create_app(settings), port=free_port(), root_path=settings.root_path, log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(f"http://127.0.0.1:{config.port}/readyz")
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wait_for(url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} was not ready after {READY_SECONDS} s")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The app on the bundled model, shared by all tests that only talk to it."""
    with served("--model", "bundled") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser; its library is imported by the tests that use it."""
    from real_browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, server: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page as a visitor opens it; ``both_widths`` of real_browser opens it on a desktop and on a phone."""
    from real_browser import visit

    with visit(browser, server, **getattr(request, "param", {})) as opened:
        yield opened


def need(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed; .ci/run does that")
