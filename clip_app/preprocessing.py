"""A decoded picture to the encoder's pixels, by the steps the checkpoint's own config names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clip_app.errors import ImageTooLarge

__all__ = ["Preprocessing"]

# Longer than any centre crop is in short sides, with room for the resampling filter.
LONGEST_SIDES = 50
# Large pictures are first averaged down to this many times the target, then resampled.
REDUCING_GAP = 2.0

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, crop, rescale and normalise as preprocessor_config.json says.

    The steps and their order are those of the CLIP and SigLIP image processors of
    Hugging Face transformers; the tests compare the two pixel by pixel.
    """

    shortest_edge: int | None
    size: tuple[int, int] | None  # (height, width)
    crop: tuple[int, int] | None  # (height, width)
    resample: Image.Resampling
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Read the contents of preprocessor_config.json, in the old spelling or the new."""
        shortest, size = _edges(config.get("size")) if config.get("do_resize", True) else (None, None)
        crop = _square(config.get("crop_size")) if config.get("do_center_crop", False) else None
        normalize = config.get("do_normalize", True)
        return cls(
            shortest_edge=shortest,
            size=size,
            crop=crop,
            resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
            rescale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
            mean=_triple(config["image_mean"]) if normalize else (0.0, 0.0, 0.0),
            std=_triple(config["image_std"]) if normalize else (1.0, 1.0, 1.0),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the pixels of one picture, [3, H, W]."""
        channels, height, width = self(Image.new("RGB", (64, 64))).shape
        return channels, height, width

    @property
    def target(self) -> int | None:
        """The side that a picture is resized to; None where it is not resized."""
        return max(self.size) if self.size is not None else self.shortest_edge

    def __call__(self, image: Image.Image, *, exact: bool = True) -> Pixels:
        """Turn an RGB picture into pixels, shape [3, H, W], float32.

        Unless ``exact``, a picture of more than twice the target is averaged down first
        (Pillow's reducing gap), which is faster and hardly differs.
        """
        return self._normalized(self._crop(self._resize(image, None if exact else REDUCING_GAP)))

    def resized(self, image: Image.Image, width: int, height: int) -> Pixels:
        """Turn the whole of an RGB picture into pixels of a size, shape [3, height, width], float32."""
        return self._normalized(image.resize((width, height), self.resample, reducing_gap=REDUCING_GAP))

    def _normalized(self, image: Image.Image) -> Pixels:
        std = np.array(self.std, np.float32)
        scale, shift = np.float32(self.rescale) / std, -np.array(self.mean, np.float32) / std
        pixels: Pixels = np.multiply(np.asarray(image).transpose(2, 0, 1), scale[:, None, None], order="C")
        pixels += shift[:, None, None]
        return pixels

    def _resize(self, image: Image.Image, reducing_gap: float | None = None) -> Image.Image:
        image = self._trim(image)
        width, height = image.size
        if self.size is not None:
            height, width = self.size
        elif self.shortest_edge is not None:
            short, long = min(image.size), max(image.size)
            scaled = int(self.shortest_edge * long / short)
            width, height = (
                (self.shortest_edge, scaled) if image.width <= image.height else (scaled, self.shortest_edge)
            )
        return image.resize((width, height), self.resample, reducing_gap=reducing_gap)

    def _trim(self, image: Image.Image) -> Image.Image:
        """Cut what the centre crop leaves out anyway off a very long picture.

        A picture one pixel wide would grow by the square of the target otherwise.
        """
        longest = LONGEST_SIDES * min(image.size)
        if max(image.size) <= longest or self.shortest_edge is None:
            return image
        if self.crop is None:
            raise ImageTooLarge(f"The picture is more than {LONGEST_SIDES} times longer than wide. Crop it.")
        width, height = min(image.width, longest), min(image.height, longest)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def _crop(self, image: Image.Image) -> Image.Image:
        """Take the centre; a side that is too short is filled up with black."""
        if self.crop is None:
            return image
        height, width = self.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def _edges(size: Any) -> tuple[int | None, tuple[int, int] | None]:
    if isinstance(size, int):
        return size, None
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), None
    return None, (int(size["height"]), int(size["width"]))


def _square(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
