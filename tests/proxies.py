"""Proxies of the tests' own: CONNECT in clear or over TLS, and SOCKS5; each counts whom it let through."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Proxy:
    """Listens on loopback; ``answer`` is what it says to CONNECT instead of letting it through."""

    kind: Literal["connect", "socks5"] = "connect"
    tls: ssl.SSLContext | None = None
    answer: str | None = None
    reached: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield its address."""
        scheme = "socks5" if self.kind == "socks5" else "https" if self.tls else "http"
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
            yield f"{scheme}://ann:secret@localhost:{listening.getsockname()[1]}"

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            host, port = self._socks(connection) if self.kind == "socks5" else self._connect(connection)
            self.reached.append(host)
            with connection, socket.create_connection((host, port)) as onward:
                back = threading.Thread(target=_pump, args=(onward, connection), daemon=True)
                back.start()
                _pump(connection, onward)
                back.join()

    def _connect(self, connection: socket.socket) -> tuple[str, int]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        if self.answer is not None or b"Proxy-Authorization" not in head:
            answer = self.answer or "407 Proxy Authentication Required"
            connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
            connection.close()
        else:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        host, port = head.split(b" ")[1].decode().split(":")
        return host, int(port)

    def _socks(self, connection: socket.socket) -> tuple[str, int]:
        """RFC 1928, and RFC 1929 for the name and the password."""
        _, count = connection.recv(2)
        methods = connection.recv(count)
        connection.sendall(b"\x05\x02" if 2 in methods else b"\x05\xff")
        _, length = connection.recv(2)
        connection.recv(length)
        connection.recv(connection.recv(1)[0])
        connection.sendall(b"\x01\x00")
        kind = connection.recv(4)[3]
        host = socket.inet_ntoa(connection.recv(4)) if kind == 1 else connection.recv(connection.recv(1)[0]).decode()
        port = int.from_bytes(connection.recv(2), "big")
        connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
        return host, port


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
