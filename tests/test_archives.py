from __future__ import annotations

import io
import tracemalloc
import zipfile

import pytest
from zips import BAD, CENTRAL, END, LOCAL, A, packed, patched

from clip_app.archives import MOST_LISTED, Allowance, Archive, is_archive
from clip_app.errors import BadArchive, ClipAppError, ImageTooLarge

MOST = 1_000_000


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


WHOLE_IS_NOT = {
    "without its end": A[:-30],
    "half of it": A[: len(A) // 2],
    "four bytes": LOCAL,
    "nothing behind them": LOCAL + bytes(100),
    "an end alone": END + bytes(10),
    "another list": patched(A, CENTRAL, 0, "<I", 7),
}


@pytest.mark.parametrize("data", WHOLE_IS_NOT.values(), ids=WHOLE_IS_NOT)
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
