"""The reference engine: transformers' own classes on torch, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clip_app.engines import ENGINES, Choice, Device, Embeddings, EngineFinding, Precision
from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.preprocessing import Pixels
from clip_app.source import Source
from clip_app.tokenizer import Padding, Tokenizer, Tokens

__all__ = ["TorchEncoders", "findings", "has_device", "is_prepared", "open_checkpoint", "open_encoders", "prepare"]


class TorchEncoders:
    """:class:`~clip_app.engines.Encoders` around a transformers model. Thread-safe."""

    class_maps = None

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
        batch = torch.from_numpy(tokens.ids).to(self.network.device)
        return _unit(self.network.get_text_features(input_ids=batch).pooler_output)


def has_device(device: Device) -> bool:
    """Say whether torch sees such a device."""
    return device == "cpu" or torch.cuda.is_available()


def is_prepared(source: Source, precision: Precision) -> bool:
    """It serves from the checkpoint itself."""
    return True


def prepare(source: Source, precision: Precision, photographs: Path | None) -> None:
    """Nothing: it serves from the checkpoint itself."""


def open_encoders(source: Source, choice: Choice, threads: int | None) -> tuple[TorchEncoders, Tokenizer]:
    """Load a checkpoint onto the device.

    Raises:
        CheckpointError: a file is damaged.
        EngineUnavailable: there is no such device.
    """
    if not has_device(choice.device):
        raise EngineUnavailable("CLIP_APP_DEVICE=cuda, but torch sees no CUDA device. Use cpu or auto.")
    if threads:
        torch.set_num_threads(threads)
    return open_checkpoint(source.folder, device=choice.device, precision=choice.precision)


def open_checkpoint(
    folder: Path, *, device: Device = "cpu", precision: Precision = "float32"
) -> tuple[TorchEncoders, Tokenizer]:
    """Load a checkpoint's weights and its tokenizer: safetensors only, no code from it is run.

    Raises:
        CheckpointError: a file is damaged.
    """
    transformers_logging.disable_progress_bar()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    try:
        network = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
        tokenizer = _tokenizer(folder, network.config)
        return TorchEncoders(network.to(torch.device(device)).eval()), tokenizer
    except Exception as error:  # transformers and safetensors raise many kinds on damaged files
        raise CheckpointError(f"The checkpoint cannot be read: {type(error).__name__}. Fetch it again.") from error


def findings(source: Source | None, choice: Choice) -> Iterator[EngineFinding]:
    """Say which torch would run, and that something faster could be installed."""
    if not has_device(choice.device):
        yield EngineFinding("bad", "CLIP_APP_DEVICE=cuda, but torch sees none", "Set cpu or auto.")
    yield EngineFinding("ok", f"torch {version('torch')} on {choice.device}, {choice.precision}")
    if choice.device == "cpu" and not ENGINES["openvino"].installed:
        fix = "pip install 'clip-app[openvino]'."
        yield EngineFinding("warn", "OpenVINO, several times faster, is not installed", fix)


def _tokenizer(folder: Path, config: Any) -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return Tokenizer(
        tokenizer.backend_tokenizer,
        context=int(config.text_config.max_position_embeddings),
        padding=Padding(
            token=int(tokenizer.pad_token_id), left=tokenizer.padding_side == "left", fill=config.model_type != "clip"
        ),
        # SigLIP 2 was trained on lower case, which Gemma's tokenizer keeps as it is.
        lower_case=config.model_type.startswith("siglip") and type(tokenizer).__name__.startswith("Gemma"),
    )


def _unit(features: torch.Tensor) -> Embeddings:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
