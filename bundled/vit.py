"""CLIP's ViT-B/32 image encoder with random weights: what the bundled model's time is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graph import Graph
from onnx import TensorProto

__all__ = ["IMAGE_SIZE", "write_vit"]

IMAGE_SIZE, PATCH, WIDTH, LAYERS, HEADS, OUT = 224, 32, 768, 12, 12, 512
PLACES = (IMAGE_SIZE // PATCH) ** 2 + 1


class _Vit:
    def __init__(self) -> None:
        self.graph = Graph("vit", int8=False)
        self._random = np.random.default_rng(0)

    def weights(self, *shape: int) -> str:
        return self.graph.constant(self._random.standard_normal(shape).astype(np.float32) * np.float32(0.02))

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        return self.graph.add(
            "Add", self.graph.add("MatMul", value, self.weights(inputs, outputs)), self.weights(outputs)
        )

    def norm(self, value: str) -> str:
        ones, zeros = self.graph.constant(np.ones(WIDTH)), self.graph.constant(np.zeros(WIDTH))
        return self.graph.add("LayerNormalization", value, ones, zeros, axis=-1, epsilon=1e-5)

    def heads(self, value: str, order: list[int]) -> str:
        split = self.graph.add("Reshape", value, self.graph.constant([0, 0, HEADS, WIDTH // HEADS]))
        return self.graph.add("Transpose", split, perm=order)

    def layer(self, value: str) -> str:
        add = self.graph.add
        normed = self.norm(value)
        query, key, values = (
            self.heads(self.linear(normed, WIDTH, WIDTH), order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = add("Mul", add("MatMul", query, key), self.graph.constant((WIDTH / HEADS) ** -0.5))
        mixed = add("Transpose", add("MatMul", add("Softmax", scores, axis=-1), values), perm=[0, 2, 1, 3])
        mixed = add("Reshape", mixed, self.graph.constant([0, 0, WIDTH]))
        value = add("Add", value, self.linear(mixed, WIDTH, WIDTH))
        hidden = self.linear(self.norm(value), WIDTH, 4 * WIDTH)
        gate = add("Sigmoid", add("Mul", hidden, self.graph.constant(1.702)))  # CLIP's quick GELU
        return add("Add", value, self.linear(add("Mul", hidden, gate), 4 * WIDTH, WIDTH))


def write_vit(path: Path) -> None:
    """Write pixel_values [1, 3, 224, 224] -> image_embeds [1, 512]."""
    vit = _Vit()
    graph = vit.graph
    pixels = graph.input("pixel_values", TensorProto.FLOAT, [1, 3, IMAGE_SIZE, IMAGE_SIZE])
    patches = graph.add("Conv", pixels, vit.weights(WIDTH, 3, PATCH, PATCH), strides=[PATCH, PATCH])
    patches = graph.add("Transpose", graph.add("Reshape", patches, graph.constant([1, WIDTH, -1])), perm=[0, 2, 1])
    value = graph.add("Concat", vit.weights(1, 1, WIDTH), patches, axis=1)
    value = vit.norm(graph.add("Add", value, vit.weights(1, PLACES, WIDTH)))
    for _ in range(LAYERS):
        value = vit.layer(value)
    first = graph.add("Gather", value, graph.constant(0), axis=1)
    graph.output(graph.add("MatMul", vit.norm(first), vit.weights(WIDTH, OUT)), "image_embeds", [1, OUT])
    graph.save(path)
