from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_app.checkpoint import check_folder, read_preprocessing
from clip_app.errors import CheckpointError
from clip_app.source import bundled_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_complete_folder_of_a_known_family_will_do(folder: Path, family: str) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    check_folder(folder)
    check_folder(bundled_folder())


def test_everything_that_is_missing_is_named_at_once(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "config.json").mkdir()  # no file
    with pytest.raises(CheckpointError, match=r"lacks config.json, preprocessor_config.json, model.safetensors\. CLIP"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("config.json", r"lacks config\.json\."),
        ("preprocessor_config.json", r"lacks preprocessor_config\.json\."),
        ("model-00001-of-00002.safetensors", r"lacks model\.safetensors\."),
    ],
)
def test_only_what_is_missing_is_named(folder: Path, name: str, says: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=says):
        check_folder(folder)


@pytest.mark.parametrize(
    ("config", "says"),
    [("{", "Fetch it again"), ("[]", "Fetch it again"), ("{}", "None is not"), ('{"model_type": 1}', "1")],
)
def test_a_config_that_says_nothing_useful_is_refused(folder: Path, config: str, says: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=says):
        check_folder(folder)


def test_how_pictures_are_prepared_is_read_from_the_folder(folder: Path) -> None:
    assert read_preprocessing(folder).target == 32


@pytest.mark.parametrize("config", ["{", "[]", '{"size": 32}', '{"size": null, "image_mean": [0], "image_std": [1]}'])
def test_a_preparation_that_cannot_be_read_is_named_without_the_servers_path(folder: Path, config: str) -> None:
    (folder / "preprocessor_config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json cannot be read") as caught:
        read_preprocessing(folder)
    assert str(folder) not in str(caught.value)
