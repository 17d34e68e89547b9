"""The label bank: text embeddings of labels, computed once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clip_app.cache import write_atomically
from clip_app.labels import OWN_GROUP, LabelGroup
from clip_app.model import Embeddings, Model
from clip_app.telemetry import LABEL_CACHE

__all__ = ["LabelBank", "LabelStore"]

logger = logging.getLogger("clip_app")

CHUNK = 32

Key = tuple[tuple[str, ...], str]


class LabelStore:
    """Embeddings of preset groups in a folder, as safetensors, one file per group and precision."""

    def __init__(self, folder: Path, *, prefix: str) -> None:
        """Keep them in ``folder``, in files that begin with ``prefix``: the revision and the precision."""
        self._folder = folder
        self._prefix = prefix

    def read(self, group: LabelGroup) -> tuple[Embeddings, Embeddings] | None:
        """Return a group's label and neutral embeddings, None where they are not to be had."""
        try:
            tensors = load((self._path(group)).read_bytes())
            labels, neutral = tensors["labels"], tensors["neutral"]
        except (OSError, SafetensorError, KeyError):
            return None
        right = labels.shape[0] == len(group.labels) and neutral.shape == (len(group.neutral), labels.shape[1])
        return (labels, neutral) if right else None

    def write(self, group: LabelGroup, labels: Embeddings, neutral: Embeddings) -> None:
        """Keep a group; where the folder cannot be written, the next process computes it again."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(group), save({"labels": labels, "neutral": neutral}))
        except OSError as error:
            logger.info("label embeddings are not kept: %s", error.strerror)

    def _path(self, group: LabelGroup) -> Path:
        content = json.dumps([group.labels, group.templates, group.neutral]).encode()
        return self._folder / f"{self._prefix}-{group.name}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


class LabelBank:
    """Embeddings of one model's labels. Preset groups stay; users' own are the latest ``capacity``."""

    def __init__(self, model: Model, *, store: LabelStore | None = None, capacity: int = 20_000) -> None:
        """Start empty; preset groups that are in the store are not computed again."""
        self._model = model
        self._store = store
        self._capacity = capacity
        self._own: OrderedDict[Key, npt.NDArray[np.float32]] = OrderedDict()
        self._presets: dict[LabelGroup, tuple[Embeddings, Embeddings]] = {}
        self._lock = threading.Lock()
        self._computing = threading.Lock()

    def group(self, group: LabelGroup) -> tuple[Embeddings, Embeddings]:
        """Return a group's label embeddings [L, D] and neutral embeddings [N, D].

        A label's embedding is the mean over the templates of unit embeddings, made unit
        again (the prompt ensemble of Radford et al. 2021).
        """
        if (preset := self._presets.get(group)) is not None:
            LABEL_CACHE.labels("hit").inc(len(group.labels))
            return preset
        if group.name != OWN_GROUP:
            return self.keep(group)
        neutral = self._embed([((text,), "") for text in group.neutral])
        return self._embed([(group.templates, label) for label in group.labels]), neutral

    def keep(
        self, group: LabelGroup, progress: Callable[[float], None] = lambda share: None
    ) -> tuple[Embeddings, Embeddings]:
        """Embed a preset group and keep it for good, here and in the store, reporting the share done."""
        with self._computing:
            if group not in self._presets:
                stored = self._store.read(group) if self._store else None
                self._presets[group] = stored or self._compute_preset(group, progress)
                if stored is None and self._store:
                    self._store.write(group, *self._presets[group])
            return self._presets[group]

    def _compute_preset(self, group: LabelGroup, progress: Callable[[float], None]) -> tuple[Embeddings, Embeddings]:
        parts = []
        for start in range(0, len(group.labels), CHUNK):
            parts.append(self._compute([(group.templates, label) for label in group.labels[start : start + CHUNK]]))
            progress(min(1.0, (start + CHUNK) / len(group.labels)))
        neutral = self._compute([((text,), "") for text in group.neutral])
        return np.concatenate(parts), neutral

    def _embed(self, keys: Sequence[Key]) -> Embeddings:
        found = self._look_up(keys)
        if len(found) < len(set(keys)):
            with self._computing:  # two requests with the same new labels compute them once
                found |= self._look_up([key for key in keys if key not in found])
                missing = [key for key in dict.fromkeys(keys) if key not in found]
                # Copies: a row of the whole would keep all of it alive.
                new = {k: row.copy() for k, row in zip(missing, self._compute(missing), strict=True)} if missing else {}
            found |= new
            with self._lock:
                self._own.update(new)
                while len(self._own) > self._capacity:
                    self._own.popitem(last=False)
            LABEL_CACHE.labels("hit").inc(len(keys) - len(new))
        else:
            LABEL_CACHE.labels("hit").inc(len(keys))
        return np.stack([found[key] for key in keys])

    def _look_up(self, keys: Sequence[Key]) -> dict[Key, npt.NDArray[np.float32]]:
        with self._lock:
            found = {key: self._own[key] for key in keys if key in self._own}
            for key in found:
                self._own.move_to_end(key)
        return found

    def _compute(self, keys: Sequence[Key]) -> Embeddings:
        LABEL_CACHE.labels("miss").inc(len(keys))
        prompts = [template.replace("{}", label) for templates, label in keys for template in templates]
        embeddings = self._model.encode_texts(prompts)
        starts = np.cumsum([0] + [len(templates) for templates, _ in keys[:-1]])
        means = np.add.reduceat(embeddings, starts, axis=0)
        unit: Embeddings = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit
