"""The report of ``clip-app evaluate`` as one page of HTML that loads nothing: for a browser, by mail, on a disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from clip_app.cli.charts import MOST_SERIES, Point, Series, difference_chart, heat_map, line_chart
from clip_app.cli.evaluated import Report, Run, most_confused, percent, signed, weakest
from clip_app.cli.writers import shown
from clip_app.evaluation import calibration, confusion_matrix, confusions, no_match_curve, trade_off

__all__ = ["render"]

STYLE = Path(__file__).with_name("report_page.css")
PAIRS = 20  # wrong pairs in a list
MOST_TOLD = 200  # files that could not be read

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="facts">{facts}</p>
{body}
</main>
</body>
</html>
"""
CALIBRATION = (
    "Of pictures whose best label has a confidence around so much, so many were right. On the diagonal both are "
    "equal; below it the model is surer than it is right. A larger dot stands for more pictures. ECE is the mean gap."
)
NO_MATCH = (
    "Every picture shows one of the labels, so “nothing matches” is always wrong here. This is how often it is said "
    "where <code>no_match</code> above a threshold means it: for all pictures, and, thin, for those whose best label "
    "was right."
)
TRADE_OFF = (
    "If only the surest pictures are answered, this many of those are right. At the right end all are: that is top-1. "
    "Surest is of the least <code>no_match</code>, and, thin, of the highest confidence."
)


def render(report: Report) -> bytes:
    """Return the page."""
    fixed = "".join(f"<br>{name}: {_text(value)}" for name, value in report.fixed.items())
    parts = (*_summary(report), *_curves(report), *(_details(report, run) for run in report.runs), _failed(report))
    style = STYLE.read_text(encoding="utf-8")
    title = f"{_text(report.source_name)}: how right the answers are"
    page = PAGE.format(title=title, style=style, facts=_text(report.facts) + fixed, body="\n".join(parts))
    return page.encode()


def _summary(report: Report) -> Iterator[str]:
    yield _section("How right", _runs(report), "The interval is of 95 %. ECE is the calibration error, no match how "
                   "often the app says that nothing matches.")  # fmt: skip
    if len(report.runs) > 1:
        rows = [(report.name(run), run.differences(report.runs[0])[0]) for run in report.runs[1:]]
        chart = difference_chart("Differences of top-1 to run 1", rows)
        why = (
            "On the same pictures, in percentage points, with the 95 % interval of paired shares (Bonett and Price "
            "2012). A difference is real where the interval leaves out zero. One comparison in twenty looks real by "
            "chance."
        )
        yield _section("Against run 1", f'<div class="pair">{_differences(report)}<figure>{chart}</figure></div>', why)


def _runs(report: Report) -> str:
    head = ("run", *report.varying, "top-1", "95 %", "top-5", "ECE", "no match")
    rows = []
    for number, run in enumerate(report.runs, 1):
        top = run.top_1
        between = f"{100 * top.low:.1f} to {100 * top.high:.1f}"
        figures = (f"{top.value:.1%}", between, f"{run.top_5.value:.1%}", f"{run.calibration_error:.1%}")
        rows.append((str(number), *(getattr(run, name) for name in report.varying), *figures, f"{run.withheld:.1%}"))
    return _table(head, rows, texts=1 + len(report.varying))


def _differences(report: Report) -> str:
    rows = []
    for number, run in enumerate(report.runs[1:], 2):
        for name, found in zip(("top-1", "top-5"), run.differences(report.runs[0]), strict=True):
            between = f"{signed(found.low)} to {signed(found.high)}"
            figures = (signed(found.value), between, str(found.gained), str(found.lost))
            rows.append((str(number), name, found.verdict, *figures))
    return _table(("run", "figure", "verdict", "points", "95 %", "gained", "lost"), rows, texts=3)


def _curves(report: Report) -> Iterator[str]:
    runs = report.runs[:MOST_SERIES]
    more = f" Of {len(report.runs)} runs the first {MOST_SERIES} are drawn." if len(report.runs) > MOST_SERIES else ""
    charts = (
        ("Calibration", CALIBRATION, _calibration(report, runs)),
        ("“Nothing matches”, by threshold", NO_MATCH, _no_match(report, runs)),
        ("Answered, and right", TRADE_OFF, _trade_off(report, runs)),
    )
    figures = "".join(
        f"<figure><figcaption><h3>{name}</h3><p>{text}</p></figcaption>{chart}</figure>" for name, text, chart in charts
    )
    yield _section("When to trust it", f'<div class="charts">{figures}</div>', f"Confidence is no probability.{more}")


