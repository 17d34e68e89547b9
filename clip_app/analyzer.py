"""The one call behind every face: the bytes of a picture to what is in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clip_app import images, scoring
from clip_app.errors import AppError, BadOption, Busy, Outcome
from clip_app.labels import OWN_GROUP, LabelGroup, choose_groups, own_group
from clip_app.loading import Loader, Serving
from clip_app.results import AnalysisResult, GroupResult, ImageInfo, LabelScore, Timings
from clip_app.settings import Settings
from clip_app.telemetry import ANALYSES, ANALYSIS_DURATION, IMAGES_UPLOADED, IN_FLIGHT, QUEUE_DEPTH, STAGE_DURATION

__all__ = ["Analyzer", "Endpoint", "Options", "Source"]

Source = Literal["ui", "api", "rest", "cli"]
Endpoint = Literal["ui", "analyze", "classify", "rest", "cli"]

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to look for. With neither groups nor labels, the model's default groups."""

    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    template: str | None = None
    independent: bool = False
    top_k: int | None = None

    def resolve(self, serving: Serving) -> list[LabelGroup]:
        """Return the groups to score.

        Raises:
            BadOption: a group, a label, the template or top_k cannot be used.
        """
        if self.top_k is not None and not 1 <= self.top_k <= MAX_TOP_K:
            raise BadOption(f"top_k is {self.top_k}; it must be from 1 to {MAX_TOP_K}.")
        own = [own_group(self.labels, self.template)] if self.labels is not None else []
        if self.groups is not None:
            return choose_groups(serving.groups, self.groups) + own
        return own or choose_groups(serving.groups, serving.default_groups)

    def limit(self, group: LabelGroup) -> int:
        """How many labels to return: all of a request's own, else the best five."""
        if self.top_k is not None:
            return self.top_k
        return len(group.labels) if group.name == OWN_GROUP else DEFAULT_TOP_K


class Analyzer:
    """Decodes, encodes and scores pictures, so many at a time. Thread-safe."""

    def __init__(self, loader: Loader, settings: Settings, *, decoders: int) -> None:
        self._loader = loader
        self._settings = settings
        self._exact = settings.decode == "exact"
        self._places = threading.BoundedSemaphore(settings.queue_size)
        # A decoded picture can have hundreds of megabytes: as many at once as there are cores.
        self._decoders = threading.BoundedSemaphore(decoders)

    def analyze(
        self, data: bytes, options: Options, *, name: str = "", source: Source, endpoint: Endpoint, new: bool = True
    ) -> AnalysisResult:
        """Say what is in a picture; ``new`` is False where it was uploaded before.

        Raises:
            UndecodableImage, ImageTooLarge: the picture cannot be used.
            BadOption: the options cannot be.
            NotReady, Busy: not now.
            EncodingFailed: the encoder failed.
        """
        if new:
            IMAGES_UPLOADED.labels(source).inc()
        with _counted(endpoint), self._place():
            serving = self._loader.serving()
            return self._analyze(serving, data, options.resolve(serving), options, images.display_name(name))

    def _analyze(
        self, serving: Serving, data: bytes, groups: list[LabelGroup], options: Options, name: str
    ) -> AnalysisResult:
        clock = _Clock()
        waited = time.perf_counter()
        with self._decoder():
            waited = time.perf_counter() - waited
            with clock.stage("decode"):
                decoded = self._decode(data, serving.model.preprocessing.target)
            with clock.stage("preprocess"):
                pixels = serving.model.preprocessing(decoded.image, exact=self._exact)
            info = ImageInfo(name=name, width=decoded.width, height=decoded.height)
            del decoded
        encoded = serving.batcher.encode(pixels)
        clock.add("queue", waited + encoded.queue_seconds)
        clock.add("encode", encoded.encode_seconds)
        with clock.stage("score"):
            scored = [_score(serving, encoded.embedding, group, options) for group in groups]
        return AnalysisResult(model=serving.model.info, image=info, groups=scored, timings_ms=clock.timings())

    def _decode(self, data: bytes, target: int | None) -> images.Decoded:
        return images.decode(
            data,
            max_bytes=self._settings.max_upload_bytes,
            max_pixels=self._settings.max_pixels,
            target=None if self._exact else target,
        )

    @contextmanager
    def _decoder(self) -> Iterator[None]:
        with QUEUE_DEPTH.track_inprogress():
            self._decoders.acquire()
        try:
            yield
        finally:
            self._decoders.release()

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Busy(f"{self._settings.queue_size} pictures are already in the works. Try again in a moment.")
        try:
            with IN_FLIGHT.track_inprogress():
                yield
        finally:
            self._places.release()


def _score(serving: Serving, embedding: scoring.Vector, group: LabelGroup, options: Options) -> GroupResult:
    labels, neutral = serving.bank.group(group)
    scores = scoring.score(embedding, labels, neutral, serving.model.logit_scale, independent=options.independent)
    best = np.argsort(-scores.similarity, kind="stable")[: options.limit(group)]
    return GroupResult(
        name=group.name,
        no_match=round(scores.no_match, 6),
        labels=[
            LabelScore(
                label=group.labels[i],
                confidence=round(float(scores.confidence[i]), 6),
                similarity=round(float(scores.similarity[i]), 6),
            )
            for i in best
        ],
    )


@contextmanager
def _counted(endpoint: Endpoint) -> Iterator[None]:
    outcome: Outcome = "error"
    started = time.perf_counter()
    try:
        yield
        outcome = "ok"
    except AppError as error:
        outcome = error.outcome
        raise
    finally:
        ANALYSES.labels(endpoint, outcome).inc()
        ANALYSIS_DURATION.labels(endpoint).observe(time.perf_counter() - started)


class _Clock:
    """Times the stages of one analysis, for the result and for the metrics."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        self._seconds[name] = seconds
        STAGE_DURATION.labels(name).observe(seconds)

    def timings(self) -> Timings:
        total = time.perf_counter() - self._started
        return Timings(**{name: round(1000 * s, 3) for name, s in (self._seconds | {"total": total}).items()})
