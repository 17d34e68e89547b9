"""A question to a collection: the best pictures, where relevance ends, and which are nearly the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clip_app.analyzer import TextQuery
from clip_app.collection.store import Collection, Row
from clip_app.ranking import ALIKE, Matrix, Vector, near_duplicates

__all__ = ["Group", "Hit", "Question", "duplicate_groups", "search"]

AT_ONCE = 1 << 17  # rows that are compared at once: what is in memory of a file that may be larger
MOST_PAIRS = 1_000_000

Group = list[tuple[Row, float]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What pictures should show and be like: ``text``, a ``picture``'s unit embedding [D], or both.

    ``without`` are unit embeddings of texts that they should not show, [M, D].
    """

    text: TextQuery | None = None
    picture: Vector | None = None
    without: Matrix | None = None

    @property
    def direction(self) -> Vector:
        """The unit vector that pictures are ranked by, [D]: the sum of what they should be, less what not."""
        wanted = [self.text.embedding] if self.text is not None else []
        total = np.sum([*wanted, self.picture] if self.picture is not None else wanted, axis=0)
        if self.without is not None:
            total = total - self.without.sum(axis=0)
        direction: Vector = (total / max(float(np.linalg.norm(total)), 1e-6)).astype(np.float32)
        return direction

    def relevant(self, pictures: Matrix) -> npt.NDArray[np.bool_]:
        """Say of pictures, [K, D], whether the question fits them, [K].

        A text does where its softmax share exceeds one half against the neutral prompts and what is not to be seen;
        a picture where the cosine is that of pictures that are alike.
        """
        fits = np.ones(len(pictures), bool)
        if self.picture is not None:
            fits &= pictures @ self.picture >= ALIKE
        if self.text is not None:
            fits &= self.text.against(self.without).fits(pictures)
        return fits


@dataclass(frozen=True)
class Hit:
    """A picture by a question; ``score`` is the cosine to the question's direction."""

    row: Row
    score: float
    relevant: bool


def search(collection: Collection, question: Question, *, most: int, above: float | None = None) -> list[Hit]:
    """Return the best pictures, at most so many: those that are relevant, or all of a score ``above``.

    Every embedding is compared, exactly: the cost is that of reading their file once.
    """
    vectors, direction = collection.vectors(), question.direction
    scores = np.concatenate([np.empty(0, np.float32), *(part @ direction for part in _parts(vectors))])
    scores[collection.hidden()] = -np.inf
    best = _best(scores, most)
    relevant = question.relevant(vectors[best]) if len(best) else np.empty(0, bool)
    hits = [
        Hit(row, round(float(scores[i]), 6), bool(fits) and not row.flat)
        for i, fits, row in zip(best, relevant, collection.at(best.tolist()), strict=True)
    ]
    return [hit for hit in hits if (hit.relevant if above is None else hit.score >= above)]


def duplicate_groups(collection: Collection, *, above: float) -> list[Group]:
    """Return groups of pictures that are nearly the same, each with its cosine to the first, the largest.

    Two belong together where their cosine is at least ``above``, or through others that do.
    """
    vectors, hidden = collection.vectors(), set(collection.hidden())
    places = np.array([i for i in range(len(vectors)) if i not in hidden], np.intp)
    shown = vectors if not hidden else vectors[places]
    pairs = near_duplicates(shown, threshold=above, most=MOST_PAIRS)
    groups = []
    for members in _connected(pairs.indices, len(places)):
        rows = collection.at(places[members].tolist())
        if all(row.flat for row in rows):  # one colour is not a copy of another
            continue
        order = sorted(range(len(rows)), key=lambda i: (-(rows[i].width or 0) * (rows[i].height or 0), rows[i].path))
        first = shown[members[order[0]]]
        groups.append([(rows[i], round(float(shown[members[i]] @ first), 6)) for i in order])
    return groups


def _parts(vectors: Matrix) -> Iterator[Matrix]:
    return (vectors[start : start + AT_ONCE] for start in range(0, len(vectors), AT_ONCE))


def _best(scores: Vector, most: int) -> npt.NDArray[np.intp]:
    """The places of the highest scores, the best first, equal ones as they came; hidden ones never."""
    chosen = np.argpartition(-scores, most)[:most] if most < len(scores) else np.arange(len(scores))
    chosen = chosen[np.isfinite(scores[chosen])]
    best: npt.NDArray[np.intp] = chosen[np.lexsort((chosen, -scores[chosen]))]
    return best


def _connected(pairs: npt.NDArray[np.intp], count: int) -> Sequence[list[int]]:
    """Groups of numbers below ``count`` that pairs connect, [P, 2], in the order of their least."""
    parent = list(range(count))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for one in np.unique(pairs).tolist():
        groups.setdefault(root(one), []).append(one)
    return sorted(groups.values())
