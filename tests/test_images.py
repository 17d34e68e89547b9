from __future__ import annotations

import io
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from clip_app.errors import ImageTooLarge, UndecodableImage
from clip_app.images import decode, display_name
from clip_app.model import Model


def read(data: bytes, max_bytes: int = 20_000_000, max_pixels: int = 100_000_000) -> Image.Image:
    return decode(data, max_bytes=max_bytes, max_pixels=max_pixels).image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def photo(photographs: dict[str, Path]) -> Image.Image:
    return Image.open(photographs["cat"]).convert("RGB").resize((120, 80))


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_come_back_as_they_were(photo: Image.Image, kind: str) -> None:
    assert difference(read(encoded(photo, kind)), photo) < (3 if kind == "GIF" else 1e-9)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_come_back_nearly_as_they_were(photo: Image.Image, kind: str) -> None:
    assert difference(read(encoded(photo, kind, quality=95)), photo) < 4


def test_heic_is_read_where_pillow_heif_is_installed(photo: Image.Image) -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    assert difference(read(encoded(photo, "HEIF", quality=95)), photo) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photo: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = photo.copy()
    turned.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(turned)
    result = read(encoded(photo, "JPEG", quality=95, exif=exif))
    assert result.size == ((80, 120) if orientation >= 5 else (120, 80))
    assert difference(result, expected) < 4


def test_cmyk_becomes_rgb(photo: Image.Image) -> None:
    assert difference(read(encoded(photo.convert("CMYK"), "JPEG", quality=95)), photo) < 6


