"""How right the answers about pictures are whose right label is known: figures and curves, by numpy alone.

Nothing here knows where embeddings come from: :func:`answer` takes the rows of labels as
:meth:`clip_app.bank.LabelBank.group` gives them, whatever they were made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clip_app.scoring import Matrix, score

__all__ = [
    "BINS",
    "Answers",
    "Bin",
    "Confusion",
    "Difference",
    "Flags",
    "Floats",
    "Indices",
    "Interval",
    "LabelFigures",
    "NoMatchPoint",
    "TradeOffPoint",
    "answer",
    "calibration",
    "calibration_error",
    "compare",
    "confusion_matrix",
    "confusions",
    "first_right",
    "label_figures",
    "no_match_curve",
    "share",
    "trade_off",
]

BINS = 10
Z = 1.959964  # of the normal distribution, for 95 %
POINTS = 50  # of a curve

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """What was answered about N pictures, one right label each; every array has shape [N].

    ``truth`` and ``best`` are indices of labels: the right one, and the one that came first.
    ``rank`` is the place of the right one, 0 where it came first; ``confidence`` is that of
    ``best``, and ``no_match`` what the neutral prompts have, both from 0 to 1.
    """

    truth: Indices
    best: Indices
    rank: Indices
    confidence: Floats
    no_match: Floats

    def __len__(self) -> int:
        return len(self.truth)

    def among(self, count: int) -> Flags:
        """Whether the right label is one of the first ``count``, shape [N]."""
        return self.rank < count

    @property
    def withheld(self) -> Flags:
        """Whether the app says that nothing matches, as :func:`clip_app.verdict.verdict` does, shape [N]."""
        return self.no_match > self.confidence

    def only(self, chosen: Flags) -> Answers:
        """Return the answers about some of the pictures; ``chosen`` is [N]."""
        return Answers(
            self.truth[chosen], self.best[chosen], self.rank[chosen], self.confidence[chosen], self.no_match[chosen]
        )


@dataclass(frozen=True)
class Interval:
    """A share from 0 to 1, or a difference of two from -1 to 1, and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference to a first run; positive is better. ``gained`` and ``lost`` count pictures."""

    gained: int
    lost: int

    @property
    def verdict(self) -> str:
        """Whether it is a real difference: the interval leaves zero out."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no real difference"


@dataclass(frozen=True)
class Bin:
    """Pictures whose confidence is from ``low`` to ``high``: how many, their mean confidence, how many were right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Confusion:
    """How many pictures of label ``truth`` were taken for label ``best``; both are indices."""

    truth: int
    best: int
    count: int


@dataclass(frozen=True)
class LabelFigures:
    """One label: its pictures, how many were right, and how often it was answered, rightly or not.

    ``withheld`` is the share of its pictures of which the app says that nothing matches.
    Recall and ``withheld`` are None without pictures, precision where it was never answered.
    """

    label: int
    count: int
    right: int
    answered: int
    recall: float | None
    precision: float | None
    withheld: float | None


@dataclass(frozen=True)
class NoMatchPoint:
    """What comes of saying "nothing matches" where no_match is above ``threshold``; shares of all pictures.

    ``withheld`` is how often that is said though the right label is there, ``lost`` how often
    even though it came first; ``accuracy`` is that of the rest, None where there is no rest.
    """

    threshold: float
    withheld: float
    lost: float
    accuracy: float | None


@dataclass(frozen=True)
class TradeOffPoint:
    """The accuracy on the share ``coverage`` of pictures that are surest: of low no_match, or of high confidence."""

    coverage: float
    by_no_match: float
    by_confidence: float


def answer(images: Matrix, truth: Indices, flat: Flags, labels: Matrix, neutral: Matrix, scale: float) -> Answers:
    """Score every picture as the app does.

    Args:
        images: unit image embeddings, shape [N, D].
        truth: index of each picture's right label, shape [N].
        flat: pictures of one colour, of which the app says that nothing matches, shape [N].
        labels: unit label embeddings, shape [L, D].
        neutral: unit embeddings of prompts that name nothing, shape [M, D].
        scale: the checkpoint's logit scale.
    """
    count = len(images)
    best, rank = np.empty(count, np.intp), np.empty(count, np.intp)
    confidence, no_match = np.zeros(count), np.ones(count)
    for i, image in enumerate(images):  # one by one: N x L numbers may be more than there is memory for
        scores = score(image, labels, neutral, scale)
        best[i] = scores.similarity.argmax()
        rank[i] = first_right(scores.similarity[None], (np.arange(len(labels)) == truth[i])[None])[0]
        if not flat[i]:
            confidence[i], no_match[i] = scores.confidence[best[i]], scores.no_match
    return Answers(truth, best, rank, confidence, no_match)


def first_right(scores: Floats, right: Flags) -> Indices:
    """Return the place of the first right label, 0 for the best, shape [N]; L where no label is right.

    ``scores`` and ``right`` are [N, L]; of equal scores the earlier label goes first.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_right = np.take_along_axis(right, order, axis=1)
    found: Indices = np.where(sorted_right.any(axis=1), sorted_right.argmax(axis=1), scores.shape[1])
    return found


