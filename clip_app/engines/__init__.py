"""What runs the encoders: one small interface, and the choice of what stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from clip_app.machine import has_bfloat16
from clip_app.preprocessing import Pixels
from clip_app.settings import Settings
from clip_app.tokenizer import Tokens

__all__ = ["Choice", "Embeddings", "Engine", "EngineName", "Precision", "choose_engine"]

Embeddings = npt.NDArray[np.float32]
EngineName = Literal["torch", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]

CUDA_DRIVER = Path("/proc/driver/nvidia/version")


class Engine(Protocol):
    """The two encoders of one checkpoint. Thread-safe."""

    @property
    def name(self) -> EngineName: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def device(self) -> str: ...

    @property
    def logit_scale(self) -> float: ...

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """Return unit image embeddings, shape [N, D], of pixels, shape [N, 3, H, W]."""

    def encode_tokens(self, tokens: Tokens) -> Embeddings:
        """Return unit text embeddings, shape [N, D], of tokens, shape [N, T]."""


@dataclass(frozen=True)
class Choice:
    """Which engine runs, how and where."""

    engine: EngineName
    precision: Precision
    device: Literal["cpu", "cuda"]


def choose_engine(settings: Settings) -> Choice:
    """Choose what the settings leave open: CUDA where there is one, else OpenVINO, else torch.

    Auto precision is bfloat16 where the CPU computes in it, else float32; int8 only when asked for.
    """
    device: Literal["cpu", "cuda"] = (
        "cuda" if settings.device == "cuda" or (settings.device == "auto" and _cuda_wanted(settings)) else "cpu"
    )
    engine = settings.engine
    if engine == "auto":
        engine = "openvino" if device == "cpu" and find_spec("openvino") is not None else "torch"
    precision = settings.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cpu" and has_bfloat16() else "float32"
    return Choice(engine, precision, device)


def _cuda_wanted(settings: Settings) -> bool:
    """Ask torch for a CUDA device only where there is a driver: importing it takes seconds."""
    if settings.engine == "openvino" or settings.precision == "int8" or not CUDA_DRIVER.exists():
        return False
    import torch

    return torch.cuda.is_available()
