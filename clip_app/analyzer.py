"""The one call behind every face: the bytes of a picture to what is in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from clip_app import images, scoring
from clip_app.intake import Intake
from clip_app.labels import LabelGroup
from clip_app.loading import Loader
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.results import AnalysisResult, GroupResult, ImageInfo, LabelScore
from clip_app.settings import Settings

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["Analyzer"]


class Analyzer:
    """Decodes, encodes and scores pictures, so many at a time. Thread-safe."""

    def __init__(self, loader: Loader, settings: Settings, *, decoders: int) -> None:
        self.intake = Intake(settings, decoders=decoders)
        self._loader = loader

    def analyze(self, data: bytes, options: Options, observation: Observation, *, name: str = "") -> AnalysisResult:
        """Say what is in a picture, inside the analysis that counts and times it.

        Raises:
            UndecodableImage, ImageTooLarge: the picture cannot be used.
            BadOption: the options cannot be.
            NotReady, Busy: not now.
            EncodingFailed: the encoder failed.
        """
        with self.intake.place():
            serving = self._loader.serving()
            observation.model = serving.model.info
            return self._analyze(serving, data, options, observation, images.display_name(name))

    def _analyze(
        self, serving: Serving, data: bytes, options: Options, observation: Observation, name: str
    ) -> AnalysisResult:
        groups = options.resolve(serving.groups, serving.default_groups)
        waited = time.perf_counter()
        with self.intake.decoder():
            waited = time.perf_counter() - waited
            with observation.stage("decode"):
                decoded = self.intake.decode(data, serving.model.preprocessing.target)
            with observation.stage("preprocess"):
                pixels = serving.model.preprocessing(decoded.image, exact=self.intake.exact)
            info = ImageInfo(name=name, width=decoded.width, height=decoded.height, warnings=list(decoded.warnings))
            flat = decoded.flat
            del decoded
        encoded = serving.batcher.encode(pixels)
        observation.add("queue", waited + encoded.queue_seconds)
        observation.add("encode", encoded.encode_seconds)
        with observation.stage("score"):
            scored = [_score(serving, encoded.embedding, group, options, flat=flat) for group in groups]
        return AnalysisResult(model=serving.model.info, image=info, groups=scored, timings_ms=observation.timings())


def _score(
    serving: Serving, embedding: scoring.Vector, group: LabelGroup, options: Options, *, flat: bool
) -> GroupResult:
    """Score one group; where there is nothing to be seen, nothing matches, whatever the embedding is near to."""
    group, warnings = serving.bank.as_read(group)
    labels, neutral = serving.bank.group(group)
    scores = scoring.score(embedding, labels, neutral, serving.model.logit_scale, independent=options.independent)
    best = np.argsort(-scores.similarity, kind="stable")[: options.limit(group)]
    found = [
        LabelScore(
            label=group.labels[i],
            confidence=0.0 if flat else round(float(scores.confidence[i]), 6),
            similarity=round(float(scores.similarity[i]), 6),
        )
        for i in best
    ]
    least = options.threshold or 0.0
    return GroupResult(
        name=group.name,
        warnings=list(warnings),
        no_match=1.0 if flat else round(scores.no_match, 6),
        labels=[score for score in found if score.confidence >= least],
    )
