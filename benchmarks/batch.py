"""A thousand photographs in one call, and one of somebody else's meanwhile; writes the table of docs/search.md.

python benchmarks/batch.py [--photographs FOLDER] [--pictures 1000]

Without a folder of photographs the app's examples are sent again and again. The app is started as an operator does,
with the bundled model. Somebody else asks REST about one photograph, twice a second: first while nothing else happens,
then while the batch runs.
"""

from __future__ import annotations

import argparse
import itertools
import re
import threading
import time
from pathlib import Path

import httpx
import numpy as np
from gradio_client import Client, handle_file
from sides import running, start_clip_app

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "search.md"
EXAMPLES = ROOT / "clip_app" / "examples"
ALONE = 40  # times that the one photograph is asked about while nothing else happens
EVERY_SECONDS = 0.5


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=Path, default=EXAMPLES)
    parser.add_argument("--pictures", type=int, default=1000)
    given = parser.parse_args()
    found = sorted(path for path in given.photographs.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    paths = list(itertools.islice(itertools.cycle(found), given.pictures))
    app = start_clip_app("bundled", {})
    with running(app):
        app.seconds_until("/readyz")
        url = f"http://127.0.0.1:{app.port}"
        ask(url, 5)  # the first ones are slower
        alone = ask(url, ALONE)
        beside, seconds, updates = together(url, paths)
    rows = (
        ("", "median", "95th percentile", "slowest", "times"),
        ("---",) * 5,
        ("one photograph, alone", *figures(alone)),
        (f"one photograph, while {len(paths):,} run", *figures(beside)),
        ("ratio", f"{np.median(beside) / np.median(alone):.2f}", "", "", ""),
    )
    said = f"{len(paths):,} photographs in {seconds:.0f} s, {len(paths) / seconds:.0f} a second, in {updates} updates."
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    print(f"{table}\n{said}")
    block = f"<!-- batch -->\n{table}\n\n{said}\n<!-- end of batch -->"
    page = re.sub(r"<!-- batch -->.*<!-- end of batch -->", lambda _: block, PAGE.read_text("utf-8"), flags=re.S)
    PAGE.write_text(page, encoding="utf-8")


def ask(url: str, most: int | None, until: threading.Event | None = None) -> list[float]:
    """Ask about one photograph again and again; the seconds that each answer took."""
    picture = (EXAMPLES / "coffee.jpg").read_bytes()
    until = until or threading.Event()
    seconds: list[float] = []
    with httpx.Client(timeout=60) as client:
        while (most is None or len(seconds) < most) and not until.is_set():
            start = time.perf_counter()
            client.post(f"{url}/api/analyze", files={"image": picture}).raise_for_status()
            seconds.append(time.perf_counter() - start)
            until.wait(max(0.0, EVERY_SECONDS - seconds[-1]))
    return seconds


def together(url: str, paths: list[Path]) -> tuple[list[float], float, int]:
    """Run a batch while somebody else asks: the seconds of each answer, those of the batch, and its updates."""
    client = Client(url, verbose=False)
    job = client.submit([handle_file(path) for path in paths], api_name="/analyze_batch")
    job_updates = iter(job)
    next(job_updates)  # all is uploaded, and the first picture answered
    start = time.perf_counter()
    done = threading.Event()
    beside: list[float] = []
    asking = threading.Thread(target=lambda: beside.extend(ask(url, None, done)))
    asking.start()
    updates = 1
    for update in job_updates:
        updates += 1
        if update["done"] == update["total"]:
            break
    seconds = time.perf_counter() - start
    done.set()
    asking.join()
    answers = job.result()["results"]
    bad = sum("error" in answer for answer in answers)
    if bad or len(answers) != len(paths):
        raise SystemExit(f"{bad} of {len(answers)} pictures failed")
    return beside, seconds, updates


def figures(seconds: list[float]) -> tuple[str, ...]:
    median, late = np.percentile(seconds, [50, 95])
    return (*(f"{1000 * value:.0f} ms" for value in (median, late, max(seconds))), str(len(seconds)))


if __name__ == "__main__":
    main()
