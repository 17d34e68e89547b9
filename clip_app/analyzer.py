"""The one call behind every face: the bytes of a picture to what is in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clip_app import images, scoring
from clip_app.intake import Intake
from clip_app.labels import LabelGroup, query_group
from clip_app.loading import Loader
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.ranking import Ranking, fits_text, rank_by_text
from clip_app.results import AnalysisResult, Embedding, GroupResult, ImageInfo, LabelScore
from clip_app.settings import Settings
from clip_app.turns import Ledger

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["Analyzer", "Embedded", "TextQuery"]


@dataclass(frozen=True)
class Embedded:
    """A picture's unit embedding, shape [D], and what is said of its file; ``flat``: there is nothing to be seen."""

    embedding: scoring.Vector
    image: ImageInfo
    flat: bool = False


@dataclass(frozen=True)
class TextQuery:
    """A text's unit embedding, shape [D], and what tells whether a picture is relevant to it."""

    embedding: scoring.Vector
    neutral: scoring.Matrix
    scale: float

    def rank(self, pictures: scoring.Matrix) -> Ranking:
        """Rank pictures, unit embeddings of shape [N, D]."""
        return rank_by_text(self.embedding, pictures, self.neutral, self.scale)

    def fits(self, pictures: scoring.Matrix) -> npt.NDArray[np.bool_]:
        """Say of pictures, unit embeddings of shape [K, D], whether they are relevant, [K]."""
        return fits_text(self.embedding, pictures, self.neutral, self.scale)

    def against(self, others: scoring.Matrix | None) -> TextQuery:
        """The same, where a picture must also fit it better than further texts, unit embeddings of shape [M, D]."""
        return self if others is None else replace(self, neutral=np.concatenate([self.neutral, others]))


class Analyzer:
    """Decodes, encodes and scores pictures, so many at a time. Thread-safe."""

    def __init__(self, loader: Loader, settings: Settings, *, decoders: int, ledger: Ledger | None = None) -> None:
        self.intake = Intake(settings, decoders=decoders, ledger=ledger)
        self._loader = loader

    def check(self, options: Options) -> None:
        """Refuse options before there is a picture, as :meth:`analyze` would.

        Raises:
            BadOption: the options cannot be used.
            NotReady: not now.
        """
        serving = self._loader.serving()
        options.resolve(serving.groups, serving.default_groups)

    def analyze(
        self, data: bytes, options: Options, observation: Observation, *, name: str = "", background: bool = False
    ) -> AnalysisResult:
        """Say what is in a picture, inside the analysis that counts and times it.

        In the background it is never refused for want of a place: it waits, and gives way to others.

        Raises:
            UndecodableImage, ImageTooLarge: the picture cannot be used.
            BadOption: the options cannot be.
            NotReady, Busy: not now.
            EncodingFailed: the encoder failed.
        """
        with self.intake.place(background=background):
            serving = self._served(observation)
            groups = options.resolve(serving.groups, serving.default_groups)
            seen = self._see(serving, data, observation, name)
            with observation.stage("score"):
                scored = [_score(serving, seen.embedding, group, options, flat=seen.flat) for group in groups]
            timings = observation.timings()
            result = AnalysisResult(model=serving.model.info, image=seen.image, groups=scored, timings_ms=timings)
            if options.embedding:
                result.embedding = Embedding.of(seen.embedding)
            return result

    def embed(self, data: bytes, observation: Observation, *, name: str = "", background: bool = False) -> Embedded:
        """Embed a picture, inside the analysis that counts and times it; raises what :meth:`analyze` raises."""
        with self.intake.place(background=background):
            return self._see(self._served(observation), data, observation, name)

    def query(self, text: str) -> TextQuery:
        """Embed a text that pictures are ranked by; one that was asked for lately is not computed again.

        Raises:
            BadOption: there is no text, or it is too long.
            NotReady: not now.
        """
        group = query_group(text)
        serving = self._loader.serving()
        (embedding,), neutral = serving.bank.group(group)
        return TextQuery(embedding, neutral, serving.model.logit_scale)

    def _served(self, observation: Observation) -> Serving:
        serving = self._loader.serving()
        observation.model = serving.model.info
        return serving

    def _see(self, serving: Serving, data: bytes, observation: Observation, name: str) -> Embedded:
        waited = time.perf_counter()
        with self.intake.decoder():
            waited = time.perf_counter() - waited
            with observation.stage("decode"):
                decoded = self.intake.decode(data, serving.model.preprocessing.target)
            with observation.stage("preprocess"):
                pixels = serving.model.preprocessing(decoded.image, exact=self.intake.exact)
            size = {"width": decoded.width, "height": decoded.height}
            info = ImageInfo(name=images.display_name(name), **size, warnings=list(decoded.warnings))
            flat = decoded.flat
            del decoded
        encoded = serving.batcher.encode(pixels)
        observation.add("queue", waited + encoded.queue_seconds)
        observation.add("encode", encoded.encode_seconds)
        return Embedded(encoded.embedding, info, flat)


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
