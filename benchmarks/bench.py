"""Measure clip_app beside its peers, turn by turn on the same machine, weights and photographs.

    make bench

Writes benchmarks/results.json, the table in docs/performance.md and its two plots. The
weights are random in the shape of openai/clip-vit-base-patch32; speed does not depend on
their values. Correctness is asserted in the same run, with the bundled model.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import plots
from agreement import measure_agreement
from checkpoint import make_checkpoint, make_photo
from report import write_report
from sides import (
    Server,
    Worker,
    clip_app_calls,
    encoder_calls,
    pipeline_calls,
    product_calls,
    running,
    start_clip_app,
    start_infinity,
    start_tutorial,
)

from clip_app.labels import load_groups, preset_folder
from clip_app.machine import available_cpus, has_bfloat16

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
FORWARD_GFLOP = 8.82  # one picture through the image encoder of ViT-B/32, two per multiply and add
CLIENTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Side:
    """What was measured of one side: a median, and how far the rounds spread."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Side:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One line of the table. ``ratio`` is the median over the rounds, better is larger unless ``at_most``."""

    name: str
    peer_name: str
    unit: str
    ours: Side
    peer: Side
    ratio: float
    target: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def by_turns(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Measure the sides in turn, so often, after one round that is not counted."""
    values: list[list[float]] = [[] for _ in sides]
    for counted in range(-1, rounds):
        for side, measured in zip(sides, values, strict=True):
            value = side()
            if counted >= 0:
                measured.append(value)
    return values


def row(
    name: str, peer_name: str, unit: str, ours: list[float], peer: list[float], target: float, **options: Any
) -> Row:
    """Compare rounds pair by pair: times as peer over ours, rates and sizes as ours over peer."""
    pairs = zip(ours, peer, strict=True)
    faster = unit in ("ms", "s") and not options.get("at_most")
    ratio = statistics.median(theirs / own if faster else own / theirs for own, theirs in pairs)
    made = Row(name, peer_name, unit, Side.of(ours), Side.of(peer), ratio, target, **options)
    print(f"  {name}: {made.ours.median:.1f} against {made.peer.median:.1f} {unit}, ratio {ratio:.2f}", flush=True)
    return made


# In process.


def measure_latency(checkpoint: Path, work: Path) -> tuple[list[Row], dict[str, list[tuple[int, float]]]]:
    """One analysis at a time: by the number of labels, and of a large photograph."""
    photo, large = make_photo(work / "photo.jpg", (500, 375)), make_photo(work / "large.jpg", (4000, 3000))
    groups = tuple(label for group in load_groups(preset_folder()).values() for label in group.labels)
    words = tuple(f"{label} {i}" for i, label in enumerate(groups[:100]))
    ours, peer = Worker(clip_app_calls, checkpoint, {}), Worker(pipeline_calls, checkpoint)

    def both(picture: Path, labels: tuple[str, ...], own_labels: tuple[str, ...] | None, rounds: int) -> list[Any]:
        return by_turns(
            rounds,
            lambda: 1000 * ours.call(picture, own_labels)[0],
            lambda: 1000 * peer.call(picture, labels)[0],
        )

    rows = []
    curve: dict[str, list[tuple[int, float]]] = {"clip_app": [], "transformers pipeline": []}
    cases = ((3, 4, 15), (10, None, 9), (30, None, 7), (100, 25, 5), (len(groups), 150, 2))
    for count, target, rounds in cases:
        whole = count == len(groups)
        labels = groups if whole else words[:count]
        own, theirs = both(photo, labels, None if whole else labels, rounds)
        curve["clip_app"].append((count, statistics.median(own)))
        curve["transformers pipeline"].append((count, statistics.median(theirs)))
        if target is not None:
            name = f"the default groups ({count} labels)" if whole else f"one photo 500x375, {count} labels"
            rows.append(row(name, "transformers pipeline", "ms", own, theirs, target))
    own, theirs = both(large, words[:3], words[:3], 9)
    rows.append(row("12-megapixel JPEG, 3 labels", "transformers pipeline", "ms", own, theirs, 6))
    ours.stop()
    peer.stop()
    return rows, curve


def measure_encoder(checkpoint: Path) -> tuple[list[Row], float]:
    """The image encoder at batch 8 beside the machine's own matrix product; also its pictures a second."""
    encoder, product = Worker(encoder_calls, checkpoint, {}), Worker(product_calls, 2048)

    def rate_of_encoder() -> float:
        seconds, batch = min((encoder.call(8) for _ in range(5)), key=lambda call: call[0])
        return FORWARD_GFLOP * float(batch) / seconds

    def rate_of_product() -> float:
        seconds, operations = min((product.call() for _ in range(5)), key=lambda call: call[0])
        return float(operations) / seconds / 1e9

    ours, peer = by_turns(7, rate_of_encoder, rate_of_product)
    encoder.stop()
    product.stop()
    name = "image encoder, batch 8"
    made = row(name, "bfloat16 matrix product 2048x2048 (torch)", "GFLOP/s", ours, peer, 0.85)
    return [made], statistics.median(ours) / FORWARD_GFLOP


# Served.


def measure_start(checkpoint: Path, work: Path) -> list[Row]:
    """From the start of the process to the first page and to the first answer, with a warm cache."""
    photo = make_photo(work / "photo.jpg", (500, 375))
    pages: list[list[float]] = [[], []]
    answers: list[list[float]] = [[], []]
    starts: tuple[Callable[[Path], Server], ...] = (partial(start_clip_app, env={}), start_tutorial)
    for counted in range(-1, 5):
        for i, start in enumerate(starts):
            server = start(checkpoint)
            with running(server):
                if i == 0:
                    answer = server.seconds_until("/readyz")
                    page = server.seconds_until("/")
                else:
                    page = server.seconds_until("/")
                    answer = page + first_answer(server, photo)
            if counted >= 0:
                pages[i].append(page)
                answers[i].append(answer)
    (page_ours, page_theirs), (ours, theirs) = pages, answers
    return [
        row("process start to first page", "tutorial app", "s", page_ours, page_theirs, 2),
        row("process start to ready, warm cache", "tutorial app's first answer", "s", ours, theirs, 0.7, at_most=True),
    ]


def first_answer(server: Server, photo: Path) -> float:
    """Seconds of one call: the tutorial app loads its model before its page is up."""
    return server.load("gradio-http", 1, 1, photo)["median_ms"] / 1000


def measure_throughput(
    checkpoint: Path, infinity: Path | None, work: Path, encoder_rate: float
) -> tuple[list[Row], dict[str, list[tuple[int, float, float]]]]:
    """Images a second of the servers, all of them up, one at a time under load; then their memory."""
    photo = make_photo(work / "photo.jpg", (500, 375))
    ours, tutorial = start_clip_app(checkpoint, {}), start_tutorial(checkpoint)
    servers = [ours, tutorial]
    if infinity is not None:
        servers.append(start_infinity(infinity, checkpoint))
    with running(*servers):
        ours.seconds_until("/readyz")
        ours.seconds_until("/")
        tutorial.seconds_until("/")
        if infinity is not None:
            servers[2].seconds_until("/health")
        rows = []

        def rate(server: Server, kind: str, clients: int, count: int) -> float:
            return server.load(kind, clients, count, photo)["images_per_second"]

        for kind, how in (("gradio", "as they come"), ("gradio-shared", "on one TLS context")):
            own, theirs = by_turns(3, partial(rate, ours, kind, 8, 120), partial(rate, tutorial, kind, 8, 48))
            name = f"throughput, 8 gradio_client clients, {how}"
            rows.append(row(name, "tutorial app", "images/s", own, theirs, 4))
        rest, best = by_turns(4, partial(rate, ours, "rest", 16, 320), partial(rate, tutorial, "gradio-http", 16, 64))
        rows.append(row("throughput, 16 REST clients", "tutorial app's best", "images/s", rest, best, 7))
        limit = [encoder_rate] * len(rest)
        rows.append(row("the same", "the image encoder's own rate at batch 8", "images/s", rest, limit, 0.7))
        if infinity is not None:
            rest, embeddings = by_turns(
                4, partial(rate, ours, "rest", 16, 320), partial(rate, servers[2], "infinity", 16, 96)
            )
            rows.append(row("the same, labels included", "infinity, embeddings only", "images/s", rest, embeddings, 3))
        curve = measure_clients(servers, photo)
        rows.append(measure_scrape(ours, photo))
        rows += measure_memory(checkpoint, tutorial, photo)
    return rows, curve


def measure_clients(servers: list[Server], photo: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Images a second and 95th percentile by the number of clients."""
    kinds = {"clip_app": ("rest", 20), "tutorial app": ("gradio-http", 4), "infinity": ("infinity", 8)}
    curve: dict[str, list[tuple[int, float, float]]] = {name: [] for name, _ in zip(kinds, servers, strict=False)}
    for clients in CLIENTS:
        for (name, (kind, each)), server in zip(kinds.items(), servers, strict=False):
            result = server.load(kind, clients, max(24, each * min(clients, 8)), photo)
            curve[name].append((clients, result["images_per_second"], result["p95_ms"]))
    return curve


def measure_scrape(server: Server, photo: Path) -> Row:
    """A scrape of a server that has been under load, and so has all of its series, beside one analysis by it."""

    def milliseconds(kind: str) -> float:
        return server.load(kind, 1, 100, photo)["median_ms"]

    scrape, analysis = by_turns(5, partial(milliseconds, "scrape"), partial(milliseconds, "rest"))
    return row("a scrape of /metrics", "one analysis of clip_app, 3 labels", "ms", scrape, analysis, 0.2, at_most=True)


def measure_memory(checkpoint: Path, tutorial: Server, photo: Path) -> list[Row]:
    """Resident memory after 200 and after 1,000 analyses, of a fresh process of ours."""
    ours = start_clip_app(checkpoint, {})
    with running(ours):
        ours.seconds_until("/readyz")
        ours.seconds_until("/")
        after = []
        for count in (200, 800):
            ours.load("rest", 16, count - 16, photo)
            after.append(ours.resident_megabytes())
    tutorial.load("gradio-http", 16, 500, photo)  # with what it answered before, about 1,000
    theirs = tutorial.resident_megabytes()
    name = "resident memory after 1,000 analyses"
    return [
        row(name, "tutorial app", "MB", [after[1]], [theirs], 0.6, at_most=True),
        row(name, "clip_app after 200", "MB", [after[1]], [after[0]], 1.02, at_most=True),
    ]


# All of it.


def describe_machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(": ")[1] for line in info.splitlines() if line.startswith("model name")), "unknown")
    from importlib.metadata import version

    packages = ("torch", "openvino", "transformers", "gradio")
    return {
        "processor": model,
        "cpus": available_cpus(),
        "bfloat16": has_bfloat16(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def infinity_program() -> Path | None:
    """The peer that make bench installs beside; without it its row is left out."""
    program = HERE.parent / ".bench" / "infinity" / "bin" / "infinity_emb"
    return program if program.exists() else None


def main() -> None:
    started = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="clip_app-bench-"))
    os.environ["HF_HOME"] = str(work / "cache")  # what is converted here is not kept
    try:
        checkpoint = work / "vit-b-32"
        make_checkpoint(checkpoint)
        print("agreement with float32", flush=True)
        agreement = measure_agreement(checkpoint, work)
        print("one at a time", flush=True)
        rows, labels_curve = measure_latency(checkpoint, work)
        encoder, encoder_rate = measure_encoder(checkpoint)
        print("served", flush=True)
        served, clients_curve = measure_throughput(checkpoint, infinity_program(), work, encoder_rate)
        rows += encoder + served + measure_start(checkpoint, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    results = {
        "machine": describe_machine(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "rows": [asdict(made) | {"met": made.met} for made in rows],
        "agreement": agreement,
        "milliseconds_by_labels": labels_curve,
        "load_by_clients": clients_curve,
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plots.draw_latency(labels_curve, IMAGES / "latency.png")
    plots.draw_load(clients_curve, IMAGES / "load.png")
    write_report(results, HERE.parent / "docs" / "performance.md")
    print(f"took {results['minutes']} minutes", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
