"""Memory is bounded by bytes: no accepted picture, and no number of them at once, makes the process grow by more."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_app import bounds
from clip_app.bounds import MOST_BYTES
from clip_app.budget import ByteBudget
from clip_app.containers import scans_apart
from clip_app.errors import ImageTooLarge
from clip_app.images import Decoded, decode

GROWTH = 400  # megabytes
# Decodes files, all at once, and says by how much the process grew and what came out.
PROGRAM = """
import json, sys, threading
from pathlib import Path
from clip_app.bounds import MOST_BYTES
from clip_app.budget import ByteBudget
from clip_app.errors import ClipAppError
from clip_app.images import decode

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM")) // 1024

def one(data):
    try:
        found = decode(data, max_bytes=10**9, max_pixels=10**8, target=224, room=budget.room)
        grey = found.image.convert("L").resize((1, 1))
        answers.append([found.width, found.height, *found.image.size, grey.getpixel((0, 0))])
    except ClipAppError as error:
        answers.append(f"{type(error).__name__}: {error.message}")

answers, budget = [], ByteBudget(MOST_BYTES)
files = [Path(name).read_bytes() for name in sys.argv[1:]]
before = peak()
threads = [threading.Thread(target=one, args=(data,)) for data in files]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps([peak() - before, answers]))
"""


def measured(*files: Path) -> tuple[int, list[list[int] | str]]:
    """Return the megabytes that decoding the files at once takes, and what each came to."""
    found = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, files)], check=True, capture_output=True)
    growth, answers = json.loads(found.stdout)
    return growth, answers


@pytest.fixture(scope="module")
def large() -> Image.Image:
    """99 million pixels, dark at the top and bright at the bottom."""
    return Image.linear_gradient("L").resize((9900, 10_000))


def rgba(large: Image.Image) -> Image.Image:
    return Image.merge("RGBA", (large, large, large, Image.new("L", large.size, 255)))


def deep(large: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(large, np.uint16) * 16)


KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image], str, dict[str, object]]] = {
    "rgb.png": (lambda large: Image.merge("RGB", (large,) * 3), "PNG", {"compress_level": 1}),
    "rgba.png": (rgba, "PNG", {"compress_level": 1}),
    "palette.png": (lambda large: large.convert("P"), "PNG", {"compress_level": 1}),
    "deep.png": (deep, "PNG", {"compress_level": 1}),
    "grey.gif": (lambda large: large, "GIF", {}),
    "grey.tif": (lambda large: large, "TIFF", {"compression": "tiff_lzw"}),
    "rgb.tif": (lambda large: Image.merge("RGB", (large,) * 3), "TIFF", {"compression": "tiff_lzw"}),
    "lossless.webp": (
        lambda large: large.resize((8000, 5000)).convert("RGB"),
        "WEBP",
        {"lossless": True, "quality": 0},
    ),
    "rgb.jpg": (lambda large: large.convert("RGB"), "JPEG", {}),
    "cmyk.jpg": (lambda large: large.convert("CMYK"), "JPEG", {}),
}


@pytest.mark.processes
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_picture_is_answered_and_takes_less_than_the_bound(
    kind: str, large: Image.Image, tmp_path: Path
) -> None:
    convert, format, options = KINDS[kind]
    picture = convert(large)
    picture.save(tmp_path / kind, format, **options)
    growth, (answer,) = measured(tmp_path / kind)
    assert not isinstance(answer, str), answer
    width, height, *small, grey = answer
    assert (width, height) == picture.size
    assert min(small) >= 3 * 224, "enough of it is left"
    assert max(small) < 3000, "and no more than that"
    assert abs(grey - 127) <= 4, "and it looks the same"
    assert growth <= GROWTH


@pytest.mark.processes
def test_a_photograph_of_200_megapixels_is_answered_and_one_of_a_thousand_is_not(tmp_path: Path) -> None:
    phone, giga = tmp_path / "phone.jpg", tmp_path / "giga.jpg"
    Image.linear_gradient("L").resize((16_320, 12_240)).save(phone)
    Image.new("L", (40_000, 25_000)).save(giga)
    growth, answers = measured(phone, giga)
    refused = next(answer for answer in answers if isinstance(answer, str))
    assert "1000.0 million pixels (40000x25000); at most 250 million are accepted" in refused
    assert [16_320, 12_240] in [answer[:2] for answer in answers]
    assert growth <= GROWTH


@pytest.mark.processes
def test_many_large_pictures_at_once_take_no_more_than_one_may(large: Image.Image, tmp_path: Path) -> None:
    deep(large).save(tmp_path / "deep.png", compress_level=1)
    growth, answers = measured(*[tmp_path / "deep.png"] * 4)
    assert [answer[:2] for answer in answers] == [[9900, 10_000]] * 4
    assert growth <= GROWTH


def read(data: bytes, target: int | None = 224) -> Decoded:
    return decode(data, max_bytes=10**9, max_pixels=10**8, target=target)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("size", [(1, 1_000_001), (1_000_001, 1), (1, 20_000_000)])
def test_a_thread_of_millions_of_rows_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge, match="pixels long"):
        read(encoded(Image.new("L", size), "PNG"))


@pytest.mark.parametrize(
    ("size", "kind", "options"),
    [
        ((12_000, 11_000), "JPEG", {"progressive": True, "subsampling": 0}),
        ((10_000, 9800), "TIFF", {"compression": "tiff_deflate"}),
        ((9500, 5000), "AVIF", {"speed": 10}),
    ],
)
def test_what_cannot_be_bounded_is_refused_with_what_it_would_take(
    size: tuple[int, int], kind: str, options: dict[str, object]
) -> None:
    mode = "F" if kind == "TIFF" else "RGB"
    data = encoded(Image.new(mode, size), kind, **options)
    with pytest.raises(ImageTooLarge, match=r"would take \d+ MB of memory to decode; at most 380 MB") as caught:
        read(data)
    assert f"{size[0]}x{size[1]}" in caught.value.message


def test_a_jpeg_whose_colours_come_one_after_the_other_is_known() -> None:
    photo = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    assert not scans_apart(encoded(photo, "JPEG"))
    assert scans_apart(one_scan_a_colour(encoded(photo, "JPEG")))
    assert not scans_apart(b"\xff\xd8")


def one_scan_a_colour(jpeg: bytes) -> bytes:
    """Say of the first scan that it holds one component."""
    at = jpeg.index(b"\xff\xda")
    return jpeg[: at + 4] + b"\1" + jpeg[at + 5 :]


def test_of_a_heic_too_large_to_decode_the_small_picture_beside_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    photo = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    data = encoded(photo, "HEIF", quality=60, thumbnails=[512])
    assert read(data).image.size == (1600, 1200), "it is decoded in full where it can be"
    monkeypatch.setattr("clip_app.images.MOST_BYTES", 10_000_000)
    found = read(data)
    assert (found.width, found.height) == (1600, 1200)
    assert found.image.size == (512, 384)
    monkeypatch.setattr(bounds, "MOST_BYTES", 10_000_000)
    with pytest.raises(ImageTooLarge, match="HEIF"):
        read(encoded(photo, "HEIF", quality=60))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {"compress_level": 1}), ("BMP", {}), ("PPM", {})])
def test_a_large_file_that_ends_early_is_read_as_far_as_it_goes(kind: str, options: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (500, 500), np.uint8)
    data = encoded(Image.fromarray(np.tile(noise, (9, 9))), kind, **options)  # 20 million pixels
    found = read(data[: len(data) - len(data) // 100])
    assert (found.width, found.height) == (4500, 4500)
    assert "ends early" in found.warnings[0]


def test_what_is_transparent_has_no_part_in_the_mean() -> None:
    half = Image.new("L", (5000, 5000), 0)
    half.paste(255, (0, 0, 2499, 5000))  # the edge lies within a square
    picture = Image.merge("RGBA", (Image.new("L", half.size, 200), *[Image.new("L", half.size, 0)] * 2, half))
    found = read(encoded(picture, "PNG", compress_level=1)).image
    assert found.getpixel((10, 10)) == (200, 0, 0)
    assert found.getpixel((found.width - 10, 10)) == (255, 255, 255)
    edge = found.getpixel((2499 * found.width // 5000, 10))
    assert isinstance(edge, tuple)
    assert edge[0] >= 200, "a mix of the red and the ground"
    assert edge[1] == edge[2], "and of nothing else"


def test_the_budget_lends_no_more_than_it_has_and_in_turn() -> None:
    budget, order, started = ByteBudget(10), [], threading.Event()

    def take(name: str, size: int) -> None:
        with budget.room(size):
            order.append(name)

    with budget.room(8):
        large = threading.Thread(target=take, args=("large", 5))
        large.start()
        while not budget._waiting:
            started.wait(0.001)
        small = threading.Thread(target=take, args=("small", 1))
        small.start()
        while len(budget._waiting) < 2:
            started.wait(0.001)
        assert order == [], "the small one would fit, and does not overtake"
    large.join()
    small.join()
    assert sorted(order) == ["large", "small"]
    with budget.room(1000):
        assert budget._left == 0, "more than there is takes all"
    assert budget._left == 10
    assert MOST_BYTES < GROWTH * 10**6
