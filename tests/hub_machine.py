"""A machine that fetches the model from a Hub of the tests' own, and the table of what came of it.

Each case is a row of docs/tls-and-cache.md; with CLIP_TESTS_WRITE_DOCS set, a run writes the table.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import small_checkpoint, warm
from fake_hub import REVISION, Authority, FakeHub

from clip_app.hub.cache import RepoCache

TABLE: dict[str, tuple[int, str]] = {}
DOCS = Path(__file__).parent.parent / "docs" / "tls-and-cache.md"
NOISE = ("HF_", "CLIP_APP_", "SSL_CERT", "REQUESTS_CA", "CURL_CA", "PYTHONHTTPS")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def hub(authority: Authority) -> Iterator[FakeHub]:
    with FakeHub(small_checkpoint(), tls=authority.context()).running() as hub:
        yield hub


@pytest.fixture(scope="session", autouse=True)
def _write_docs() -> Iterator[None]:
    yield
    if os.environ.get("CLIP_TESTS_WRITE_DOCS") and TABLE:
        rows = ["| case | exit | first line of the message |", "|---|---|---|"]
        rows += [f"| {case} | {code} | {line} |" for case, (code, line) in TABLE.items()]
        text = DOCS.read_text(encoding="utf-8")
        table = "<!-- table -->\n" + "\n".join(rows) + "\n<!-- end -->"
        DOCS.write_text(re.sub(r"<!-- table -->.*<!-- end -->", lambda _: table, text, flags=re.S), encoding="utf-8")


class Machine:
    """A machine with a cache, and what its environment says."""

    def __init__(self, home: Path, hub: FakeHub, ca: Path | None) -> None:
        self.hub = hub
        self.home = home
        self.cache = RepoCache(home / "hub", hub.repo)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(NOISE)}
        self.env |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "NO_PROXY": "localhost,127.0.0.1"}
        # These are about what comes over the network; test_conversion.py is about what is made of it.
        self.env |= {"CLIP_APP_MODEL": hub.repo, "CLIP_APP_REVISION": REVISION, "CLIP_APP_ENGINE": "torch"}
        if ca is not None:
            self.env["CLIP_APP_CA_BUNDLE"] = str(ca)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "clip_app", *(arguments or ("prefetch", "--deadline", "25", "--no-labels"))]
        return subprocess.Popen(command, env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str, case: str | None = None, **env: str) -> tuple[int, str]:
        """Run clip-app, prefetch unless said otherwise; return the exit code and all it printed."""
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=120)
        if case is not None:
            self.record(case, process.returncode, err + out)
        assert "Traceback" not in err, err
        return process.returncode, out + err

    def record(self, case: str, code: int, text: str) -> None:
        """Keep a row of the table, and look that no library printed a path of its own."""
        assert "site-packages" not in text
        line = next(line for line in text.splitlines() if " WARNING " not in line)
        line = line.replace(str(self.home.parent), "…")
        TABLE[case] = code, re.sub(r"(localhost|127\.0\.0\.1):\d+", r"\1:PORT", line)

    @property
    def complete(self) -> bool:
        return self.cache.read_marker(REVISION) is not None

    def used(self) -> int:
        blobs = (self.cache.folder / "blobs").glob("*")
        return sum(path.stat().st_size for path in blobs)

    def convert(self) -> None:
        """Serve with OpenVINO, of a conversion that lies there: torch takes seconds to import."""
        warm(self.home, self.hub.repo, REVISION)
        for labels in self.cache.artifacts.glob("labels-*"):
            labels.unlink()
        self.env["CLIP_APP_ENGINE"] = "auto"


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    return authority.write(tmp_path)


@pytest.fixture
def machine(tmp_path: Path, hub: FakeHub, ca: Path) -> Machine:
    return Machine(tmp_path / "home", hub, ca)
