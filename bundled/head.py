"""From a sentence's embedding to the joint space: random features (Rahimi and Recht 2007) and ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from graph import Array, Graph

__all__ = ["Head"]

FEATURES = 2048
SEED = 0
RIDGE = 1e-3  # relative to the mean of the features' second moments
# The regression gives labels a little of "nothing in particular"; what is below this is taken as none.
NEUTRAL_FLOOR = 0.3


@dataclass(frozen=True)
class Head:
    """ReLU of random projections [384, F] with shifts [F], then a matrix [F, D]."""

    projection: Array
    shift: Array
    matrix: Array

    @classmethod
    def fit(cls, sentences: Array, rows: Array, weights: Array) -> Head:
        """Solve for the matrix: sentences [P, 384] to rows [P, D], each pair with a weight [P]."""
        random = np.random.default_rng(SEED)
        projection = random.standard_normal((sentences.shape[1], FEATURES)).astype(np.float32)
        shift = random.uniform(-0.5, 0.5, FEATURES).astype(np.float32)
        root = torch.from_numpy(np.sqrt(weights).astype(np.float32))[:, None]
        inputs = torch.relu(torch.from_numpy(sentences) @ torch.from_numpy(projection) + torch.from_numpy(shift)) * root
        moments = (inputs.T @ inputs).double()
        moments += RIDGE * moments.diagonal().mean() * torch.eye(FEATURES, dtype=torch.float64)
        products = (inputs.T @ (torch.from_numpy(rows) * root)).double()
        return cls(projection, shift, torch.linalg.solve(moments, products).float().numpy())

    def text_side(self, graph: Graph, sentences: str) -> str:
        """Add sentences [N, 384] -> unit embeddings [N, D]."""
        features = graph.add("MatMul", sentences, graph.weight(self.projection, axis=1))
        features = graph.add("Relu", graph.add("Add", features, graph.constant(self.shift)))
        row = graph.add("MatMul", features, graph.weight(self.matrix, axis=1))
        last = self.matrix.shape[1] - 1
        named = graph.add("Slice", row, graph.constant([0]), graph.constant([last]), graph.constant([1]))
        nothing = graph.add("Slice", row, graph.constant([last]), graph.constant([last + 1]), graph.constant([1]))
        nothing = graph.add("Relu", graph.add("Sub", nothing, graph.constant(NEUTRAL_FLOOR)))
        nothing = graph.add("Mul", nothing, graph.constant(1 / (1 - NEUTRAL_FLOOR)))
        return graph.unit(graph.add("Concat", named, nothing, axis=-1))
