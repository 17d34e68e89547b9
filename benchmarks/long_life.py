"""So many analyses through every face of a running server, with what its process holds meanwhile.

    python benchmarks/long_life.py PORT PID COUNT PHOTO UPLOADS

PID is the server's process and UPLOADS the folder of its temporary files. Prints one JSON object: rows of analyses
done, seconds, megabytes resident, open files, threads and temporary files; and the analyses by face.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import gradio_http, multipart

CLIENTS = 4
ROWS = 100
TURNS = ("rest", "page", "mcp", "rest", "gradio", "page", "rest", "bad")  # what each client does, over and over


def faces(port: int, photo: Path) -> dict[str, Callable[[], None]]:
    """One client's ways to ask, each with a connection that it keeps."""
    data = photo.read_bytes()
    encoded = base64.b64encode(data).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    form, form_type = multipart("image", data, {"labels": "cat, dog, coffee"})
    broken, _ = multipart("image", data[:200], {})
    picture = {"url": f"data:image/jpeg;base64,{encoded}"}
    question = {"picture": picture, "options": {"labels": ["cat", "dog"]}, "number": 1}
    page = json.dumps({"data": [question], "fn_index": 0}).encode()
    called = {"name": "classify", "arguments": {"image": encoded, "labels": ["cat", "dog"]}}
    tool = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": called}).encode()
    talk = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    def ask(path: str, body: bytes, headers: dict[str, str], status: int, says: bytes) -> None:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != status or says not in text:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")

    return {
        "rest": lambda: ask("/api/analyze", form, {"Content-Type": form_type}, 200, b"confidence"),
        "bad": lambda: ask("/api/analyze", broken, {"Content-Type": form_type}, 400, b"undecodable_image"),
        "page": lambda: ask("/gradio_api/run/predict", page, talk, 200, b"confidence"),
        "mcp": lambda: ask("/mcp", tool, talk, 200, b"confidence"),
        "gradio": gradio_http(port, photo),
    }


def held(pid: int, uploads: Path) -> tuple[float, int, int, int]:
    """Megabytes resident, open files, threads and temporary files."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, threads = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmRSS", "Threads"))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return resident / 1024, files, threads, sum(path.is_file() for path in uploads.rglob("*"))


def run(port: int, pid: int, count: int, photo: Path, uploads: Path) -> dict[str, Any]:
    """Ask with a few clients at once, and look at the process every so often."""
    left, lock = [count], threading.Lock()
    done: Counter[str] = Counter()
    rows: list[tuple[float, ...]] = []
    errors: list[str] = []
    started = time.perf_counter()

    def work() -> None:
        ways = faces(port, photo)
        turn = 0
        while True:
            with lock:
                if left[0] <= 0 or errors:
                    return
                left[0] -= 1
                if left[0] % (count // ROWS) == 0:
                    rows.append((count - left[0], time.perf_counter() - started, *held(pid, uploads)))
            way = TURNS[turn % len(TURNS)]
            turn += 1
            try:
                ways[way]()
            except Exception as error:
                errors.append(repr(error)[:300])
                return
            done[way] += 1

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"rows": rows, "done": dict(done), "errors": errors}


if __name__ == "__main__":
    port, pid, count = map(int, sys.argv[1:4])
    print(json.dumps(run(port, pid, count, Path(sys.argv[4]), Path(sys.argv[5]))))
