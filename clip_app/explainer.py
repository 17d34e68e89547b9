"""The one call behind every face that asks where: the bytes of a picture and a label to a map of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clip_app.contrast import Contrast, Direction
from clip_app.heatmaps import Ask, Mapper, open_mapper
from clip_app.heatmaps.grid import Heat, scaled
from clip_app.images import Decoded, display_name
from clip_app.intake import Intake
from clip_app.loading import Loader
from clip_app.observation import Observation
from clip_app.options import ExplainOptions
from clip_app.overlay import LONGEST, lay_over, reduced
from clip_app.results import Explanation, ImageInfo
from clip_app.turns import Ledger, Turns

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["Explainer"]

NOTHING = "Nothing in the picture speaks for this label more than for the others."
DIGITS = 4
AT_ONCE = 2  # maps in the works: each takes as long as several pictures


class Explainer:
    """Says where in pictures labels were seen, within the bounds of the analyses beside it. Thread-safe."""

    def __init__(self, loader: Loader, intake: Intake, *, ledger: Ledger | None = None) -> None:
        """Share an analyzer's intake: a picture that is explained takes one of its places.

        ``ledger`` says who had how much of the work lately.
        """
        self._loader = loader
        self._turns = Turns(ledger or Ledger(), AT_ONCE)
        self._intake = intake
        self._opened: tuple[Serving, str, Mapper] | None = None
        self._opening = threading.Lock()

    def explain(self, data: bytes, options: ExplainOptions, observation: Observation, *, name: str = "") -> Explanation:
        """Say where a label was seen, inside the analysis that counts and times it.

        Raises:
            UndecodableImage, ImageTooLarge: the picture cannot be used.
            BadOption: the label, or what to tell it apart from, cannot be.
            NotReady, Busy: not now.
        """
        with self._intake.place():
            explanation, _, _ = self._explain(data, options, observation, name)
            return explanation

    def draw(self, data: bytes, options: ExplainOptions, observation: Observation) -> bytes:
        """Lay the map over the upright picture and return a PNG; raises what :meth:`explain` raises."""
        with self._intake.place():
            _, heat, picture = self._explain(data, options, observation, "", drawn=True)
            assert picture is not None  # noqa: S101  # it was asked to be kept
            return lay_over(picture, heat)

    def _explain(
        self, data: bytes, options: ExplainOptions, observation: Observation, name: str, *, drawn: bool = False
    ) -> tuple[Explanation, Heat, Image.Image | None]:
        serving = self._loader.serving()
        observation.model = serving.model.info
        contrast = Contrast.of(options, serving.groups, serving.default_groups)
        method, mapper = self._mapper(serving)
        looked = self._look(data, mapper, serving.model.preprocessing.target, observation, drawn=drawn)
        with observation.stage("score"):
            direction = contrast.direction(serving.bank)
        heat = self._heat(looked, direction, observation)
        info = looked.info(name, found=bool(heat.any()))
        explanation = Explanation(
            model=serving.model.info,
            image=info,
            label=contrast.label,
            method=method,
            map=np.round(heat.astype(float), DIGITS).tolist(),
            timings_ms=observation.timings(),
        )
        return explanation, heat, looked.picture

    def _look(
        self, data: bytes, mapper: Mapper, target: int | None, observation: Observation, *, drawn: bool
    ) -> _Looked:
        """Decode the picture and keep of it what is asked about, and a small one where it is drawn."""
        if drawn and target is not None:
            target = max(target, LONGEST // 3)  # decoding leaves three times that
        waited = time.perf_counter()
        with self._intake.decoder():
            waited = time.perf_counter() - waited
            with observation.stage("decode"):
                decoded = self._intake.decode(data, target)
            with observation.stage("preprocess"):
                ask = mapper.look(decoded.image)
                return _Looked.of(decoded, ask, reduced(decoded.image) if drawn else None, waited)

    def _heat(self, looked: _Looked, direction: Direction, observation: Observation) -> Heat:
        """Ask; in a picture of one colour there is nothing to be seen, whatever a network makes of it."""
        if looked.flat:
            observation.add("queue", looked.waited)
            return np.zeros((1, 1), np.float32)
        since = time.perf_counter()
        with self._turns.turn():
            observation.add("queue", looked.waited + time.perf_counter() - since)
            with observation.stage("encode"):
                return scaled(looked.ask(direction))

    def _mapper(self, serving: Serving) -> tuple[str, Mapper]:
        """Open the method when it is first asked for; whoever comes meanwhile waits for it."""
        with self._opening:
            if self._opened is None or self._opened[0] is not serving:
                self._opened = (serving, *open_mapper(serving))
            return self._opened[1:]


@dataclass(frozen=True)
class _Looked:
    """A picture after decoding: the question about it, and what is said of it."""

    ask: Ask
    width: int
    height: int
    warnings: tuple[str, ...]
    flat: bool
    picture: Image.Image | None
    waited: float  # seconds, for a turn to be decoded

    @classmethod
    def of(cls, decoded: Decoded, ask: Ask, picture: Image.Image | None, waited: float) -> _Looked:
        return cls(ask, decoded.width, decoded.height, decoded.warnings, decoded.flat, picture, waited)

    def info(self, name: str, *, found: bool) -> ImageInfo:
        warnings = [*self.warnings, *([] if found or self.flat else [NOTHING])]
        return ImageInfo(name=display_name(name), width=self.width, height=self.height, warnings=warnings)
