"""Every route that the running app has, and who may call it: an update that brings another one fails here."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import pytest
from conftest import READY_SECONDS
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount
from starlette.testclient import TestClient

from clip_app.gradio_routes import CLOSED
from clip_app.server import Application, create_app
from clip_app.settings import load_settings

PASSWORD = "ann:right"
ASKS = {"Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"}

ANYBODY = {"GET /healthz", "HEAD /healthz", "GET /readyz", "HEAD /readyz"}
METRICS = {"GET /metrics", "HEAD /metrics", "GET /metrics/", "HEAD /metrics/"}
OURS = {
    "POST /api/analyze",
    "POST /api/explain",
    "POST /api/search",
    "GET /api/collections",
    "GET /api/collections/{name}/thumbnails/{number}.jpg",
    "POST /v1/embeddings",
    "* /mcp",
    "* /mcp/",
}
# The rest is Gradio's and the documentation's: with the password, where there is one.
OTHERS = {
    "GET /",
    "HEAD /",
    "GET /api/docs",
    "GET /api/openapi.json",
    "HEAD /api/openapi.json",
    "* /api/static",
    "GET /assets/{path:path}",
    "GET /config",
    "GET /config/",
    "GET /docs/oauth2-redirect",
    "* /examples",
    "GET /favicon.ico",
    "POST /gradio_api/api/{api_name}",
    "POST /gradio_api/api/{api_name}/",
    "GET /gradio_api/app_id",
    "GET /gradio_api/app_id/",
    "POST /gradio_api/call/v2/{api_name}",
    "POST /gradio_api/call/v2/{api_name}/",
    "GET /gradio_api/call/v2/{api_name}/{event_id}",
    "POST /gradio_api/call/{api_name}",
    "POST /gradio_api/call/{api_name}/",
    "GET /gradio_api/call/{api_name}/{event_id}",
    "POST /gradio_api/cancel",
    "POST /gradio_api/component_server",
    "POST /gradio_api/component_server/",
    "GET /gradio_api/custom_component/{id}/{environment}/{type}/{file_name}",
    "GET /gradio_api/deep_link",
    "GET /gradio_api/dev/reload",
    "GET /gradio_api/file/{path:path}",
    "GET /gradio_api/file={path_or_url:path}",
    "HEAD /gradio_api/file={path_or_url:path}",
    "GET /gradio_api/heartbeat/{session_hash}",
    "GET /gradio_api/info",
    "GET /gradio_api/info/",
    "GET /gradio_api/login_check",
    "GET /gradio_api/login_check/",
    "GET /gradio_api/openapi.json",
    "POST /gradio_api/process_recording",
    "GET /gradio_api/proxy={url_path:path}",
    "HEAD /gradio_api/proxy={url_path:path}",
    "GET /gradio_api/queue/data",
    "POST /gradio_api/queue/join",
    "GET /gradio_api/queue/status",
    "POST /gradio_api/reset",
    "POST /gradio_api/reset/",
    "POST /gradio_api/run/{api_name}",
    "POST /gradio_api/run/{api_name}/",
    "GET /gradio_api/runs",
    "GET /gradio_api/runs/",
    "GET /gradio_api/startup-events",
    "POST /gradio_api/stream/{event_id}",
    "POST /gradio_api/stream/{event_id}/close",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "GET /gradio_api/theme.css",
    "GET /gradio_api/token",
    "GET /gradio_api/token/",
    "POST /gradio_api/undo-vibe-edit",
    "POST /gradio_api/undo-vibe-edit/",
    "POST /gradio_api/upload",
    "GET /gradio_api/upload_progress",
    "GET /gradio_api/user",
    "GET /gradio_api/user/",
    "GET /gradio_api/vibe-code",
    "POST /gradio_api/vibe-code",
    "GET /gradio_api/vibe-code/",
    "POST /gradio_api/vibe-code/",
    "POST /gradio_api/vibe-edit",
    "POST /gradio_api/vibe-edit/",
    "POST /gradio_api/vibe-starter-queries",
    "POST /gradio_api/vibe-starter-queries/",
    "POST /login",
    "POST /login/",
    "GET /logout",
    "GET /manifest.json",
    "GET /monitoring",
    "GET /monitoring/summary",
    "GET /monitoring/{key}",
    "GET /openapi.json",
    "HEAD /openapi.json",
    "* /page",
    "GET /pwa_icon",
    "GET /pwa_icon/{size}",
    "GET /robots.txt",
    "GET /static/{path:path}",
    "GET /svelte/{path:path}",
    "GET /theme.css",
}


@pytest.fixture(scope="module")
def app() -> Iterator[tuple[Application, TestClient]]:
    """The app in this process, once its page is built."""
    application = create_app(load_settings(model="bundled", auth=PASSWORD))
    with TestClient(application) as client:
        deadline = time.monotonic() + READY_SECONDS
        while application.page._app is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield application, client


def parent(application: Application) -> FastAPI:
    inner = application.asgi
    while not isinstance(inner, FastAPI):
        inner = inner.app  # type: ignore[attr-defined]
    return inner


def listed(routes: list[BaseRoute], prefix: str = "") -> Iterator[str]:
    for route in routes:
        path = prefix + getattr(route, "path", "")
        inner, included = getattr(route, "app", None), getattr(route, "original_router", None)
        if included is not None:  # its routes, as newer versions of the framework keep them
            yield from listed(included.routes, path)
        elif isinstance(route, Mount) and isinstance(inner, FastAPI):
            yield from listed(inner.routes, path)
        elif methods := getattr(route, "methods", None):
            yield from (f"{method} {path}" for method in methods)
        elif path:  # not the page's own mount
            yield f"* {path}"


def everything(application: Application) -> set[str]:
    assert application.page._app is not None
    return {*listed(parent(application).routes), *listed(application.page._app.routes)}


def test_there_is_no_route_that_nobody_has_looked_at(app: tuple[Application, TestClient]) -> None:
    application, _ = app
    found = everything(application)
    assert found == ANYBODY | METRICS | OURS | OTHERS


def concrete(route: str) -> tuple[str, str]:
    """A method and a path of the kind that a route takes."""
    method, _, path = route.partition(" ")
    parts = ("x" if "{" in part else part for part in path.split("/"))
    return "GET" if method == "*" else method, "/".join(parts) or "/"


@pytest.mark.parametrize("route", sorted(ANYBODY | METRICS | OURS | OTHERS))
def test_who_may_call_it(app: tuple[Application, TestClient], route: str) -> None:
    _, client = app
    method, path = concrete(route)
    status = client.request(method, path).status_code
    assert (status == 401) == (route not in ANYBODY | METRICS), status
    if path.startswith(CLOSED):
        assert client.request(method, path, headers=ASKS).status_code == 404
