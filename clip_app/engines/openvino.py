"""OpenVINO: the fastest engine on a CPU; it imports neither torch nor transformers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino

from clip_app.cache import explain_file_error, hash_file
from clip_app.engines import Choice, Device, Embeddings, EngineFinding, Precision
from clip_app.engines.conversion import (
    IMAGE,
    TEXT,
    TOKENIZER,
    ConversionStore,
    Converted,
    describe_conversion,
    variant_of,
)
from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.machine import release_mapped
from clip_app.preprocessing import Pixels
from clip_app.source import Source, examples_folder
from clip_app.tokenizer import Tokenizer, Tokens

__all__ = [
    "OpenVINOEncoders",
    "conversions",
    "findings",
    "has_device",
    "is_prepared",
    "open_converted",
    "open_encoders",
    "prepare",
]

logger = logging.getLogger("clip_app")

CONVERSION_SECONDS = 600.0


class OpenVINOEncoders:
    """:class:`~clip_app.engines.Encoders` around a converted checkpoint. Thread-safe."""

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
        model = core.read_model(converted.folder / name)
        try:
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise EngineUnavailable(_not_here(precision)) from error
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


def has_device(device: Device) -> bool:
    """It is used for the CPU only."""
    return device == "cpu"


def conversions(source: Source) -> ConversionStore:
    """What was converted from a checkpoint."""
    return ConversionStore(source.artifacts / "openvino" / source.revision)


def is_prepared(source: Source, precision: Precision) -> bool:
    """Say whether the checkpoint was converted already."""
    return conversions(source).find(variant_of(precision)) is not None


def prepare(source: Source, precision: Precision, photographs: Path | None) -> str:
    """Convert a checkpoint, int8 calibrated on a folder of photographs; one process at a time.

    Raises:
        CheckpointError: it cannot be converted, or the result cannot be kept.
        HubError: the cache cannot be written, is full, or somebody else holds its lock.
    """
    store, variant = conversions(source), variant_of(precision)
    if (found := store.find(variant)) is None:
        try:
            found = _convert(source, precision, photographs or examples_folder())
        except OSError as error:
            if (failure := explain_file_error(error)) is not None:
                raise failure from error
            reason = error.strerror or type(error).__name__
            text = f"The converted model cannot be kept: {reason}. Check the folder of HF_HOME."
            raise CheckpointError(text) from error
    return f"converted for OpenVINO: {describe_conversion(found)}"


def _convert(source: Source, precision: Precision, photographs: Path) -> Converted:
    store, variant = conversions(source), variant_of(precision)
    if source.snapshot is None:
        return store.make(source.folder, variant, photographs)
    cache = source.snapshot.cache
    with cache.lock(time.monotonic() + CONVERSION_SECONDS):
        converted = store.find(variant) or store.make(source.folder, variant, photographs)
        cache.share()
    return converted


def open_encoders(source: Source, choice: Choice, threads: int | None) -> tuple[OpenVINOEncoders, Tokenizer]:
    """Map what was converted and compile it for this machine.

    Raises:
        CheckpointError: it was not converted, or a file is damaged.
        EngineUnavailable: this processor cannot compute in the precision.
    """
    converted = conversions(source).find(variant_of(choice.precision))
    if converted is None:
        raise CheckpointError("The model is not converted for OpenVINO. Run clip-app prefetch.")
    return open_converted(converted, precision=choice.precision, threads=threads)


def open_converted(
    converted: Converted, *, precision: Precision, threads: int | None = None
) -> tuple[OpenVINOEncoders, Tokenizer]:
    """Map a conversion and compile it for this machine.

    Raises:
        CheckpointError: a file is damaged.
        EngineUnavailable: this processor cannot compute in the precision.
    """
    try:
        tokenizer = Tokenizer.read(
            converted.folder / TOKENIZER,
            context=converted.context,
            padding_id=converted.padding_id,
            fill_context=converted.fill_context,
        )
        encoders = OpenVINOEncoders(converted, precision=precision, threads=threads)
    except EngineUnavailable:
        raise
    except Exception as error:  # OpenVINO raises RuntimeError, tokenizers Exception
        raise CheckpointError(
            f"The converted model cannot be read: {type(error).__name__}. Run clip-app prefetch again."
        ) from error
    if precision == "bfloat16" and encoders.precision != precision:
        logger.warning("this processor does not compute in bfloat16: OpenVINO computes in %s", encoders.precision)
    return encoders, tokenizer


def findings(source: Source | None, choice: Choice) -> Iterator[EngineFinding]:
    """Say which OpenVINO would run, and whether what was converted is whole."""
    yield EngineFinding("ok", f"openvino {version('openvino')} on cpu, {choice.precision}")
    if source is None:
        return
    converted = conversions(source).find(variant_of(choice.precision))
    if converted is None:
        yield EngineFinding("warn", "the model is not converted yet: a start does it", "Run clip-app prefetch.")
        return
    wrong = [name for name, pin in converted.files.items() if hash_file(converted.folder / name) != pin]
    if wrong:
        text = f"{', '.join(wrong)} of the converted model: not the bytes that were written"
        fix = f"Remove the folder {converted.folder}, then run clip-app prefetch."
        yield EngineFinding("bad", text, fix, integrity=True)
    else:
        yield EngineFinding("ok", f"converted: {describe_conversion(converted)}, hashed again")


def _not_here(precision: Precision) -> str:
    return f"OpenVINO cannot run {precision} on this processor. Set CLIP_APP_PRECISION=auto or float32."
