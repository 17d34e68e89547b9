"""The label bank: text embeddings of labels, computed once and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from clip_app.labels import LabelGroup
from clip_app.model import Embeddings, Model
from clip_app.telemetry import LABEL_CACHE

__all__ = ["LabelBank"]

CHUNK = 32

Key = tuple[tuple[str, ...], str]


class LabelBank:
    """Embeddings of one model's labels. Preset groups stay; users' own are the latest ``capacity``."""

    def __init__(self, model: Model, *, capacity: int = 20_000) -> None:
        self._model = model
        self._capacity = capacity
        self._own: OrderedDict[Key, npt.NDArray[np.float32]] = OrderedDict()
        self._presets: dict[LabelGroup, tuple[Embeddings, Embeddings]] = {}
        self._lock = threading.Lock()

    def group(self, group: LabelGroup) -> tuple[Embeddings, Embeddings]:
        """Return a group's label embeddings [L, D] and neutral embeddings [N, D].

        A label's embedding is the mean over the templates of unit embeddings, made unit
        again (the prompt ensemble of Radford et al. 2021).
        """
        if (preset := self._presets.get(group)) is not None:
            LABEL_CACHE.labels("hit").inc(len(group.labels))
            return preset
        neutral = self._embed([((text,), "") for text in group.neutral])
        return self._embed([(group.templates, label) for label in group.labels]), neutral

    def keep(self, group: LabelGroup, progress: Callable[[float], None] = lambda share: None) -> None:
        """Embed a preset group and keep it for good, reporting the share done."""
        parts = []
        for start in range(0, len(group.labels), CHUNK):
            parts.append(self._compute([(group.templates, label) for label in group.labels[start : start + CHUNK]]))
            progress(min(1.0, (start + CHUNK) / len(group.labels)))
        neutral = self._compute([((text,), "") for text in group.neutral])
        self._presets[group] = np.concatenate(parts), neutral

    def _embed(self, keys: Sequence[Key]) -> Embeddings:
        with self._lock:  # two requests with the same new labels compute them once
            missing = [key for key in keys if key not in self._own]
            LABEL_CACHE.labels("hit").inc(len(keys) - len(missing))
            found = {key: self._own[key] for key in keys if key in self._own}
            if missing:
                found.update(zip(missing, self._compute(missing), strict=True))
            for key in keys:
                self._own[key] = found[key]
                self._own.move_to_end(key)
            while len(self._own) > self._capacity:
                self._own.popitem(last=False)
        return np.stack([found[key] for key in keys])

    def _compute(self, keys: Sequence[Key]) -> Embeddings:
        LABEL_CACHE.labels("miss").inc(len(keys))
        prompts = [template.replace("{}", label) for templates, label in keys for template in templates]
        embeddings = self._model.encode_texts(prompts)
        starts = np.cumsum([0] + [len(templates) for templates, _ in keys[:-1]])
        means = np.add.reduceat(embeddings, starts, axis=0)
        unit: Embeddings = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit
