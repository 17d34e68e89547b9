"""The image half of a checkpoint in transformers' format, on torch, for gradients: loaded when first asked for."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from transformers import AutoConfig, CLIPVisionModelWithProjection, SiglipVisionModel
from transformers.utils import logging as transformers_logging

from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.heatmaps.grid import fitted
from clip_app.machine import available_cpus, memory_free
from clip_app.preprocessing import Pixels, Preprocessing
from clip_app.source import Source

__all__ = ["AREA", "VisionTower", "open_tower"]

AREA = 2  # pictures of other shapes than square are looked at in as many pixels as so many squares have
PASS_BYTES = 300_000_000  # torch itself and one pass
BYTES = 4  # of a number in float32

Attention = Literal["eager", "sdpa"]


class VisionTower:
    """A vision transformer in float32; one picture, and one pass, at a time."""

    def __init__(self, network: Any, preprocessing: Preprocessing) -> None:
        self.network = network
        self._preprocessing = preprocessing
        self._config = network.config
        self._turn = threading.Lock()

    def pixels(self, image: Image.Image, *, area: float = AREA, most_tokens: float = math.inf) -> Pixels:
        """Return the whole picture as pixels [3, H, W] of at most so many patches, at its own aspect ratio.

        A network that is shown every picture stretched to one shape is shown it so.
        """
        stretched = self._preprocessing.size is not None and self._preprocessing.crop is None
        side, patch = self._config.image_size, self._config.patch_size
        if stretched and (side // patch) ** 2 <= most_tokens:
            return self._preprocessing(image, exact=False)
        area = min(area, most_tokens * patch * patch / side**2)
        return self._preprocessing.resized(image, *fitted(image.size, side, area=area, step=patch))

    @contextmanager
    def turn(self, pixels: Pixels) -> Iterator[tuple[torch.Tensor, tuple[int, int]]]:
        """Wait for the one turn; give the pixels as a batch of one, and how many patches there are down and across."""
        patch = self._config.patch_size
        with self._turn:
            batch = torch.from_numpy(pixels)[None].to(self.network.device)
            yield batch, (pixels.shape[1] // patch, pixels.shape[2] // patch)


def open_tower(source: Source, device: str, preprocessing: Preprocessing, attention: Attention) -> VisionTower:
    """Load the image half of a checkpoint: safetensors only, no code from it is run.

    Raises:
        CheckpointError: a file is damaged.
        EngineUnavailable: there is no memory for it.
    """
    transformers_logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    vision = config.vision_config
    _check_room(vision)
    # The projection is said for both halves at once, and what the half says of it may be a default.
    vision.projection_dim = getattr(config, "projection_dim", None)
    kind = CLIPVisionModelWithProjection if config.model_type == "clip" else SiglipVisionModel
    try:
        network = _load(kind, source.folder, vision, attention)
    except Exception as error:  # transformers and safetensors raise many kinds on damaged files
        raise CheckpointError(f"The checkpoint cannot be read: {type(error).__name__}. Fetch it again.") from error
    # Of its own accord torch takes every core of the machine, whatever this process may use.
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))
    network = network.to(torch.device(device)).eval().requires_grad_(False)
    return VisionTower(network, preprocessing)


def _load(kind: Any, folder: Path, config: Any, attention: Attention) -> Any:
    # It would report the other half, which is left, as weights that nobody wants.
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        return kind.from_pretrained(
            folder,
            config=config,
            attn_implementation=attention,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    finally:
        transformers_logging.set_verbosity(level)


def _check_room(config: Any) -> None:
    """Refuse a network whose weights and one pass do not fit: a process that takes too much is killed.

    A transformer's layer holds some twelve squares of its width: four for attention, eight around it.
    """
    weights = BYTES * 12 * config.num_hidden_layers * config.hidden_size**2
    needed = weights + PASS_BYTES
    if needed > (free := memory_free()):
        raise EngineUnavailable(
            f"Its weights and one pass take {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free. "
            "Give the process more memory."
        )
