"""One analysis: counted once, timed stage by stage, and one line in the log.

One analysis is one picture that a face was asked about. A request that is refused before
its pictures are looked at is one analysis, too, and one upload.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, get_args

from clip_app.endpoints import ENDPOINTS, Endpoint
from clip_app.errors import ClipAppError, Outcome
from clip_app.middleware.request_id import RequestContext, current_request
from clip_app.results import ModelInfo, Timings
from clip_app.telemetry import ANALYSES, ANALYSIS_DURATION, IMAGES_UPLOADED, STAGE_DURATION

__all__ = ["Observation", "Stage", "refuse"]

logger = logging.getLogger("clip_app")

Stage = Literal["decode", "preprocess", "queue", "encode", "score"]

# From the start at zero: a rate over a series needs the sample before its first increment.
for _endpoint in ENDPOINTS.values():
    ANALYSIS_DURATION.labels(_endpoint.name)
    if _endpoint.source is not None:
        IMAGES_UPLOADED.labels(_endpoint.source)
    for _outcome in get_args(Outcome):
        ANALYSES.labels(_endpoint.name, _outcome)
for _stage in get_args(Stage):
    STAGE_DURATION.labels(_stage)


class Observation:
    """A context that counts what happens in it as one analysis, and logs it in one line.

    Whatever is raised in it is an :class:`ClipAppError` afterwards.
    """

    def __init__(self, endpoint: Endpoint, *, since: float | None = None) -> None:
        """Begin at ``since`` on the clock of ``time.perf_counter``, else when it is entered."""
        self.model: ModelInfo | None = None
        self._endpoint = endpoint
        self._started = since
        self._context = current_request() or RequestContext()
        self._seconds: dict[Stage, float] = {}

    def __enter__(self) -> Observation:
        self._context.analyses += 1
        if self._started is None:
            self._started = time.perf_counter()
        if self._endpoint.source is not None:
            IMAGES_UPLOADED.labels(self._endpoint.source).inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish("ok", None)
        elif isinstance(error, ClipAppError):
            self._finish(error.outcome, error.code)
        else:
            self._finish("error", "error")
            if isinstance(error, Exception):
                logger.error("the analysis %s failed: %s", self._context.id, type(error).__name__, exc_info=error)
                message = f"The analysis failed with {type(error).__name__}. The log says more."
                raise ClipAppError(message) from error

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time a stage that succeeds."""
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: Stage, seconds: float) -> None:
        """Take note of a stage that was timed elsewhere."""
        self._seconds[name] = seconds
        STAGE_DURATION.labels(name).observe(seconds, {"request_id": self._context.id})

    def timings(self) -> Timings:
        """Return the stages so far and the total until now, in milliseconds."""
        return Timings(**_milliseconds(self._seconds), total=round(1000 * self._elapsed(), 3))

    def _elapsed(self) -> float:
        return time.perf_counter() - (self._started or 0.0)

    def _finish(self, outcome: Outcome, code: str | None) -> None:
        seconds = self._elapsed()
        ANALYSES.labels(self._endpoint.name, outcome).inc()
        if outcome != "rejected":  # those that never began would make a full house look quick
            ANALYSIS_DURATION.labels(self._endpoint.name).observe(seconds, {"request_id": self._context.id})
        fields = _identity(self._context, self._endpoint, outcome)
        if code is not None:
            fields["code"] = code
        fields["total_ms"] = round(1000 * seconds, 3)
        fields |= {f"{name}_ms": ms for name, ms in _milliseconds(self._seconds).items()}
        if self.model is not None:
            fields |= {"model": self.model.id, "revision": self.model.revision}
        logger.log(logging.ERROR if outcome == "error" else logging.INFO, "analysis", extra={"fields": fields})


def refuse(
    context: RequestContext, endpoint: Endpoint, outcome: Outcome, reason: str, *, seconds: float | None = None
) -> None:
    """Count a request as one analysis, which never began: it is in no histogram, and what it took is logged if told."""
    context.analyses += 1
    if endpoint.source is not None:
        IMAGES_UPLOADED.labels(endpoint.source).inc()
    ANALYSES.labels(endpoint.name, outcome).inc()
    fields = _identity(context, endpoint, outcome) | {"code": reason}
    if seconds is not None:
        fields["total_ms"] = round(1000 * seconds, 3)
    logger.log(logging.ERROR if outcome == "error" else logging.INFO, "analysis", extra={"fields": fields})


def _identity(context: RequestContext, endpoint: Endpoint, outcome: Outcome) -> dict[str, str | float]:
    return {"request_id": context.id, "endpoint": endpoint.name, "outcome": outcome}


def _milliseconds(seconds: dict[Stage, float]) -> dict[Stage, float]:
    return {name: round(1000 * value, 3) for name, value in seconds.items()}
