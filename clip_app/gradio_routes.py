"""Gradio's routes that are guarded, counted or closed: plain data, known before Gradio is imported."""

from __future__ import annotations

__all__ = ["CLOSED", "JOIN", "NAMED", "PREFIX", "RUN", "UNTRUSTED_HEADERS", "UPLOAD"]

PREFIX = "/gradio_api/"
UPLOAD = f"{PREFIX}upload"
JOIN = f"{PREFIX}queue/join"
# Where the page asks, with the picture in the body.
RUN = f"{PREFIX}run/predict"
# The ways to call a function by its name, which follows.
NAMED = tuple(f"{PREFIX}{way}/" for way in ("call/v2", "call", "run", "api"))

# Doors of Gradio that this app does not use: they relay other servers' content, take unbounded work, or
# are of ways to work and to log in that are not used here.
CLOSED = (
    "/gradio_api/file=http",
    "/gradio_api/file/http",
    "/gradio_api/proxy=",
    "/gradio_api/process_recording",
    "/gradio_api/deep_link",
    "/gradio_api/run-history",
    "/gradio_api/runs",
    "/gradio_api/component_server",
    "/gradio_api/custom_component",
    "/gradio_api/stream/",
    "/gradio_api/vibe-",
    "/gradio_api/undo-vibe-",
    "/gradio_api/dev/",
    "/login",
    "/logout",
    "/monitoring",
)
# Gradio builds the links of its page from these; anybody can send them. ROOT_PATH is the safe way.
UNTRUSTED_HEADERS = (b"x-forwarded-host", b"x-gradio-server")
