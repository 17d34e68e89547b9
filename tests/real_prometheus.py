"""Debian's Prometheus on loopback, with this project's own files, in a hurry."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from conftest import free_port, wait_for

MONITORING = Path(__file__).parent.parent / "monitoring"
DURATION = re.compile(r"\b(\d+)(s|m|h)\b")
SECONDS = {"s": 1, "m": 60, "h": 3600}


def hurried(text: str, pace: float) -> str:
    """Make every duration so many times shorter; the names of the rules stay."""
    return DURATION.sub(lambda found: f"{round(1000 * int(found[1]) * SECONDS[found[2]] / pace)}ms", text)


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url)

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        return {frozenset(r["metric"].items()): float(r["value"][1]) for r in answer["data"]["result"]}

    def value(self, expression: str) -> float:
        (value,) = self.query(expression).values()
        return value

    def firing(self) -> set[str]:
        found = self.query('ALERTS{alertname=~"ClipApp.*", alertstate="firing"}')
        return {dict(labels)["alertname"] for labels in found}

    def get(self, path: str, **params: Any) -> Any:
        return self._client.get(path, params=params).json()["data"]

    def wait(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s; firing: {self.firing()}"
            time.sleep(0.1)


@contextmanager
def prometheus(app: str, folder: Path, *, pace: float) -> Iterator[Prometheus]:
    """Run Prometheus against the app, with every window and wait ``pace`` times shorter."""
    port = free_port()
    folder.mkdir()
    for rules in ("recording.yml", "alerts.yml"):
        (folder / rules).write_text(hurried((MONITORING / rules).read_text(), pace))
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [app.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=error"]
    process = subprocess.Popen(command)
    try:
        wait_for(f"http://127.0.0.1:{port}/-/ready", process)
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)
