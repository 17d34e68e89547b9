"""The two plots of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["draw_latency", "draw_load"]

COLOURS = {"clip_app": "#4f46e5", "transformers pipeline": "#94a3b8", "tutorial app": "#94a3b8", "infinity": "#d97706"}
QUIET: dict[str, Any] = {"color": "#e2e8f0", "linewidth": 0.8}


def draw_latency(curves: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Draw milliseconds of one analysis against the number of labels, both logarithmic."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, points in curves.items():
        labels, times = zip(*points, strict=True)
        axes.plot(labels, times, marker="o", color=COLOURS[name], label=name)
        axes.annotate(f"{times[-1]:,.0f} ms", (labels[-1], times[-1]), (0, 7), textcoords="offset points", ha="center")
    axes.set(xscale="log", yscale="log", xlabel="labels", ylabel="ms for one photograph of 500x375")
    axes.set_xticks(labels, [str(count) for count in labels])
    axes.minorticks_off()
    axes.set_title("One photograph: more labels cost next to nothing", loc="left", weight="bold")
    _finish(figure, [axes], path)


def draw_load(curves: Mapping[str, Sequence[tuple[int, float, float]]], path: Path) -> None:
    """Draw images a second and the 95th percentile against the number of clients."""
    figure, (rate, tail) = plt.subplots(1, 2, figsize=(10, 4))
    for name, points in curves.items():
        clients, rates, tails = zip(*points, strict=True)
        rate.plot(clients, rates, marker="o", color=COLOURS[name], label=name)
        tail.plot(clients, tails, marker="o", color=COLOURS[name], label=name)
    for axes, label in ((rate, "images a second"), (tail, "95th percentile, ms")):
        axes.set(xscale="log", xlabel="clients", ylabel=label)
        axes.set_xticks(clients, [str(count) for count in clients])
        axes.minorticks_off()
    rate.set_title("Throughput", loc="left", weight="bold")
    tail.set_title("Slowest of twenty", loc="left", weight="bold")
    rate.set_ylim(bottom=0)
    tail.set(yscale="log")
    _finish(figure, [rate, tail], path)


def _finish(figure: Figure, axes: Sequence[Axes], path: Path) -> None:
    for one in axes:
        one.grid(**QUIET)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
