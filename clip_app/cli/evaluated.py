"""What an evaluation found: as JSON for programs, and as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from clip_app.cli.writers import shown
from clip_app.errors import ClipAppError
from clip_app.evaluation import (
    Answers,
    Difference,
    Interval,
    LabelFigures,
    calibration,
    calibration_error,
    compare,
    confusions,
    label_figures,
    no_match_curve,
    share,
    trade_off,
)
from clip_app.results import ModelInfo

__all__ = ["Report", "Run", "as_json", "most_confused", "percent", "signed", "tables", "weakest"]

WEAKEST, CONFUSED = 10, 10  # rows on a terminal
MOST_IN_MAP = 30  # labels of a heat map


@dataclass(frozen=True)
class Run:
    """One combination of model, precision and template, and its answers about the report's pictures."""

    model: str
    precision: str
    template: str
    info: ModelInfo
    answers: Answers

    @property
    def top_1(self) -> Interval:
        return share(self.answers.among(1))

    @property
    def top_5(self) -> Interval:
        return share(self.answers.among(5))

    @property
    def calibration_error(self) -> float:
        return calibration_error(self.answers.confidence, self.answers.among(1))

    @property
    def withheld(self) -> float:
        return float(self.answers.withheld.mean())

    def differences(self, first: Run) -> tuple[Difference, Difference]:
        """How much better than another run: top-1 and top-5."""
        one, five = (compare(first.answers.among(count), self.answers.among(count)) for count in (1, 5))
        return one, five


@dataclass(frozen=True)
class Report:
    """Runs on the same pictures.

    ``labels`` are all that were asked about, of which the last ``distractors`` are in no
    picture; ``failed`` is what could not be read.
    """

    source: str
    labels: tuple[str, ...]
    distractors: int
    runs: tuple[Run, ...]
    failed: tuple[tuple[str, ClipAppError], ...]

    @property
    def source_name(self) -> str:
        """The last part of the path: a report is for others, too, whom the rest does not concern."""
        return Path(self.source).absolute().name or self.source

    @property
    def pictures(self) -> int:
        return len(self.runs[0].answers)

    @property
    def fixed(self) -> dict[str, str]:
        """What all runs have in common, by name."""
        return {name: getattr(self.runs[0], name) for name in ("model", "precision", "template") if self._same(name)}

    @property
    def varying(self) -> list[str]:
        """What tells the runs apart."""
        return [name for name in ("model", "precision", "template") if not self._same(name)]

    def name(self, run: Run) -> str:
        """A run's name: what tells it apart, else all of it."""
        return " · ".join(getattr(run, name) for name in self.varying or self.fixed)

    @property
    def facts(self) -> str:
        """The pictures and labels in a sentence."""
        counts = f"{self.pictures:,} pictures of {len(self.labels) - self.distractors:,} labels"
        further = f", {self.distractors:,} further labels" if self.distractors else ""
        return f"{counts}{further}; {len(self.failed):,} could not be read"

    def _same(self, name: str) -> bool:
        return len({getattr(run, name) for run in self.runs}) == 1


def as_json(report: Report) -> dict[str, Any]:
    """Return everything as JSON's own types."""
    known = len(report.labels) - report.distractors
    failed = [{"name": name, "error": {"code": error.code, "message": error.message}} for name, error in report.failed]
    return {
        "pictures": report.pictures,
        "labels": list(report.labels[:known]),
        "distractors": list(report.labels[known:]),
        "failed": failed,
        "runs": [_run_as_json(report, run) for run in report.runs],
    }


