from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from clip_app.errors import ImageTooLarge
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
def test_pixels_equal_transformers_own(photographs: dict[str, Path], config: dict[str, Any], reference: type) -> None:
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


PLAIN = {"do_normalize": False, "do_rescale": False, "resample": 0}  # pixels are as in the picture, one by one


@pytest.mark.parametrize(
    ("config", "target", "shape"),
    [
        ({"size": 32}, 32, (3, 32, 32)),
        ({"size": {"shortest_edge": 32}}, 32, (3, 32, 32)),
        ({"size": {"height": 20, "width": 30}}, 30, (3, 20, 30)),
        ({"size": 32, "do_resize": False}, None, (3, 64, 64)),
        ({"size": 32, "do_center_crop": True, "crop_size": 24}, 32, (3, 24, 24)),
        ({"size": 32, "do_center_crop": True, "crop_size": {"height": 10, "width": 20}}, 32, (3, 10, 20)),
        ({"size": 32, "crop_size": 24}, 32, (3, 32, 32)),
    ],
)
def test_sizes_are_read_in_every_spelling(
    config: dict[str, object], target: int | None, shape: tuple[int, int, int]
) -> None:
    ours = Preprocessing.from_config(PLAIN | config)
    assert (ours.target, ours.shape) == (target, shape)


def test_what_the_config_does_not_say_is_what_clip_was_trained_with() -> None:
    ours = Preprocessing.from_config({"size": 4, "image_mean": [0.5, 0.25, 0], "image_std": [0.5, 0.25, 1]})
    assert ours.resample is Image.Resampling.BICUBIC
    np.testing.assert_allclose(ours(Image.new("RGB", (4, 4), "white"))[:, 0, 0], [1, 3, 1], rtol=1e-6)
    np.testing.assert_allclose(ours(Image.new("RGB", (4, 4), "black"))[:, 0, 0], [-1, -1, 0], rtol=1e-6)


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (41, 40), (40, 40)])
def test_the_shorter_side_is_brought_to_its_length_and_the_other_follows(size: tuple[int, int]) -> None:
    _, height, width = Preprocessing.from_config(PLAIN | {"size": 20})(Image.new("RGB", size)).shape
    assert (width, height) == (size[0] // 2, size[1] // 2)


def test_the_centre_is_taken_and_what_is_missing_is_black() -> None:
    picture = Image.new("RGB", (6, 2), "white")
    picture.putpixel((2, 0), (10, 20, 30))
    cut = Preprocessing.from_config(PLAIN | {"do_resize": False, "do_center_crop": True, "crop_size": 2})
    assert cut(picture)[:, 0, 0].tolist() == [10, 20, 30]
    wide = Preprocessing.from_config(
        PLAIN | {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 4, "width": 6}}
    )
    assert wide(picture)[0].tolist() == [[0] * 6, [255, 255, 10, 255, 255, 255], [255] * 6, [0] * 6]


def test_a_long_picture_is_taken_up_to_a_bound_or_cut_to_its_centre() -> None:
    whole = Preprocessing.from_config(PLAIN | {"size": 2})
    assert whole(Image.new("RGB", (2, 100))).shape == (3, 100, 2)
    with pytest.raises(ImageTooLarge, match="50 times longer than wide"):
        whole(Image.new("RGB", (2, 101)))
    cropped = Preprocessing.from_config(PLAIN | {"size": 2, "do_center_crop": True, "crop_size": 2})
    for length in (100, 101, 1000):
        picture = Image.new("RGB", (length, 2))
        picture.paste((7, 8, 9), ((length - 2) // 2, 0, (length - 2) // 2 + 2, 2))
        assert cropped(picture)[:, 0, 0].tolist() == [7, 8, 9]
        assert cropped(picture.transpose(Image.Transpose.TRANSPOSE))[:, 0, 0].tolist() == [7, 8, 9]
    unbounded = Preprocessing.from_config(PLAIN | {"do_resize": False})
    assert unbounded(Image.new("RGB", (1, 500))).shape == (3, 500, 1)


def test_the_quick_way_hardly_differs_and_the_exact_one_is_the_rule(photographs: dict[str, Path]) -> None:
    ours, image = Preprocessing.from_config(OPENAI), Image.open(photographs["china"]).convert("RGB")
    large = image.resize((2000, 1500))
    exact, quick = ours(large), ours(large, exact=False)
    assert 0 < np.abs(exact - quick).mean() < 0.05
    np.testing.assert_array_equal(exact, ours(large, exact=True))
