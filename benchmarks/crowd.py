"""People at a server, from a process of its own: some never pause, some come at a rate whatever is answered.

    python benchmarks/crowd.py '{"port": 7860, "photo": "coffee.jpg", "seconds": 10, "clients": 16, "who": "10.0.0.1"}'

``clients`` connections ask again as soon as they are answered; with ``rate``, so many requests a second come whether or
not the others were answered, over connections that are left open, as a proxy does.
``labels`` makes each request ask for so many labels that nobody asked for before.
``pause`` seconds lie between two requests of a client. ``who`` goes into X-Forwarded-For. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from load import http_request, multipart

WORDS = ("red", "old", "small", "wooden", "quiet", "bright", "heavy", "round", "open", "broken", "distant", "golden")
PATIENCE = 300.0
MOST_AT_ONCE = 600  # open at once, at a rate


class Crowd:
    """The requests that are sent, and what came of each: its status, and the seconds it took."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.photo = Path(asked["photo"]).read_bytes()
        self.answers: list[tuple[int, float]] = []
        self.lost = 0
        self._numbers = itertools.count()
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._same = None if "labels" in asked else self.request()

    def request(self) -> bytes:
        number = next(self._numbers)
        count = self.asked.get("labels", 3)
        if "labels" in self.asked:  # of many words each, and never the same
            who = self.asked["who"].replace(".", " ")
            labels = [f"{' '.join(WORDS)} thing {who} {number} {i}" for i in range(count)]
        else:
            labels = ["cat", "dog", "coffee"]
        body, kind = multipart("image", self.photo, {"labels": json.dumps(labels)})
        return http_request("/api/analyze", body, kind).replace(
            b"\r\n", f"\r\nX-Forwarded-For: {self.asked['who']}\r\n".encode(), 1
        )

    async def never_pausing(self, until: float) -> None:
        """One connection after the other, as the server leaves them open."""
        streams = None
        while time.perf_counter() < until:
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self.asked["port"])
                if not await self.ask(*streams):
                    streams[1].close()
                    streams = None
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                self.lost += 1
                streams = None
                await asyncio.sleep(0.05)
            if pause := self.asked.get("pause"):
                await asyncio.sleep(pause)

    async def at_a_rate(self, until: float) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.perf_counter()
        while (due := due + 1 / self.asked["rate"]) < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(tasks) < MOST_AT_ONCE:
                task = asyncio.create_task(self.once())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def once(self) -> None:
        try:
            streams = self._open.pop() if self._open else None
            if streams is None or streams[0].at_eof():
                streams = await asyncio.open_connection("127.0.0.1", self.asked["port"])
            if await self.ask(*streams):
                self._open.append(streams)
            else:
                streams[1].close()
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            self.lost += 1

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once; whether the connection stays open."""
        started = time.perf_counter()
        writer.write(self._same or self.request())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        lower = head.lower()
        await asyncio.wait_for(reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0])), PATIENCE)
        self.answers.append((int(head.split(b" ", 2)[1]), time.perf_counter() - started))
        return b"connection: close" not in lower

    async def run(self) -> dict[str, Any]:
        started = time.perf_counter()
        until = started + self.asked["seconds"]
        if "rate" in self.asked:
            await self.at_a_rate(until)
        else:
            await asyncio.gather(*(self.never_pausing(until) for _ in range(self.asked["clients"])))
        seconds = time.perf_counter() - started
        good = sorted(took for status, took in self.answers if status == 200)
        refused = sorted(took for status, took in self.answers if status == 503)
        return {
            "seconds": seconds,
            "answered": len(good),
            "refused": len(refused),
            "other": len(self.answers) - len(good) - len(refused),
            "lost": self.lost,
            "rate": len(good) / seconds,
            "median": share(good, 0.5),
            "p95": share(good, 0.95),
            "longest": share(good, 1.0),
            "refused_median": share(refused, 0.5),
            "refused_p95": share(refused, 0.95),
        }


def share(values: list[float], part: float) -> float | None:
    """The value below which so large a part of them lies."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else None


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Crowd(json.loads(sys.argv[1])).run())))
