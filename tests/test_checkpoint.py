from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_app.checkpoint import (
    check_folder,
    choose_files,
    default_groups,
    find_pair,
    formats_in,
    list_files,
    missing_files,
    pair_in,
    read_preprocessing,
)
from clip_app.errors import CheckpointError
from clip_app.source import bundled_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
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
        ("model-00001-of-00001.safetensors", r"lacks model\.safetensors\."),
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


# A repository's names, of which some are a checkpoint.


def sides(ending: str = "", folder: str = "onnx/") -> list[str]:
    return [f"{folder}{side}_model{ending}.onnx" for side in ("vision", "text")]


@pytest.mark.parametrize(
    ("names", "exact", "rounded"),
    [
        ([*sides(), *sides("_fp16"), *sides("_quantized")], "", "_quantized"),
        ([*sides("_fp16"), *sides("_fp32")], "_fp32", None),
        (sides("_fp16"), "_fp16", None),
        (sides("_uint8"), "_uint8", "_uint8"),
        (sides("_q4"), "_q4", None),
        ([*sides()[:1], *sides("_fp16")], "_fp16", None),
        (sides()[:1], None, None),
        ([], None, None),
    ],
)
def test_the_pair_nearest_to_what_is_wanted_is_found(names: list[str], exact: str | None, rounded: str | None) -> None:
    found = [find_pair(names, "float"), find_pair(names, "int8")]
    assert [pair and [pair.vision, pair.text] for pair in found] == [
        None if ending is None else sides(ending) for ending in (exact, rounded)
    ]


def test_a_rounded_pair_says_so_whatever_it_was_wanted_for() -> None:
    for wanted in ("float", "int8"):
        pair = find_pair(sides("_quantized"), wanted)
        assert pair is not None
        assert pair.variant == "int8"
    exact = find_pair(sides(folder=""), "float")
    assert exact is not None
    assert (exact.vision, exact.variant) == ("vision_model.onnx", "float"), "at the top is as good as in onnx/"


def test_a_folder_before_the_top_and_both_formats_are_seen() -> None:
    both = find_pair([*sides(folder=""), *sides()], "float")
    assert both is not None
    assert both.vision.startswith("onnx/")
    assert formats_in([*sides(), "model.safetensors"]) == ("safetensors", "onnx")
    assert formats_in(["model-00001-of-00001.safetensors"]) == ("safetensors",)
    assert formats_in([*sides()[:1], "pytorch_model.bin"]) == ()


CONFIGS = ["config.json", "preprocessor_config.json", "tokenizer.json"]


@pytest.mark.parametrize("names", [["tokenizer.json"], ["vocab.json", "merges.txt"], ["spiece.model"]])
def test_a_checkpoint_needs_its_tokenizer_and_transformers_makes_one_of_older_files(names: list[str]) -> None:
    """Without one, every label would have the same embedding."""
    configs = ["config.json", "preprocessor_config.json"]
    assert missing_files([*configs, "model.safetensors"]) == ["tokenizer.json"]
    assert missing_files([*configs, "model.safetensors", "vocab.json"]) == ["tokenizer.json"]
    assert missing_files([*configs, "model.safetensors", *names]) == []
    assert missing_files([*configs, *sides(), *names]) == ([] if names == ["tokenizer.json"] else ["tokenizer.json"])


def test_of_half_a_pair_the_other_half_is_missed_where_it_should_lie() -> None:
    assert missing_files([*CONFIGS, "onnx/vision_model_fp16.onnx"]) == ["onnx/text_model_fp16.onnx"]
    assert missing_files([*CONFIGS, "text_model.onnx"]) == ["vision_model.onnx"]
    (joint,) = missing_files([*CONFIGS, "onnx/model.onnx"])
    assert "onnx/model.onnx is a joint one" in joint
    assert missing_files(CONFIGS) == ["model.safetensors"]


def test_only_one_format_is_chosen_with_what_lies_beside_it() -> None:
    data = [f"{name}_data" for name in sides()]
    other = ["README.md", "pytorch_model.bin", "onnx/model.onnx", *sides("_fp16")]
    names = [*CONFIGS, "vocab.json", "model.safetensors", *sides(), *data, *other]
    safetensors = sorted([*CONFIGS, "vocab.json", "model.safetensors"])
    assert choose_files(names, "safetensors", "float") == safetensors
    assert choose_files(names, "onnx", "float") == sorted([*CONFIGS, *sides(), *data])
    without = [name for name in names if name != "model.safetensors"]
    assert choose_files(without, "safetensors", "float") == sorted([*CONFIGS, *sides(), *data]), "what there is"
    assert choose_files([*CONFIGS, "vocab.json", "model.safetensors"], "onnx", "float") == safetensors


def test_what_a_precision_lacks_is_told_from_what_nobody_could_serve(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no int8 form.*CLIP_APP_PRECISION=auto"):
        choose_files([*CONFIGS, *sides()], "onnx", "int8")
    with pytest.raises(CheckpointError, match=r"lacks onnx/text_model\.onnx"):
        choose_files([*CONFIGS, *sides()[:1]], "onnx", "int8")
    for variant in ("float", "int8"):
        with pytest.raises(CheckpointError, match=r"^The checkpoint lacks model\.safetensors"):
            pair_in(tmp_path, variant)


def test_an_onnx_pair_may_be_of_any_family(folder: Path) -> None:
    (folder / "onnx").mkdir()
    for name in [*sides(), "tokenizer.json"]:
        (folder / name).write_text("{}")
    (folder / "config.json").write_text('{"model_type": "of tomorrow"}')
    check_folder(folder)
    assert set(sides()) < set(list_files(folder))
    assert pair_in(folder, "float").text == "onnx/text_model.onnx"


def test_groups_that_a_checkpoint_is_good_at_are_read_and_none_are_none(folder: Path) -> None:
    assert default_groups(folder) == []
    (folder / "config.json").write_text('{"default_groups": ["kinds", 7]}')
    assert default_groups(folder) == ["kinds", "7"]
    (folder / "config.json").write_text('{"default_groups": 7}')
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        default_groups(folder)


def test_the_settings_of_pictures_are_found_among_those_of_all_inputs(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config | {"size": 48}}))
    assert read_preprocessing(folder).target == 32, "the one of pictures alone comes first"
    path.unlink()
    assert read_preprocessing(folder).target == 48
