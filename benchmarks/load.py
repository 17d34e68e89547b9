"""Closed-loop load from a process of its own: so many clients, each the next as soon as it has its answer.

    python benchmarks/load.py KIND PORT CLIENTS COUNT PHOTO

KIND is rest (raw sockets, the cheapest), infinity and scrape (the same), gradio (gradio_client
as it comes), gradio-shared (all of its clients on one TLS context) or gradio-http (upload, call
and event stream over http.client). Prints one JSON object.
"""

from __future__ import annotations

import base64
import http.client
import json
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LABELS = "cat, dog, rabbit"
BOUNDARY = "----clip-app-bench"


def http_request(path: str, body: bytes, content_type: str) -> bytes:
    """One HTTP/1.1 POST request, whole."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def multipart(file_field: str, photo: bytes, fields: dict[str, str]) -> tuple[bytes, str]:
    """A multipart body with one JPEG, and its content type."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{file_field}"; filename="photo.jpg"\r\n'
    parts.append(f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + photo + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


class Connection:
    """A keep-alive connection that sends one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started = 0.0
        self._received = b""

    def send(self, request: bytes) -> None:
        self._received = b""
        self.started = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what is there; True once the answer, which must be a 200, is whole."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self._received += chunk
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self._received[:300].decode(errors="replace"))
        length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        return len(body) >= int(length)


def run_raw(port: int, request: bytes, clients: int, count: int) -> list[float]:
    """Send a request ``count`` times over so many connections; return the seconds each took."""
    seconds: list[float] = []
    selector, sent = selectors.DefaultSelector(), 0
    for _ in range(clients):
        connection = Connection(port)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(request)
        sent += 1
    while len(seconds) < count:
        for key, _ in selector.select(120):
            connection = key.data
            if connection.answered():
                seconds.append(time.perf_counter() - connection.started)
                if sent < count:
                    connection.send(request)
                    sent += 1
    return seconds


def run_threads(calls: list[Callable[[], None]], count: int) -> list[float]:
    """Make ``count`` calls, a thread for each client; return the seconds each took."""
    seconds: list[float] = []
    left, lock = [count], threading.Lock()

    def work(call: Callable[[], None]) -> None:
        while True:
            with lock:
                if left[0] == 0:
                    return
                left[0] -= 1
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(seconds) != count:
        raise RuntimeError(f"{count - len(seconds)} calls failed")
    return seconds


def gradio_client(port: int, photo: Path, *, verify: ssl.SSLContext | bool) -> Callable[[], None]:
    from gradio_client import Client, handle_file

    client = Client(f"http://127.0.0.1:{port}/", verbose=False, analytics_enabled=False, ssl_verify=verify)
    return lambda: client.predict(handle_file(photo), LABELS, api_name="/classify")


def gradio_http(port: int, photo: Path) -> Callable[[], None]:
    """Gradio's protocol by hand: upload, call, event stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    form, form_type = multipart("files", photo.read_bytes(), {})

    def ask(method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> str:
        connection.request(method, path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(text[:300])
        return text

    def call() -> None:
        path = json.loads(ask("POST", "/gradio_api/upload", form, form_type))[0]
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, LABELS, "a photo of a {}.", False]
        event = json.loads(ask("POST", "/gradio_api/call/classify", json.dumps({"data": data}).encode()))["event_id"]
        if "event: complete" not in ask("GET", f"/gradio_api/call/classify/{event}"):
            raise RuntimeError("the call failed")

    return call


def run(kind: str, port: int, clients: int, count: int, photo: Path) -> list[float]:
    if kind == "scrape":
        return run_raw(port, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", clients, count)
    data = photo.read_bytes()
    if kind == "rest":
        body, content_type = multipart("image", data, {"labels": LABELS})
        return run_raw(port, http_request("/api/analyze", body, content_type), clients, count)
    if kind == "infinity":
        image = "data:image/jpeg;base64," + base64.b64encode(data).decode()
        asked = json.dumps({"model": "clip", "modality": "image", "encoding_format": "float", "input": [image]})
        return run_raw(port, http_request("/embeddings", asked.encode(), "application/json"), clients, count)
    if kind in ("gradio", "gradio-shared"):
        verify = ssl.create_default_context() if kind == "gradio-shared" else True
        return run_threads([gradio_client(port, photo, verify=verify) for _ in range(clients)], count)
    return run_threads([gradio_http(port, photo) for _ in range(clients)], count)


def main() -> None:
    kind, port, clients, count, photo = sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])
    if count > 1:
        run(kind, port, clients, clients, photo)  # pools and caches are warm
    cpu, started = time.process_time(), time.perf_counter()
    seconds = sorted(run(kind, port, clients, count, photo))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    result = {
        "images_per_second": count / wall,
        "median_ms": 1000 * seconds[len(seconds) // 2],
        "p95_ms": 1000 * seconds[int(0.95 * len(seconds))],
        "client_cpu_ms": 1000 * cpu / count,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
