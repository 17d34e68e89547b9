"""The doors of a real server: passwords, who is who behind proxies, headers, and every route there is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from asgi import answer, ask
from conftest import free_port, served, served_here
from starlette.types import Receive, Scope, Send

from clip_app.errors import SettingsError
from clip_app.middleware.basic_auth import BURST, SECONDS_EACH, BasicAuth, Failures
from clip_app.middleware.forwarded import Forwarded
from clip_app.middleware.request_id import RequestIds, address_of
from clip_app.settings import load_settings

RIGHT, WRONG = ("ann", "right"), ("ann", "wrong")


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    """A server with a password, also for its metrics, behind a proxy on this machine."""
    with served(
        "--model", "bundled", "--auth", "ann:right", "--metrics-auth", "login", "--trusted-proxies", "127.0.0.1"
    ) as url:
        yield url


def login(url: str, who: tuple[str, str] | None, address: str, path: str = "/config") -> httpx.Response:
    return httpx.get(f"{url}{path}", auth=who, headers={"X-Forwarded-For": address})


def test_wrong_passwords_are_few_and_only_whoever_sends_them_waits(closed: str) -> None:
    statuses = [login(closed, WRONG, "192.0.2.1").status_code for _ in range(BURST + 20)]
    assert statuses[:BURST] == [401] * BURST
    assert statuses.count(401) <= BURST + 2, "a few seconds may have passed"
    late = login(closed, RIGHT, "192.0.2.1")
    assert late.status_code == 429, "else it would tell that the password is the right one"
    assert 1 <= int(late.headers["retry-after"]) <= SECONDS_EACH
    assert late.json()["error"]["code"] == "too_many_attempts"
    assert login(closed, None, "192.0.2.1").status_code == 401, "who tries nothing may look"
    assert login(closed, RIGHT, "192.0.2.2").status_code == 200
    assert httpx.get(f"{closed}/readyz").status_code == 200


def test_whoever_forges_the_header_is_not_somebody_else() -> None:
    with served("--model", "bundled", "--auth", "ann:right") as url:
        for number in range(BURST):
            assert login(url, WRONG, f"192.0.2.{number}").status_code == 401
        assert login(url, WRONG, "192.0.2.99").status_code == 429, "no proxy is named, so nobody is believed"


def test_failures_are_forgiven_one_by_one() -> None:
    now = [0.0]
    failures = Failures(clock=lambda: now[0])
    for _ in range(BURST):
        assert failures.wait("a") == 0
        failures.add("a")
    assert failures.wait("a") == SECONDS_EACH
    assert failures.wait("b") == 0
    now[0] += SECONDS_EACH
    assert failures.wait("a") == 0
    failures.add("a")
    assert failures.wait("a") == SECONDS_EACH
    now[0] += BURST * SECONDS_EACH
    assert failures.wait("a") == 0


def test_metrics_are_open_or_not(closed: str, server: str) -> None:
    for path in ("/metrics", "/metrics/"):
        assert login(closed, None, "192.0.2.3", path).status_code == 401
        assert login(closed, RIGHT, "192.0.2.3", path).status_code == 200
        assert httpx.get(f"{server}{path}").status_code == 200
    with pytest.raises(SettingsError, match="CLIP_APP_METRICS_AUTH=login: there is no login without CLIP_APP_AUTH"):
        load_settings(metrics_auth="login")


def test_metrics_have_a_port_of_their_own_where_one_is_named() -> None:
    port = free_port()
    with served("--model", "bundled", "--auth", "ann:right", "--metrics-port", str(port)) as url:
        for path in ("/metrics", "/metrics/"):
            assert httpx.get(f"{url}{path}").status_code == 404
        apart = f"http://127.0.0.1:{port}/metrics"
        assert "clip_app_model_ready 1.0" in httpx.get(apart).text
        headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
        assert httpx.get(apart, headers=headers).text.endswith("# EOF\n")
        command = [sys.executable, "-m", "clip_app", "serve", "--port", "0", "--metrics-port", str(port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2
        assert f"CLIP_APP_METRICS_PORT={port}: Address already in use; choose another port" in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"metrics_port": 7860, "port": 7860}, "it is the port of all else"),
        ({"metrics_port": 0}, "greater than or equal to 1"),
        ({"metrics_port": 9100, "auth": "a:b", "metrics_auth": "login"}, "there is no login at a port of its own"),
    ],
)
def test_a_port_for_metrics_that_cannot_be_meant_stops_the_start(given: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(**given)


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.0/99", "10.0.0.1,*", "10.0.0.1/8"])
def test_a_proxy_that_is_no_address_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="is no address or network"):
        load_settings(trusted_proxies=value)


def test_a_body_of_a_stranger_is_not_read_to_its_end(closed: str) -> None:
    host, port = closed.removeprefix("http://").split(":")
    size, sent = 60_000_000, 0
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(b"POST /api/analyze HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        try:
            while sent < size:
                sent += sock.send(bytes(1 << 18))
        except OSError:
            pass
        assert sent < size // 2
        assert sock.recv(100).startswith(b"HTTP/1.1 401")


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with who asks and with what of the proxies' headers is left."""
    left = [name.decode() for name, _ in scope["headers"] if name.startswith(b"x-forwarded")]
    await answer(send, 200, [scope["client"][0], scope["scheme"], left])


@pytest.mark.parametrize(
    ("proxies", "sent", "told"),
    [
        (["127.0.0.0/8"], {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}, ["192.0.2.1", "https"]),
        (["127.0.0.1"], {"X-Forwarded-For": "6.6.6.6, 192.0.2.1"}, ["192.0.2.1", "http"]),
        (["127.0.0.1", "10.0.0.0/8"], {"X-Forwarded-For": "192.0.2.1, 10.9.9.9"}, ["192.0.2.1", "http"]),
        (["10.0.0.1"], {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}, ["127.0.0.1", "http"]),
    ],
)
def test_only_named_proxies_are_believed(proxies: list[str], sent: dict[str, str], told: list[str]) -> None:
    found = json.loads(ask(Forwarded(tell, proxies=proxies), "/", headers=sent).body)
    assert found[:2] == told
    assert bool(found[2]) == (proxies != ["10.0.0.1"])


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("", "unknown"),
    ],
)
def test_a_household_is_one_client(address: str, name: str) -> None:
    assert address_of(address) == name


def test_a_password_is_asked_for_before_anything_is_counted() -> None:
    app = RequestIds(BasicAuth(tell, credentials="ann:right"))
    found = ask(app, "/api/analyze", bytes(10), headers={"Content-Length": "10"})
    assert (found.status, found.unread) == (401, 1)


@pytest.mark.parametrize("path", ["/", "/config", "/api/docs", "/metrics", "/healthz", "/nowhere", "/page/page.js"])
def test_every_answer_says_what_a_browser_may_do_with_it(server: str, path: str) -> None:
    headers = httpx.get(f"{server}{path}").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'self'"
    assert policy["object-src"] == "'none'"
    assert "http" not in headers["content-security-policy"]


def test_only_named_sites_may_show_the_page_inside_their_own() -> None:
    with served_here(cors_origins="https://a.example") as url:
        policy = httpx.get(f"{url}/healthz").headers["content-security-policy"]
    assert policy.endswith("frame-ancestors 'self' https://a.example")
