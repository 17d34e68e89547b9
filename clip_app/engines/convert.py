"""The converting process: a checkpoint, opened with torch, to OpenVINO's format.

python -m clip_app.engines.convert CHECKPOINT TARGET VARIANT PHOTOGRAPHS
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino
import torch
from torch.nn import functional as F

from clip_app.checkpoint import Variant, check_folder, read_preprocessing
from clip_app.engines import Embeddings
from clip_app.engines.conversion import IMAGE, TEXT, TOKENIZER, UNUSABLE, Converted
from clip_app.engines.torch import TorchEncoders, open_checkpoint
from clip_app.errors import CheckpointError
from clip_app.hub.files import hash_file
from clip_app.tokenizer import Tokenizer

if TYPE_CHECKING:
    from clip_app.engines.quantization import Quantizer

__all__ = ["main"]

TEXTS = 32  # at once


def main(checkpoint: Path, target: Path, variant: Variant, photographs: Path) -> None:
    """Convert ``checkpoint`` into the empty folder ``target``."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    check_folder(checkpoint)
    preprocessing = read_preprocessing(checkpoint)
    quantize = _quantizer(photographs) if variant == "int8" else None
    encoders, tokenizer = open_checkpoint(checkpoint)
    _save_encoders(encoders, target, tokenizer.context, fill_context=tokenizer.padding.fill, pixels=preprocessing.shape)
    tokenizer.save(target / TOKENIZER)
    encode_texts = partial(_encode_texts, encoders, tokenizer)
    agreement = quantize(target / IMAGE, preprocessing, encode_texts) if quantize is not None else None
    names = [path.name for path in target.iterdir()]
    Converted(
        folder=target,
        variant=variant,
        logit_scale=encoders.logit_scale,
        context=tokenizer.context,
        vocabulary=int(encoders.network.config.text_config.vocab_size),
        padding=tokenizer.padding,
        lower_case=tokenizer.lower_case,
        agreement=agreement,
        files={name: hash_file(target / name) for name in sorted(names)},
    ).write_marker()


def _quantizer(photographs: Path) -> Quantizer:
    """Before the work, which would be for nothing without photographs."""
    # nncf is an extra, and takes seconds to import.
    from clip_app.engines.quantization import Quantizer  # noqa: PLC0415

    return Quantizer(photographs)


def _encode_texts(encoders: TorchEncoders, tokenizer: Tokenizer, texts: list[str]) -> Embeddings:
    """Return unit embeddings [N, D] of texts."""
    starts = range(0, len(texts), TEXTS)
    return np.concatenate(
        [encoders.encode_tokens(tokenizer.pad(tokenizer.encode(texts[i : i + TEXTS]))) for i in starts]
    )


def _save_encoders(
    encoders: TorchEncoders, target: Path, context: int, *, fill_context: bool, pixels: tuple[int, int, int]
) -> None:
    """Trace both encoders with any number of rows, texts of any length where the checkpoint takes them."""

    class Encoder(torch.nn.Module):
        def __init__(self, features: str) -> None:
            super().__init__()
            self.network = encoders.network
            self.features = features

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return F.normalize(getattr(self.network, self.features)(batch).pooler_output, dim=-1)

    length = context if fill_context else min(8, context)
    examples = {
        IMAGE: (Encoder("get_image_features"), torch.zeros(2, *pixels), [-1, *pixels]),
        TEXT: (
            Encoder("get_text_features"),
            torch.ones(2, length, dtype=torch.int64),
            [-1, length if fill_context else -1],
        ),
    }
    with torch.inference_mode():
        for name, (module, example, shape) in examples.items():
            converted = openvino.convert_model(module, example_input=example, input=[openvino.PartialShape(shape)])
            openvino.save_model(converted, target / name, compress_to_fp16=False)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))  # type: ignore[arg-type]
    except CheckpointError as unusable:
        print(unusable, file=sys.stderr)
        sys.exit(UNUSABLE)