def _calibration(report: Report, runs: Sequence[Run]) -> str:
    series = []
    for style, run in enumerate(runs):
        bins = calibration(run.answers.confidence, run.answers.among(1))
        points = [
            Point(
                item.confidence,
                item.accuracy,
                2.5 + 8 * (item.count / report.pictures) ** 0.5,
                f"{item.count} pictures of confidence {item.confidence:.0%}: {item.accuracy:.0%} right",
            )
            for item in bins
        ]
        series.append(Series(report.name(run), points, style))
    return line_chart("Accuracy by confidence", series, "confidence", "right", diagonal=True)


def _no_match(report: Report, runs: Sequence[Run]) -> str:
    series = []
    for style, run in enumerate(runs):
        points = [Point(item.threshold, item.withheld) for item in no_match_curve(run.answers)]
        series.append(Series(report.name(run), points, style))
    lost = [
        Series("", [Point(item.threshold, item.lost) for item in no_match_curve(run.answers)], style)
        for style, run in enumerate(runs)
    ]
    return line_chart("Nothing matches, by threshold", series, "threshold of no_match", "pictures", thin=lost)


def _trade_off(report: Report, runs: Sequence[Run]) -> str:
    curves = [trade_off(run.answers) for run in runs]
    by_no_match = [
        Series(report.name(run), [Point(item.coverage, item.by_no_match) for item in curve], style)
        for style, (run, curve) in enumerate(zip(runs, curves, strict=True))
    ]
    by_confidence = [
        Series("", [Point(item.coverage, item.by_confidence) for item in curve], style)
        for style, curve in enumerate(curves)
    ]
    return line_chart("Accuracy by coverage", by_no_match, "answered", "of those right", thin=by_confidence)


def _details(report: Report, run: Run) -> str:
    """One run's labels and confusions, the first run's open."""
    chosen = most_confused(report, run)
    names = [_plain(report.labels[i]) for i in chosen]
    chart = heat_map("Labels by answers", names, confusion_matrix(run.answers, chosen))
    pairs = [
        (report.labels[item.truth], report.labels[item.best], str(item.count))
        for item in confusions(run.answers)[:PAIRS]
    ]
    which = "" if len(chosen) == len(report.labels) else f" The {len(chosen)} labels that are confused most."
    open_ = " open" if run is report.runs[0] else ""
    number = report.runs.index(run) + 1
    heat = (
        f"<h3>Confusions</h3><p>A row is a label, a column an answer; deeper is a larger share of the row.{which}</p>"
        f"{_wide('heat map', chart)}"
    )
    most = f"<h3>Most frequent</h3>{_table(('label', 'taken for', 'pictures'), pairs, texts=2)}"
    return (
        f"<details{open_}><summary>Run {number}: {_text(report.name(run))}, label by label</summary>"
        f'<div class="pair"><div>{heat}</div><div>{most}</div></div><h3>Labels, the weakest first</h3>'
        f"{_labels(report, run)}</details>"
    )


def _labels(report: Report, run: Run) -> str:
    rows = [
        (
            report.labels[item.label],
            str(item.count),
            str(item.right),
            percent(item.recall),
            percent(item.precision),
            percent(item.withheld),
        )
        for item in weakest(report, run)
    ]
    return _table(("label", "pictures", "right", "recall", "precision", "no match"), rows, texts=1)


def _failed(report: Report) -> str:
    if not report.failed:
        return ""
    items = "".join(f"<li>{_text(name)}: {_text(error.message)}</li>" for name, error in report.failed[:MOST_TOLD])
    more = f"<p>And {len(report.failed) - MOST_TOLD:,} more.</p>" if len(report.failed) > MOST_TOLD else ""
    title = f"{len(report.failed):,} could not be read"
    return f"<details><summary>{title}</summary><ul>{items}</ul>{more}</details>"


def _section(title: str, content: str, text: str) -> str:
    return f"<section><h2>{title}</h2><p>{text}</p>{content}</section>"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """A table whose first columns are texts and whose others are numbers."""
    cells = "".join(f'<th scope="col"{_numeric(i, texts)}>{_text(name)}</th>' for i, name in enumerate(head))
    lines = "".join(
        f"<tr>{''.join(f'<td{_numeric(i, texts)}>{_text(cell)}</td>' for i, cell in enumerate(row))}</tr>"
        for row in rows
    )
    return _wide("table", f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>")


def _wide(what: str, content: str) -> str:
    """What may be wider than a phone is moved by a finger, or by the keys of who has reached it with them."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{what}">{content}</div>'


def _numeric(column: int, texts: int) -> str:
    return ' class="n"' if column >= texts else ""


def _plain(text: str) -> str:
    """What can be shown, of a name that may hold bytes that are no text."""
    return shown(text)


def _text(text: str) -> str:
    return escape(_plain(text))
