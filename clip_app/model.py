"""A CLIP checkpoint in memory: pixels and texts to embeddings.

Any folder in the Hub's format will do, CLIP or SigLIP or a pair of ONNX files, whether it
came from the Hub's cache, from a volume or from inside the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clip_app.checkpoint import check_folder, read_preprocessing
from clip_app.engines import ENGINES, Choice, Embeddings, Encoders, check_installed, check_takes
from clip_app.preprocessing import Pixels, Preprocessing
from clip_app.results import ModelInfo
from clip_app.source import Source
from clip_app.tokenizer import TokenizedText, Tokenizer

__all__ = ["Model", "load_model"]

TEXT_BATCH = 64


class Model:
    """The encoders, the tokenizer and the preprocessing of one checkpoint. Thread-safe."""

    def __init__(
        self,
        encoders: Encoders,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        info: ModelInfo,
        label_folder: Path | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.info = info
        self.label_folder = label_folder
        self.logit_scale = encoders.logit_scale
        self.device = encoders.device
        self.class_maps = encoders.class_maps
        self._encoders = encoders
        self._tokenizer = tokenizer

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """Return unit image embeddings, shape [N, D], of pixels, shape [N, 3, H, W]."""
        return self._encoders.encode_images(pixels)

    @property
    def context(self) -> int:
        """How many tokens of a text are read."""
        return self._tokenizer.context

    def read_texts(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of texts as the encoder reads them, and of which some were left out."""
        return self._tokenizer.read_texts(texts)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Return unit text embeddings, shape [len(texts), D], texts of a length batched together."""
        ids = self._tokenizer.encode(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        batches = [order[start : start + TEXT_BATCH] for start in range(0, len(order), TEXT_BATCH)]
        rows = [self._encoders.encode_tokens(self._tokenizer.pad([ids[i] for i in batch])) for batch in batches]
        embeddings = np.empty((len(ids), rows[0].shape[1]), np.float32)
        embeddings[order] = np.concatenate(rows)
        return embeddings


def load_model(source: Source, choice: Choice, *, threads: int | None = None) -> Model:
    """Open a checkpoint with an engine, making first what the engine serves from where it must be.

    Raises:
        CheckpointError: a file is missing or damaged, or it is no CLIP or SigLIP.
        EngineUnavailable: the engine does not run here.
        HubError: what must be made cannot be kept in the cache.
    """
    check_folder(source.folder)
    row = ENGINES[choice.engine]
    check_installed(row)
    check_takes(row, source)
    engine = row.load()
    if not engine.is_prepared(source, choice.precision):
        engine.prepare(source, choice.precision, None)
    encoders, tokenizer = engine.open_encoders(source, choice, threads)
    info = ModelInfo(
        id=source.name,
        revision=source.revision,
        engine=choice.engine,
        precision=encoders.precision,
        bundled=source.bundled,
    )
    labels = source.folder / "labels"
    preprocessing = read_preprocessing(source.folder)
    return Model(encoders, tokenizer, preprocessing, info, labels if labels.is_dir() else None)
