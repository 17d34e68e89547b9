"""Class activation maps (Zhou et al. 2016) of a convolutional network that gives them beside its embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clip_app.contrast import Direction
from clip_app.engines import Maps
from clip_app.errors import EngineUnavailable
from clip_app.heatmaps.grid import Heat, between, fitted
from clip_app.preprocessing import Pixels, Preprocessing

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["ClassMaps", "open_mapper"]

# Looked at somewhat larger than the network was trained at: small things are found better (docs/where.md).
LARGER = 1.25
AREA = 6  # squares of that side, at most
# What such networks halve five times. One pixel more, and every halving takes the middles of the outermost
# places from the picture's edge, whichever way the network pads.
STRIDE, EXTRA = 32, 1
FINER = 4  # cells for each place of the map, on each side


class ClassMaps:
    """:class:`~clip_app.heatmaps.Mapper` on the maps that the image encoder gives."""

    def __init__(
        self, class_maps: Callable[[Pixels], Maps], preprocessing: Preprocessing, *, larger: float = LARGER
    ) -> None:
        self._class_maps = class_maps
        self._preprocessing = preprocessing
        self._short = round((preprocessing.target or preprocessing.shape[1]) * larger)

    def look(self, image: Image.Image) -> Callable[[Direction], Heat]:
        # Two places each way at least: one is in no particular place.
        size = fitted(image.size, self._short, area=AREA, step=STRIDE, extra=EXTRA)
        return partial(self._heat, self._preprocessing.resized(image, *size))

    def _heat(self, pixels: Pixels, direction: Direction) -> Heat:
        """Weigh the maps by what of each class is in the direction; classes of the rivals count nothing."""
        (maps,) = self._class_maps(pixels[None])
        weights = np.maximum(direction[: len(maps)], 0)
        heat: Heat = np.tensordot(weights, maps, 1)
        return np.maximum(between(heat, FINER), 0)


def open_mapper(serving: Serving, *, larger: float = LARGER) -> ClassMaps:
    """Open it for an encoder that gives class maps, to look at pictures so many times as large as it was trained at.

    Raises:
        EngineUnavailable: it gives none.
    """
    if serving.model.class_maps is None:
        raise EngineUnavailable("The image encoder gives no class maps.")
    return ClassMaps(serving.model.class_maps, serving.model.preprocessing, larger=larger)
