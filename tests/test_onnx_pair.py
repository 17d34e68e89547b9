"""Checkpoints as a pair of ONNX files: as right as torch, whoever exported them, or refused by the file's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoint import export_pair, write_tokenizer
from conftest import open_folder
from onnx import TensorProto, helper, version_converter
from transformers import Siglip2Tokenizer, SiglipConfig, SiglipImageProcessorPil, SiglipModel

from clip_app.checkpoint import choose_files, find_pair
from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.model import Model

ENGINES = ("openvino", "onnxruntime")
TEXTS = ["", "a", "A photo of a Cat.", "Ünïcode ☃ dog!", "cup of tea " * 3, "word " * 200]


# The exporter says at length what it traces.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:torch", "ignore::Warning:transformers")


@pytest.fixture(scope="module")
def pair(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small CLIP as an exporter lays it out. Not to be changed."""
    return export_pair(small_clip, tmp_path_factory.mktemp("pair"))


@pytest.fixture
def copy(pair: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair, tmp_path / "copy"))


def assert_same(model: Model, reference: Model, *, least: float = 0.9999) -> None:
    """Compare embeddings of noise, five of them, and of texts of every length."""
    pixels = np.random.default_rng(0).standard_normal((5, *reference.preprocessing.shape)).astype(np.float32)
    for ours, theirs in (
        (model.encode_images(pixels), reference.encode_images(pixels)),
        (model.encode_texts(TEXTS), reference.encode_texts(TEXTS)),
    ):
        assert ours.shape == theirs.shape
        assert (ours * theirs).sum(1).min() >= least


def rewrite(folder: Path, change: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    for path in (folder / "onnx").glob("*.onnx"):
        onnx.save(change(onnx.load(path)), path)


def opset_21(folder: Path) -> None:
    rewrite(folder, lambda model: version_converter.convert_version(model, 21))


def weights_beside(folder: Path) -> None:
    for path in (folder / "onnx").glob("*.onnx"):
        onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=64)
        assert path.with_name(f"{path.name}_data").stat().st_size > 10 * path.stat().st_size


def at_the_top(folder: Path) -> None:
    for path in (folder / "onnx").iterdir():
        path.rename(folder / path.name)


def processor_config(folder: Path) -> None:
    """As transformers 5 writes the settings of all inputs into one file."""
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    (folder / "preprocessor_config.json").unlink()


def numbered_outputs(folder: Path) -> None:
    """As exporters do that are given no names."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        (output,) = model.graph.output
        model.graph.node.append(helper.make_node("Identity", [output.name], ["1234"]))
        output.name = "1234"
        return model

    rewrite(folder, change)


def hidden_states_first(folder: Path) -> None:
    """As exporters do that give out everything: the embedding is the second output."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        (output,) = model.graph.output
        name = output.name
        model.graph.node.append(helper.make_node("Unsqueeze", [name, "axes"], ["last_hidden_state"]))
        model.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
        model.graph.node.append(helper.make_node("Identity", [name], ["pooler_output"]))
        output.name = "pooler_output"
        hidden = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, None)
        model.graph.output.insert(0, hidden)
        return model

    rewrite(folder, change)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "change",
    [opset_21, weights_beside, at_the_top, processor_config, numbered_outputs, hidden_states_first],
    ids=lambda change: change.__name__,
)
def test_however_it_is_laid_out_it_is_as_right_as_torch(
    engine: str, change: Callable[[Path], None], copy: Path, small: Model
) -> None:
    change(copy)
    model = open_folder(copy, engine=engine)
    assert (model.info.engine, model.info.precision, model.logit_scale) == (engine, "float32", 100)
    assert_same(model, small)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("opset", "dynamic", "masked"), [(11, True, False), (14, False, False), (17, True, True), (20, False, True)]
)
def test_whatever_it_takes_it_is_as_right_as_torch(
    engine: str, opset: int, dynamic: bool, masked: bool, small_clip: Path, small: Model, tmp_path: Path
) -> None:
    export_pair(small_clip, tmp_path, opset=opset, dynamic=dynamic, masked=masked)
    assert_same(open_folder(tmp_path, engine=engine), small)


def siglip(folder: Path, *, second: bool) -> Path:
    """A SigLIP of two layers with random weights; the second one's tokenizer is Gemma's."""
    torch.manual_seed(0)
    if second:
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
        tokenizer = Siglip2Tokenizer(vocab={piece: i for i, piece in enumerate([*pieces, *letters])}, merges=[])
        tokenizer.save_pretrained(folder)
    else:
        tokenizer = write_tokenizer(folder)
    layer = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    text = {**layer, **special, "vocab_size": len(tokenizer), "projection_size": 64, "max_position_embeddings": 24}
    config = SiglipConfig(text_config=text, vision_config={**layer, "image_size": 32, "patch_size": 8})
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("second", [False, True])
def test_a_siglip_is_as_right_as_torch(engine: str, second: bool, tmp_path: Path) -> None:
    checkpoint = siglip(tmp_path / "checkpoint", second=second)
    exported = export_pair(checkpoint, tmp_path / "pair")
    model, reference = open_folder(exported, engine=engine), open_folder(checkpoint)
    assert_same(model, reference)
    if second:
        np.testing.assert_allclose(model.encode_texts(["A CAT"]), model.encode_texts(["a cat"]), atol=1e-6)


# Which files.


def test_the_files_are_chosen_by_the_precision(pair: Path, copy: Path, small_clip: Path, small: Model) -> None:
    for ending, dtype in (("_fp16", "float16"), ("_quantized", "float32")):
        export_pair(small_clip, copy, ending=ending, dtype=dtype)
    names = [f"onnx/{path.name}" for path in (copy / "onnx").iterdir()]
    found = find_pair(names, "float"), find_pair(names, "int8")
    assert [each and each.vision for each in found] == ["onnx/vision_model.onnx", "onnx/vision_model_quantized.onnx"]
    assert open_folder(copy, engine="openvino", precision="int8").info.precision == "int8"
    for name in ("vision_model", "text_model"):
        (copy / "onnx" / f"{name}.onnx").unlink()
    half = open_folder(copy, engine="onnxruntime")
    assert half.info.precision == "float32", "half precision is only how the weights are kept"
    assert_same(half, small, least=0.999)


def test_without_a_file_for_int8_it_is_said_which_is_missing(pair: Path) -> None:
    with pytest.raises(CheckpointError, match=r"onnx/vision_model_quantized\.onnx.*CLIP_APP_PRECISION=auto"):
        open_folder(pair, engine="openvino", precision="int8")


def test_of_a_repository_only_the_files_of_one_precision_are_wanted() -> None:
    shared = ["config.json", "preprocessor_config.json", "tokenizer.json"]
    sides = ["vision", "text"]
    float_files = [f"onnx/{side}_model.onnx{ending}" for side in sides for ending in ("", "_data")]
    int8_files = [f"onnx/{side}_model_quantized.onnx" for side in sides]
    others = [
        "onnx/model.onnx",
        "onnx/vision_model_q4.onnx",
        "onnx/text_model_q4.onnx",
        "pytorch_model.bin",
        "README.md",
    ]
    names = [*shared, *float_files, *int8_files, *others]
    assert choose_files(names, "onnx", "float") == sorted(shared + float_files)
    assert choose_files(names, "onnx", "int8") == sorted(shared + int8_files)
    assert choose_files([*names, "model.safetensors"], "safetensors", "float") == sorted([*shared, "model.safetensors"])
    assert choose_files([*names, "model.safetensors"], "onnx", "float") == sorted(shared + float_files)


def test_another_export_serves_where_there_is_no_exact_one() -> None:
    names = ["onnx/vision_model_q4f16.onnx", "onnx/text_model_q4f16.onnx", "onnx/vision_model_bnb4.onnx"]
    found = find_pair(names, "float")
    assert found is not None
    assert (found.vision, found.variant) == ("onnx/vision_model_q4f16.onnx", "float")


def test_torch_does_not_serve_it_and_says_who_does(pair: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"openvino and onnxruntime serve\. Set CLIP_APP_ENGINE=auto"):
        open_folder(pair, engine="torch")


# What is wrong with a file is said by its name.


def joint_only(folder: Path) -> None:
    (folder / "onnx" / "vision_model.onnx").rename(folder / "onnx" / "model.onnx")
    (folder / "onnx" / "text_model.onnx").unlink()


def half_a_pair(folder: Path) -> None:
    (folder / "onnx" / "text_model.onnx").unlink()


def cut_short(folder: Path) -> None:
    path = folder / "onnx" / "vision_model.onnx"
    path.write_bytes(path.read_bytes()[:100_000])


def no_onnx_at_all(folder: Path) -> None:
    (folder / "onnx" / "text_model.onnx").write_text("<html>Not found</html>")


def weights_missing(folder: Path) -> None:
    weights_beside(folder)
    (folder / "onnx" / "text_model.onnx_data").unlink()


def unknown_operation(folder: Path) -> None:
    path = folder / "onnx" / "vision_model.onnx"
    model = onnx.load(path)
    (output,) = model.graph.output
    model.graph.node.append(helper.make_node("FrobnicateV2", [output.name], ["image_embeddings"], domain="com.acme"))
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    output.name = "image_embeddings"
    onnx.save(model, path)


def other_pixels(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text()) | {"crop_size": {"height": 32, "width": 32}}
    path.write_text(json.dumps(config))


def swapped(folder: Path) -> None:
    vision, text = folder / "onnx" / "vision_model.onnx", folder / "onnx" / "text_model.onnx"
    vision.rename(folder / "x"), text.rename(vision), (folder / "x").rename(text)


def longer_embeddings(folder: Path) -> None:
    path = folder / "onnx" / "text_model.onnx"
    model = onnx.load(path)
    (output,) = model.graph.output
    model.graph.node.append(helper.make_node("Concat", [output.name] * 2, ["text_embeddings"], axis=-1))
    model.graph.output.remove(output)
    model.graph.output.append(helper.make_tensor_value_info("text_embeddings", TensorProto.FLOAT, ["n", "d"]))
    onnx.save(model, path)


def hidden_states_only(folder: Path) -> None:
    path = folder / "onnx" / "vision_model.onnx"
    model = onnx.load(path)
    (output,) = model.graph.output
    model.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    model.graph.node.append(helper.make_node("Unsqueeze", [output.name, "axes"], ["last_hidden_state"]))
    model.graph.output.remove(output)
    model.graph.output.append(helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", 1, "d"]))
    onnx.save(model, path)


def one_input_more(folder: Path) -> None:
    path = folder / "onnx" / "text_model.onnx"
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, 64, 64]))
    (output,) = model.graph.output
    model.graph.node.append(helper.make_node("ReduceMax", ["pixel_values"], ["top"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", [output.name, "top"], ["text_embeddings"]))
    output.name = "text_embeddings"
    onnx.save(model, path)


def larger_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"more{i}": len(vocabulary) + i for i in range(500)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def tokenizer_of_another_kind(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None  # nothing ends a text any more
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {}}}')


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (joint_only, r"lacks onnx/vision_model\.onnx and onnx/text_model\.onnx.*model\.onnx is a joint one"),
        (half_a_pair, r"lacks onnx/text_model\.onnx\."),
        (cut_short, r"vision_model\.onnx cannot be opened"),
        (no_onnx_at_all, r"text_model\.onnx cannot be opened"),
        (weights_missing, r"text_model\.onnx cannot be opened"),
        (unknown_operation, r"vision_model\.onnx uses operations that .* does not know \(com\.acme.FrobnicateV2\)"),
        (other_pixels, r"vision_model\.onnx takes pixels of 3x64x64.*preprocessor makes 3x32x32"),
        (swapped, r"vision_model\.onnx wants input_ids"),
        (longer_embeddings, "embeddings of 64 numbers .* of 128"),
        (hidden_states_only, r"vision_model\.onnx gives last_hidden_state, none of them an embedding"),
        (one_input_more, r"text_model\.onnx wants .*pixel_values"),
        (larger_tokenizer, r"tokenizer\.json has \d+ tokens and the text encoder \d+"),
        (tokenizer_of_another_kind, r"tokenizer\.json does not end a text"),
        (no_tokenizer, r"tokenizer\.json cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_named_and_no_path_of_the_server(
    engine: str, damage: Callable[[Path], None], says: str, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_folder(copy, engine=engine)
    assert str(copy) not in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_outside_the_folder_are_not_read(engine: str, copy: Path) -> None:
    path = copy / "onnx" / "text_model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=64)
    (copy / "onnx" / "weights").rename(copy.parent / "weights")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../weights"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"text_model\.onnx cannot be opened"):
        open_folder(copy, engine=engine)
