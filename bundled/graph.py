"""A few words to write an ONNX graph by hand, with weights as float32 or as int8 with a scale per channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["OPSET", "Array", "Graph"]

OPSET = 17
IR_VERSION = 8  # the first that belongs to the opset, so that older runtimes read it too

Array = npt.NDArray[Any]


class Graph:
    """Collects nodes and weights; every method that adds a node returns the name of its output."""

    def __init__(self, name: str, *, int8: bool) -> None:
        """Start an empty graph; ``int8`` stores large weights in a byte each."""
        self._name = name
        self._int8 = int8
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declare an input; a name in place of a number leaves that dimension open."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Call ``value`` an output, float32."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add one node with one output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Array | Sequence[int] | float) -> str:
        """Keep a small array as it is: whole numbers as int64, others as float32."""
        array = np.asarray(value)
        if array.dtype != np.int8:
            array = array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32)
        name = f"constant_{len(self._weights)}"
        self._weights[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def weight(self, value: Array, *, axis: int) -> str:
        """Keep a large array: in int8 with one scale for each index of ``axis``, where asked for."""
        if not self._int8:
            return self.constant(value)
        codes, scale = quantize(value, axis)
        shape = [-1 if index == axis else 1 for index in range(value.ndim)]
        floats = self.add("Cast", self.constant(codes), to=TensorProto.FLOAT)
        return self.add("Mul", floats, self.constant(scale.reshape(shape)))

    def rows(self, value: Array, indices: str) -> str:
        """Look up rows of a table [R, C]; only the rows that are asked for are dequantised."""
        if not self._int8:
            return self.add("Gather", self.constant(value), indices)
        codes, scale = quantize(value, 0)
        row = self.add("Cast", self.add("Gather", self.constant(codes), indices), to=TensorProto.FLOAT)
        return self.add("Mul", row, self.add("Gather", self.constant(scale[:, None]), indices))

    def unit(self, value: str) -> str:
        """Make the last axis unit length."""
        norm = self.add("ReduceL2", value, axes=[-1], keepdims=1)
        return self.add("Div", value, self.add("Max", norm, self.constant(1e-12)))

    def save(self, path: Path) -> None:
        """Check the graph and write it; the same graph gives the same bytes."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, list(self._weights.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="clip_app")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def quantize(value: Array, axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 codes of the same shape, symmetric about 0, and a scale for each index of ``axis``."""
    others = tuple(index for index in range(value.ndim) if index != axis)
    peak = np.abs(value).max(axis=others, keepdims=True)
    scale = np.maximum(peak, 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(value / scale).astype(np.int8), scale.reshape(-1)
