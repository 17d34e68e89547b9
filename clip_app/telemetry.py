"""Every Prometheus metric, declared once, and the route that serves them.

Labels are bounded sets: no file name, label text or address is ever a label value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from clip_app.errors import EXIT_CODES, SettingsError
from clip_app.results import ModelInfo

__all__ = [
    "ANALYSES",
    "ANALYSIS_DURATION",
    "BATCH_SIZE",
    "CPU_LIMIT",
    "HUB_DOWNLOAD_BYTES",
    "HUB_FAILURES",
    "IMAGES_UPLOADED",
    "IN_FLIGHT",
    "LABEL_CACHE",
    "MEMORY_LIMIT",
    "MODEL_LOAD_SECONDS",
    "MODEL_READY",
    "QUEUE_CAPACITY",
    "QUEUE_DEPTH",
    "STAGE_DURATION",
    "TLS_VERIFIED",
    "elsewhere",
    "metrics",
    "served_apart",
    "set_model_info",
]

# When a series began is of no use to rates, and would be a series more for each.
disable_created_metrics()  # type: ignore[no-untyped-call]

IMAGES_UPLOADED = Counter(
    "clip_app_images_uploaded_total",
    "Pictures handed in for analysis, refused ones too, by the face they came through.",
    ["source"],
)
ANALYSES = Counter(
    "clip_app_analyses_total",
    "Analyses finished: ok, invalid (the picture or an option), rejected (busy, not ready) or error.",
    ["endpoint", "outcome"],
)
ANALYSIS_DURATION = Histogram(
    "clip_app_analysis_duration_seconds",
    "Time of one analysis that began, from the received picture to the answer, waiting included.",
    ["endpoint"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
STAGE_DURATION = Histogram(
    "clip_app_stage_duration_seconds",
    "Time of one stage of an analysis: decode, preprocess, queue, encode or score.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BATCH_SIZE = Histogram(
    "clip_app_batch_size", "Pictures in one forward pass of the image encoder.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
QUEUE_DEPTH = Gauge("clip_app_queue_depth", "Pictures that wait for a decoder or for the image encoder.")
QUEUE_CAPACITY = Gauge("clip_app_queue_capacity", "Pictures that may be in flight at once: QUEUE_SIZE.")
IN_FLIGHT = Gauge("clip_app_in_flight", "Pictures that were accepted and not yet answered.")
LABEL_CACHE = Counter(
    "clip_app_label_cache_total", "Label embeddings that were there already (hit) or computed (miss).", ["result"]
)
for _result in ("hit", "miss"):
    LABEL_CACHE.labels(_result)
MODEL_INFO = Gauge(
    "clip_app_model_info",
    "The model that serves, always 1.",
    ["model", "revision", "engine", "precision", "device", "bundled"],
)
MODEL_READY = Gauge("clip_app_model_ready", "1 once the model has answered a real inference, else 0.")
MODEL_LOAD_SECONDS = Gauge("clip_app_model_load_seconds", "Time from the start of loading to readiness.")
HUB_DOWNLOAD_BYTES = Counter("clip_app_hub_download_bytes_total", "Bytes of the model fetched from the Hub.")
HUB_FAILURES = Counter("clip_app_hub_failures_total", "Downloads from the Hub that failed, by reason.", ["reason"])
for _reason in EXIT_CODES:
    HUB_FAILURES.labels(_reason)
TLS_VERIFIED = Gauge("clip_app_tls_verified", "1, or 0 once a download ran without verified certificates.")
TLS_VERIFIED.set(1)
MEMORY_LIMIT = Gauge(
    "clip_app_memory_limit_bytes", "Memory this process may use: the cgroup's limit, else what the machine has."
)
CPU_LIMIT = Gauge(
    "clip_app_cpu_limit_cores", "CPUs this process may use: the cgroup's quota, else those it is allowed to run on."
)


def set_model_info(info: ModelInfo, device: str) -> None:
    """Say which model serves; the one before it is forgotten."""
    MODEL_INFO.clear()
    MODEL_INFO.labels(
        info.id, info.revision, info.engine, info.precision, device, "true" if info.bundled else "false"
    ).set(1)


@contextmanager
def served_apart(host: str, port: int | None) -> Iterator[None]:
    """Serve the metrics at a port of their own, for as long as the context lasts; nothing where there is none.

    Raises:
        SettingsError: the port cannot be had.
    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise SettingsError(f"CLIP_APP_METRICS_PORT={port}: {error.strerror}; choose another port") from None
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


async def elsewhere(request: Request) -> Response:
    """Answer where the metrics are not."""
    return Response("The metrics are at a port of their own.\n", 404, media_type="text/plain")


async def metrics(request: Request) -> Response:
    """Answer a scrape in the Prometheus text format or OpenMetrics, as the client prefers."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(REGISTRY), media_type=content_type)
