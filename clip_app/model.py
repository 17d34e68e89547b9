"""A CLIP checkpoint in memory: pixels and texts to embeddings.

Any folder in the Hub's format will do, CLIP or SigLIP, whether it came from the
Hub's cache, from a volume or from inside the package.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clip_app.preprocessing import Pixels, Preprocessing
from clip_app.results import ModelInfo

__all__ = ["FAMILIES", "CheckpointError", "Model", "load_model"]

FAMILIES = ("clip", "siglip")
TEXT_BATCH = 64

Embeddings = npt.NDArray[np.float32]


class CheckpointError(ValueError):
    """The folder holds no checkpoint that can be served; the message says what is missing."""


class Model:
    """Two encoders, the tokenizer and the preprocessing of one checkpoint. Thread-safe."""

    def __init__(
        self, network: Any, tokenizer: Any, preprocessing: Preprocessing, info: ModelInfo, label_folder: Path | None
    ) -> None:
        self.preprocessing = preprocessing
        self.info = info
        self.label_folder = label_folder
        self.logit_scale = float(network.logit_scale.detach().float().exp())
        self.device = str(network.device)
        self._network = network
        self._tokenizer = tokenizer
        self._context = int(network.config.text_config.max_position_embeddings)
        # SigLIP was trained with every text filled up to the full length.
        self._padding = "longest" if network.config.model_type == "clip" else "max_length"
        self._text_lock = threading.Lock()

    @torch.inference_mode()
    def encode_images(self, pixels: Pixels) -> Embeddings:
        """Return unit image embeddings, shape [N, D], of pixels, shape [N, 3, H, W]."""
        batch = torch.from_numpy(pixels).to(self._network.device, self._network.dtype)
        return _unit(self._network.get_image_features(pixel_values=batch).pooler_output)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Return unit text embeddings, shape [len(texts), D], short texts batched together."""
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._context)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        rows: list[npt.NDArray[np.float32]] = []
        with self._text_lock:
            for start in range(0, len(order), TEXT_BATCH):
                rows.append(self._encode_tokens([ids[i] for i in order[start : start + TEXT_BATCH]]))
        embeddings = np.empty((len(ids), rows[0].shape[1]), np.float32)
        embeddings[order] = np.concatenate(rows)
        return embeddings

    def _encode_tokens(self, ids: list[list[int]]) -> Embeddings:
        batch = self._tokenizer.pad(
            {"input_ids": ids}, padding=self._padding, max_length=self._context, return_tensors="pt"
        )
        # The encoders are causal (CLIP) or were trained unmasked (SigLIP): padding needs no mask.
        tokens = batch["input_ids"].to(self._network.device)
        return _unit(self._network.get_text_features(input_ids=tokens).pooler_output)


def load_model(
    folder: Path,
    *,
    name: str,
    revision: str,
    bundled: bool,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    threads: int | None = None,
) -> Model:
    """Load a checkpoint folder: safetensors only, no code from it is run.

    Raises:
        CheckpointError: a file is missing or damaged, or it is no CLIP or SigLIP.
    """
    _check_folder(folder)
    if threads:
        torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    try:
        network = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        preprocessing = Preprocessing.from_config(config)
        network = network.to(_device(device)).eval()
    except CheckpointError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds on damaged files
        raise CheckpointError(
            f"The checkpoint {name} cannot be read: {type(error).__name__}. Fetch it again."
        ) from error
    info = ModelInfo(
        id=name, revision=revision, engine="torch", precision=str(dtype).removeprefix("torch."), bundled=bundled
    )
    labels = folder / "labels"
    return Model(network, tokenizer, preprocessing, info, labels if labels.is_dir() else None)


def _check_folder(folder: Path) -> None:
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise CheckpointError(f"The checkpoint lacks {', '.join(missing)}. CLIP_APP_MODEL needs a complete one.")
    try:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise CheckpointError("The checkpoint's config.json cannot be read. Fetch it again.") from error
    if family not in FAMILIES:
        raise CheckpointError(f"A checkpoint of type {family!r} is not CLIP or SigLIP. Change CLIP_APP_MODEL.")


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("CLIP_APP_DEVICE=cuda, but torch sees no CUDA device. Use cpu or auto.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _unit(features: torch.Tensor) -> Embeddings:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
