"""Overlapping crops, each embedded alone: coarse, and right for any encoder, whoever runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from clip_app.contrast import Direction
from clip_app.heatmaps.grid import Heat
from clip_app.model import Model
from clip_app.preprocessing import Pixels

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["Crops", "open_mapper"]

# Sides of the crops, as shares of that of a square as large as the picture; neighbours share half of each other.
SHARES = (1 / 2, 1 / 3)
MOST = 12  # crops side by side without overlap; those of a longer picture are stretched to that many
CELLS = 24  # along the longer side
CHUNK = 8  # crops in one forward pass, so that others get a turn

Span = tuple[int, int]


class Crops:
    """:class:`~clip_app.heatmaps.Mapper` on the image encoder as it is."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def look(self, image: Image.Image) -> Callable[[Direction], Heat]:
        boxes = _boxes(image.size)
        crops = [image.crop((left, top, right, bottom)) for (left, right), (top, bottom) in boxes]
        pixels = np.stack([self._model.preprocessing(crop, exact=False) for crop in crops])
        return partial(self._heat, pixels, boxes, image.size)

    def _heat(self, pixels: Pixels, boxes: Sequence[tuple[Span, Span]], size: Span, direction: Direction) -> Heat:
        """Lay each crop's score over its box, most of it on the middle; what is below the mean speaks for nothing."""
        chunks = [pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK)]
        scores = np.concatenate([self._model.encode_images(chunk) @ direction for chunk in chunks])
        columns, rows = (max(1, round(CELLS * side / max(size))) for side in size)
        shape = rows, columns
        total, weight = np.zeros(shape), np.full(shape, 1e-9)
        for ((left, right), (top, bottom)), score in zip(boxes, scores, strict=True):
            tent = np.outer(_tent(top, bottom, size[1], rows), _tent(left, right, size[0], columns))
            total += tent * (score - scores.mean())
            weight += tent
        heat: Heat = np.maximum(total / weight, 0).astype(np.float32)
        return heat


def open_mapper(serving: Serving) -> Crops:
    """It takes any model."""
    return Crops(serving.model)


def _boxes(size: Span) -> list[tuple[Span, Span]]:
    """Crops as (left, right) and (top, bottom), those of all sizes, each once."""
    side = math.sqrt(size[0] * size[1])
    found = [
        (across, down)
        for share in SHARES
        for down in _spans(size[1], min(*size, side * share))
        for across in _spans(size[0], min(*size, side * share))
    ]
    return list(dict.fromkeys(found))


def _spans(total: int, length: float) -> list[Span]:
    """Spans of a length that cover a side, a half of each in the next."""
    length = max(length, total / MOST)
    count = math.ceil((total - length) / (length / 2)) + 1
    starts = np.linspace(0, total - length, count)
    return [(round(start), max(round(start) + 1, round(start + length))) for start in starts]


def _tent(start: int, end: int, total: int, cells: int) -> npt.NDArray[np.float64]:
    """Weights of cells: highest in the middle of a span, falling to nothing at its ends."""
    middles = (np.arange(cells) + 0.5) / cells * total
    weights: npt.NDArray[np.float64] = np.maximum(0, 1 - np.abs(middles - (start + end) / 2) / ((end - start) / 2))
    return weights
