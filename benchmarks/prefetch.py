"""Time prefetch of a 600 MB checkpoint beside curl and sha256sum, and loading beside from_pretrained.

Over TLS on loopback, from the Hub of the tests, turn by turn; random weights in the shape
of openai/clip-vit-base-patch32.

    python benchmarks/prefetch.py
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from checkpoint import make_checkpoint  # noqa: E402
from fake_hub import REVISION, Authority, FakeHub  # noqa: E402

ROUNDS = 5


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def run(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def median(name: str, times: list[float]) -> None:
    print(f"  {name:34} {statistics.median(times):6.2f} s  ({min(times):.2f} to {max(times):.2f})")


def compare(sides: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> None:
    """Run the sides in turn after one round that is not counted; print medians and the ratio."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, call in sides.items():
            times[name].append(seconds(call))
    for name, measured in times.items():
        median(name, measured[1:])
    first, second = (measured[1:] for measured in times.values())
    print(f"  ratio {statistics.median(a / b for a, b in zip(first, second, strict=True)):.2f}")


def downloads(hub: FakeHub, ca: Path, work: Path) -> dict[str, Callable[[], object]]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "CLIP_APP_"))}
    environ |= {"HF_HOME": str(work / "home"), "HF_ENDPOINT": hub.endpoint, "CLIP_APP_CA_BUNDLE": str(ca)}
    environ |= {"CLIP_APP_MODEL": hub.repo, "CLIP_APP_REVISION": REVISION}
    prefetch = [sys.executable, "-m", "clip_app", "prefetch", "--no-labels", "--no-convert"]
    url = f"{hub.endpoint}/{hub.repo}/resolve/{REVISION}/model.safetensors"
    curl = f"curl -sSL --cacert {ca} -o {work}/weights {url} && sha256sum {work}/weights"

    def ours() -> None:
        shutil.rmtree(work / "home", ignore_errors=True)
        run(prefetch, environ)

    return {"clip-app prefetch": ours, "curl and sha256sum": lambda: run(["sh", "-c", curl], environ)}


def loads(folder: Path) -> dict[str, Callable[[], object]]:
    from transformers import AutoModel, AutoTokenizer

    from clip_app.engines import Choice
    from clip_app.model import load_model
    from clip_app.source import Source

    source = Source(folder=folder, name="x", revision="x", artifacts=folder.parent / "artifacts")

    def theirs() -> None:
        AutoModel.from_pretrained(folder, local_files_only=True)
        AutoTokenizer.from_pretrained(folder, local_files_only=True)

    return {
        "clip_app.model.load_model": lambda: load_model(source, Choice("torch", "float32")),
        "from_pretrained, model and tokenizer": theirs,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "checkpoint"
        folder.mkdir()
        make_checkpoint(folder)
        authority = Authority()
        ca = authority.write(work)
        hub = FakeHub(folder, tls=authority.context())
        hub.files["model.safetensors"] = folder / "model.safetensors"
        print(f"{(folder / 'model.safetensors').stat().st_size / 1e6:.0f} MB over TLS on loopback, median of {ROUNDS}:")
        with hub.running():
            compare(downloads(hub, ca, work))
        print("loading the same checkpoint from its folder:")
        compare(loads(folder))


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"took {time.monotonic() - started:.0f} s")
