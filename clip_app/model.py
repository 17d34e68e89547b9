"""A CLIP checkpoint in memory: pixels and texts to embeddings.

Any folder in the Hub's format will do, CLIP or SigLIP, whether it came from the
Hub's cache, from a volume or from inside the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from clip_app.checkpoint import check_folder, read_preprocessing
from clip_app.engines import Embeddings, Engine, Precision
from clip_app.preprocessing import Pixels, Preprocessing
from clip_app.results import ModelInfo
from clip_app.tokenizer import Tokenizer

if TYPE_CHECKING:
    from clip_app.engines.conversion import Converted

__all__ = ["Model", "load_model"]

TEXT_BATCH = 64


class Model:
    """The engine, the tokenizer and the preprocessing of one checkpoint. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        info: ModelInfo,
        label_folder: Path | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.info = info
        self.label_folder = label_folder
        self.logit_scale = engine.logit_scale
        self.device = engine.device
        self._engine = engine
        self._tokenizer = tokenizer

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """Return unit image embeddings, shape [N, D], of pixels, shape [N, 3, H, W]."""
        return self._engine.encode_images(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Return unit text embeddings, shape [len(texts), D], texts of a length batched together."""
        ids = self._tokenizer.encode(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        batches = [order[start : start + TEXT_BATCH] for start in range(0, len(order), TEXT_BATCH)]
        rows = [self._engine.encode_tokens(self._tokenizer.pad([ids[i] for i in batch])) for batch in batches]
        embeddings = np.empty((len(ids), rows[0].shape[1]), np.float32)
        embeddings[order] = np.concatenate(rows)
        return embeddings


def load_model(
    folder: Path,
    *,
    name: str,
    revision: str,
    bundled: bool,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    precision: Precision = "float32",
    threads: int | None = None,
    converted: Converted | None = None,
) -> Model:
    """Load a checkpoint folder with torch, or what was ``converted`` from it with OpenVINO.

    Raises:
        CheckpointError: a file is missing or damaged, or it is no CLIP or SigLIP.
    """
    check_folder(folder)
    engine: Engine
    if converted is not None:
        from clip_app.engines.openvino import open_converted

        engine, tokenizer = open_converted(converted, precision=precision, threads=threads)
    else:
        from clip_app.engines.torch import open_checkpoint

        assert precision != "int8"  # noqa: S101  the settings refuse it
        engine, tokenizer = open_checkpoint(folder, device=device, precision=precision, threads=threads)
    info = ModelInfo(id=name, revision=revision, engine=engine.name, precision=engine.precision, bundled=bundled)
    labels = folder / "labels"
    return Model(engine, tokenizer, read_preprocessing(folder), info, labels if labels.is_dir() else None)
