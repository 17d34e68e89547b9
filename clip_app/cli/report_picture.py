"""The report of ``clip-app evaluate`` as one PNG, by matplotlib, which is an extra: for slides and chats."""

from __future__ import annotations

import io
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clip_app.cli.charts import MOST_SERIES
from clip_app.cli.evaluated import Report, Run, most_confused, weakest
from clip_app.cli.writers import shown
from clip_app.evaluation import calibration, confusion_matrix, no_match_curve, trade_off

__all__ = ["render"]

Curve = Callable[[Run], tuple[list[float], list[float]]]

COLOURS = ("#4f46e5", "#b45309", "#0f766e", "#be185d", "#4d7c0f", "#475569")
DASHES = ("-", "--", ":", "-.", (0, (4, 2)), (0, (1, 2)))
WEAKEST = 20
LONGEST = 200  # letters of a text


def render(report: Report) -> bytes:
    """Return the picture."""
    figure = Figure(figsize=(18, 11), dpi=100, layout="constrained")
    figure.suptitle(_text(" · ".join((report.facts, *report.fixed.values()))), fontsize=13)
    panels: tuple[Callable[[Axes, Report], None], ...] = (_runs, _weakest, _confusions, _calibrated, _no_match, _traded)
    for axes, draw in zip(figure.subplots(2, 3).flat, panels, strict=True):
        draw(axes, report)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _runs(axes: Axes, report: Report) -> None:
    """Top-1 of each run with its interval, and below the name what is said of its difference to the first."""
    first = report.runs[0]
    names = []
    for i, run in enumerate(report.runs):
        top = run.top_1
        reach = [[top.value - top.low], [top.high - top.value]]
        axes.errorbar([top.value], [i], xerr=reach, fmt="o", capsize=4, color=COLOURS[i % MOST_SERIES])
        told = "" if run is first else f"\n{run.differences(first)[0].verdict}"
        names.append("\n".join(map(_text, report.name(run).split(" · "))) + told)
    axes.set(title="top-1, 95 % interval", ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    axes.grid(axis="x", alpha=0.3)


def _weakest(axes: Axes, report: Report) -> None:
    rows = weakest(report, report.runs[0])[:WEAKEST]
    axes.barh(range(len(rows)), [row.recall or 0.0 for row in rows], color=COLOURS[0])
    axes.set_yticks(range(len(rows)), [_text(report.labels[row.label]) for row in rows])
    axes.set(title="weakest labels, run 1: recall", xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))


def _confusions(axes: Axes, report: Report) -> None:
    run = report.runs[0]
    chosen = most_confused(report, run)
    matrix = confusion_matrix(run.answers, chosen)
    axes.imshow(matrix / matrix.sum(axis=1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
    names = [_text(report.labels[i]) for i in chosen]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(title="label (row) by answer (column), run 1")


def _calibrated(axes: Axes, report: Report) -> None:
    def curve(run: Run) -> tuple[list[float], list[float]]:
        bins = calibration(run.answers.confidence, run.answers.among(1))
        return [item.confidence for item in bins], [item.accuracy for item in bins]

    axes.plot([0, 1], [0, 1], color="#94a3b8", linewidth=1)
    _lines(axes, report, curve, marker="o")
    axes.set(title="calibration", xlabel="confidence", ylabel="right")
    axes.legend(fontsize=8)


def _no_match(axes: Axes, report: Report) -> None:
    def curve(run: Run) -> tuple[list[float], list[float]]:
        points = no_match_curve(run.answers)
        return [item.threshold for item in points], [item.withheld for item in points]

    _lines(axes, report, curve)
    axes.set(title="“nothing matches” though the label is there", xlabel="threshold of no_match", ylabel="pictures")


def _traded(axes: Axes, report: Report) -> None:
    def curve(run: Run) -> tuple[list[float], list[float]]:
        points = trade_off(run.answers)
        return [item.coverage for item in points], [item.by_no_match for item in points]

    _lines(axes, report, curve)
    axes.set(title="right, if only the surest are answered", xlabel="answered, least no_match first", ylabel="right")


def _lines(axes: Axes, report: Report, curve: Curve, marker: str = "") -> None:
    for i, run in enumerate(report.runs[:MOST_SERIES]):
        name = _text(report.name(run))
        axes.plot(*curve(run), color=COLOURS[i], linestyle=DASHES[i], marker=marker, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)


def _text(text: str) -> str:
    """What can be drawn: a dollar sign would begin a formula."""
    plain = shown(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
    return plain.replace("$", r"\$")
