"""Post-training quantisation of the image encoder to int8, on photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
from PIL import Image

from clip_app.engines import Embeddings
from clip_app.engines.agreement import Agreement
from clip_app.engines.photographs import read_photographs
from clip_app.labels import fill, load_groups, preset_folder
from clip_app.preprocessing import Pixels, Preprocessing

__all__ = ["Quantizer"]

HELD_OUT = 4
CROPS = 128
COMPARED = 100  # pictures at least, so that one in a hundred can be seen
SMALLEST_CROP = 0.4


class Quantizer:
    """Quantises on the photographs of a folder.

    Raises:
        CheckpointError: there are fewer than two.
    """

    def __init__(self, photographs: Path) -> None:
        self._pictures = read_photographs(photographs)

    def __call__(
        self, path: Path, preprocessing: Preprocessing, encode_texts: Callable[[list[str]], Embeddings]
    ) -> Agreement:
        """Replace a saved image encoder by its int8 form, and say how well the two agree.

        Weights and activations are quantised after training (NNCF, the transformer preset) on
        random crops of three photographs in four; the agreement is measured on the others, whole
        and cropped, by the labels of the objects.
        """
        group = load_groups(preset_folder())["objects"]
        labels = encode_texts([fill(group.templates[0], label) for label in group.labels])
        held_out = self._pictures[::HELD_OUT]
        calibrated = [picture for i, picture in enumerate(self._pictures) if i % HELD_OUT]
        crops = [preprocessing(crop)[None] for crop in _crops(calibrated, CROPS)]
        core = openvino.Core()
        encoder = core.read_model(path)
        quantized = nncf.quantize(
            encoder, nncf.Dataset(crops), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(crops)
        )
        compared = [*held_out, *_crops(held_out, max(0, COMPARED - len(held_out)))]
        pixels = [preprocessing(picture)[None] for picture in compared]
        agreement = _agreement(core, encoder, quantized, pixels, labels, photographs=len(held_out))
        beside = path.with_name("quantized.xml")
        openvino.save_model(quantized, beside, compress_to_fp16=False)
        del encoder  # it maps the file that goes now
        for suffix in (".xml", ".bin"):
            beside.with_suffix(suffix).replace(path.with_suffix(suffix))
        return agreement


def _agreement(
    core: Any, encoder: Any, quantized: Any, pictures: list[Pixels], labels: Embeddings, *, photographs: int
) -> Agreement:
    exact, rounded = (
        np.concatenate([compiled(pixels)[0] for pixels in pictures])
        for compiled in (
            core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for model in (encoder, quantized)
        )
    )
    cosines = (exact * rounded).sum(1)
    same = (exact @ labels.T).argmax(1) == (rounded @ labels.T).argmax(1)
    return Agreement(
        photographs=photographs,
        pictures=len(pictures),
        mean_cosine=round(float(cosines.mean()), 6),
        least_cosine=round(float(cosines.min()), 6),
        same_label=round(float(same.mean()), 4),
    )


def _crops(pictures: list[Image.Image], count: int) -> Iterator[Image.Image]:
    """Cut squares of many sizes out of the pictures in turn, the same ones every time."""
    random = np.random.default_rng(0)
    for i in range(max(count, len(pictures)) if count else 0):
        picture = pictures[i % len(pictures)]
        side = int(random.uniform(SMALLEST_CROP, 1) * min(picture.size))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in picture.size)
        yield picture.crop((left, top, left + side, top + side))
