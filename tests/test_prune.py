"""What is removed of the cache, and what must stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import small_checkpoint
from huggingface_hub import constants

from clip_app.hub.cache import RepoCache
from clip_app.hub.files import hash_file
from clip_app.hub.prune import prune
from clip_app.settings import load_settings
from clip_app.source import artifacts_folder, find_source

KEPT, GONE = "0" * 40, "f" * 40


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def filled(root: Path, part: str = "") -> RepoCache:
    """A repository of two revisions with all that is made of them, of which one was removed since."""
    cache = RepoCache(root, "acme/tiny-clip", part)
    for revision in (KEPT, GONE):
        snapshot = cache.snapshot(revision)
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / f"{part}config.json").write_text("{}")
        cache.write_marker(revision, {f"{part}config.json": hash_file(snapshot / f"{part}config.json")}, "float")
        made = cache.marker(revision).parent
        (made / "openvino" / revision / "float").mkdir(parents=True)
        (made / "openvino" / revision / "float" / "image.xml").write_bytes(bytes(1000))
        (made / f"labels-{revision}-float32.safetensors").write_bytes(bytes(10))
    return cache


@pytest.mark.parametrize("part", ["", "s0"])
def test_what_was_made_of_a_revision_goes_with_it(root: Path, part: str) -> None:
    cache = filled(root, part)
    assert prune(artifacts_folder) == {}
    shutil.rmtree(cache.snapshot(GONE))
    removed = prune(artifacts_folder)
    made = cache.marker(GONE).parent
    assert removed == {
        cache.marker(GONE): removed[cache.marker(GONE)],
        made / f"labels-{GONE}-float32.safetensors": 10,
        made / "openvino" / GONE: 1000,
    }
    assert not any(path.exists() for path in removed)
    assert cache.read_marker(KEPT) is not None
    assert (made / "openvino" / KEPT / "float" / "image.xml").exists()
    assert (made / f"labels-{KEPT}-float32.safetensors").exists()
    assert prune(artifacts_folder) == {}


def test_what_was_made_of_a_folder_goes_once_the_folder_is_another(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(small_checkpoint(), folder)
    home = find_source(load_settings(model=str(folder))).artifacts
    (home / "labels-local-float32.safetensors").write_bytes(bytes(10))
    unknown = home.with_name("nobody-knows")
    unknown.mkdir()
    assert prune(artifacts_folder) == {}
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert list(prune(artifacts_folder)) == [home]
    assert (home.exists(), unknown.exists()) == (False, True)
