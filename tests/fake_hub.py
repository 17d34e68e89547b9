"""A Hub of our own on loopback: the routes that the real huggingface_hub client asks for.

Two origins, the Hub and its content network, in clear or over TLS, with faults on command.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

import trustme

from clip_app.hub.files import hash_file

REVISION = "0123456789abcdef0123456789abcdef01234567"
LFS_SUFFIXES = (".safetensors", ".bin", ".onnx", ".onnx_data")
CHUNK = 1 << 20

Content = bytes | Path


class Authority:
    """A certificate authority that no machine trusts until it is told to."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write(self, folder: Path) -> Path:
        path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(path)
        return path

    def context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        ended = datetime.now(timezone.utc) - timedelta(days=1)
        since, until = (ended - timedelta(days=9), ended) if expired else (None, None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")), not_before=since, not_after=until)
        certificate.configure_cert(context)
        return context


@dataclass
class Fault:
    """What goes wrong with the next requests whose path has ``match`` in it.

    ``value`` is the share after which a body is cut, the status, or the seconds of a stall or of each slow kilobyte.
    """

    match: str
    kind: Literal["cut", "short", "flip", "slow", "status", "stall", "page"]
    value: float = 0.5
    times: int = 1
    retry_after: int | None = None
    method: str | None = None
    message: str = ""
    code: str = ""
    body: str = "<h1>Login</h1>"


@dataclass(frozen=True)
class Request:
    origin: Literal["hub", "cdn"]
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeHub:
    """Serves one folder as a model repository and keeps a log of what was asked."""

    folder: Path
    repo: str = "acme/tiny-clip"
    revision: str = REVISION
    tls: ssl.SSLContext | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files: dict[str, Content] = {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        self.open = threading.Event()
        self.open.set()
        self._lock = threading.Lock()
        self._servers = [self._serve("hub"), self._serve("cdn")]
        scheme = "https" if self.tls else "http"
        self.endpoint = f"{scheme}://localhost:{self._servers[0].server_port}"
        self.cdn = f"{scheme}://127.0.0.1:{self._servers[1].server_port}"

    @property
    def log(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    def downloads(self, name: str) -> int:
        """How many times the bytes of a file were asked for, from their start."""
        target = (
            f"/cdn/{digest(self.files[name])}" if name.endswith(LFS_SUFFIXES) else f"/resolve/{self.revision}/{name}"
        )
        return sum(r.method == "GET" and r.path.endswith(target) and "range" not in r.headers for r in self.requests)

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self.open.set()
            for server in self._servers:
                server.shutdown()
                server.server_close()

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.match in path and fault.times > 0 and fault.method in (None, method):
                    fault.times -= 1
                    return fault
        return None

    def tree(self) -> list[dict[str, Any]]:
        entries = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": size(content), "oid": blob_digest(content)}
            if name.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": digest(content), "size": size(content), "pointerSize": 134}
            entries.append(entry)
        return entries

    def _serve(self, origin: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "origin": origin})
        server = _Server(("127.0.0.1", 0), handler)
        if self.tls:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return server


@cache
def digest(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else hash_file(content).sha256


@cache
def blob_digest(content: Content) -> str:
    data = content if isinstance(content, bytes) else b""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]
    origin: ClassVar[Literal["hub", "cdn"]]
    protocol_version = "HTTP/1.1"
    wbufsize = CHUNK

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        hub.requests.append(Request(self.origin, self.command, path, headers))
        fault = hub.fault(self.command, path)
        if fault and fault.kind == "status":
            retry = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
            said = {"X-Error-Message": fault.message} if fault.message else {}
            kind = {"X-Error-Code": fault.code} if fault.code else {}
            self._json(int(fault.value), {"error": "try later"}, retry | said | kind)
        elif fault and fault.kind == "page":  # of whoever stands between
            self._head(200, {"Content-Type": "text/html", "Content-Length": str(len(fault.body))})
            self.wfile.write(fault.body.encode() if self.command != "HEAD" else b"")
        elif fault and fault.kind == "stall":
            time.sleep(fault.value)
            self.close_connection = True
        elif path.startswith("/cdn/"):
            content = next(c for c in hub.files.values() if digest(c) == path.removeprefix("/cdn/"))
            self._body(content, {"ETag": f'"{digest(content)}"', "Accept-Ranges": "bytes"}, fault)
        else:
            self._hub_route(path, fault)
        with suppress(OSError, ValueError):
            self.wfile.flush()

    def _hub_route(self, path: str, fault: Fault | None) -> None:
        hub = self.hub
        api, resolve = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/{hub.revision}/"
        if path in (f"{api}/revision/{hub.revision}", f"{api}/revision/main", api):
            siblings = [{"rfilename": name} for name in hub.files]
            self._json(200, {"id": hub.repo, "modelId": hub.repo, "sha": hub.revision, "siblings": siblings})
        elif path == f"{api}/tree/{hub.revision}":
            self._json(200, hub.tree())
        elif path.startswith(resolve) and path.removeprefix(resolve) in hub.files:
            self._resolve(path.removeprefix(resolve), fault)
        elif path.startswith(f"{api}/revision/"):
            self._json(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith((api, f"/{hub.repo}/")):
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        else:
            self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, name: str, fault: Fault | None) -> None:
        content = self.hub.files[name]
        commit = {"X-Repo-Commit": self.hub.revision}
        if not name.endswith(LFS_SUFFIXES):
            self._body(content, commit | {"ETag": f'"{blob_digest(content)}"'}, fault)
            return
        sha256 = digest(content)
        linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(size(content))}
        self._head(302, commit | linked | {"Location": f"{self.hub.cdn}/cdn/{sha256}", "Content-Length": "0"})

    def _body(self, content: Content, headers: dict[str, str], fault: Fault | None) -> None:
        total, start = size(content), 0
        if (asked := self.headers.get("Range")) is not None:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers = headers | {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        self._head(206 if asked else 200, headers | {"Content-Length": str(total - start)})
        if self.command == "HEAD":
            return
        stop = total
        if fault and fault.kind in ("cut", "short"):
            stop = start + int((total - start) * fault.value)
            self.close_connection = True
        for offset, chunk in _chunks(content, start, stop):
            if fault and fault.kind == "slow":
                self._trickle(chunk, fault.value)
                continue
            flipped = fault and fault.kind == "flip" and offset == start
            self.wfile.write(chunk[:-64] + bytes(b ^ 0xFF for b in chunk[-64:]) if flipped else chunk)
            self.wfile.flush()
            self.hub.open.wait(30)

    def _trickle(self, chunk: bytes, seconds: float) -> None:
        for start in range(0, len(chunk), 1024):
            self.wfile.write(chunk[start : start + 1024])
            self.wfile.flush()
            time.sleep(seconds)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(content))} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _chunks(content: Content, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    if isinstance(content, bytes):
        for offset in range(start, stop, CHUNK):
            yield offset, content[offset : min(offset + CHUNK, stop)]
        return
    with content.open("rb") as file:
        file.seek(start)
        for offset in range(start, stop, CHUNK):
            yield offset, file.read(min(CHUNK, stop - offset))
