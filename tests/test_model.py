"""What the model says equals what transformers' own classes say about the same checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint import make_checkpoint, write_tokenizer
from conftest import open_folder, small_checkpoint
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from clip_app.engines import Embeddings, Precision
from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.images import decode
from clip_app.model import Model

LABELS = ["cat", "cup of coffee", "a rocket on its launch pad at night", "dog", "flower", "an astronaut, smiling"]
PROMPTS = [f"a photo of a {label}." for label in LABELS]


def open_checkpoint(folder: Path, *, precision: Precision = "float32") -> Model:
    return open_folder(folder, precision=precision)


def our_logits(model: Model, photographs: dict[str, Path]) -> np.ndarray:
    images = [decode(p.read_bytes(), max_bytes=10**8, max_pixels=10**8).image for p in photographs.values()]
    pixels = np.stack([model.preprocessing(image) for image in images])
    logits: Embeddings = model.logit_scale * model.encode_images(pixels) @ model.encode_texts(PROMPTS).T
    return logits


def assert_equal_logits(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (np.argsort(-ours, axis=1) == np.argsort(-theirs, axis=1)).all()


@torch.inference_mode()
def clip_logits(folder: Path, photographs: dict[str, Path]) -> np.ndarray:
    network = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    images = [Image.open(path).convert("RGB") for path in photographs.values()]
    given = processor(text=PROMPTS, images=images, return_tensors="pt", padding=True)
    logits: Embeddings = network(**given).logits_per_image.numpy()
    return logits


def test_a_small_clip_gives_the_logits_of_transformers(
    small: Model, small_clip: Path, photographs: dict[str, Path]
) -> None:
    assert_equal_logits(our_logits(small, photographs), clip_logits(small_clip, photographs))


def test_the_real_vit_b_32_shape_gives_the_logits_of_transformers(tmp_path: Path, photographs: dict[str, Path]) -> None:
    folder = make_checkpoint(tmp_path)
    assert_equal_logits(our_logits(open_checkpoint(folder), photographs), clip_logits(folder, photographs))


def test_bfloat16_agrees_closely_with_float32(small: Model, photographs: dict[str, Path]) -> None:
    half = open_checkpoint(small_checkpoint(), precision="bfloat16")
    assert half.info.precision == "bfloat16"
    image = Image.open(photographs["cat"]).convert("RGB")
    pixels = small.preprocessing(image)[None]
    assert float(half.encode_images(pixels)[0] @ small.encode_images(pixels)[0]) > 0.99


def tiny_siglip(folder: Path) -> Path:
    """A SigLIP of two layers with random weights."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder)
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=small | {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "pad_token_id": 1},
        vision_config=small | {"image_size": 32, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@torch.inference_mode()
def test_a_siglip_checkpoint_works_too(tmp_path: Path, photographs: dict[str, Path]) -> None:
    folder = tiny_siglip(tmp_path)
    network = SiglipModel.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), SiglipImageProcessorPil.from_pretrained(folder)
    images = [Image.open(path).convert("RGB") for path in photographs.values()]
    text = tokenizer(PROMPTS, padding="max_length", max_length=24, truncation=True, return_tensors="pt")
    theirs = network(
        input_ids=text.input_ids, pixel_values=processor(images, return_tensors="pt")["pixel_values"]
    ).logits_per_image.numpy()
    assert_equal_logits(our_logits(open_checkpoint(folder), photographs) + network.logit_bias.item(), theirs)


def test_embeddings_are_unit_and_keep_the_order_of_texts(small: Model) -> None:
    texts = [f"a photo of a {'very ' * (i % 5)}thing number {i}." for i in range(150)]
    together = small.encode_texts(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    one_by_one = np.concatenate([small.encode_texts([text]) for text in texts[::30]])
    np.testing.assert_allclose(together[::30], one_by_one, atol=1e-5)


def test_a_text_longer_than_the_context_is_cut(small: Model) -> None:
    assert small.encode_texts(["word " * 500]).shape[0] == 1


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_checkpoint(), tmp_path / "copy"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(copy)


def test_damaged_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(copy)


def test_another_kind_of_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'bert' is not CLIP or SigLIP"):
        open_checkpoint(copy)


def test_pickled_weights_are_never_loaded(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_checkpoint(copy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_asking_for_cuda_without_one_names_the_setting() -> None:
    with pytest.raises(EngineUnavailable, match="CLIP_APP_DEVICE"):
        open_folder(small_checkpoint(), device="cuda")