def _run_as_json(report: Report, run: Run) -> dict[str, Any]:
    answers, names = run.answers, report.labels
    one, five = run.differences(report.runs[0])
    later = run is not report.runs[0]
    return {
        "model": run.info.model_dump(),
        "precision": run.precision,
        "template": run.template,
        "top_1": asdict(run.top_1),
        "top_5": asdict(run.top_5),
        "calibration_error": run.calibration_error,
        "no_match": run.withheld,
        "difference": {"top_1": _difference(one), "top_5": _difference(five)} if later else None,
        "labels": [asdict(item) | {"label": names[item.label]} for item in label_figures(answers, len(names))],
        "confusions": [
            {"label": names[item.truth], "taken_for": names[item.best], "count": item.count}
            for item in confusions(answers)
        ],
        "calibration": [asdict(item) for item in calibration(answers.confidence, answers.among(1))],
        "no_match_curve": [asdict(item) for item in no_match_curve(answers)],
        "trade_off": [asdict(item) for item in trade_off(answers)],
    }


def _difference(found: Difference) -> dict[str, Any]:
    return asdict(found) | {"verdict": found.verdict}


def weakest(report: Report, run: Run) -> list[LabelFigures]:
    """The labels that have pictures, of the least recall first."""
    found = [item for item in label_figures(run.answers, len(report.labels)) if item.count]
    return sorted(found, key=lambda item: (item.recall or 0.0, -item.count))


def most_confused(report: Report, run: Run) -> list[int]:
    """The labels of a heat map: all, or as many as fit of those in the most frequent wrong pairs, in their order."""
    if len(report.labels) <= MOST_IN_MAP:
        return list(range(len(report.labels)))
    chosen: dict[int, None] = {}
    for item in confusions(run.answers):
        pair = {item.truth: None, item.best: None}
        if len(chosen | pair) <= MOST_IN_MAP:
            chosen |= pair
    return sorted(chosen) or list(range(MOST_IN_MAP))


def signed(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f}"


def tables(report: Report) -> Iterator[Text | Table]:
    """Yield what a person sees first: the runs, their differences, and where the first run is wrong."""
    fixed = "".join(f"\n{name}: {shown(value)}" for name, value in report.fixed.items())
    yield Text(f"{report.facts}{fixed}")
    yield _runs(report)
    if len(report.runs) > 1:
        yield _differences(report)
    yield _weakest(report)
    if confusions(report.runs[0].answers):
        yield _confused(report)


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(*texts, title=title, title_justify="left")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _runs(report: Report) -> Table:
    numbers = ("top-1", "95 %", "top-5", "ECE", "no match")
    table = _table("How right", ["run", *report.varying], numbers)
    for number, run in enumerate(report.runs, 1):
        top = run.top_1
        names = [str(number), *(shown(getattr(run, name)) for name in report.varying)]
        between = f"{100 * top.low:.1f}-{100 * top.high:.1f}"
        figures = (f"{top.value:.1%}", between, f"{run.top_5.value:.1%}", f"{run.calibration_error:.1%}")
        table.add_row(*names, *figures, f"{run.withheld:.1%}")
    return table


def _differences(report: Report) -> Table:
    numbers = ("points", "95 %", "gained", "lost")
    table = _table("Against run 1 on the same pictures, in percentage points", ["run", "figure"], numbers)
    table.add_column("verdict")
    for number, run in enumerate(report.runs[1:], 2):
        for name, found in zip(("top-1", "top-5"), run.differences(report.runs[0]), strict=True):
            between = f"{signed(found.low)} to {signed(found.high)}"
            counts = (str(found.gained), str(found.lost))
            table.add_row(str(number), name, signed(found.value), between, *counts, found.verdict)
    return table


def _weakest(report: Report) -> Table:
    table = _table("Weakest labels, run 1", ["label"], ("pictures", "right", "recall", "precision", "no match"))
    for item in weakest(report, report.runs[0])[:WEAKEST]:
        shares = (percent(value) for value in (item.recall, item.precision, item.withheld))
        table.add_row(shown(report.labels[item.label]), str(item.count), str(item.right), *shares)
    return table


def _confused(report: Report) -> Table:
    table = _table("Taken for another most often, run 1", ["label", "taken for"], ("pictures",))
    for item in confusions(report.runs[0].answers)[:CONFUSED]:
        table.add_row(shown(report.labels[item.truth]), shown(report.labels[item.best]), str(item.count))
    return table


def percent(value: float | None) -> str:
    """A share, or a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"
