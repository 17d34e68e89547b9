"""Heat over a picture as a grid of cells, and the sizes at which pictures are looked at."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["Heat", "between", "fitted", "scaled"]

Heat = npt.NDArray[np.float32]


def scaled(heat: Heat) -> Heat:
    """Scale heat so that its highest is 1, what is negative dropped; where nothing is positive, zeros."""
    positive = np.maximum(heat, 0)
    highest = positive.max()
    result: Heat = positive / highest if highest > 0 else positive
    return result


def between(samples: Heat, times: int) -> Heat:
    """Turn samples at points, the outermost on the edges, into cells: ``times`` as many on each side.

    Each cell is what lies at its middle, linearly between the samples around it.
    """
    result: Heat = _along(_along(samples, times).T, times).T
    return result


def fitted(
    size: tuple[int, int], short: int, *, area: float, step: int, extra: int = 0, least: int = 1
) -> tuple[int, int]:
    """Return a width and height near a picture's own aspect ratio, each a multiple of ``step`` and ``extra`` more.

    The shorter side is near ``short``, and smaller where the picture would have more than
    ``area`` times the pixels of such a square. One that is thin as a thread grows thicker.
    """
    most = area * short * short
    scale = min(short / min(size), math.sqrt(most / (size[0] * size[1])))
    thin, long = (max(least, round((side * scale - extra) / step)) * step + extra for side in sorted(size))
    long = min(long, max(least, int((most / thin - extra) / step)) * step + extra)
    long = max(long, thin)
    return (thin, long) if size[0] <= size[1] else (long, thin)


def _along(samples: Heat, times: int) -> Heat:
    count = len(samples)
    places = (np.arange(count * times) + 0.5) / (count * times) * (count - 1)
    below = np.floor(places).astype(int)
    share = (places - below).astype(np.float32)[:, None]
    above = np.minimum(below + 1, count - 1)
    mixed: Heat = samples[below] * (1 - share) + samples[above] * share
    return mixed
