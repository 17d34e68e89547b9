"""Figures of merit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_app.evaluation import Flags, Floats, calibration_error, first_right
from clip_app.scoring import score

__all__ = ["Asked", "Flags", "ask", "auroc"]


@dataclass(frozen=True)
class Asked:
    """Pictures asked about a group: confidence [N, L], no_match [N], and which labels are right [N, L]."""

    confidence: Floats
    no_match: Floats
    right: Flags

    def top(self, count: int) -> float:
        """The share of pictures with a right label that have one among the first ``count``."""
        present = self.right.any(axis=1)
        return float((first_right(self.confidence[present], self.right[present]) < count).mean())

    def mean_no_match(self, *, present: bool) -> float:
        """The mean no_match over the pictures that have a right label, or that have none."""
        return float(self.no_match[self.right.any(axis=1) == present].mean())

    def open_set(self) -> float:
        """AUROC of no_match: how well it tells pictures of none of the labels from the others."""
        present = self.right.any(axis=1)
        return auroc(self.no_match[~present], self.no_match[present])

    def calibration(self) -> float:
        """The expected calibration error of the best label, over the pictures that have a right one."""
        present = self.right.any(axis=1)
        best = self.confidence[present].argmax(axis=1)
        rows = np.arange(len(best))
        return calibration_error(self.confidence[present][rows, best], self.right[present][rows, best])


def ask(images: Floats, labels: Floats, neutral: Floats, scale: float, right: Flags) -> Asked:
    """Score every picture as the app does."""
    scores = [
        score(image, labels.astype(np.float32), neutral.astype(np.float32), scale)
        for image in images.astype(np.float32)
    ]
    return Asked(np.stack([item.confidence for item in scores]), np.array([item.no_match for item in scores]), right)


def auroc(high: Floats, low: Floats) -> float:
    """The chance that one of ``high`` is above one of ``low``, a tie counting half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / len(low))
