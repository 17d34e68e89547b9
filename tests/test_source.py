from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import small_checkpoint
from huggingface_hub import constants

from clip_app.engines.openvino import prepare
from clip_app.errors import CheckpointError, HubError
from clip_app.hub.cache import RepoCache
from clip_app.hub.files import hash_file
from clip_app.settings import load_settings
from clip_app.source import (
    Source,
    bundled_folder,
    bundled_source,
    examples_folder,
    find_source,
    local_folder,
    present_source,
)

REPO, REVISION = "acme/tiny-clip", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_checkpoint(), tmp_path / "checkpoint"))


def of_folder(folder: Path) -> Source:
    source = present_source(load_settings(model=str(folder)))
    assert source is not None
    return source


@pytest.mark.parametrize("model", ["/models/clip", "./clip", "~/clip", "a/b/c"])
def test_what_looks_like_a_path_is_a_folder_whether_it_is_there_or_not(model: str) -> None:
    assert local_folder(model) == Path(model).expanduser()


@pytest.mark.parametrize("model", ["openai/clip-vit-base-patch32", "gpt2"])
def test_anything_else_is_a_repository_unless_there_is_such_a_folder(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_folder(model) is None
    Path(model).mkdir(parents=True)
    assert local_folder(model) == Path(model)


def test_the_bundled_model_is_always_there() -> None:
    source = find_source(load_settings(model="bundled"))
    assert (source.folder, source.name, source.bundled, source.reason) == (bundled_folder(), "bundled", True, None)
    assert bundled_source("no network").reason == "no network"
    assert list(examples_folder().glob("*.jpg"))


def test_a_folder_is_called_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = of_folder(folder)
    assert (source.name, source.revision, source.bundled, source.verified) == ("checkpoint", "local", False, True)
    monkeypatch.chdir(folder.parent)
    assert of_folder(Path("checkpoint")) == source, "however the path is written"


def test_a_folder_that_is_missing_or_holds_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="CLIP_APP_MODEL names a folder that does not exist"):
        find_source(load_settings(model=str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"lacks config\.json"):
        find_source(load_settings(model=str(tmp_path / "empty")))


def test_what_is_made_of_a_folder_is_kept_in_the_cache_until_the_folder_changes(folder: Path, root: Path) -> None:
    artifacts = of_folder(folder).artifacts
    assert artifacts.parent == root / "clip_app"
    assert of_folder(folder).artifacts == artifacts
    config = folder / "config.json"
    seen = config.stat()
    os.utime(config, (seen.st_atime, int(seen.st_mtime)))
    assert of_folder(folder).artifacts == artifacts, "an image's layers keep whole seconds"
    os.utime(config, (seen.st_atime, int(seen.st_mtime) + 1))
    later = of_folder(folder).artifacts
    config.write_text(config.read_text() + " ")
    os.utime(config, (seen.st_atime, int(seen.st_mtime) + 1))
    longer = of_folder(folder).artifacts
    elsewhere = of_folder(folder.rename(folder.with_name("elsewhere"))).artifacts
    assert len({artifacts, later, longer, elsewhere}) == 4


# A model of the Hub that is complete in the cache.


@pytest.fixture
def cache(root: Path) -> RepoCache:
    cache = RepoCache(root, REPO)
    shutil.copytree(small_checkpoint(), cache.snapshot(REVISION))
    files = [path for path in cache.snapshot(REVISION).iterdir() if path.is_file()]
    cache.write_marker(REVISION, {path.name: hash_file(path) for path in files}, "float")
    return cache


def of_the_hub() -> Source | None:
    return present_source(load_settings(model=REPO, revision=REVISION))


def test_a_model_of_the_hub_is_present_once_it_is_complete(cache: RepoCache) -> None:
    source = of_the_hub()
    assert source is not None
    assert source.snapshot is not None
    assert (source.folder, source.name, source.revision) == (cache.snapshot(REVISION), REPO, REVISION)
    assert source.artifacts == cache.artifacts
    assert find_source(load_settings(model=REPO, revision=REVISION)) == source, "and needs no request"
    cache.marker(REVISION).unlink()
    assert of_the_hub() is None


# Converting. A script stands for the process that converts.


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the script writes its arguments, a line a call; it converts into nothing."""
    script, calls = tmp_path / "converter", tmp_path / "calls"
    calls.touch()
    script.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return calls


def test_a_conversion_calibrates_on_the_packages_photographs_unless_others_are_given(
    folder: Path, cache: RepoCache, calls: Path, tmp_path: Path
) -> None:
    hub = of_the_hub()
    assert hub is not None
    for source in (of_folder(folder), hub):
        for given in (None, tmp_path):
            with pytest.raises(CheckpointError, match="not complete"):
                prepare(source, "float32", given)
    ends = [line.split()[-1] for line in calls.read_text().splitlines()]
    assert ends == [str(examples_folder()), str(tmp_path)] * 2
    with cache.lock(0):
        pass  # it is free again


def test_a_cache_that_cannot_be_written_is_told_from_a_checkpoint_that_cannot_be_converted(
    folder: Path, root: Path, calls: Path
) -> None:
    root.mkdir()
    (root / "clip_app").write_text("a file where the folder belongs")
    with pytest.raises(CheckpointError, match=r"cannot be kept: Not a directory\. Check the folder of HF_HOME"):
        prepare(of_folder(folder), "float32", None)
    (root / "clip_app").unlink()
    with (folder / "more.safetensors").open("wb") as file:
        file.truncate(shutil.disk_usage(root).free)  # a hole, which takes no room itself
    with pytest.raises(HubError, match="disk is full") as caught:
        prepare(of_folder(folder), "float32", None)
    assert caught.value.reason == "disk_full"
    assert calls.read_text() == ""
