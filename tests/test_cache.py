from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from clip_app.hub.cache import RepoCache, cached, candidate_revisions
from clip_app.hub.files import Pin, git_blob_hash, hash_file, write_atomically, wrong_sizes
from clip_app.hub.locks import LocksUnsupported, LockTimeout
from clip_app.hub.volume import cache_root, explain_file_error
from clip_app.models import DEFAULT_REVISIONS
from clip_app.settings import DEFAULT_MODEL

REVISION = "0123456789abcdef0123456789abcdef01234567"
NOW = 0.0  # a deadline on time.monotonic's clock that has come
LATER = float("inf")
DAY = 86400


@pytest.fixture
def cache(tmp_path: Path) -> RepoCache:
    """A cache with one revision, laid out as the Hub client does it."""
    cache = RepoCache(tmp_path / "hub", "acme/tiny-clip")
    (cache.folder / "blobs").mkdir(parents=True)
    cache.snapshot(REVISION).mkdir(parents=True)
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"weights")):
        (cache.folder / "blobs" / f"blob-of-{name}").write_bytes(content)
        (cache.snapshot(REVISION) / name).symlink_to(cache.folder / "blobs" / f"blob-of-{name}")
    return cache


def pins(cache: RepoCache) -> dict[str, Pin]:
    return {path.name: hash_file(path) for path in cache.snapshot(REVISION).iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_layout_is_the_hub_clients() -> None:
    cache = RepoCache(Path("/hub"), "acme/tiny-clip")
    assert cache.snapshot("main") == Path("/hub/models--acme--tiny-clip/snapshots/main")
    assert cache.marker("main") == Path("/hub/models--acme--tiny-clip/clip_app/main.json")
    assert cache_root() == Path(os.environ["HF_HOME"]) / "hub"


def test_a_file_is_hashed_whole_however_long_it_is(tmp_path: Path) -> None:
    path, content = tmp_path / "file", os.urandom(2_500_000)
    path.write_bytes(content)
    assert hash_file(path) == Pin(2_500_000, hashlib.sha256(content).hexdigest())
    path.write_bytes(b"hello\n")
    assert git_blob_hash(path) == "ce013625030ba8dba906f756967f9e9ca394464a", "as git hash-object says"


def test_a_revision_is_complete_once_its_marker_is_written(cache: RepoCache) -> None:
    assert cache.read_marker(REVISION) is None
    cache.write_marker(REVISION, pins(cache), "float")
    assert cache.read_marker(REVISION) == pins(cache)


def test_a_revision_whose_files_went_or_changed_their_size_is_not_complete_any_more(cache: RepoCache) -> None:
    files = pins(cache)
    cache.write_marker(REVISION, files, "float")
    (cache.snapshot(REVISION) / "config.json").write_bytes(b"{ }")
    assert wrong_sizes(cache.snapshot(REVISION), files) == ["config.json"]
    (cache.folder / "blobs" / "blob-of-model.safetensors").unlink()
    assert sorted(wrong_sizes(cache.snapshot(REVISION), files)) == ["config.json", "model.safetensors"]
    assert cache.read_marker(REVISION) is None
    assert cache.listed(REVISION)[0] == files, "but what it should hold is known"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"a": 1}}', '{"files": {"a": {"size": 1}}}'])
def test_a_damaged_marker_is_none(cache: RepoCache, text: str) -> None:
    cache.write_marker(REVISION, pins(cache), "float")
    cache.marker(REVISION).write_text(text)
    assert cache.read_marker(REVISION) is None


def test_a_file_is_replaced_as_a_whole_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert mode(path) == 0o664
    assert list(tmp_path.iterdir()) == [path]


def test_a_volume_that_knows_no_modes_keeps_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "as on some network volumes")

    monkeypatch.setattr(Path, "chmod", refuse)
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_removed_with_its_blob_but_never_what_lies_elsewhere(cache: RepoCache, tmp_path: Path) -> None:
    cache.remove_file(REVISION, "config.json")
    assert not (cache.snapshot(REVISION) / "config.json").is_symlink()
    assert [path.name for path in (cache.folder / "blobs").iterdir()] == ["blob-of-model.safetensors"]
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    (cache.snapshot(REVISION) / "config.json").symlink_to(outside)
    cache.remove_file(REVISION, "config.json")
    cache.remove_file(REVISION, "config.json")
    assert not (cache.snapshot(REVISION) / "config.json").is_symlink()
    assert outside.exists()


# Locks.


