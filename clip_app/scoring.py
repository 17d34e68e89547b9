"""An image embedding and label embeddings to scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Scores", "score"]

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Scores of one group: confidence and similarity, shape [L] each, and the neutral share."""

    confidence: npt.NDArray[np.float64]
    similarity: npt.NDArray[np.float32]
    no_match: float


def score(image: Vector, labels: Matrix, neutral: Matrix, scale: float, *, independent: bool = False) -> Scores:
    """Score one picture against a group.

    Args:
        image: unit image embedding, shape [D].
        labels: unit label embeddings, shape [L, D].
        neutral: unit embeddings of prompts that name nothing, shape [N, D].
        scale: the checkpoint's logit scale (exp of the stored parameter).
        independent: score each label alone against the neutral prompts.

    Confidence is the softmax of scaled cosines over the labels and the neutral prompts
    (zero-shot classification of Radford et al. 2021, with the neutral prompts as further
    classes); it is not a probability of being right. ``no_match`` is the neutral prompts'
    share; for independent labels it is what they leave to the best label.
    """
    similarity = labels @ image
    logits = scale * similarity.astype(np.float64)
    background = scale * (neutral @ image).astype(np.float64)
    if independent:
        against = _log_sum_exp(background)
        confidence = 1 / (1 + np.exp(np.clip(against - logits, -700, 700)))
        return Scores(confidence, similarity, float(1 - confidence.max()))
    total = _log_sum_exp(np.concatenate([logits, background]))
    return Scores(np.exp(logits - total), similarity, float(np.exp(background - total).sum()))


def _log_sum_exp(values: npt.NDArray[np.float64]) -> float:
    peak = values.max()
    return float(peak + np.log(np.exp(values - peak).sum()))
