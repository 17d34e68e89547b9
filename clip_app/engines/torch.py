"""The reference engine: transformers' own classes on torch, on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clip_app.engines import Embeddings
from clip_app.errors import CheckpointError
from clip_app.preprocessing import Pixels
from clip_app.tokenizer import Tokenizer, Tokens

__all__ = ["TorchEngine", "open_checkpoint"]


class TorchEngine:
    """An :class:`~clip_app.engines.Engine` around a transformers model. Thread-safe."""

    name: Literal["torch"] = "torch"

    def __init__(self, network: Any) -> None:
        self.network = network
        self.device = str(network.device)
        self.logit_scale = float(network.logit_scale.detach().float().exp())
        self.precision: Literal["float32", "bfloat16"] = "bfloat16" if network.dtype == torch.bfloat16 else "float32"

    @torch.inference_mode()
    def encode_images(self, pixels: Pixels) -> Embeddings:
        batch = torch.from_numpy(pixels).to(self.network.device, self.network.dtype)
        return _unit(self.network.get_image_features(pixel_values=batch).pooler_output)

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tokens) -> Embeddings:
        batch = torch.from_numpy(tokens).to(self.network.device)
        return _unit(self.network.get_text_features(input_ids=batch).pooler_output)


def open_checkpoint(
    folder: Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    threads: int | None = None,
) -> tuple[TorchEngine, Tokenizer]:
    """Load a checkpoint's weights and its tokenizer: safetensors only, no code from it is run.

    Raises:
        CheckpointError: a file is damaged, or there is no such device.
    """
    if threads:
        torch.set_num_threads(threads)
    place = _device(device)
    transformers_logging.disable_progress_bar()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    try:
        network = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
        tokenizer = _tokenizer(folder, network.config)
        return TorchEngine(network.to(place).eval()), tokenizer
    except Exception as error:  # transformers and safetensors raise many kinds on damaged files
        raise CheckpointError(f"The checkpoint cannot be read: {type(error).__name__}. Fetch it again.") from error


def _tokenizer(folder: Path, config: Any) -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return Tokenizer(
        tokenizer.backend_tokenizer,
        context=int(config.text_config.max_position_embeddings),
        padding_id=int(tokenizer.pad_token_id),
        fill_context=config.model_type != "clip",
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("CLIP_APP_DEVICE=cuda, but torch sees no CUDA device. Use cpu or auto.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _unit(features: torch.Tensor) -> Embeddings:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
