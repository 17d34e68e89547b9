"""Where a label was seen: a table of methods, the first that suits a checkpoint.

To add one: a file in this folder with the function of :class:`MethodModule`, and a row in
:data:`METHODS`. Nothing here imports a method before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, cast

from PIL import Image

from clip_app.checkpoint import CONFIG, read_json
from clip_app.contrast import Direction
from clip_app.errors import ClipAppError
from clip_app.heatmaps.grid import Heat

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["METHODS", "Mapper", "Method", "MethodModule", "open_mapper"]

logger = logging.getLogger("clip_app")

Ask = Callable[[Direction], Heat]


class Mapper(Protocol):
    """A method, opened for one checkpoint. Thread-safe."""

    def look(self, image: Image.Image) -> Ask:
        """Take from an RGB picture what is needed, and return the question about it.

        The question computes, and answers what in the picture speaks for a direction of the
        joint space: shape [h, w], nowhere negative, cells of one size over the whole picture.
        The picture itself is not kept.
        """


class MethodModule(Protocol):
    """What the file of a method offers. It may import whatever it needs, at its top."""

    def open_mapper(self, serving: Serving) -> Mapper:
        """Open it for what serves.

        Raises:
            ClipAppError: it cannot be used here; the next method is.
        """


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: what the answer calls it, where it is, and which checkpoints it suits."""

    name: str
    module: str
    suits: Callable[[Serving], bool]

    def load(self) -> MethodModule:
        """Import its file; those of torch take seconds."""
        return cast(MethodModule, import_module(self.module))


def _gives_class_maps(serving: Serving) -> bool:
    return serving.model.class_maps is not None


def _has_weights(family: str) -> Callable[[Serving], bool]:
    """Weights of a family in transformers' format, whatever engine serves, and torch to compute gradients."""

    def suits(serving: Serving) -> bool:
        installed = all(find_spec(package) is not None for package in ("torch", "transformers"))
        if not installed or not serving.source.offers("safetensors"):
            return False
        return bool(read_json(serving.source.folder / CONFIG).get("model_type") == family)

    return suits


# In the order in which they are tried; the last suits every checkpoint.
METHODS = (
    Method(name="class maps", module="clip_app.heatmaps.class_maps", suits=_gives_class_maps),
    Method(
        name="gradient-weighted attention", module="clip_app.heatmaps.attention_relevance", suits=_has_weights("clip")
    ),
    Method(name="LeGrad", module="clip_app.heatmaps.legrad", suits=_has_weights("siglip")),
    Method(name="overlapping crops (coarse)", module="clip_app.heatmaps.crops", suits=lambda serving: True),
)


def open_mapper(serving: Serving) -> tuple[str, Mapper]:
    """Open the first method that suits what serves and can be used here; return its name, too.

    Raises:
        ClipAppError: not even the last one can be.
    """
    suitable = [method for method in METHODS if method.suits(serving)]
    for method in suitable[:-1]:
        try:
            return method.name, method.load().open_mapper(serving)
        except ClipAppError as error:
            logger.warning("%s is left, and the next method is tried: %s", method.name, error.message)
    return suitable[-1].name, suitable[-1].load().open_mapper(serving)
