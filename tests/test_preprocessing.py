from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from clip_app.preprocessing import Preprocessing

# As in openai/clip-vit-base-patch32's preprocessor_config.json.
OPENAI = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
SIGLIP = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
WIDE_CROP = OPENAI | {"size": {"shortest_edge": 90}, "crop_size": {"height": 120, "width": 96}}


@pytest.mark.parametrize(
    ("config", "reference"),
    [(OPENAI, CLIPImageProcessorPil), (SIGLIP, SiglipImageProcessorPil), (WIDE_CROP, CLIPImageProcessorPil)],
    ids=["clip", "siglip", "crop wider than the picture"],
)
def test_pixels_equal_transformers_own(photographs: dict[str, Path], config: dict, reference: type) -> None:
    ours, theirs = Preprocessing.from_config(config), reference(**config)
    for path in photographs.values():
        image = Image.open(path).convert("RGB")
        for picture in (image, image.rotate(90, expand=True), image.resize((61, 300))):
            expected = np.asarray(theirs(picture, return_tensors="np")["pixel_values"][0])
            np.testing.assert_allclose(ours(picture), expected, atol=1e-5)


def test_a_picture_of_one_pixel_by_many_does_not_grow_without_bound() -> None:
    ours = Preprocessing.from_config(OPENAI)
    for size in ((1, 100_000), (100_000, 1)):
        assert ours(Image.new("RGB", size, "red")).shape == (3, 224, 224)
    assert ours._resize(Image.new("RGB", (1, 100_000))).size == (224, 224 * 50)


def test_steps_that_the_config_turns_off_are_left_out() -> None:
    off = Preprocessing.from_config(dict.fromkeys(["do_resize", "do_center_crop", "do_rescale", "do_normalize"], False))
    image = Image.new("RGB", (5, 3), (1, 2, 3))
    assert off(image).shape == (3, 3, 5)
    assert off(image)[:, 0, 0].tolist() == [1, 2, 3]
