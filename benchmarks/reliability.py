"""What load, slow clients, strangers and a long life do to the app: ``make reliability`` writes docs/reliability.md.

Takes some fifteen minutes on two cores. The clients run beside the server on the same cores, so a rate under load has
their work in it as well.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PHOTO = HERE.parent / "clip_app" / "examples" / "coffee.jpg"
LONG_LIFE = 20_000
FILES, HALF_OPEN = 256, 320


def crowd(port: int, **asked: Any) -> subprocess.Popen[str]:
    """Start people in a process of their own."""
    given = json.dumps({"port": port, "photo": str(PHOTO), **asked})
    return subprocess.Popen([sys.executable, str(HERE / "crowd.py"), given], stdout=subprocess.PIPE, text=True)


def came_of(people: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = people.communicate()
    found: dict[str, Any] = json.loads(out)
    return found


class App:
    """A server, with its log."""

    def __init__(self, work: Path, *flags: str, files: int | None = None, **env: str) -> None:
        from sides import Server, free_port

        port = free_port()
        self.uploads = Path(tempfile.mkdtemp(dir=work))
        self.log = Path(tempfile.mkstemp(dir=work)[1])
        command = [sys.executable, "-m", "clip_app", "serve", "--port", str(port), "--log-format", "json", *flags]
        limit = f"ulimit -n {files}; " if files else ""
        shell = f"{limit}exec {' '.join(command)} 2>>{self.log}"
        self.server = Server(["sh", "-c", shell], port, {"TMPDIR": str(self.uploads), **env})
        self.port = port
        self.seconds = self.server.seconds_until("/readyz")

    def refusals(self) -> list[float]:
        """Milliseconds at the server of every picture that was refused for want of a place, since the last time."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if '"rejected"' in line]
        self.log.write_text("")
        return sorted(line["total_ms"] for line in lines)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.server.stop()


def overload(app: App, seconds: float) -> dict[str, Any]:
    """Peak, four times of it, clients that never pause, and polite ones beside greedy ones."""
    visitor, greedy, polite = "10.0.0.1", "10.0.0.2", "10.0.0.3"
    came_of(crowd(app.port, seconds=5, clients=8, who=visitor))
    before = came_of(crowd(app.port, seconds=20, clients=16, who=visitor))
    memory = [app.server.resident_megabytes()]
    app.refusals()
    four = came_of(crowd(app.port, seconds=seconds, rate=4 * before["rate"], who=visitor))
    memory.append(app.server.resident_megabytes())
    four["refused_at_server"] = app.refusals()
    after = came_of(crowd(app.port, seconds=20, clients=16, who=visitor))
    app.refusals()
    crowded = came_of(crowd(app.port, seconds=30, clients=256, who=visitor))
    crowded["refused_at_server"] = app.refusals()
    memory.append(app.server.resident_megabytes())
    many = crowd(app.port, seconds=34, clients=150, who=greedy)
    time.sleep(2)
    one = came_of(crowd(app.port, seconds=30, clients=1, who=polite))
    some = crowd(app.port, seconds=34, clients=8, labels=1000, who="10.0.0.4")
    came_of(many)
    time.sleep(2)
    few = came_of(crowd(app.port, seconds=30, clients=1, labels=2, pause=0.5, who="10.0.0.5"))
    came_of(some)
    time.sleep(10)
    cpu = app.cpu_seconds()
    time.sleep(20)
    idle = (app.cpu_seconds() - cpu) / 20
    return {
        "before": before,
        "four": four,
        "after": after,
        "crowded": crowded,
        "polite": one,
        "few_labels": few,
        "memory": memory,
        "idle": idle,
    }


def half_open(work: Path) -> dict[str, Any]:
    """A server that may open few files, and more connections than that which send half a request."""
    app = App(work, "--model", "bundled", files=FILES)
    try:
        opened = [socket.create_connection(("127.0.0.1", app.port)) for _ in range(HALF_OPEN)]
        for one in opened:
            one.sendall(b"POST /api/analyze HTTP/1.1\r\nHost: x\r\nContent-Le")
        took, statuses = [], Counter[int]()
        for _ in range(50):
            started = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=120, source_address=("127.0.0.9", 0))
            connection.request("GET", "/readyz")
            statuses[connection.getresponse().status] += 1
            connection.close()
            took.append(time.perf_counter() - started)
        for one in opened:
            one.close()
        return {"longest": max(took), "statuses": dict(statuses)}
    finally:
        app.stop()


def guesses(work: Path) -> dict[str, Any]:
    """Wrong passwords, as many as go, for ten seconds."""
    app = App(work, "--model", "bundled", "--auth", "ann:right")
    try:
        statuses = Counter[int]()
        connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
        until = time.perf_counter() + 10
        while time.perf_counter() < until:
            wrong = base64.b64encode(f"ann:{sum(statuses.values())}".encode()).decode()
            connection.request("GET", "/config", headers={"Authorization": f"Basic {wrong}"})
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        return {"statuses": dict(statuses)}
    finally:
        app.stop()


def long_life(work: Path) -> dict[str, Any]:
    app = App(work, "--model", "bundled")
    try:
        arguments = [str(app.port), str(app.server.process.pid), str(LONG_LIFE), str(PHOTO), str(app.uploads)]
        run = subprocess.run(
            [sys.executable, str(HERE / "long_life.py"), *arguments], check=True, capture_output=True, text=True
        )
        found: dict[str, Any] = json.loads(run.stdout)
        return found
    finally:
        app.stop()


def share(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}"


