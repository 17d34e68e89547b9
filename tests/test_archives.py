from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import pytest

from clip_app.archives import MOST_LISTED, Allowance, Archive, is_archive
from clip_app.errors import BadArchive, ClipAppError, ImageTooLarge

MOST = 1_000_000
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def packed(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return made.getvalue()


def patched(data: bytes, signature: bytes, offset: int, form: str, value: int) -> bytes:
    """An archive with a field of every header of this kind overwritten."""
    changed = bytearray(data)
    at = changed.find(signature)
    while at >= 0:
        struct.pack_into(form, changed, at + offset, value)
        at = changed.find(signature, at + 4)
    return bytes(changed)


def names(data: bytes) -> list[str]:
    with Archive(io.BytesIO(data)) as archive:
        return [file.name for file in archive.files]


def contents(data: bytes, allowance: Allowance | None = None) -> list[bytes | ClipAppError]:
    found: list[bytes | ClipAppError] = []
    with Archive(io.BytesIO(data)) as archive:
        for file in archive.files:
            try:
                found.append(archive.read(file, max_bytes=MOST, allowance=allowance or Allowance()))
            except ClipAppError as error:
                found.append(error)
    return found


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_are_read_in_their_order(method: int) -> None:
    files = [(f"{number}.jpg", bytes([number]) * 100_000) for number in (3, 1, 2)]
    assert contents(packed(*files, method=method)) == [content for _, content in files]


def test_an_archive_is_told_by_its_content() -> None:
    assert is_archive(packed(("a.jpg", b"x")))
    assert is_archive(packed())
    assert not is_archive(b"\xff\xd8\xff\xe0")
    assert not is_archive(b"PK")


@pytest.mark.parametrize(
    "junk",
    [
        "__MACOSX/a.jpg",
        "__MACOSX/x/._a.jpg",
        ".DS_Store",
        "x/.DS_Store",
        "x/._a.jpg",
        ".git/a",
        "x/Thumbs.db",
        "desktop.ini",
    ],
)
def test_what_a_system_leaves_there_is_passed_over(junk: str) -> None:
    assert names(packed(("x/", b""), (junk, b"junk"), ("x/a.jpg", b"x"))) == ["x/a.jpg"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("holiday/Zürich.jpg", "holiday/Zürich.jpg"),
        ("写真/猫.jpg", "写真/猫.jpg"),
        ("../../etc/passwd", "etc/passwd"),
        ("/tmp/x.jpg", "tmp/x.jpg"),
        ("C:\\photos\\x.jpg", "C:/photos/x.jpg"),
        ("a\n\x1b[31m.jpg", "a[31m.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("x/" * 200 + "a.jpg", ("x/" * 200 + "a.jpg")[-255:]),
    ],
)
def test_a_name_is_the_path_in_the_archive_fit_to_be_shown(name: str, shown: str) -> None:
    assert names(packed((name, b"x"))) == [shown]


@pytest.mark.parametrize(("raw", "shown"), [(b"Z\x81rich.jpg", "Zürich.jpg"), ("Zürich.jpg".encode(), "Zürich.jpg")])
def test_a_name_that_is_not_said_to_be_utf8_is_read_as_what_it_is(raw: bytes, shown: str) -> None:
    placeholder = "x" * len(raw)
    assert names(packed((placeholder, b"x")).replace(placeholder.encode(), raw)) == [shown]


def damaged_content() -> bytes:
    content = bytes(range(256)) * 40
    return packed(("a.jpg", content), method=zipfile.ZIP_STORED).replace(content, content[::-1])


def overlapping() -> bytes:
    """Two files that share one content: what zip bombs are made of."""
    body = zlib.compress(bytes(50_000))[2:-4]
    crc, name = zlib.crc32(bytes(50_000)), b"a.jpg"
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(body), 50_000, len(name), 0)
    local = LOCAL + common + name + body
    listed = b"".join(CENTRAL + struct.pack("<H", 20) + common + bytes(10) + struct.pack("<I", 0) + name for _ in "12")
    return local + listed + END + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(listed), len(local), 0)


A = packed(("a.jpg", bytes(5000)))
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a password": (lambda: patched(A, CENTRAL, 8, "<H", 1), "has a password"),
    "a strong password": (lambda: patched(A, CENTRAL, 8, "<H", 0x41), "has a password"),
    "bzip2": (lambda: packed(("a.jpg", b"x"), method=zipfile.ZIP_BZIP2), "ordinary zip"),
    "lzma": (lambda: packed(("a.jpg", b"x"), method=zipfile.ZIP_LZMA), "ordinary zip"),
    "a method that there is not": (lambda: patched(A, CENTRAL, 10, "<H", 77), "ordinary zip"),
    "an archive in it": (lambda: packed(("a.zip", A)), "Send it by itself"),
    "wrong bytes": (damaged_content, "damaged"),
    "no header where it should be": (lambda: patched(A, LOCAL, 0, "<I", 0), "damaged"),
    "another name in the header": (lambda: A.replace(b"a.jpg", b"b.jpg", 1), "damaged"),
    "more than it says": (lambda: patched(A, CENTRAL, 24, "<I", 10), "damaged"),
    "bytes that are another's": (overlapping, "damaged"),
    "a place outside": (lambda: patched(A, CENTRAL, 42, "<I", 0xFFFFFF), "damaged"),
    "a size beyond the end": (lambda: patched(A, CENTRAL, 20, "<I", 0xFFFFFF), "damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_cannot_be_read_says_what_to_do(kind: str) -> None:
    make, message = BAD[kind]
    errors = contents(make())
    assert errors
    for error in errors:
        assert isinstance(error, BadArchive)
        assert message in error.message


def test_a_bad_file_leaves_the_others() -> None:
    good, bad = contents(packed(("a.jpg", b"good"), ("b.zip", A)))
    assert good == b"good"
    assert isinstance(bad, BadArchive)


@pytest.mark.parametrize(
    "data", [A[:-30], A[: len(A) // 2], LOCAL, LOCAL + bytes(100), END + bytes(10), patched(A, CENTRAL, 0, "<I", 7)]
)
def test_an_archive_that_is_not_whole_is_damaged(data: bytes) -> None:
    with pytest.raises(BadArchive, match="damaged"):
        Archive(io.BytesIO(data))


def test_a_picture_that_is_said_to_be_too_large_is_not_unpacked() -> None:
    (error,) = contents(packed(("a.jpg", bytes(MOST + 1))))
    assert isinstance(error, ImageTooLarge)
    assert "at most 1 MB are accepted" in error.message
    assert contents(packed(("a.jpg", bytes(MOST)))) == [bytes(MOST)]


def test_what_is_unpacked_of_all_archives_together_is_bounded() -> None:
    allowance = Allowance(left=250_000)
    data = packed(*[(f"{number}.jpg", bytes(100_000)) for number in range(4)])
    first, second, *rest = contents(data, allowance)
    assert first == second == bytes(100_000)
    assert len(rest) == 2
    assert all("unpack to more than 2 GB" in str(error) for error in rest)
    assert "unpack to more" in str(contents(data, allowance)[0]), "nor is any of another archive"


def test_a_bomb_takes_no_memory() -> None:
    bomb = packed(("a.jpg", bytes(100_000_000)))
    lying = patched(bomb, CENTRAL, 24, "<I", MOST)
    tracemalloc.start()
    declared, hidden = (contents(data)[0] for data in (bomb, lying))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(declared, ImageTooLarge)
    assert isinstance(hidden, BadArchive)
    assert peak < 8 * MOST


def test_an_archive_with_too_many_files_is_refused_before_they_are_listed() -> None:
    data = packed(*[(f"{number:0200}.jpg", b"") for number in range(MOST_LISTED // 240)])
    with pytest.raises(BadArchive, match="too many files"):
        Archive(io.BytesIO(data))
