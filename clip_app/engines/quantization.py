"""Post-training quantisation of the image encoder to int8, on photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
from PIL import Image

from clip_app.engines.conversion import Agreement
from clip_app.preprocessing import Pixels, Preprocessing

__all__ = ["quantize"]

HELD_OUT = 4
CROPS = 128
SMALLEST_CROP = 0.4


def quantize(path: Path, preprocessing: Preprocessing, pictures: list[Image.Image]) -> Agreement:
    """Replace a saved image encoder by its int8 form, and say how well the two agree.

    Weights and activations are quantised after training (NNCF, the transformer preset) on
    random crops of three photographs in four; the agreement is measured on the others.
    """
    held_out = pictures[::HELD_OUT]
    crops = [preprocessing(crop)[None] for crop in _crops([p for i, p in enumerate(pictures) if i % HELD_OUT])]
    core = openvino.Core()
    encoder = core.read_model(path)
    quantized = nncf.quantize(
        encoder, nncf.Dataset(crops), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(crops)
    )
    agreement = _agreement(core, encoder, quantized, [preprocessing(picture)[None] for picture in held_out])
    beside = path.with_name("quantized.xml")
    openvino.save_model(quantized, beside, compress_to_fp16=False)
    del encoder  # it maps the file that goes now
    for suffix in (".xml", ".bin"):
        beside.with_suffix(suffix).replace(path.with_suffix(suffix))
    return agreement


def _agreement(core: Any, encoder: Any, quantized: Any, pictures: list[Pixels]) -> Agreement:
    exact, rounded = (
        core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for model in (encoder, quantized)
    )
    cosines = [float((exact(pixels)[0] * rounded(pixels)[0]).sum()) for pixels in pictures]
    return Agreement(len(pictures), round(float(np.mean(cosines)), 6), round(min(cosines), 6))


def _crops(pictures: list[Image.Image]) -> Iterator[Image.Image]:
    """Cut squares of many sizes out of the pictures in turn, the same ones every time."""
    random = np.random.default_rng(0)
    for i in range(max(CROPS, len(pictures))):
        picture = pictures[i % len(pictures)]
        side = int(random.uniform(SMALLEST_CROP, 1) * min(picture.size))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in picture.size)
        yield picture.crop((left, top, left + side, top + side))
