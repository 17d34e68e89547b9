"""OpenVINO: the fastest engine on a CPU; it imports neither torch nor transformers."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import openvino

from clip_app.checkpoint import find_pair, list_files, variant_of
from clip_app.engines import Choice, Device, Embeddings, Encoders, EngineFinding, Precision
from clip_app.engines.conversion import (
    IMAGE,
    TEXT,
    TOKENIZER,
    Converted,
    conversions,
    describe_conversion,
)
from clip_app.engines.onnx_pair import Port, describe_pair, open_pair, unusable_file
from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.hub.files import changed
from clip_app.hub.volume import explain_file_error
from clip_app.machine import release_mapped
from clip_app.preprocessing import Pixels
from clip_app.source import Source, examples_folder
from clip_app.tokenizer import Tokenizer, Tokens

__all__ = [
    "OpenVINOEncoders",
    "findings",
    "has_device",
    "is_prepared",
    "open_converted",
    "open_encoders",
    "prepare",
]

logger = logging.getLogger("clip_app")

CONVERSION_SECONDS = 600.0
UNKNOWN_OPERATIONS = re.compile(r"No conversion rule found for operations: (.+)")


class OpenVINOEncoders:
    """:class:`~clip_app.engines.Encoders` around a converted checkpoint. Thread-safe."""

    device = "cpu"
    class_maps = None

    def __init__(self, converted: Converted, *, precision: Precision, threads: int | None) -> None:
        self.logit_scale = converted.logit_scale
        self._vocabulary = converted.vocabulary
        core = openvino.Core()
        self._image, self._text = (
            _Network(core, converted.folder / name, precision, threads) for name in (IMAGE, TEXT)
        )
        self.precision: Precision = "int8" if converted.variant == "int8" else self._image.precision

    def encode_images(self, pixels: Pixels) -> Embeddings:
        return self._image.run([pixels], 0)

    def encode_tokens(self, tokens: Tokens) -> Embeddings:
        # OpenVINO reads past the end of the token embeddings without a word.
        if tokens.ids.max() >= self._vocabulary:
            raise IndexError("the tokenizer has a token that the text encoder does not know")
        return self._text.run([tokens.ids], 0)


class _Network:
    """One file, compiled for this machine; one call at a time, with all threads."""

    def __init__(self, core: Any, path: Path, precision: Precision, threads: int | None) -> None:
        # Not pinned: two pods of a node would be pinned to the same processors.
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "ENABLE_CPU_PINNING": False,
        }
        if precision == "float32":
            # Else what is multiplied by 8-bit weights is rounded to 8 bits as well.
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self.model = core.read_model(path)
        try:
            compiled = core.compile_model(self.model, "CPU", options)
        except RuntimeError as error:
            raise EngineUnavailable(_not_here(precision)) from error
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision: Literal["float32", "bfloat16"] = "bfloat16" if hint == openvino.Type.bf16 else "float32"
        self._mapped = path.with_suffix(".bin")  # of a converted file; an ONNX file's weights are read
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._used = False

    def run(self, inputs: Any, output: int | str) -> npt.NDArray[Any]:
        """Return one output, copied: the next call writes over it."""
        with self._lock:
            found = np.array(self._request.infer(inputs, share_inputs=True)[output])
            if not self._used:
                # The first inference lays the weights out anew; the file's own are not read again.
                self._used = True
                release_mapped(self._mapped)
        return found


class _OnnxFile:
    """:class:`~clip_app.engines.onnx_pair.Session` of OpenVINO."""

    def __init__(self, network: _Network) -> None:
        self.inputs = [_port(node) for node in network.model.inputs]
        self.outputs = [_port(node) for node in network.model.outputs]
        self.precision = network.precision
        self._network = network

    def run(self, feeds: Mapping[str, Any], output: str) -> Any:
        return self._network.run(dict(feeds), output)


def _port(node: Any) -> Port:
    shape = node.get_partial_shape()
    sizes = tuple(size.get_length() if size.is_static else None for size in shape) if shape.rank.is_static else None
    kind = node.get_element_type()
    return Port(node.get_any_name(), sizes, np.float32 if kind == openvino.Type.bf16 else kind.to_dtype())


def has_device(device: Device) -> bool:
    """It is used for the CPU only."""
    return device == "cpu"


def _serves_onnx(source: Source, precision: Precision) -> bool:
    """A checkpoint in both formats is served as it is, where it has the files for the precision."""
    pair = find_pair(list_files(source.folder), variant_of(precision))
    return pair is not None or not source.offers("safetensors")


def is_prepared(source: Source, precision: Precision) -> bool:
    """Say whether the checkpoint was converted already, or needs not be."""
    return _serves_onnx(source, precision) or conversions(source).serves(variant_of(precision))


def prepare(source: Source, precision: Precision, photographs: Path | None) -> str | None:
    """Convert a checkpoint, int8 calibrated on a folder of photographs; one process at a time.

    A pair of ONNX files is served as it is.

    Raises:
        CheckpointError: it cannot be converted, or the result cannot be kept.
        HubError: the cache cannot be written, is full, or somebody else holds its lock.
    """
    if _serves_onnx(source, precision):
        return None
    store, variant = conversions(source), variant_of(precision)
    found = store.find(variant)
    if found is None or (photographs is not None and not store.serves(variant)):
        try:
            found = _convert(source, precision, photographs or examples_folder())
        except OSError as error:
            if (failure := explain_file_error(error)) is not None:
                raise failure from error
            reason = error.strerror or type(error).__name__
            text = f"The converted model cannot be kept: {reason}. Check the folder of HF_HOME."
            raise CheckpointError(text) from error
    _check_agreement(found)
    return f"converted for OpenVINO: {describe_conversion(found)}"


def _check_agreement(found: Converted) -> None:
    if found.agreement is not None and not found.agreement.enough:
        raise CheckpointError(
            f"int8 agrees too little with the model to serve: {found.agreement.told()}. Give a few hundred photographs "
            "of your own kind with --photographs FOLDER, or set CLIP_APP_PRECISION=auto."
        )


def _convert(source: Source, precision: Precision, photographs: Path) -> Converted:
    store, variant = conversions(source), variant_of(precision)
    if source.snapshot is None:
        return store.make(source.folder, variant, photographs)
    cache = source.snapshot.cache
    with cache.lock(time.monotonic() + CONVERSION_SECONDS):
        serves = store.find(variant) if store.serves(variant) else None  # another process was faster
        converted = serves or store.make(source.folder, variant, photographs)
        cache.share()
    return converted


def open_encoders(source: Source, choice: Choice, threads: int | None) -> tuple[Encoders, Tokenizer]:
    """Open a pair of ONNX files, or map what was converted, and compile it for this machine.

    Raises:
        CheckpointError: it was not converted, or a file is damaged.
        EngineUnavailable: this processor cannot compute in the precision.
    """
    if _serves_onnx(source, choice.precision):
        return _open_onnx(source.folder, choice.precision, threads)
    converted = conversions(source).find(variant_of(choice.precision))
    if converted is None:
        raise CheckpointError("The model is not converted for OpenVINO. Run clip-app prefetch.")
    _check_agreement(converted)
    return open_converted(converted, precision=choice.precision, threads=threads)


def _open_onnx(folder: Path, precision: Precision, threads: int | None) -> tuple[Encoders, Tokenizer]:
    core = openvino.Core()

    def open_file(path: Path) -> _OnnxFile:
        try:
            network = _Network(core, path, precision, threads)
        except RuntimeError as error:  # the one kind that OpenVINO raises
            unknown = UNKNOWN_OPERATIONS.search(str(error))
            raise unusable_file(path.name, "OpenVINO", unknown[1] if unknown else None) from error
        return _OnnxFile(network)

    encoders, tokenizer = open_pair(folder, variant_of(precision), open_file)
    _warn_of_float32(precision, encoders.precision)
    return encoders, tokenizer


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
            padding=converted.padding,
            lower_case=converted.lower_case,
        )
        encoders = OpenVINOEncoders(converted, precision=precision, threads=threads)
    except EngineUnavailable:
        raise
    except Exception as error:  # OpenVINO raises RuntimeError, tokenizers Exception
        raise CheckpointError(
            f"The converted model cannot be read: {type(error).__name__}. Run clip-app prefetch again."
        ) from error
    _warn_of_float32(precision, encoders.precision)
    return encoders, tokenizer


def _warn_of_float32(asked: Precision, computed: Precision) -> None:
    if asked == "bfloat16" and computed == "float32":
        logger.warning("this processor does not compute in bfloat16: OpenVINO computes in float32")


def findings(source: Source | None, choice: Choice) -> Iterator[EngineFinding]:
    """Say which OpenVINO would run, and whether what was converted is whole."""
    yield EngineFinding("ok", f"openvino {version('openvino')} on cpu, {choice.precision}")
    if source is None:
        return
    if _serves_onnx(source, choice.precision):
        yield EngineFinding("ok", f"ONNX files as they are: {describe_pair(source.folder, choice.precision)}")
        return
    converted = conversions(source).find(variant_of(choice.precision))
    if converted is None:
        yield EngineFinding("warn", "the model is not converted yet: a start does it", "Run clip-app prefetch.")
        return
    wrong = changed(converted.folder, converted.files)
    if wrong:
        text = f"{', '.join(wrong)} of the converted model: not the bytes that were written"
        fix = f"Remove the folder {converted.folder}, then run clip-app prefetch."
        yield EngineFinding("bad", text, fix, integrity=True)
    elif converted.agreement is not None and not converted.agreement.enough:
        text = f"int8 is not accepted: {converted.agreement.told()}"
        yield EngineFinding("bad", text, "Run clip-app prefetch --photographs FOLDER, or CLIP_APP_PRECISION=auto.")
    else:
        yield EngineFinding("ok", f"converted: {describe_conversion(converted)}, hashed again")


def _not_here(precision: Precision) -> str:
    return f"OpenVINO cannot run {precision} on this processor. Set CLIP_APP_PRECISION=auto or float32."
