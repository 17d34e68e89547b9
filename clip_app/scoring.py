"""An image embedding and label embeddings to scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Matrix", "RowScores", "Scores", "Vector", "score", "score_rows"]

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Scores of one group: confidence and similarity, shape [L] each, and the neutral share."""

    confidence: npt.NDArray[np.float64]
    similarity: npt.NDArray[np.float32]
    no_match: float


@dataclass(frozen=True)
class RowScores:
    """Scores of one group for many pictures: confidence and similarity, [N, L] each, and the neutral share, [N]."""

    confidence: npt.NDArray[np.float64]
    similarity: npt.NDArray[np.float32]
    no_match: npt.NDArray[np.float64]


def score(image: Vector, labels: Matrix, neutral: Matrix, scale: float, *, independent: bool = False) -> Scores:
    """Score one picture, a unit embedding of shape [D], as :func:`score_rows` does many."""
    rows = score_rows(image[None], labels, neutral, scale, independent=independent)
    return Scores(rows.confidence[0], rows.similarity[0], float(rows.no_match[0]))


def score_rows(
    images: Matrix, labels: Matrix, neutral: Matrix, scale: float, *, independent: bool = False
) -> RowScores:
    """Score pictures against a group.

    Args:
        images: unit image embeddings, shape [N, D].
        labels: unit label embeddings, shape [L, D].
        neutral: unit embeddings of prompts that name nothing, shape [M, D].
        scale: the checkpoint's logit scale (exp of the stored parameter).
        independent: score each label alone against the neutral prompts.

    Confidence is the softmax of scaled cosines over the labels and the neutral prompts
    (zero-shot classification of Radford et al. 2021, with the neutral prompts as further
    classes); it is not a probability of being right. ``no_match`` is the neutral prompts'
    share; for independent labels it is what they leave to the best label.
    """
    similarity = images @ labels.T
    logits = scale * similarity.astype(np.float64)
    background = scale * (images @ neutral.T).astype(np.float64)
    if independent:
        against = _log_sum_exp(background)[:, None]
        confidence = 1 / (1 + np.exp(np.clip(against - logits, -700, 700)))
        return RowScores(confidence, similarity, 1 - confidence.max(axis=1))
    total = _log_sum_exp(np.concatenate([logits, background], axis=1))[:, None]
    return RowScores(np.exp(logits - total), similarity, np.exp(background - total).sum(axis=1))


def _log_sum_exp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each row, shape [N]."""
    peak = values.max(axis=1)
    found: npt.NDArray[np.float64] = peak + np.log(np.exp(values - peak[:, None]).sum(axis=1))
    return found
