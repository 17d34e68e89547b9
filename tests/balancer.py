"""A load balancer of a few lines: one request to each replica in turn, or by cookie to the same one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

COOKIE = "clip-app"
HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "content-encoding", "keep-alive"}


class Balancer(ThreadingHTTPServer):
    """Passes requests on; ``seen`` counts what each replica got."""

    daemon_threads = True

    def __init__(self, replicas: list[str], *, sticky: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replicas = replicas
        self.sticky = sticky
        self.says_so = True  # that a replica is gone
        self.seen = dict.fromkeys(range(len(replicas)), 0)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._turns = itertools.cycle(range(len(replicas)))
        self._lock = threading.Lock()

    def choose(self, cookies: str) -> int:
        with self._lock:
            known = SimpleCookie(cookies).get(COOKIE) if self.sticky else None
            number = int(known.value) if known else next(self._turns)
            self.seen[number] += 1
            return number


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # one request a connection
    server: Balancer

    def do_GET(self) -> None:
        number = self.server.choose(self.headers.get("Cookie", ""))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        headers["Accept-Encoding"] = "identity"  # passed on as it comes
        to = self.server.replicas[number] + self.path
        try:
            self._pass_on(number, httpx.stream(self.command, to, headers=headers, content=body, timeout=60))
        except httpx.ConnectError:
            if self.server.says_so:
                self.send_error(502)

    def _pass_on(self, number: int, stream: AbstractContextManager[httpx.Response]) -> None:
        with stream as answer:
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            if self.server.sticky:
                self.send_header("Set-Cookie", f"{COOKIE}={number}; Path=/")
            self.end_headers()
            with suppress(httpx.RemoteProtocolError):  # a replica that breaks off: so does the balancer
                for chunk in answer.iter_raw():
                    self.wfile.write(chunk)
                    self.wfile.flush()

    do_POST = do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def balancing(replicas: list[str], *, sticky: bool = False) -> Iterator[Balancer]:
    balancer = Balancer(replicas, sticky=sticky)
    threading.Thread(target=balancer.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield balancer
    finally:
        balancer.shutdown()
        balancer.server_close()
