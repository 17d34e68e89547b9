"""onnxruntime: serves ONNX checkpoints where OpenVINO has no wheel or does not know an operation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from clip_app.checkpoint import variant_of
from clip_app.engines import Choice, Device, EngineFinding, Precision
from clip_app.engines.onnx_pair import PairEncoders, Port, describe_pair, open_pair, unusable_file
from clip_app.source import Source
from clip_app.tokenizer import Tokenizer

__all__ = ["findings", "has_device", "is_prepared", "open_encoders", "prepare"]

TYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
ERRORS_ONLY = 3
UNKNOWN_OPERATIONS = re.compile(r"(?:No Op registered for|error:) ?(\S+?)(?:\(-?\d+\))? (?:with|is not a registered)")


class _OnnxFile:
    """:class:`~clip_app.engines.onnx_pair.Session` of onnxruntime."""

    precision: Precision = "float32"

    def __init__(self, path: Path, threads: int | None) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        if threads:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [_port(node) for node in self._session.get_inputs()]
        self.outputs = [_port(node) for node in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Any], output: str) -> Any:
        (found,) = self._session.run([output], dict(feeds))
        return found


def has_device(device: Device) -> bool:
    """It is used for the CPU only."""
    return device == "cpu"


def is_prepared(source: Source, precision: Precision) -> bool:
    """It serves the files as they are."""
    return True


def prepare(source: Source, precision: Precision, photographs: Path | None) -> None:
    """Nothing: it serves the files as they are."""


def open_encoders(source: Source, choice: Choice, threads: int | None) -> tuple[PairEncoders, Tokenizer]:
    """Open a pair of ONNX files.

    Raises:
        CheckpointError: a file is missing, damaged or of something else.
    """

    def open_file(path: Path) -> _OnnxFile:
        try:
            return _OnnxFile(path, threads)
        except Exception as error:  # a dozen classes with no other common one
            unknown = UNKNOWN_OPERATIONS.search(str(error))
            raise unusable_file(path.name, "onnxruntime", unknown[1] if unknown else None) from error

    return open_pair(source.folder, variant_of(choice.precision), open_file)


def findings(source: Source | None, choice: Choice) -> Iterator[EngineFinding]:
    """Say which onnxruntime would run, and what."""
    yield EngineFinding("ok", f"onnxruntime {version('onnxruntime')} on cpu, {choice.precision}")
    if source is not None:
        yield EngineFinding("ok", f"ONNX files as they are: {describe_pair(source.folder, choice.precision)}")


def _port(node: Any) -> Port:
    # A dimension is a number, a name or None; an output of unknown rank has no dimensions at all.
    sizes = tuple(size if isinstance(size, int) else None for size in node.shape) if node.shape else None
    return Port(node.name, sizes, TYPES.get(node.type, np.float32))
