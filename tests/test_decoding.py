"""Bounds and scales of decoding at their edges; test_images.py is about the formats."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clip_app.errors import ImageTooLarge
from clip_app.images import ACCEPTED_SUFFIXES, Decoded, decode, display_name


def encoded(image: Image.Image, kind: str = "PNG", exif: Image.Exif | None = None) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"exif": exif} if exif else {}))
    return out.getvalue()


def read(data: bytes, target: int | None = None) -> Decoded:
    return decode(data, max_bytes=10**8, max_pixels=10**8, target=target)


def grey(values: list[float], kind: npt.DTypeLike) -> list[int]:
    """Decode a row of deep grey."""
    decoded = read(encoded(Image.fromarray(np.array([values], kind)), "TIFF")).image
    return [int(value) for value in np.asarray(decoded)[0, :, 0]]


def test_a_picture_may_have_as_many_bytes_and_pixels_as_the_bound_and_no_more() -> None:
    data = encoded(Image.new("RGB", (30, 20), "red"))
    assert decode(data, max_bytes=len(data), max_pixels=600).width == 30
    with pytest.raises(ImageTooLarge, match="CLIP_APP_MAX_UPLOAD_MB"):
        decode(data, max_bytes=len(data) - 1, max_pixels=600)
    with pytest.raises(ImageTooLarge, match="CLIP_APP_MAX_PIXELS"):
        decode(data, max_bytes=len(data), max_pixels=599)


def test_a_refusal_says_how_large_it_is_and_how_large_it_may_be() -> None:
    with pytest.raises(ImageTooLarge, match=r"has 2\.5 MB; at most 1\.5 MB"):
        decode(bytes(2_500_000), max_bytes=1_500_000, max_pixels=1)
    with pytest.raises(ImageTooLarge, match=r"has 1\.5 million pixels \(1500x1000\); at most 0\.5 million"):
        decode(encoded(Image.new("1", (1500, 1000))), max_bytes=10**6, max_pixels=500_000)


@pytest.mark.parametrize(
    ("size", "scale"), [((1200, 900), 2), ((1199, 899), 1), ((2400, 900), 2), ((1800, 1800), 4), ((900, 450), 1)]
)
def test_a_jpeg_is_decoded_smaller_while_both_sides_have_three_times_the_target(
    size: tuple[int, int], scale: int
) -> None:
    data = encoded(Image.new("RGB", size, "red"), "JPEG")
    found = read(data, target=150)
    assert found.image.size == (size[0] // scale, size[1] // scale)
    assert (found.width, found.height) == size
    assert read(data).image.size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_that_is_told_is_the_upright_one(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(encoded(Image.new("RGB", (30, 20)), "JPEG", exif))
    assert (found.width, found.height) == found.image.size == ((20, 30) if orientation > 4 else (30, 20))


def test_whole_numbers_of_sixteen_bits_keep_their_range_and_larger_ones_are_scaled_over_what_they_hold() -> None:
    assert grey([0, 32768, 65535], np.uint16) == [0, 128, 255]
    assert grey([0, 257, 65535], np.int32) == [0, 1, 255]
    assert grey([0, 257 * 101], np.int32) == [0, 101]
    assert grey([257 * 100, 257 * 101], np.int32) == [0, 255], "a narrow range is stretched"
    assert grey([0, 65536], np.int32) == [0, 255]
    assert grey([-100, 100], np.int32) == [0, 255]
    assert grey([-1, 0, 1], np.float32) == [0, 128, 255]


def test_numbers_that_are_none_are_black() -> None:
    assert grey([float("nan"), float("inf"), float("-inf"), 1], np.float32) == [0, 0, 0, 255]
    assert grey([float("nan")] * 2, np.float32) == [0, 0]


def test_a_name_is_cut_to_what_a_file_may_be_called() -> None:
    assert display_name("a/b\\" + "x" * 256) == "x" * 255
    assert display_name("x" * 255) == "x" * 255
    assert {".jpg", ".heic", ".avif"} <= ACCEPTED_SUFFIXES
