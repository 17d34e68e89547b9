"""The two encoders of a folder, run as the app runs them: OpenVINO, two threads, float32 unless asked otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import tokenizers
from PIL import Image

from clip_app.labels import LabelGroup
from clip_app.preprocessing import Preprocessing

__all__ = ["THREADS", "Encoders", "compile_model", "embed"]

THREADS = 2
TEXT_BATCH, IMAGE_BATCH = 64, 8

Rows = npt.NDArray[np.float32]


def compile_model(path: Path, *, precision: str | None = "f32") -> Any:
    """Load an ONNX file; ``precision`` None leaves the choice to the processor."""
    hints = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(
        str(path), "CPU", hints | ({"INFERENCE_PRECISION_HINT": precision} if precision else {})
    )


def embed(model: Any, tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> Rows:
    """Texts to the rows of a text encoder, shape [N, D]; texts of like length go together."""
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(tokens)), key=lambda index: (len(tokens[index]), index))
    rows: list[Rows | None] = [None] * len(tokens)
    for start in range(0, len(order), TEXT_BATCH):
        chunk = order[start : start + TEXT_BATCH]
        shape = len(chunk), max(len(tokens[index]) for index in chunk)
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, index in enumerate(chunk):
            ids[row, : len(tokens[index])] = tokens[index]
            mask[row, : len(tokens[index])] = 1
        for index, result in zip(chunk, model([ids, mask])[0], strict=True):
            rows[index] = result.copy()
    return np.stack([row for row in rows if row is not None])


class Encoders:
    """A folder that the build wrote: pictures and label groups to unit embeddings."""

    def __init__(self, folder: Path) -> None:
        """Load both ONNX files of ``folder`` and what goes with them."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.scale = float(config["logit_scale"])
        self.paths = folder / config["vision_file"], folder / config["text_file"]
        self.preprocessing = Preprocessing.from_config(
            json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        )
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._vision, self._text = map(compile_model, self.paths)

    def pixels(self, paths: Sequence[Path]) -> Rows:
        """Read pictures, shape [N, 3, H, W]."""
        return np.stack([self.preprocessing(Image.open(path).convert("RGB")) for path in paths])

    def images(self, paths: Sequence[Path]) -> Rows:
        """Unit embeddings of pictures, shape [N, D]."""
        chunks = [paths[start : start + IMAGE_BATCH] for start in range(0, len(paths), IMAGE_BATCH)]
        return np.concatenate([self._vision(self.pixels(chunk))["image_embeds"].copy() for chunk in chunks])

    def maps(self, pixels: Rows) -> Rows:
        """The class maps of pixels, shape [N, C, h, w]."""
        result: Rows = self._vision(pixels)["class_maps"]
        return result

    def texts(self, texts: Sequence[str]) -> Rows:
        """Unit embeddings of texts, shape [N, D]."""
        return embed(self._text, self.tokenizer, texts)

    def group(self, group: LabelGroup) -> tuple[Rows, Rows]:
        """A group's labels [L, D] and neutral prompts [N, D], as the label bank makes them."""
        count = len(group.templates)
        rows = self.texts([template.replace("{}", label) for label in group.labels for template in group.templates])
        means = rows.reshape(len(group.labels), count, -1).mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True), self.texts(group.neutral)