def share(right: Flags) -> Interval:
    """Return the share of right ones among flags of shape [N], N at least 1.

    The interval is the score interval (Wilson 1927), which holds for few pictures and for shares near 0 and 1.
    """
    count, value = len(right), float(right.mean())
    middle = (value + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * np.sqrt(value * (1 - value) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return Interval(value, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def compare(first: Flags, other: Flags) -> Difference:
    """Return how much more often ``other`` is right than ``first`` on the same pictures, flags of shape [N].

    Paired: only pictures on which one is right and the other wrong count, as in McNemar's
    test (1947). The interval is that of Bonett and Price (2012, "Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data"): normal, with one
    picture added to each kind that differs, which keeps it honest where few differ. Fagerland,
    Lydersen and Laake (2014) recommend it. No random numbers are drawn.
    """
    count = len(first)
    gained, lost = int((other & ~first).sum()), int((first & ~other).sum())
    more, less = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    middle = more - less
    half = Z * np.sqrt((more + less - middle**2) / (count + 2))
    low, high = max(-1.0, float(middle - half)), min(1.0, float(middle + half))
    return Difference((gained - lost) / count, low, high, gained, lost)


def calibration(confidence: Floats, right: Flags) -> list[Bin]:
    """Return bins of equal width that have pictures in them; ``confidence`` (0 to 1) and ``right`` are [N]."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    members = ((index, bins == index) for index in range(BINS))
    return [
        Bin(
            index / BINS,
            (index + 1) / BINS,
            int(inside.sum()),
            float(confidence[inside].mean()),
            float(right[inside].mean()),
        )
        for index, inside in members
        if inside.any()
    ]


def calibration_error(confidence: Floats, right: Flags) -> float:
    """Return the expected calibration error (Naeini et al. 2015), from 0 to 1.

    That is the mean gap between confidence and accuracy over bins of equal width, weighed by
    their pictures; ``confidence`` (0 to 1) and ``right`` are [N].
    """
    found = calibration(confidence, right)
    return sum(item.count * abs(item.confidence - item.accuracy) for item in found) / len(confidence)


def confusions(answers: Answers) -> list[Confusion]:
    """Return the wrong pairs, the most frequent first, and of equal ones the earlier label."""
    wrong = answers.truth != answers.best
    pairs = np.stack([answers.truth[wrong], answers.best[wrong]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [Confusion(int(found[i, 0]), int(found[i, 1]), int(counts[i])) for i in order]


def confusion_matrix(answers: Answers, chosen: list[int]) -> npt.NDArray[np.int64]:
    """Count pictures by right label (rows) and answer (columns), of ``chosen`` labels alone, shape [C, C]."""
    place = {label: i for i, label in enumerate(chosen)}
    matrix = np.zeros((len(chosen), len(chosen)), np.int64)
    for truth, best in zip(answers.truth.tolist(), answers.best.tolist(), strict=True):
        if truth in place and best in place:
            matrix[place[truth], place[best]] += 1
    return matrix


def label_figures(answers: Answers, labels: int) -> list[LabelFigures]:
    """Return the figures of each of so many labels, in their order."""
    right_ones = answers.among(1)
    counts, answered = (np.bincount(row, minlength=labels) for row in (answers.truth, answers.best))
    right = np.bincount(answers.truth[right_ones], minlength=labels)
    withheld = np.bincount(answers.truth[answers.withheld], minlength=labels)
    return [
        LabelFigures(
            label=i,
            count=int(counts[i]),
            right=int(right[i]),
            answered=int(answered[i]),
            recall=_ratio(right[i], counts[i]),
            precision=_ratio(right[i], answered[i]),
            withheld=_ratio(withheld[i], counts[i]),
        )
        for i in range(labels)
    ]


def no_match_curve(answers: Answers) -> list[NoMatchPoint]:
    """Return what comes of each threshold from 0 to 1, by steps of 1 / 50."""
    right = answers.among(1)
    return [_no_match_point(answers.no_match > threshold, right, threshold) for threshold in _steps(0)]


def _no_match_point(withheld: Flags, right: Flags, threshold: float) -> NoMatchPoint:
    accuracy = _ratio((right & ~withheld).sum(), (~withheld).sum())
    return NoMatchPoint(threshold, float(withheld.mean()), float((withheld & right).mean()), accuracy)


def trade_off(answers: Answers) -> list[TradeOffPoint]:
    """Return the accuracy on the surest pictures, by how many of them are answered (El-Yaniv and Wiener 2010).

    Coverage goes from 1 / 50, or one picture, to 1.
    """
    right = answers.among(1)
    orders = (np.argsort(answers.no_match, kind="stable"), np.argsort(-answers.confidence, kind="stable"))
    sums = [np.cumsum(right[order]) for order in orders]
    counts = sorted({max(1, round(step * len(answers))) for step in _steps(1)})
    return [
        TradeOffPoint(count / len(answers), float(sums[0][count - 1] / count), float(sums[1][count - 1] / count))
        for count in counts
    ]


def _steps(first: int) -> Iterator[float]:
    return (step / POINTS for step in range(first, POINTS + 1))


def _ratio(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
