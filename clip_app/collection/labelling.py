"""Every picture of a collection to its labels, from the embeddings alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from clip_app.collection.store import Collection, Row
from clip_app.scoring import Matrix, score_rows

__all__ = ["LabelRows", "Labelled", "label"]

AT_ONCE = 4096  # pictures: of a thousand labels 65 MB of scores


@dataclass(frozen=True, kw_only=True)
class LabelRows:
    """A group to score: unit embeddings of its labels, [L, D], and neutral prompts, [M, D]; how many labels to give."""

    name: str
    labels: tuple[str, ...]
    embeddings: Matrix
    neutral: Matrix
    most: int


@dataclass(frozen=True)
class Labelled:
    """One label of one picture; ``label`` is None where nothing of the group fits as well as naming nothing does."""

    row: Row
    group: str
    rank: int
    label: str | None
    confidence: float
    similarity: float
    no_match: float


def label(
    collection: Collection,
    groups: Sequence[LabelRows],
    scale: float,
    *,
    independent: bool = False,
    threshold: float = 0.0,
) -> Iterator[list[Labelled]]:
    """Yield each picture's labels, group after group, those of at least a confidence of ``threshold``.

    They are the scores that an analysis of the picture gives.
    """
    vectors, rows = collection.vectors(), collection.found()
    while piece := list(islice(rows, AT_ONCE)):
        images = vectors[[row.vector for row in piece if row.vector is not None]]
        parts = [_of_group(piece, images, group, scale, independent, threshold) for group in groups]
        for several in zip(*parts, strict=True):
            yield [one for labelled in several for one in labelled]


def _of_group(
    rows: Sequence[Row], images: Matrix, group: LabelRows, scale: float, independent: bool, threshold: float
) -> Iterator[list[Labelled]]:
    scores = score_rows(images, group.embeddings, group.neutral, scale, independent=independent)
    best = np.argsort(-scores.similarity, axis=1, kind="stable")[:, : group.most]
    for i, row in enumerate(rows):
        no_match = 1.0 if row.flat else round(float(scores.no_match[i]), 6)
        found = [
            Labelled(
                row,
                group.name,
                rank,
                group.labels[j],
                0.0 if row.flat else round(float(scores.confidence[i, j]), 6),
                round(float(scores.similarity[i, j]), 6),
                no_match,
            )
            for rank, j in enumerate(best[i], 1)
        ]
        kept = [one for one in found if one.confidence >= threshold]
        yield kept or [Labelled(row, group.name, 0, None, 0.0, 0.0, no_match)]