@contextmanager
def held(path: Path, holder: str = "") -> Iterator[None]:
    """Hold a lock as another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(holder)
        file.flush()
        yield


def blob_lock(cache: RepoCache, blob: str) -> Path:
    return cache.root / ".locks" / cache.folder.name / f"{blob}.lock"


def test_one_writes_at_a_time_and_the_other_learns_who_does(cache: RepoCache) -> None:
    with cache.lock(NOW):
        with pytest.raises(LockTimeout, match=f"process {os.getpid()} on "), cache.lock(NOW):
            pass
        with pytest.raises(LockTimeout), cache.lock(NOW):
            pass
    with cache.lock(NOW):
        assert cache.lock_file.read_text().startswith(f"process {os.getpid()} on "), "it is free again"


def test_the_last_holders_name_is_written_over_however_long_it_was(cache: RepoCache) -> None:
    with held(cache.lock_file, "x" * 1000):
        pass
    with cache.lock(NOW):
        assert "x" * 100 not in cache.lock_file.read_text()


def test_a_holder_without_a_name_is_another_process(cache: RepoCache) -> None:
    with held(cache.lock_file), pytest.raises(LockTimeout, match="another process"), cache.lock(NOW):
        pass


def test_a_failure_gives_the_lock_back(cache: RepoCache) -> None:
    with pytest.raises(ValueError, match="mine"), cache.lock(NOW):
        raise ValueError("mine")
    with cache.lock(NOW):
        pass


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOLCK, LocksUnsupported), (errno.EINVAL, LocksUnsupported), (errno.EBADF, OSError)]
)
def test_a_volume_without_locks_is_told_from_other_errors(
    cache: RepoCache, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[OSError]
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=os.strerror(code)) as caught, cache.lock(NOW):
        pass
    assert type(caught.value) is kind


def test_blobs_that_another_program_writes_are_waited_for_until_the_deadline(cache: RepoCache) -> None:
    cache.prepare(REVISION, ["free"], NOW)
    with held(blob_lock(cache, "free")):
        pass
    cache.prepare(REVISION, ["free", "never heard of"], LATER)
    with held(blob_lock(cache, "taken")), pytest.raises(LockTimeout, match="another process"):
        cache.prepare(REVISION, ["free", "taken"], NOW)


# What killed downloads leave.


def left_behind(cache: RepoCache, name: str, *, age: float = 0) -> Path:
    path = cache.folder / "blobs" / f"{name}.incomplete"
    path.write_bytes(b"1234567")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_killed_downloads_left_is_swept_away_and_counted(cache: RepoCache) -> None:
    with cache.lock(NOW):
        left_behind(cache, "one"), left_behind(cache, "two", age=DAY)
        with held(blob_lock(cache, "two")):
            pass
        assert cache.sweep() == 14
        assert cache.sweep() == 0
    assert wrong_sizes(cache.snapshot(REVISION), pins(cache)) == [], "what is complete stays"


def test_what_a_live_program_writes_is_left_to_it(cache: RepoCache) -> None:
    with cache.lock(NOW), held(blob_lock(cache, "one")):
        path = left_behind(cache, "one", age=DAY)
        assert cache.sweep() == 0
        assert path.exists()


def test_where_nobody_can_be_asked_only_what_is_old_is_swept_away(cache: RepoCache) -> None:
    """On some network volumes everybody gets every lock, as here, where nobody holds the own one."""
    for _ in range(2):  # without the file of the lock, and with it
        young, old = left_behind(cache, "young"), left_behind(cache, "old", age=DAY)
        assert cache.sweep() == 7
        assert (young.exists(), old.exists()) == (True, False)
        with held(cache.lock_file):
            pass


def test_a_lock_that_cannot_be_opened_lets_age_decide(cache: RepoCache) -> None:
    with cache.lock(NOW):
        young, old = left_behind(cache, "young"), left_behind(cache, "old", age=DAY)
        for name in ("young", "old"):
            blob_lock(cache, name).mkdir(parents=True)  # a folder does not open as a file, not even for root
        assert cache.sweep() == 7
        assert (young.exists(), old.exists()) == (True, False)


# Who may read it.


@pytest.mark.parametrize(
    ("root", "folder", "file", "script"),
    [(0o755, 0o755, 0o644, 0o744), (0o775, 0o2775, 0o664, 0o764)],
    ids=["for its owner", "for its group"],
)
def test_what_was_written_may_be_read_by_all_and_written_by_whom_the_root_lets(
    cache: RepoCache, tmp_path: Path, root: int, folder: int, file: int, script: int
) -> None:
    outside, inside = tmp_path / "outside", cache.folder / "blobs" / "private"
    for path in (outside, inside, inside.with_name("script")):
        path.write_text("")
        path.chmod(0o600)
    inside.with_name("script").chmod(0o700)
    (cache.folder / "link").symlink_to(outside)
    lock = blob_lock(cache, "x")
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    lock.chmod(0o600)
    (cache.folder / "blobs").chmod(0o700)
    cache.root.chmod(root)
    cache.share()
    assert [mode(path) for path in (cache.folder / "blobs", inside, inside.with_name("script"), lock)] == [
        *(folder, file, script, file)
    ]
    assert mode(outside) == 0o600, "links are not followed"


def test_others_can_wait_for_the_lock_while_it_is_held(cache: RepoCache) -> None:
    old = os.umask(0o077)
    try:
        with cache.lock(NOW):
            assert mode(cache.lock_file) & 0o444 == 0o444
            assert mode(cache.artifacts) & 0o555 == 0o555
    finally:
        os.umask(old)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664)])
def test_a_lock_is_made_as_the_mask_of_its_user_lets_it(cache: RepoCache, mask: int, expected: int) -> None:
    old = os.umask(mask)
    try:
        with cache.lock(NOW):
            assert mode(cache.lock_file) == expected
    finally:
        os.umask(old)


# Variants, branches and what a failing volume is told to be.


def onnx(cache: RepoCache, *names: str) -> dict[str, Pin]:
    """Put ONNX files into the snapshot, and return their pins."""
    for name in names:
        (cache.snapshot(REVISION) / name).write_text(f"content of {name}")
    return {name: hash_file(cache.snapshot(REVISION) / name) for name in names}


def test_safetensors_serve_every_precision_and_onnx_files_the_one_they_were_fetched_for(cache: RepoCache) -> None:
    cache.write_marker(REVISION, pins(cache), "float")
    assert cache.read_marker(REVISION, "int8") == cache.read_marker(REVISION, "float") == pins(cache)
    cache.write_marker(REVISION, onnx(cache, "vision_model.onnx"), "int8")
    assert cache.listed(REVISION)[1] == ["float", "int8"], "what was whole before stays so"
    cache.marker(REVISION).unlink()
    cache.write_marker(REVISION, onnx(cache, "vision_model.onnx"), "int8")
    assert cache.listed(REVISION)[1] == ["int8"]
    assert cache.read_marker(REVISION, "float") is None
    assert cache.read_marker(REVISION, "int8") is not None


def test_of_two_variants_both_are_kept_where_the_first_is_whole_and_the_later_alone_where_it_is_not(
    cache: RepoCache,
) -> None:
    exact, rounded = onnx(cache, "vision_model.onnx"), onnx(cache, "vision_model_quantized.onnx")
    assert cache.write_marker(REVISION, exact, "float") == exact
    assert cache.write_marker(REVISION, rounded, "int8") == exact | rounded
    assert cache.listed(REVISION)[1] == ["float", "int8"]
    (cache.snapshot(REVISION) / "vision_model.onnx").unlink()
    assert cache.write_marker(REVISION, rounded, "int8") == rounded
    assert cache.listed(REVISION) == (rounded, ["int8"])


def test_what_a_branch_was_is_remembered_and_a_commit_is_itself(cache: RepoCache) -> None:
    assert cache.read_ref("main") is None
    cache.write_ref("main", REVISION)
    assert cache.read_ref("main") == REVISION
    cache.write_ref("f" * 40, "f" * 40)
    assert cache.read_ref("f" * 40) == "f" * 40
    assert (cache.folder / "refs" / "main").read_text() == REVISION, "where the Hub client looks for it"


def test_a_complete_revision_is_found_by_its_commit_or_its_branch(
    cache: RepoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache.root))
    assert cached(cache.repo, REVISION) is None
    cache.write_marker(REVISION, pins(cache), "float")
    found = cached(cache.repo, REVISION)
    assert found is not None
    assert (found.folder, found.revision, found.files) == (cache.snapshot(REVISION), REVISION, pins(cache))
    assert cached(cache.repo, None) == found, "nobody knows what main is, and there is one"
    assert cached(cache.repo, "main") is None
    cache.write_ref("main", "e" * 40)
    assert cached(cache.repo, None) == found, "another program has moved it to what is not complete"
    cache.write_ref("main", REVISION)
    assert cached(cache.repo, None) == cached(cache.repo, "main") == found
    assert cached(cache.repo, "f" * 40) is None


def test_the_default_model_has_revisions_of_its_own_and_others_are_taken_from_main() -> None:
    assert candidate_revisions("acme/tiny-clip", None) == ("main",)
    assert candidate_revisions("acme/tiny-clip", "v1") == ("v1",)
    assert candidate_revisions(DEFAULT_MODEL, None) == DEFAULT_REVISIONS[DEFAULT_MODEL]
    assert candidate_revisions(DEFAULT_MODEL, "main") == ("main",)


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (OSError(errno.ENOSPC, "x"), "disk_full", "Free space"),
        (OSError(errno.EDQUOT, "x"), "disk_full", "Free space"),
        (OSError(errno.EROFS, "x"), "permissions", "writable for this user"),
        (PermissionError(errno.EACCES, "x"), "permissions", "writable for this user"),
        (LocksUnsupported(errno.ENOLCK, "x"), "permissions", "no file locks"),
        (LockTimeout("process 7 on here"), "permissions", "^process 7 on here still fills the cache"),
    ],
)
def test_an_error_of_the_volume_says_what_to_do(error: OSError, reason: str, says: str) -> None:
    for errors in ((error,), (ValueError("unrelated"), error)):
        found = explain_file_error(*errors)
        assert found is not None
        assert found.reason == reason
        assert re.search(says, found.message)


def test_an_error_of_another_kind_is_not_the_volumes() -> None:
    assert explain_file_error() is None
    assert explain_file_error(ValueError("x"), ConnectionResetError(errno.ECONNRESET, "x")) is None