def test_transparency_is_laid_on_white(photo: Image.Image) -> None:
    hidden = photo.convert("RGBA")
    hidden.paste((0, 0, 0, 0), (0, 0, 60, 80))
    assert read(encoded(hidden, "PNG")).crop((0, 0, 60, 80)).getextrema() == ((255, 255),) * 3
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert read(encoded(half, "PNG")).getpixel((0, 0)) == (127, 127, 127)


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((3, 3), 0)
    assert read(encoded(image, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert read(encoded(image, "PNG")).getpixel((0, 0)) == (0, 255, 0)


def test_grey_with_alpha_is_laid_on_white() -> None:
    image = Image.new("LA", (4, 4), (10, 0))
    image.putpixel((3, 3), (10, 255))
    assert read(encoded(image, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_cut() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(1, 256).repeat(4, 0)
    grey = np.asarray(read(encoded(Image.fromarray(ramp), "PNG")))[0, :, 0]
    assert np.abs(grey.astype(int) - np.arange(256)).max() <= 1


def test_floating_point_tiff_is_scaled_over_its_range() -> None:
    ramp = np.linspace(-2, 2, 256, dtype=np.float32).reshape(1, 256)
    grey = np.asarray(read(encoded(Image.fromarray(ramp), "TIFF")))[0, :, 0]
    assert (grey[0], grey[-1]) == (0, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(red, kind, save_all=True, append_images=[blue], **options)
    assert read(data).getpixel((4, 4)) == (255, 0, 0)


def test_too_many_bytes_are_refused_with_the_setting_to_change() -> None:
    with pytest.raises(ImageTooLarge, match="CLIP_APP_MAX_UPLOAD_MB"):
        read(bytes(1001), max_bytes=1000)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageTooLarge, match="CLIP_APP_MAX_PIXELS"):
        read(bomb)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"],
)
def test_what_is_no_picture_is_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        read(data)
    assert "/" not in caught.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
def test_damaged_files_are_undecodable_or_decoded_never_worse(photo: Image.Image, kind: str) -> None:
    whole = encoded(photo, kind)
    random_source = random.Random(0)
    for cut in (0.2, 0.5, 0.9):
        with pytest.raises(UndecodableImage):
            read(whole[: int(len(whole) * cut)])
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[random_source.randrange(len(damaged))] = random_source.randrange(256)
        with suppress(UndecodableImage, ImageTooLarge):
            assert read(bytes(damaged), max_pixels=1_000_000).mode == "RGB"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("cat.jpg", "cat.jpg"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\me\\cat.jpg", "cat.jpg"),
        ("a\nb\x00.png", "ab.png"),
        (None, ""),
        ("x" * 999, "x" * 255),
    ],
)
def test_only_the_last_part_of_a_name_is_shown(sent: str | None, shown: str) -> None:
    assert display_name(sent) == shown


def test_a_jpeg_decoded_at_a_smaller_scale_has_nearly_the_same_embedding(
    bundled: Model, photographs: dict[str, Path]
) -> None:
    for path in photographs.values():
        photo = Image.open(path).convert("RGB")
        photo = photo.resize((6 * photo.width, 6 * photo.height), Image.Resampling.LANCZOS)
        data, target = encoded(photo, "JPEG", quality=90), bundled.preprocessing.target
        assert target is not None
        full = decode(data, max_bytes=10**8, max_pixels=10**8)
        fast = decode(data, max_bytes=10**8, max_pixels=10**8, target=target)
        assert fast.image.width < full.image.width == photo.width, "the smaller scale was taken"
        assert (fast.width, fast.height) == photo.size, "and the size is told as it is"
        assert min(fast.image.size) >= 2 * target
        exact = bundled.encode_images(bundled.preprocessing(full.image)[None])[0]
        quick = bundled.encode_images(bundled.preprocessing(fast.image, exact=False)[None])[0]
        assert float(exact @ quick) >= 0.995, path.name


def test_a_picture_on_its_side_tells_its_upright_size_at_a_smaller_scale_too(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo.resize((1200, 800)), "JPEG", exif=exif)
    decoded = decode(data, max_bytes=10**8, max_pixels=10**8, target=64)
    assert (decoded.width, decoded.height) == (800, 1200)
    assert decoded.image.size == (200, 300)


def test_a_picture_that_is_too_large_is_told_its_size_and_the_bound_in_the_same_unit() -> None:
    with pytest.raises(ImageTooLarge, match=r"has 2\.5 MB; at most 1\.5 MB are"):
        read(bytes(2_500_000), max_bytes=1_500_000)
    with pytest.raises(ImageTooLarge, match=r"has 3\.0 million pixels \(2000x1500\); at most 2\.5 million"):
        read(encoded(Image.new("1", (2000, 1500)), "PNG"), max_pixels=2_500_000)


def test_a_picture_may_be_as_large_as_the_bounds() -> None:
    data = encoded(Image.new("RGB", (30, 20)), "PNG")
    assert read(data, max_bytes=len(data), max_pixels=600).size == (30, 20)
    for bounds in ({"max_bytes": len(data) - 1}, {"max_pixels": 599}):
        with pytest.raises(ImageTooLarge):
            read(data, **bounds)


def grey(values: list[object], kind: type[np.generic]) -> list[int]:
    """What a TIFF of one row of such numbers becomes."""
    row = read(encoded(Image.fromarray(np.array([values], dtype=kind)), "TIFF"))
    return [int(value) for value in np.asarray(row)[0, :, 0]]


def test_whole_numbers_of_sixteen_bits_are_scaled_over_that_range_and_larger_ones_over_their_own() -> None:
    assert grey([0, 33025, 65535], np.int32) == [0, 129, 255]
    assert grey([0, 257, 514], np.int32) == [0, 64, 128], "these are ten bits"
    assert grey([0, 100_000, 1_000_000], np.int32) == [0, 26, 255]
    assert grey([-10, 0, 10], np.int32) == [0, 128, 255]


def test_floating_point_grey_is_scaled_over_what_it_holds_and_what_is_no_number_is_nothing() -> None:
    assert grey([0.0, 1.0, 2.0], np.float32) == [0, 128, 255]
    assert grey([0.0, 10.0, float("inf")], np.float32) == [0, 255, 0]
    assert grey([-10.0, float("nan"), 0.0], np.float32) == [0, 0, 255]
    assert grey([-10.0, float("-inf"), 0.0], np.float32) == [0, 0, 255]
    assert len(set(grey([5.0, 5.0], np.float32))) == 1, "one colour has no range"


def test_a_file_that_is_a_little_too_large_is_not_called_as_large_as_it_may_be() -> None:
    for more in (1, 20_000):
        with pytest.raises(ImageTooLarge, match=r"has more than 20 MB; at most 20 MB"):
            read(bytes(20_000_000 + more), max_bytes=20_000_000)
