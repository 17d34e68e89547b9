"""A Hub of our own on loopback: the routes that the real huggingface_hub client asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
LFS_SUFFIXES = (".safetensors",)


class FakeHub:
    """Serves one folder as a model repository, keeps a log, and can hold its downloads."""

    def __init__(self, folder: Path, repo: str = "acme/tiny-clip") -> None:
        self.repo = repo
        self.files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
        self.log: list[str] = []
        self.open = threading.Event()
        self.open.set()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.open.set()
            self._server.shutdown()
            self._server.server_close()

    def tree(self) -> list[dict[str, Any]]:
        entries = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
            if name.endswith(LFS_SUFFIXES):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route(body=False)

    def do_GET(self) -> None:
        self._route(body=True)

    def _route(self, *, body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.log.append(f"{self.command} {path}")
        api, resolve = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/{REVISION}/"
        if path in (f"{api}/revision/{REVISION}", f"{api}/revision/main", api):
            siblings = [{"rfilename": name} for name in hub.files]
            self._json(200, {"id": hub.repo, "modelId": hub.repo, "sha": REVISION, "siblings": siblings})
        elif path == f"{api}/tree/{REVISION}":
            self._json(200, hub.tree())
        elif path.startswith(resolve) and path.removeprefix(resolve) in hub.files:
            self._file(path.removeprefix(resolve), body=body)
        elif path.startswith(f"{api}/revision/"):
            self._json(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith((api, f"/{hub.repo}/")):
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        else:
            self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str, *, body: bool) -> None:
        content = self.hub.files[name]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            half = len(content) // 2
            self.wfile.write(content[:half])
            self.hub.open.wait(30)
            self.wfile.write(content[half:])

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for key, text in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass
