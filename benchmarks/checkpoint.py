"""Checkpoints with random weights in transformers' format and as ONNX, and the pictures that are measured on."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import tokenizers
from PIL import Image
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from clip_app.labels import load_groups, preset_folder

__all__ = ["export_pair", "make_checkpoint", "make_photo", "photographs", "write_tokenizer"]

WORD_END, START, END = "</w>", "<|startoftext|>", "<|endoftext|>"
MERGES = 1500


def make_checkpoint(folder: Path, *, small: bool = False, layers: int | None = None) -> Path:
    """Write a CLIP with random weights: of ViT-B/32's shape, or small. Speed does not depend on values.

    With ``layers``, so many of ViT-B/32's twelve on each side.
    """
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder)
    text = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config=text)
    if small:
        layer = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision = {**layer, "image_size": 64, "patch_size": 16}
        text |= {**layer, "num_hidden_layers": 1, "vocab_size": len(tokenizer)}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    elif layers is not None:
        depth = {"num_hidden_layers": layers}
        config = CLIPConfig(text_config=text | depth, vision_config=depth)
    network = CLIPModel(config)
    # As training leaves it; what it starts from would make every label as good as another.
    torch.nn.init.constant_(network.logit_scale, 4.6052)
    network.save_pretrained(folder)
    size = config.vision_config.image_size
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(
        folder
    )
    return folder


def write_tokenizer(folder: Path) -> Any:
    """Write CLIP's kind of tokenizer, with merges learnt from the names of the app's labels."""
    from transformers import CLIPTokenizer

    backend = tokenizers.Tokenizer(BPE(end_of_word_suffix=WORD_END))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    words = [label for group in load_groups(preset_folder()).values() for label in group.labels]
    trainer = BpeTrainer(vocab_size=MERGES, end_of_word_suffix=WORD_END, show_progress=False)
    backend.train_from_iterator([*words, "a photo of a picture."], trainer)
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + WORD_END for letter in alphabet), *("".join(pair) for pair in merges), START, END]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def export_pair(
    checkpoint: Path,
    folder: Path,
    *,
    opset: int = 17,
    dynamic: bool = True,
    masked: bool = False,
    dtype: str = "float32",
    ending: str = "",
) -> Path:
    """Export a checkpoint's encoders to a pair of ONNX files, laid out as the Hub's are, and its configs beside them.

    Unless ``dynamic``, the files hold two rows and the whole context.
    """
    import torch
    from transformers import AutoModel

    # Attention that the oldest opsets can say.
    network = AutoModel.from_pretrained(checkpoint, attn_implementation="eager", dtype=dtype).eval()
    config = network.config
    side, length = config.vision_config.image_size, config.text_config.max_position_embeddings

    class Encoder(torch.nn.Module):
        def __init__(self, side: Literal["image", "text"]) -> None:
            super().__init__()
            self.network = network
            self.features = getattr(network, f"get_{side}_features")

        def forward(self, *batch: torch.Tensor) -> torch.Tensor:
            embeddings: torch.Tensor = self.features(*batch).pooler_output
            return embeddings

    ids = torch.full((2, length), config.text_config.eos_token_id or 1)
    texts = (ids, torch.ones_like(ids)) if masked else (ids,)
    examples = {
        "vision": ("image", (torch.zeros(2, 3, side, side, dtype=network.dtype),), ["pixel_values"], "image_embeds"),
        "text": ("text", texts, ["input_ids", "attention_mask"][: len(texts)], "text_embeds"),
    }
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for name, (kind, given, inputs, output) in examples.items():
        axes = (
            {0: "batch", 1: "length"} if kind == "text" and not config.model_type.startswith("siglip") else {0: "batch"}
        )
        open_axes = dict.fromkeys(inputs, axes) | {output: {0: "batch"}} if dynamic else None
        torch.onnx.export(
            Encoder(kind),  # type: ignore[arg-type]
            given,
            str(folder / "onnx" / f"{name}_model{ending}.onnx"),
            input_names=inputs,
            output_names=[output],
            dynamic_axes=open_axes,
            opset_version=opset,
            dynamo=False,
        )
    for path in checkpoint.glob("*.json"):
        shutil.copy(path, folder)
    return folder


def make_photo(path: Path, size: tuple[int, int]) -> Path:
    """Write a photograph of a cat in so many pixels."""
    photo = Image.open(str(files("skimage.data") / "chelsea.png")).convert("RGB")
    photo.resize(size, Image.Resampling.LANCZOS).save(path, quality=90)
    return path


def photographs() -> list[Path]:
    """Photographs that the development tools bring."""
    names = {
        "skimage.data": ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"],
        "sklearn.datasets.images": ["china.jpg", "flower.jpg"],
        "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
        "gradio": ["media_assets/images/cheetah.jpg", "media_assets/images/lion.jpg", "media_assets/images/tower.jpg"],
    }
    return [Path(str(files(package) / name)) for package, group in names.items() for name in group]
