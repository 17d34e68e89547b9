"""The joint space: the classifier's classes, the kinds above them, what it cannot see, and nothing in particular.

An embedding has one axis for each of the C classes, one for each of the K kinds that
WordNet puts above them ("dog", "vehicle"), one for what the classifier cannot see, on
which every picture is 0, and one for nothing in particular, on which every picture has
the same share: the bar that a label must pass to beat the neutral prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graph import Graph
from texts import Classes, Phrase
from wordnet import WordNet

__all__ = ["Space"]

# The image side: shares are softmax(logits / T), then their square root, so that the classes' part has length 1.
TEMPERATURE = 0.7
KINDS_IMAGE = 0.5  # the weight of a kind's axis beside a class's, for a picture
NOTHING = 0.21  # the share of "nothing in particular" in every picture, a cosine
# The text side.
KINDS_TEXT = 0.9  # the weight of a kind's own axis beside that of a class, for a text
CLASSES_TEXT = 0.5  # the weight of the classes' part for a text that is about a kind
DECAY = 0.6  # a kind further above counts by (classes below here / classes below there) to this power
UNSEEN_TEXT = 0.3  # how much of what a text means besides the visible lies on the axis of the unseen
# Kinds: everything above this many classes says too little ("object"), and a kind that holds hardly
# more classes than one below it is the same ("canine" and "dog").
LARGEST_KIND = 420
SAME_KIND = 0.7
NEAREST_KIND = 0.5  # least overlap (of all classes of either) at which a kind that was left out is taken as another

Rows = npt.NDArray[np.float32]
Members = frozenset[int]


@dataclass(frozen=True)
class Space:
    """The kinds, and which classes each meaning of WordNet is about."""

    classes: int
    kinds: tuple[Members, ...]
    members: dict[str, Members]

    @classmethod
    def build(cls, wordnet: WordNet, classes: Classes) -> Space:
        """Find the kinds above the classes."""
        members = _members(wordnet, classes)
        sets = {items for items in members.values() if 2 <= len(items) <= LARGEST_KIND}
        kinds: list[Members] = []
        for items in sorted(sets, key=lambda items: (len(items), sorted(items))):
            if not any(kind <= items and len(kind) >= SAME_KIND * len(items) for kind in kinds):
                kinds.append(items)
        return cls(len(classes.names), tuple(kinds), members)

    @property
    def dimension(self) -> int:
        """How many axes there are."""
        return self.classes + len(self.kinds) + 2

    def image_side(self, graph: Graph, logits: str) -> str:
        """Add logits [N, C] -> unit embeddings [N, D]."""
        share = graph.add("Softmax", graph.add("Mul", logits, graph.constant(1 / TEMPERATURE)), axis=-1)
        below = np.zeros((self.classes, len(self.kinds)), np.float32)
        for column, items in enumerate(self.kinds):
            below[sorted(items), column] = 1
        kinds = graph.add("Sqrt", graph.add("MatMul", share, graph.weight(below, axis=1)))
        kinds = graph.add("Mul", kinds, graph.constant(KINDS_IMAGE))
        seen = graph.unit(graph.add("Concat", graph.add("Sqrt", share), kinds, axis=-1))
        seen = graph.add("Mul", seen, graph.constant((1 - NOTHING**2) ** 0.5))
        # Two more columns, 0 and the constant: padding keeps the batch open.
        widened = graph.add("Pad", seen, graph.constant([0, 0, 0, 2]))
        bias = np.zeros(self.dimension, np.float32)
        bias[-1] = NOTHING
        return graph.add("Add", widened, graph.constant(bias))

    def rows(self, phrases: Sequence[Phrase]) -> Rows:
        """Return the embedding that each phrase ought to have, shape [P, D]."""
        rows: dict[tuple[tuple[str, float], ...], Rows] = {}
        for phrase in phrases:
            if phrase.meanings not in rows:
                rows[phrase.meanings] = self._row(phrase.meanings)
        return np.stack([rows[phrase.meanings] for phrase in phrases])

    def _row(self, meanings: Sequence[tuple[str, float]]) -> Rows:
        row = np.zeros(self.dimension, np.float32)
        if not meanings:
            row[-1] = 1
            return row
        unseen = 0.0
        for synset, share in meanings:
            items = self.members.get(synset, frozenset())
            if 1 <= len(items) <= LARGEST_KIND:
                row += share * self._meaning(items)
            else:
                unseen += share
        if not row.any():
            row[-2] = 1
            return row
        unseen *= UNSEEN_TEXT
        row *= np.sqrt(1 - unseen) / np.linalg.norm(row)
        row[-2] = np.sqrt(unseen)
        return row

    def _meaning(self, items: Members) -> Rows:
        """The unit row of a meaning: its classes, its kind and, ever less, the kinds above."""
        row = np.zeros(self.dimension, np.float32)
        row[sorted(items)] = (1 if len(items) == 1 else CLASSES_TEXT) / np.sqrt(len(items))
        base = self._nearest(items) if len(items) > 1 else items
        for column, kind in enumerate(self.kinds):
            if base <= kind:
                row[self.classes + column] = KINDS_TEXT * (len(base) / len(kind)) ** DECAY
        unit: Rows = row / np.linalg.norm(row)
        return unit

    def _nearest(self, items: Members) -> Members:
        """The kind that shares most with these classes; themselves where none shares enough."""
        overlap = [len(kind & items) / len(kind | items) for kind in self.kinds]
        best = int(np.argmax(overlap))
        return self.kinds[best] if overlap[best] >= NEAREST_KIND else items


def _members(wordnet: WordNet, classes: Classes) -> dict[str, Members]:
    """The classes below each meaning; for a meaning below a class, that class."""
    found: dict[str, set[int]] = {}
    for index, synset in enumerate(classes.synsets):
        for item in wordnet.above(synset):
            found.setdefault(item, set()).add(index)
    finer: dict[str, set[int]] = {}
    for index, synset in enumerate(classes.synsets):
        for item in wordnet.under(synset):
            if item not in found:
                finer.setdefault(item, set()).add(index)
    return {item: frozenset(indices) for item, indices in (found | finer).items()}
