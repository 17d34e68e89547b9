"""The label bank: text embeddings of labels, computed once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clip_app.engines import Embeddings
from clip_app.errors import Busy, ClipAppError
from clip_app.example_pictures import MOST_BYTES, Example
from clip_app.few_shot import mixed
from clip_app.hub.files import write_atomically
from clip_app.hub.volume import make_folder
from clip_app.images import decode
from clip_app.labels import REQUEST_GROUP, LabelGroup, fill
from clip_app.model import Model
from clip_app.source import examples_folder
from clip_app.telemetry import LABEL_CACHE
from clip_app.turns import HOUSE, Ledger, Turns, asking

__all__ = ["LabelBank", "LabelStore"]

logger = logging.getLogger("clip_app")

CHUNK = 32  # labels of a preset group that are embedded at a time
PIECE = 16  # texts of requests that are embedded at a time, for whoever has few waits for as many of others
MOST_WAITING = 2000  # new texts that one client may have waiting: as many as two of the largest requests bring
MOST_PIXELS = 200_000_000  # of an example
READ = 32  # requests' groups whose tokens are remembered
MOST_WARNINGS = 20
SHORT = 40  # letters of a label in a warning

Vector = npt.NDArray[np.float32]
Key = tuple[tuple[str, ...], str]


class LabelStore:
    """Embeddings of preset labels in one safetensors file, found by templates and label."""

    def __init__(self, path: Path) -> None:
        """Keep them in ``path``, whose name says of which revision and precision they are."""
        self._path = path

    def read(self) -> dict[Key, Vector]:
        """Return what is kept; nothing where there is no file, or a damaged one."""
        try:
            tensors = load(self._path.read_bytes())
            keys = json.loads(tensors["keys"].tobytes())
            rows = zip(keys, tensors["embeddings"], strict=True)
            return {(tuple(templates), label): row for (templates, label), row in rows}
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return {}

    def add(self, rows: Mapping[Key, Vector]) -> None:
        """Keep more; where the folder cannot be written, the next process computes them again."""
        rows = self.read() | dict(rows)
        keys = np.frombuffer(json.dumps(list(rows)).encode(), np.uint8)
        try:
            make_folder(self._path.parent)
            write_atomically(self._path, save({"keys": keys, "embeddings": np.stack(list(rows.values()))}))
        except OSError as error:
            logger.info("label embeddings are not kept: %s", error.strerror)


class LabelBank:
    """Embeddings of one model's labels. Preset groups stay; of users' own the latest ``capacity``."""

    def __init__(
        self,
        model: Model,
        *,
        store: LabelStore | None = None,
        capacity: int = 20_000,
        ledger: Ledger | None = None,
    ) -> None:
        """Start empty; preset labels that are in the store are not computed again.

        ``ledger`` says who had how much of the work lately, so that it is the turn of whoever had least.
        """
        self._model = model
        self._store = store
        self._stored = store.read() if store else {}
        self._presets: dict[LabelGroup, tuple[Embeddings, Embeddings]] = {}
        self._own: OrderedDict[Key, Vector] = OrderedDict()
        self._capacity = capacity
        self._latest: OrderedDict[LabelGroup, tuple[Embeddings, Embeddings]] = OrderedDict()
        self._as_read = lru_cache(READ)(self._read)  # the same labels come with every picture of a batch
        self._pictures: dict[str, Example] = {}
        self._lock = threading.Lock()
        self._turns = Turns(ledger or Ledger())
        self._texts_waiting: dict[str, Counter[Key]] = {}  # new texts, by who asks; some by several requests at once
        self._seconds_each = 0.0  # of a text, lately

    def group(self, group: LabelGroup) -> tuple[Embeddings, Embeddings]:
        """Return a group's label embeddings [L, D] and neutral embeddings [N, D].

        A label's embedding is the mean over the templates of unit embeddings, made unit
        again (the prompt ensemble of Radford et al. 2021).
        """
        if (preset := self._presets.get(group)) is not None:
            LABEL_CACHE.labels("hit").inc(len(group.labels))
            return preset
        if group.name != REQUEST_GROUP:
            return self.keep(group)
        if (latest := self._again(group)) is not None:
            LABEL_CACHE.labels("hit").inc(len(group.labels) + len(group.neutral))
            return latest
        neutral = self._embed(_neutral_keys(group))
        embeddings = self._embed(_label_keys(group)), neutral
        self._remember(group, embeddings)
        return embeddings

    def as_read(self, group: LabelGroup) -> tuple[LabelGroup, tuple[str, ...]]:
        """Return a group that came with a request as the text encoder reads it, and what to say about that.

        Labels that become the same tokens are one, and what is longer than the encoder reads is cut.
        """
        return self._as_read(group) if group.name == REQUEST_GROUP else (group, ())

    def _read(self, group: LabelGroup) -> tuple[LabelGroup, tuple[str, ...]]:
        texts = self._model.read_texts([fill(group.templates[0], label) for label in group.labels])
        kept: dict[tuple[int, ...], str] = {}
        warnings = []
        for label, text in zip(group.labels, texts, strict=True):
            first = kept.setdefault(text.ids, label)
            if text.cut:
                most = self._model.context
                warnings.append(f"{_short(label)} is longer than the {most} tokens that the model reads, and was cut.")
            if first != label:
                warnings.append(f"{_short(label)} is the same as {_short(first)} to the model, and was left out.")
        return replace(group, labels=tuple(kept.values())), tuple(warnings[:MOST_WARNINGS])

    def keep(
        self, group: LabelGroup, progress: Callable[[float], None] = lambda share: None
    ) -> tuple[Embeddings, Embeddings]:
        """Embed a preset group and keep it for good, here and in the store, reporting the share done."""
        for share in self.embedding(group):
            progress(share)
        return self._presets[group]

    def embedding(self, group: LabelGroup) -> Iterator[float]:
        """Embed a preset group a few labels at a time and then keep it, yielding the share done after each time.

        Who asks for other labels meanwhile waits for a few only.
        """
        if group in self._presets:
            return
        labels, neutral, pictures = _label_keys(group), _neutral_keys(group), self._picture_keys(group)
        wanted = list(dict.fromkeys(labels + neutral + pictures))
        missing = [key for key in wanted if key not in self._stored]
        LABEL_CACHE.labels("hit").inc(len(wanted) - len(missing))
        for start in range(0, len(missing), CHUNK):
            self._embed_missing(missing[start : start + CHUNK])
            yield min(1.0, (start + CHUNK) / len(missing))
        if missing and self._store:  # a picture that could not be read may be readable another day
            self._store.add({key: row for key in missing if (row := self._stored[key]).any()})
        label_rows, neutral_rows = (np.stack([self._stored[key] for key in keys]) for keys in (labels, neutral))
        if group.examples:
            label_rows = self._with_pictures(group, label_rows, neutral_rows)
        self._presets[group] = label_rows, neutral_rows

    def _picture_keys(self, group: LabelGroup) -> list[Key]:
        """The keys of a group's examples, and of the pictures of anything that they are told apart from."""
        if not group.examples:
            return []
        for example in (*group.examples, *_background()):
            self._pictures[example.sha256] = example
        return [((), example.sha256) for example in (*group.examples, *_background())]

    def _with_pictures(self, group: LabelGroup, labels: Embeddings, neutral: Embeddings) -> Embeddings:
        rows = {label: [np.empty((0, labels.shape[1]), np.float32)] for label in group.labels}
        for example in group.examples:
            if (row := self._stored[(), example.sha256]).any():
                rows[example.label].append(row[None])
        background = np.stack([self._stored[(), example.sha256] for example in _background()])
        return mixed(labels, [np.concatenate(rows[label]) for label in group.labels], neutral, background)

    def _embed_missing(self, keys: Sequence[Key]) -> None:
        with self._turns.turn():
            chunk = [key for key in keys if key not in self._stored]  # another thread may be at the same group
            LABEL_CACHE.labels("hit").inc(len(keys) - len(chunk))
            if chunk:
                self._stored.update(zip(chunk, self._compute(chunk), strict=True))

    def _again(self, group: LabelGroup) -> tuple[Embeddings, Embeddings] | None:
        """Return the group if it was asked for lately: the same labels come with every picture of a batch."""
        with self._lock:
            if group in self._latest:
                self._latest.move_to_end(group)
            return self._latest.get(group)

    def _remember(self, group: LabelGroup, embeddings: tuple[Embeddings, Embeddings]) -> None:
        with self._lock:
            self._latest[group] = embeddings
            while len(self._latest) > 1 and sum(len(kept.labels) for kept in self._latest) > self._capacity:
                self._latest.popitem(last=False)

    def _embed(self, keys: Sequence[Key]) -> Embeddings:
        found = self._look_up(keys)
        missing = sorted((key for key in dict.fromkeys(keys) if key not in found), key=lambda key: len(key[1]))
        computed: list[Key] = []

        def compute(piece: Sequence[Key]) -> None:
            found.update(self._look_up(piece))  # two requests with the same new labels compute them once
            if new := [key for key in piece if key not in found]:
                found.update(self._add(new))
                computed.extend(new)

        self._in_pieces(missing, compute)
        LABEL_CACHE.labels("hit").inc(len(keys) - len(computed))
        return np.stack([found[key] for key in keys])

    def _in_pieces(self, keys: Sequence[Key], work: Callable[[Sequence[Key]], None]) -> None:
        """Do the work a few texts at a time, each piece when it is the turn of whoever asks.

        Raises:
            Busy: whoever asks has too many waiting, or a turn did not come before it was due.
        """
        if not keys:
            return
        with self._waiting(keys):
            for start in range(0, len(keys), PIECE):
                with self._turns.turn(self._seconds_each * (len(keys) - start)):
                    work(keys[start : start + PIECE])

    @contextmanager
    def _waiting(self, keys: Sequence[Key]) -> Iterator[None]:
        """Count a request's new texts as waiting.

        Raises:
            Busy: whoever asks has more of them waiting already than one client may.
        """
        client = asking()
        with self._lock:
            waiting = self._texts_waiting.setdefault(client, Counter())
            if client != HOUSE and waiting and len(waiting.keys() | set(keys)) > MOST_WAITING:
                raise Busy(f"{len(waiting):,} new labels of yours are being read already. Try again in a moment.")
            waiting.update(keys)
        try:
            yield
        finally:
            with self._lock:
                waiting.subtract(keys)
                for key in [key for key in set(keys) if not waiting[key]]:
                    del waiting[key]
                if not waiting:
                    self._texts_waiting.pop(client, None)

    def _add(self, keys: Sequence[Key]) -> dict[Key, Vector]:
        started = time.perf_counter()
        # Copies: a row of the whole would keep all of it alive.
        new = {key: row.copy() for key, row in zip(keys, self._compute(keys), strict=True)}
        self._seconds_each = (time.perf_counter() - started) / len(keys)
        with self._lock:
            self._own.update(new)
            while len(self._own) > self._capacity:
                self._own.popitem(last=False)
        return new

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts as they stand, unit vectors of shape [len(texts), D], a few at a time and none of them kept."""
        rows: list[Embeddings] = []
        keys = [((text,), "") for text in texts]
        self._in_pieces(keys, lambda piece: rows.append(self._model.encode_texts([text for (text,), _ in piece])))
        return np.concatenate(rows)

    def _look_up(self, keys: Sequence[Key]) -> dict[Key, Vector]:
        with self._lock:
            found = {key: self._own[key] for key in keys if key in self._own}
            for key in found:
                self._own.move_to_end(key)
        return found

    def _compute(self, keys: Sequence[Key]) -> Embeddings:
        """Embed texts and pictures; a picture that cannot be read is zeros."""
        LABEL_CACHE.labels("miss").inc(len(keys))
        texts = [key for key in keys if key[0]]
        rows = dict(zip(texts, self._compute_texts(texts), strict=True)) if texts else {}
        rows |= {key: self._see(self._pictures[key[1]]) for key in keys if not key[0]}
        length = max(len(row) for row in rows.values())
        return np.stack([row if len(row := rows[key]) else np.zeros(length, np.float32) for key in keys])

    def _see(self, example: Example) -> Vector:
        preprocessing = self._model.preprocessing
        try:
            decoded = decode(
                example.path.read_bytes(), max_bytes=MOST_BYTES, max_pixels=MOST_PIXELS, target=preprocessing.target
            )
        except (ClipAppError, OSError) as error:
            message = error.message if isinstance(error, ClipAppError) else error.strerror
            logger.warning("the example %s of %r is left out: %s", example.path.name, example.label, message)
            return np.empty(0, np.float32)
        row: Vector = self._model.encode_images(preprocessing(decoded.image)[None])[0]
        return row

    def _compute_texts(self, keys: Sequence[Key]) -> Embeddings:
        prompts = [fill(template, label) for templates, label in keys for template in templates]
        embeddings = self._model.encode_texts(prompts)
        starts = np.cumsum([0] + [len(templates) for templates, _ in keys[:-1]])
        means = np.add.reduceat(embeddings, starts, axis=0)
        unit: Embeddings = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


@lru_cache(1)
def _background() -> tuple[Example, ...]:
    """The photographs of the package, for pictures of anything."""
    paths = sorted(examples_folder().glob("*.jpg"))
    return tuple(Example("", hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in paths)


def _short(label: str) -> str:
    return f'"{label}"' if len(label) <= SHORT else f'"{label[:SHORT]}..."'


def _label_keys(group: LabelGroup) -> list[Key]:
    return [(group.templates, label) for label in group.labels]


def _neutral_keys(group: LabelGroup) -> list[Key]:
    return [((text,), "") for text in group.neutral]
