"""Labels by example: text embeddings and those of a few pictures made into one, without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["HALF", "Matrix", "mixed"]

Matrix = npt.NDArray[np.float32]

HALF = 4  # pictures that count as much as the words; measured by benchmarks/examples.py


def mixed(texts: Matrix, pictures: Sequence[Matrix], neutral: Matrix, background: Matrix) -> Matrix:
    """Mix labels' text embeddings with the means of their example pictures.

    Args:
        texts: unit embeddings of the labels, shape [L, D].
        pictures: unit embeddings of each label's examples, L times [n, D]; n may be 0.
        neutral: unit embeddings of prompts that name nothing, shape [M, D].
        background: unit embeddings of pictures of anything, shape [B, D].

    Returns embeddings [L, D], none longer than 1. The mean of n pictures counts n / (n + 4): with many the words
    hardly matter. Pictures and texts of a CLIP lie in two cones apart (Liang et al. 2022, "Mind the gap"), so that a
    plain mean of both would be nearer to every picture than any text is, and nothing would match a neutral prompt any
    more. Hence only what tells a label's pictures from others', at the scale of what tells its text from others',
    is mixed in.
    """
    counts = np.array([len(rows) for rows in pictures])
    given = [i for i, rows in enumerate(pictures) if len(rows)]
    if not given:
        return texts
    means = np.stack([_unit(pictures[i].mean(0)) for i in given])
    text_centre = np.concatenate([texts[given], neutral]).mean(0)
    picture_centre = np.concatenate([means, background]).mean(0)
    apart, words_apart = means - picture_centre, texts[given] - text_centre
    scale = np.sqrt((words_apart**2).sum(1).mean() / max((apart**2).sum(1).mean(), 1e-12))
    share = (counts[given] / (counts[given] + HALF))[:, None]
    result = texts.copy()
    result[given] = (1 - share) * texts[given] + share * (text_centre + scale * apart)
    length = np.linalg.norm(result, axis=1, keepdims=True)
    return np.asarray(result / np.maximum(length, 1), np.float32)


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
