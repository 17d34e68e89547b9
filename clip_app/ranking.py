"""Embeddings of many pictures: the best for a query, where relevance ends, and which are nearly the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALIKE",
    "NEARLY_THE_SAME",
    "Pairs",
    "Ranking",
    "fits_text",
    "near_duplicates",
    "rank_by_picture",
    "rank_by_text",
]

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]

# Cosines of pictures, measured with the bundled model by benchmarks/similar.py (docs/search.md has the table).
# They belong to a model: in the joint space of a large CLIP, pictures that have nothing in common lie nearer.
ALIKE = 0.6
NEARLY_THE_SAME = 0.9

BLOCK = 256  # rows that are compared at once: with 10,000 pictures 10 MB of cosines
MOST_PAIRS = 10_000


@dataclass(frozen=True)
class Ranking:
    """Pictures by a query: ``order`` [N] are their indices, the best first, equal ones as they came.

    ``scores`` [N] are the cosines to the query and ``relevant`` [N] says where relevance has not ended, both
    by picture and not by rank.
    """

    order: npt.NDArray[np.intp]
    scores: Vector
    relevant: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Pictures in pairs: ``indices`` [P, 2], the lower one first, with their ``cosines`` [P], the nearest first."""

    indices: npt.NDArray[np.intp]
    cosines: Vector


def rank_by_text(query: Vector, pictures: Matrix, neutral: Matrix, scale: float) -> Ranking:
    """Rank pictures by a text.

    Args:
        query: unit embedding of the text, shape [D].
        pictures: unit embeddings, shape [N, D].
        neutral: unit embeddings of prompts that name nothing ("a photo."), shape [M, D].
        scale: the checkpoint's logit scale.

    A picture is relevant where the text's softmax share against the neutral prompts exceeds one half, which is
    where its confidence as an independent label would: a rule that needs no cosine of its own for each model.
    """
    return _ranked(pictures @ query, fits_text(query, pictures, neutral, scale))


def fits_text(query: Vector, pictures: Matrix, neutral: Matrix, scale: float) -> npt.NDArray[np.bool_]:
    """Say of pictures whether a text fits them, shape [N]; the arguments are those of :func:`rank_by_text`."""
    background = scale * (pictures @ neutral.T).astype(np.float64)
    peak = background.max(axis=1)
    against = peak + np.log(np.exp(background - peak[:, None]).sum(axis=1))
    fits: npt.NDArray[np.bool_] = scale * (pictures @ query).astype(np.float64) > against
    return fits


def rank_by_picture(query: Vector, pictures: Matrix, *, alike: float = ALIKE) -> Ranking:
    """Rank pictures, unit embeddings of shape [N, D], by another one of shape [D].

    One is relevant where its cosine is at least ``alike``.
    """
    scores = pictures @ query
    return _ranked(scores, scores >= alike)


def near_duplicates(pictures: Matrix, *, threshold: float = NEARLY_THE_SAME, most: int = MOST_PAIRS) -> Pairs:
    """Find the pairs of pictures whose cosine is at least ``threshold``, of all at most the ``most`` nearest.

    ``pictures`` are unit embeddings, shape [N, D]. They are compared a block of rows at a time, so that
    memory grows with N and not with its square.
    """
    found = Pairs(np.empty((0, 2), np.intp), np.empty(0, np.float32))
    for start in range(0, len(pictures), BLOCK):
        cosines = pictures[start : start + BLOCK] @ pictures[start:].T
        rows, columns = np.nonzero(np.triu(cosines >= threshold, 1))
        indices = np.concatenate([found.indices, np.stack([rows, columns], axis=1) + start])
        found = _nearest(indices, np.concatenate([found.cosines, cosines[rows, columns]]), most)
    return found


def _nearest(indices: npt.NDArray[np.intp], cosines: Vector, most: int) -> Pairs:
    order = np.argsort(-cosines, kind="stable")[:most]
    return Pairs(indices[order], cosines[order])


def _ranked(scores: Vector, relevant: npt.NDArray[np.bool_]) -> Ranking:
    return Ranking(np.argsort(-scores, kind="stable"), scores, relevant)
