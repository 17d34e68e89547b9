"""The sides of a comparison, each in a process of its own: servers, and calls in process."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A server that was started, and when."""

    def __init__(self, command: Sequence[str], port: int, env: dict[str, str]) -> None:
        self.port = port
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=os.environ | QUIET | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def seconds_until(self, path: str) -> float:
        """Wait for a 200; return the seconds since the start of the process."""
        while time.perf_counter() - self.started < START_SECONDS:
            if self.process.poll() is not None:
                raise RuntimeError(f"a server ended with {self.process.returncode}")
            with suppress(OSError, urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=START_SECONDS).read()
                return time.perf_counter() - self.started
            time.sleep(0.01)
        raise TimeoutError(f"no {path} after {START_SECONDS} s")

    def load(self, kind: str, clients: int, count: int, photo: Path) -> dict[str, float]:
        """Load it from another process; return rate and latencies."""
        command = [sys.executable, str(HERE / "load.py"), kind, str(self.port), str(clients), str(count), str(photo)]
        run = subprocess.run(command, env=os.environ | QUIET, check=True, capture_output=True, text=True)
        measured: dict[str, float] = json.loads(run.stdout)
        return measured

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_clip_app(checkpoint: Path | str, env: dict[str, str]) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "clip_app", "serve", "--port", str(port), "--log-level", "error"]
    return Server([*command, "--model", str(checkpoint), "--fallback", "none"], port, env)


def start_tutorial(checkpoint: Path) -> Server:
    port = free_port()
    return Server([sys.executable, str(HERE / "tutorial_app.py"), str(port), str(checkpoint)], port, {})


def start_infinity(program: Path, checkpoint: Path) -> Server:
    port = free_port()
    options = "--served-model-name clip --engine torch --device cpu --dtype float32 --batch-size 8"
    options += f" --host 127.0.0.1 --port {port} --no-model-warmup --no-bettertransformer"
    return Server([str(program), "v2", "--model-id", str(checkpoint), *options.split()], port, {})


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.stop()


class Worker:
    """Calls of one side in a process that holds nothing of the other."""

    def __init__(self, make: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, make, arguments), daemon=True)
        self._process.start()

    def call(self, *arguments: Any) -> tuple[float, Any]:
        """Make one call; return its seconds and its result."""
        self._pipe.send(arguments)
        seconds, result = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        return seconds, result

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _work(pipe: Connection, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    logging.disable(logging.WARNING)
    call = make(*arguments)
    while True:
        given = pipe.recv()
        started = time.perf_counter()
        try:
            result = call(*given)
        except Exception as error:
            result = error
        pipe.send((time.perf_counter() - started, result))


# What runs in the workers.


def clip_app_calls(checkpoint: Path, options: dict[str, Any]) -> Callable[[Path, tuple[str, ...] | None], int]:
    """Analyses of clip_app; without labels the default groups are asked for."""
    from clip_app.analyzer import Analyzer
    from clip_app.endpoints import CLI
    from clip_app.loading import Loader
    from clip_app.observation import Observation
    from clip_app.options import Options
    from clip_app.settings import Settings

    settings = Settings(model=str(checkpoint), fallback="none", **options)
    loader = Loader(settings)
    loader.run()
    analyzer = Analyzer(loader, settings, decoders=1)

    def call(photo: Path, labels: tuple[str, ...] | None) -> int:
        with Observation(CLI) as analysis:
            result = analyzer.analyze(photo.read_bytes(), Options(labels=labels), analysis)
        return sum(len(group.labels) for group in result.groups)

    return call


def pipeline_calls(checkpoint: Path) -> Callable[[Path, tuple[str, ...]], int]:
    """Calls of the transformers pipeline."""
    from PIL import Image
    from transformers import pipeline

    pipe = pipeline("zero-shot-image-classification", model=str(checkpoint), device="cpu")
    return lambda photo, labels: len(pipe(Image.open(photo).convert("RGB"), candidate_labels=list(labels)))


def encoder_calls(checkpoint: Path, options: dict[str, Any]) -> Callable[[int], int]:
    """Image encoder passes of a batch of so many pictures."""
    import numpy as np

    from clip_app.loading import Loader
    from clip_app.settings import Settings

    loader = Loader(Settings(model=str(checkpoint), fallback="none", **options), preload=())
    loader.run()
    model = loader.serving().model
    pixels = np.random.default_rng(0).standard_normal((64, *model.preprocessing.shape)).astype(np.float32)
    return lambda batch: len(model.encode_images(pixels[:batch]))


def product_calls(size: int) -> Callable[[], float]:
    """Products of two square bfloat16 matrices; returns the floating-point operations of one."""
    import torch

    left, right = (torch.randn(size, size).to(torch.bfloat16) for _ in range(2))

    def call() -> float:
        torch.mm(left, right)
        return 2.0 * size**3

    return call
