"""Pictures are found in folders, archives and object stores, and read again by the path they were found under."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from clip_app.collection.sources import Found, absolute, find_pictures, read_picture
from clip_app.errors import BadOption, UnreadablePath

MOST = 100_000


def picture(colour: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(written, "PNG")
    return written.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def find(*roots: object) -> list[Found]:
    return list(find_pictures([str(root) for root in roots], max_bytes=MOST))


def read(*roots: object) -> dict[str, bytes]:
    return {found.path: found.read() for found in find_pictures([str(root) for root in roots], max_bytes=MOST)}


def test_a_folder_is_walked_in_order_and_what_is_hidden_or_no_picture_is_left_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.webp", ".hidden/d.png", "__MACOSX/e.png", "notes.txt", ".f.png"):
        write(tmp_path / name, name.encode())
    assert read(tmp_path) == {str(tmp_path / name): name.encode() for name in ("a.JPG", "b.png", "deep/er/c.webp")}
    assert [found.path for found in find(tmp_path)] == [
        str(tmp_path / name) for name in ("a.JPG", "b.png", "deep/er/c.webp")
    ]


def test_a_stamp_is_of_the_file_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", b"one")
    (before,) = find(path)
    assert find(path)[0].stamp == before.stamp
    path.write_bytes(b"two and more")
    assert find(path)[0].stamp != before.stamp
    os.utime(path, ns=(0, 0))
    assert find(path)[0].stamp not in (before.stamp, "")


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.xz"])
def test_an_archive_is_read_from_front_to_back(tmp_path: Path, ending: str) -> None:
    names = {"b/one.png": b"1", "two.jpg": b"22", "b/.hidden.png": b"", "readme.txt": b"", "__MACOSX/b/._one.png": b""}
    path = tmp_path / f"photos.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)
    else:
        mode: Any = {"tar": "w", "tar.xz": "w:xz"}.get(ending, "w:gz")
        with tarfile.open(path, mode) as packed:
            for name, data in names.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
    assert all(found.at_once for found in find(path))
    expected = {f"{path}/b/one.png": b"1", f"{path}/two.jpg": b"22"}
    assert read(path) == expected
    assert read(tmp_path) == expected, "an archive in a folder is one of its places"
    assert {name: read_picture(name, MOST) for name in expected} == expected


def test_a_damaged_archive_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", b"no archive")
    write(tmp_path / "b.tgz", b"none either")
    write(tmp_path / "c.png", b"3")
    problems = {Path(found.path).name: found.problem for found in find(tmp_path)}
    assert problems.pop("c.png") is None
    assert all("cannot be read to its end" in str(problem) for problem in problems.values())
    assert set(problems) == {"a.zip", "b.tgz"}


def test_a_member_that_cannot_be_unpacked_is_one_failure(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"A" * 100)
        archive.writestr("b.png", b"B" * 100)
    path.write_bytes(path.read_bytes().replace(b"A" * 100, b"C" * 100))
    found = find_pictures([str(path)], max_bytes=MOST)
    with pytest.raises(UnreadablePath, match="cannot be unpacked"):
        next(found).read()
    assert next(found).read() == b"B" * 100


def test_no_more_than_one_byte_too_many_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", b"x" * 50)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", b"x" * 50)
    for one in find_pictures([str(path), str(tmp_path / "a.zip")], max_bytes=10):
        assert one.read() == b"x" * 11


def test_what_is_not_there_or_no_file_is_a_problem_and_not_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        found = find(tmp_path, tmp_path / "gone.png")
    assert {Path(one.path).name for one in found if one.problem} == {"pipe.png", "loop.png", "socket.png", "gone.png"}
    assert "No such file" in str(next(one.problem for one in found if one.path.endswith("gone.png")))


def test_a_picture_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", b"x")
    for path in (tmp_path / "gone.png", tmp_path / "a.zip" / "gone.png", "memory://nothing/gone.png"):
        with pytest.raises(UnreadablePath):
            read_picture(str(path), MOST)


def test_a_path_is_kept_as_it_is_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/../b.png") == str(tmp_path / "b.png")
    assert absolute("s3://bucket/a") == "s3://bucket/a"


def test_an_address_of_a_kind_that_is_unknown_is_refused() -> None:
    with pytest.raises(BadOption, match="nosuch://"):
        find("nosuch://bucket/photos")


def test_an_address_with_nothing_there_is_a_problem() -> None:
    (found,) = find(f"memory://{uuid.uuid4().hex}/photos")
    assert found.problem is not None


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server on this machine, with two pictures and what is none."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    filesystem = fsspec.filesystem("s3")
    name = f"photos-{uuid.uuid4().hex[:8]}"
    filesystem.mkdir(name)
    for key, data in {"2024/a.png": picture("red"), "2024/b.png": picture("blue"), "2024/notes.txt": b"none"}.items():
        filesystem.pipe_file(f"{name}/{key}", data)
    yield name
    server.stop()


def test_a_bucket_is_listed_and_its_pictures_are_read_in_any_thread(bucket: str) -> None:
    found = find(f"s3://{bucket}/2024")
    assert [one.path for one in found] == [f"s3://{bucket}/2024/{name}.png" for name in "ab"]
    assert all(one.stamp for one in found)
    data: dict[str, bytes] = {}
    threads = [Thread(target=lambda one=one: data.update({one.path: one.read()})) for one in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert data == {f"s3://{bucket}/2024/a.png": picture("red"), f"s3://{bucket}/2024/b.png": picture("blue")}
    assert read_picture(found[0].path, MOST) == picture("red")
    fsspec.filesystem("s3").pipe_file(f"{bucket}/2024/a.png", picture("green"))
    fsspec.filesystem("s3").invalidate_cache()
    assert find(f"s3://{bucket}/2024")[0].stamp != found[0].stamp


def test_a_bucket_that_cannot_be_listed_is_a_problem(bucket: str) -> None:
    (found,) = find(f"s3://{bucket}-not/2024")
    assert found.problem is not None