def text(found: dict[str, Any]) -> str:
    """The table of docs/reliability.md."""
    rows = [*rows_of_load(found["overload"]), *rows_of_strangers(found), row_of_life(found["long_life"])]
    return "\n".join(
        [
            f"Measured on {machine()}, which the clients shared, with ViT-B/32's shape unless said otherwise.",
            "",
            "| what was done to it | what came of it |",
            "|---|---|",
            *(f"| {done} | {came} |" for done, came in rows),
            "",
            f"![Memory, open files, threads and temporary files over {LONG_LIFE:,} analyses](images/long-life.png)",
        ]
    )


def rows_of_load(load: dict[str, Any]) -> list[tuple[str, str]]:
    peak = (load["before"]["rate"] + load["after"]["rate"]) / 2
    four, crowded, polite, few = (load[name] for name in ("four", "crowded", "polite", "few_labels"))
    in_time, refused = share(four["refused_at_server"], 0.95), share(crowded["refused_at_server"], 0.95)
    return [
        ("16 clients that never pause", f"{peak:.1f} a second, 95 of 100 within {load['before']['p95']:.2f} s"),
        (
            f"four times as many requests a second, for {four['seconds']:.0f} s",
            f"{four['rate']:.1f} a second, {four['rate'] / peak:.0%} of that, 95 of 100 within {four['p95']:.2f} s; "
            f"{four['refused']:,} refused, 95 of 100 within {in_time:.1f} ms at the server; "
            f"{four['other']} answered otherwise, {four['lost']} lost",
        ),
        (
            "256 clients that never pause, whatever they are told",
            f"{crowded['rate']:.1f} a second; {crowded['refused']:,} refused, 95 of 100 within {refused:.1f} ms at the "
            f"server and {1000 * crowded['refused_p95']:.0f} ms at the client; {crowded['lost']} lost",
        ),
        (
            "memory before, after four times the load, after 256 clients",
            ", ".join(f"{value:.0f} MB" for value in load["memory"]),
        ),
        (
            "a polite client with one connection beside a greedy one with 150",
            f"{polite['answered']} answered in {polite['seconds']:.0f} s, {polite['refused']} refused; half within "
            f"{polite['median']:.2f} s, the longest {polite['longest']:.2f} s",
        ),
        (
            "two new labels of a polite client beside eight connections that ask for 1,000 new labels each",
            f"{few['answered']} answered, {few['refused']} refused; the longest {few['longest']:.2f} s",
        ),
        ("idle afterwards", f"{load['idle']:.1%} of a core"),
    ]


def rows_of_strangers(found: dict[str, Any]) -> list[tuple[str, str]]:
    half, tried = found["half_open"], found["guesses"]["statuses"]
    statuses = ", ".join(f"{count} answered {status}" for status, count in half["statuses"].items())
    return [
        (
            f"{HALF_OPEN} half-open connections at a server that may open {FILES} files (bundled model)",
            f"of 50 requests of another client {statuses}, the longest after {1000 * half['longest']:.0f} ms",
        ),
        (
            "wrong passwords for 10 s (bundled model)",
            f"{tried.get('401', tried.get(401, 0))} tried, {tried.get('429', tried.get(429, 0)):,} refused unseen",
        ),
    ]


def row_of_life(life: dict[str, Any]) -> tuple[str, str]:
    rows, done = life["rows"], life["done"]
    warm, last = rows[len(rows) // 4], rows[-1]
    by_face = ", ".join(f"{count:,} {name}" for name, count in sorted(done.items()))
    changes = (
        f"{name} {warm[column]:.0f} to {last[column]:.0f}"
        for column, name in enumerate(("memory (MB)", "open files", "threads", "temporary files"), 2)
    )
    return (
        f"{sum(done.values()):,} analyses (bundled model): {by_face}",
        f"from the {warm[0]:,.0f}th to the {last[0]:,.0f}th: {', '.join(changes)}; errors: {life['errors'] or 'none'}",
    )


def draw(rows: list[list[float]], path: Path) -> None:
    """Draw what the process held over the analyses."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 5.5), sharex=True)
    names = ("memory, MB", "open files", "threads", "temporary files")
    for one, name, column in zip(axes.flat, names, range(2, 6), strict=True):
        one.plot([row[0] for row in rows], [row[column] for row in rows], color="#4f46e5")
        one.set_title(name, loc="left", weight="bold")
        one.set_ylim(bottom=0)
        one.grid(color="#e2e8f0", linewidth=0.8)
        one.spines[["top", "right"]].set_visible(False)
    for one in axes[1]:
        one.set_xlabel("analyses")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    from checkpoint import make_checkpoint

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    work = Path(tempfile.mkdtemp(prefix="reliability-"))
    os.environ |= {"HF_HOME": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    try:
        found: dict[str, Any] = {"half_open": half_open(work), "guesses": guesses(work), "long_life": long_life(work)}
        print("half-open, guesses and long life are done", flush=True)
        model = str(make_checkpoint(work / "checkpoint"))
        app = App(work, "--model", model, "--fallback", "none", CLIP_APP_TRUSTED_PROXIES="127.0.0.1")
        try:
            time.sleep(10)
            found["overload"] = overload(app, seconds)
        finally:
            app.stop()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    draw(found["long_life"]["rows"], DOCS / "images" / "long-life.png")
    path = DOCS / "reliability.md"
    table = f"<!-- table -->\n{text(found)}\n<!-- end -->"
    told = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"<!-- table -->.*<!-- end -->", lambda _: table, told, flags=re.S), encoding="utf-8")
    print(text(found))


if __name__ == "__main__":
    main()
