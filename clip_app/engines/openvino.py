"""OpenVINO: the fastest engine on a CPU; it imports neither torch nor transformers."""

from __future__ import annotations

import threading
from typing import Any, Literal

import numpy as np
import openvino

from clip_app.engines import Embeddings, Precision
from clip_app.engines.conversion import IMAGE, TEXT, TOKENIZER, Converted
from clip_app.errors import CheckpointError
from clip_app.machine import release_mapped
from clip_app.preprocessing import Pixels
from clip_app.tokenizer import Tokenizer, Tokens

__all__ = ["OpenVINOEngine", "open_converted"]


class OpenVINOEngine:
    """An :class:`~clip_app.engines.Engine` around a converted checkpoint. Thread-safe."""

    name: Literal["openvino"] = "openvino"
    device = "cpu"

    def __init__(self, converted: Converted, *, precision: Precision, threads: int | None) -> None:
        self.logit_scale = converted.logit_scale
        self._vocabulary = converted.vocabulary
        self._core = openvino.Core()
        self._image = _Encoder(self._core, converted, IMAGE, precision, threads)
        self._text = _Encoder(self._core, converted, TEXT, precision, threads)
        self.precision: Precision = "int8" if converted.variant == "int8" else self._image.precision

    def encode_images(self, pixels: Pixels) -> Embeddings:
        return self._image(pixels)

    def encode_tokens(self, tokens: Tokens) -> Embeddings:
        # OpenVINO reads past the end of the token embeddings without a word.
        if tokens.max() >= self._vocabulary:
            raise IndexError("the tokenizer has a token that the text encoder does not know")
        return self._text(tokens)


class _Encoder:
    """One converted encoder, compiled for this machine; one call at a time, with all threads."""

    def __init__(self, core: Any, converted: Converted, name: str, precision: Precision, threads: int | None) -> None:
        # Not pinned: two pods of a node would be pinned to the same processors.
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(core.read_model(converted.folder / name), "CPU", options)
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision: Literal["float32", "bfloat16"] = "bfloat16" if hint == openvino.Type.bf16 else "float32"
        self._weights = (converted.folder / name).with_suffix(".bin")
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._used = False

    def __call__(self, batch: Any) -> Embeddings:
        with self._lock:
            embeddings: Embeddings = np.array(self._request.infer([batch], share_inputs=True)[0])
            if not self._used:
                # The first inference lays the weights out anew; the file's own are not read again.
                self._used = True
                release_mapped(self._weights)
        return embeddings


def open_converted(
    converted: Converted, *, precision: Precision, threads: int | None = None
) -> tuple[OpenVINOEngine, Tokenizer]:
    """Map a converted checkpoint and compile it for this machine.

    Raises:
        CheckpointError: a file is damaged.
    """
    try:
        tokenizer = Tokenizer.read(
            converted.folder / TOKENIZER,
            context=converted.context,
            padding_id=converted.padding_id,
            fill_context=converted.fill_context,
        )
        return OpenVINOEngine(converted, precision=precision, threads=threads), tokenizer
    except Exception as error:  # OpenVINO raises RuntimeError, tokenizers Exception
        raise CheckpointError(
            f"The converted model cannot be read: {type(error).__name__}. Run clip-app prefetch again."
        ) from error
