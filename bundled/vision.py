"""The image encoder: EfficientNet-Lite2 (Tan and Le 2019, Liu 2020) and a soft vote over its classes, as ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from graph import Array, Graph
from onnx import TensorProto
from space import Space

__all__ = ["read_classifier", "write_vision"]

# EfficientNet-Lite's stages: how many blocks and the stride of the first, as lite2 scales them (depth 1.2).
STAGES = ((1, 1), (3, 2), (3, 2), (4, 2), (4, 1), (5, 2), (1, 1))
BATCH_NORM_EPSILON = 1e-3
RELU6 = (0.0, 6.0)

Weights = Mapping[str, Array]


def read_classifier(path: Path) -> dict[str, Array]:
    """Read the published weights; nothing in the file is executed."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def write_vision(path: Path, weights: Weights, space: Space, *, int8: bool) -> None:
    """Write pixel_values [N, 3, H, W] -> image_embeds [N, D], unit, and class_maps [N, C, h, w].

    ``class_maps`` is the classifier applied at each place of the last feature map, before
    its mean is taken: the maps' mean is the classifier's logits (class activation mapping,
    Zhou et al. 2016).
    """
    graph = Graph("vision", int8=int8)
    pixels = graph.input("pixel_values", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    features = _trunk(graph, weights, pixels)
    matrix, bias = weights["_fc.weight"], weights["_fc.bias"]
    maps = graph.add("Conv", features, graph.weight(matrix[:, :, None, None], axis=0), graph.constant(bias))
    graph.output(maps, "class_maps", ["batch", len(matrix), "map_height", "map_width"])
    logits = graph.add("ReduceMean", maps, axes=[2, 3], keepdims=0)
    graph.output(space.image_side(graph, logits), "image_embeds", ["batch", space.dimension])
    graph.save(path)


def _trunk(graph: Graph, weights: Weights, pixels: str) -> str:
    value = _conv(graph, weights, pixels, "_conv_stem", "_bn0", stride=2, relu=True)
    index = 0
    for count, stride in STAGES:
        for position in range(count):
            # The first block of a stage changes the width; the others add to what they were given.
            first = position == 0
            value = _block(graph, weights, value, f"_blocks.{index}", stride if first else 1, residual=not first)
            index += 1
    return _conv(graph, weights, value, "_conv_head", "_bn1", relu=True)


def _block(graph: Graph, weights: Weights, value: str, name: str, stride: int, *, residual: bool) -> str:
    """An inverted residual (MobileNetV2), without squeeze and excitation."""
    result = value
    if f"{name}._expand_conv.weight" in weights:
        result = _conv(graph, weights, result, f"{name}._expand_conv", f"{name}._bn0", relu=True)
    result = _conv(graph, weights, result, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, relu=True)
    result = _conv(graph, weights, result, f"{name}._project_conv", f"{name}._bn2")
    return graph.add("Add", value, result) if residual else result


def _conv(
    graph: Graph, weights: Weights, value: str, conv: str, norm: str, *, stride: int = 1, relu: bool = False
) -> str:
    """A convolution with the batch normalisation folded into it, padded as TensorFlow pads (any input size)."""
    kernel = weights[f"{conv}.weight"].astype(np.float64)
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + BATCH_NORM_EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    # Only a depthwise kernel has a single input channel.
    groups = len(kernel) if kernel.shape[1] == 1 else 1
    kernel = (kernel * gain[:, None, None, None]).astype(np.float32)
    result = graph.add(
        "Conv",
        value,
        graph.weight(kernel, axis=0),
        graph.constant(bias),
        auto_pad="SAME_UPPER",
        strides=[stride, stride],
        group=groups,
        kernel_shape=list(kernel.shape[2:]),
    )
    if not relu:
        return result
    low, high = map(graph.constant, RELU6)
    return graph.add("Clip", result, low, high)
