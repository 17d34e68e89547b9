"""Pictures are taken as they are meant: pixels over metadata, what is there over what is missing."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from clip_app.errors import UndecodableImage
from clip_app.images import Decoded, decode

ORIENTATION = 0x0112


def read(data: bytes) -> Decoded:
    return decode(data, max_bytes=10**8, max_pixels=10**8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def photo(photographs: dict[str, Path]) -> Image.Image:
    return Image.open(photographs["coffee"]).convert("RGB").resize((300, 200))


def alike(found: Image.Image, wanted: Image.Image) -> bool:
    if found.size != wanted.size:
        return False
    return float(np.abs(np.asarray(found, float) - np.asarray(wanted, float)).mean()) < 4


def with_chunk(png: bytes, name: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    """Put a chunk behind the header of a PNG, with a wrong checksum if asked for."""
    crc = zlib.crc32(name + content) if checksum is None else checksum
    return png[:33] + struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc) + png[33:]


# Pixels decide over metadata.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 2_000_000)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"b" * 2_000_000)),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))),
        (b"eXIf", b"this is no EXIF"),
        (b"tIME", b"\0"),
        (b"gAMA", b""),
    ],
)
def test_no_chunk_beside_the_pixels_stops_a_png(photo: Image.Image, name: bytes, content: bytes) -> None:
    found = read(with_chunk(encoded(photo, "PNG"), name, content))
    assert alike(found.image, photo)
    assert found.warnings == ()


@pytest.mark.parametrize("name", [b"tEXt", b"pHYs", b"eXIf"])
def test_a_wrong_checksum_beside_the_pixels_is_not_looked_at(photo: Image.Image, name: bytes) -> None:
    assert alike(read(with_chunk(encoded(photo, "PNG"), name, bytes(9), checksum=7)).image, photo)


def test_a_text_of_many_pieces_does_not_stop_a_png(photo: Image.Image) -> None:
    info = PngImagePlugin.PngInfo()
    for i in range(80):
        info.add_text(f"key {i}", "x" * 1_000_000, zip=True)
    assert alike(read(encoded(photo, "PNG", pnginfo=info)).image, photo)


def odd_exif(*, tag: int, kind: int, count: int, value: bytes) -> bytes:
    """EXIF with an orientation of 6, and beside it a tag whose type or length is not what it should be."""
    entries = struct.pack("<HHI4s", tag, kind, count, value) + struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0)
    return b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("tag", "kind", "count", "value"),
    [
        (0x0100, 2, 4, b"abc\0"),  # a width in letters
        (0x0106, 5, 1, b"\xff\xff\xff\x7f"),  # a fraction that lies outside of the file
        (0x010F, 3, 2, b"\1\0\2\0"),  # a maker of numbers
        (0x0101, 99, 1, b"\0\0\0\0"),  # a type that does not exist
    ],
)
def test_an_odd_tag_beside_the_orientation_does_not_stop_a_jpeg(
    photo: Image.Image, tag: int, kind: int, count: int, value: bytes
) -> None:
    exif = odd_exif(tag=tag, kind=kind, count=count, value=value)
    found = read(encoded(photo, "JPEG", quality=95, exif=exif))
    assert alike(found.image, photo.transpose(Image.Transpose.ROTATE_270))
    assert (found.width, found.height) == (200, 300)


def test_an_orientation_in_a_png_is_obeyed(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    assert alike(read(encoded(photo, "PNG", exif=exif)).image, photo.transpose(Image.Transpose.ROTATE_180))


def test_a_heic_without_metadata_is_read(photo: Image.Image) -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    assert alike(read(encoded(photo, "HEIF", quality=95)).image, photo)


# A file that ends early.


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_without_its_end_mark_is_whole(photo: Image.Image, options: dict[str, object]) -> None:
    found = read(encoded(photo, "JPEG", quality=95, **options)[:-2])
    assert alike(found.image, photo)
    assert found.warnings == ("The file ends early: its end mark, and no pixel, is missing.",)


@pytest.mark.parametrize(("kind", "cut"), [("JPEG", 200), ("PNG", 400), ("BMP", 4000), ("PPM", 4000)])
def test_a_file_that_ends_a_little_early_is_read_as_far_as_it_goes(photo: Image.Image, kind: str, cut: int) -> None:
    found = read(encoded(photo, kind, **({"quality": 95} if kind == "JPEG" else {}))[:-cut])
    (warning,) = found.warnings
    assert warning.startswith("The file ends early: ")
    assert (found.width, found.height) == photo.size
    assert photo.height - 12 <= found.image.height <= photo.height
    top = (0, 0, 300, 150)
    if kind != "BMP":  # which begins below
        assert alike(found.image.crop(top), photo.crop(top))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "AVIF", "PPM"])
@pytest.mark.parametrize("left", [0.3, 0.6])
def test_a_file_of_which_much_is_missing_is_called_truncated(photo: Image.Image, kind: str, left: float) -> None:
    data = encoded(photo, kind)
    with pytest.raises(UndecodableImage, match=r"truncated.*Send the whole file"):
        read(data[: int(left * len(data))])


def test_a_dark_picture_is_not_taken_for_a_missing_one(photo: Image.Image) -> None:
    film = Image.new("RGB", (300, 300))
    film.paste(photo, (0, 50))
    assert alike(read(encoded(film, "PNG")).image, film)
    found = read(encoded(film, "JPEG", quality=95)[:-2])
    assert alike(found.image, film)


def test_a_variety_that_cannot_be_read_is_not_called_damaged(photo: Image.Image) -> None:
    png = encoded(photo, "PNG")
    apple = png[:8] + struct.pack(">I", 4) + b"CgBI" + bytes(4) + struct.pack(">I", zlib.crc32(b"CgBI" + bytes(4)))
    with pytest.raises(UndecodableImage, match="variety of PNG is not supported"):
        read(apple + png[8:])
    tiff = bytearray(encoded(photo, "TIFF"))
    place = tiff.find(struct.pack("<HHI", 262, 3, 1))
    tiff[place + 8 : place + 10] = struct.pack("<H", 32844)  # colours as logarithms
    with pytest.raises(UndecodableImage, match="variety of TIFF is not supported"):
        read(bytes(tiff))


def test_damage_in_the_middle_is_called_damage(photo: Image.Image) -> None:
    png = bytearray(encoded(photo, "PNG"))
    start = png.find(b"IDAT") + 4
    png[start : start + 2] = b"no"
    with pytest.raises(UndecodableImage, match="damaged"):
        read(bytes(png))


def test_of_a_tiff_the_largest_page_is_taken(photo: Image.Image) -> None:
    thumbnail = photo.resize((30, 20))
    found = read(encoded(thumbnail, "TIFF", save_all=True, append_images=[photo.copy(), thumbnail.copy()]))
    assert alike(found.image, photo)
    assert found.warnings == ("Page 2 of the file, the largest, was taken.",)
    assert read(encoded(photo.copy(), "TIFF", save_all=True, append_images=[thumbnail.copy()])).warnings == ()


# A flat result is noticed.


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_grey_of_fewer_bits_in_sixteen_is_as_bright_as_in_eight(photo: Image.Image, bits: int) -> None:
    grey = photo.convert("L")
    deep = (np.asarray(grey, np.uint16) << (bits - 8)).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = read(encoded(Image.fromarray(deep), kind)).image
        assert abs(float(np.asarray(found).mean()) - float(np.asarray(grey).mean())) < 3


@pytest.mark.parametrize("low", [0, 20_000, 60_000])
def test_a_scan_of_little_contrast_is_stretched(photo: Image.Image, low: int) -> None:
    faint = np.asarray(photo.convert("L"), np.uint16) * 16 + low
    found = np.asarray(read(encoded(Image.fromarray(faint.clip(0, 65535).astype(np.uint16)), "PNG")).image)
    assert found.max() - found.min() > 200


@pytest.mark.parametrize("outlier", [1e9, float("inf"), float("nan"), -1e9])
def test_an_outlier_does_not_darken_a_picture_of_floats(photo: Image.Image, outlier: float) -> None:
    values = (np.asarray(photo.convert("L"), np.float32) / np.float32(255)).copy()
    values[50, 50] = outlier
    found = np.asarray(read(encoded(Image.fromarray(values), "TIFF")).image)
    assert 40 < found.mean() < 200


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_an_alpha_of_nothing_everywhere_is_no_alpha(photo: Image.Image, kind: str) -> None:
    hidden = photo.convert("RGBA")
    hidden.putalpha(0)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert alike(read(encoded(hidden, kind, **options)).image, photo)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_white_drawing_on_nothing_is_seen(mode: str) -> None:
    drawing = Image.new("RGBA", (200, 200), (255, 255, 255, 0))
    ImageDraw.Draw(drawing).ellipse((40, 40, 160, 160), outline=(255, 255, 255, 255), width=3)
    data = encoded(drawing if mode == "RGBA" else drawing.convert(mode), "PNG")
    found = read(data)
    assert not found.flat
    assert found.image.getextrema()[0] == (64, 255)


def test_a_black_drawing_on_nothing_stays_on_white() -> None:
    drawing = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).line((0, 0, 199, 199), fill=(0, 0, 0, 255))
    assert read(encoded(drawing, "PNG")).image.getpixel((0, 199)) == (255, 255, 255)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (60, 40), "teal"),
        Image.new("L", (60, 40), 3),
        Image.new("RGBA", (60, 40), (255, 255, 255, 0)),
        Image.fromarray(np.random.default_rng(0).integers(100, 103, (40, 60, 3)).astype(np.uint8)),
    ],
)
def test_a_picture_of_one_colour_is_noticed(image: Image.Image) -> None:
    found = read(encoded(image, "PNG"))
    assert found.flat
    assert "one colour all over" in found.warnings[0]


def test_a_single_line_is_something_to_be_seen() -> None:
    image = Image.new("RGB", (2000, 2000), "white")
    image.putpixel((1000, 1000), (0, 0, 0))
    assert not read(encoded(image, "PNG")).flat
