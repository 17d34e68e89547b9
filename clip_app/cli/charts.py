"""Charts as SVG inside a page of HTML, which need no script and no file; the page's style gives the colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from clip_app.evaluation import Difference

__all__ = ["MOST_SERIES", "Point", "Series", "difference_chart", "heat_map", "line_chart"]

MOST_SERIES = 6  # colours and dashes of the page's style

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 14, 46  # around the plot
CELL = 22  # of the heat map
LETTER = 6.6  # the width of one, of the heat map's names
LONGEST = 22  # letters of a name


@dataclass(frozen=True)
class Point:
    """A point with both coordinates from 0 to 1; ``size`` is the radius of its dot, ``says`` the text behind it."""

    x: float
    y: float
    size: float = 0.0
    says: str = ""


@dataclass(frozen=True)
class Series:
    """A line of a chart; ``style`` is which of the page's colours and dashes it has."""

    name: str
    points: Sequence[Point]
    style: int


def line_chart(
    says: str,
    series: Sequence[Series],
    across: str,
    up: str,
    *,
    thin: Sequence[Series] = (),
    diagonal: bool = False,
) -> str:
    """Draw lines over axes from 0 to 100 %, below them what each line is.

    Args:
        says: what the chart shows, for who cannot see it.
        series: at least one line.
        across, up: what the axes are.
        thin: further lines, thin ones, which the legend does not name.
        diagonal: draw where both are equal, too.
    """
    grid = "".join(_grid(step / 4) for step in range(5))
    equal = f'<path class="equal" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>' if diagonal else ""
    lines = "".join(map(_line, series)) + f'<g class="thin">{"".join(map(_line, thin))}</g>'
    names = (
        f'<text x="{_x(0.5)}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>'
        f'<text transform="translate(12 {_y(0.5)}) rotate(-90)" text-anchor="middle">{escape(up)}</text>'
    )
    return _svg("chart", WIDTH, HEIGHT, says, grid + equal + lines + names) + _legend(series)


def difference_chart(says: str, rows: Sequence[tuple[str, Difference]]) -> str:
    """Draw differences to a first run with their intervals, one below the other, around zero.

    The scale is that of the widest interval, in percentage points.
    """
    widest = max(0.01, *(max(abs(item.low), abs(item.high)) for _, item in rows))
    step = 28
    height = TOP + step * len(rows) + BOTTOM
    bottom = height - BOTTOM

    def x(value: float) -> float:
        return round(_x(0.5 + 0.5 * value / widest), 1)

    ticks = "".join(
        f'<path class="{"zero" if value == 0 else "grid"}" d="M{x(value)} {TOP}V{bottom}"/>'
        f'<text x="{x(value)}" y="{bottom + 18}" text-anchor="middle">{_points(value)}</text>'
        for value in (-widest, -widest / 2, 0.0, widest / 2, widest)
    )
    marks = "".join(
        f'<g class="s{style % MOST_SERIES}"><path class="whisker" d="M{x(item.low)} {y}H{x(item.high)}"/>'
        f'<circle cx="{x(item.value)}" cy="{y}" r="5"><title>{escape(name)}: {100 * item.value:+.1f} points</title>'
        f'</circle></g><text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{style + 1}</text>'
        for style, ((name, item), y) in enumerate(
            zip(rows, (TOP + step * (i + 0.5) for i in range(len(rows))), strict=True), 1
        )
    )
    axis = f'<text x="{_x(0.5)}" y="{height - 8}" text-anchor="middle">points of top-1; the line is run 1</text>'
    return _svg("chart", WIDTH, height, says, ticks + marks + axis)


def heat_map(says: str, names: Sequence[str], matrix: npt.NDArray[np.int64]) -> str:
    """Draw how often each label, a row, was answered with each label, a column, shape [C, C].

    A cell is the deeper in colour the larger its share of its row, and has its number in it.
    """
    room = 12 + LETTER * max(len(_short(name)) for name in names)
    size = CELL * len(names)
    rows = "".join(
        f'<text x="{room - 6:.0f}" y="{room + CELL * (i + 0.66):.0f}" text-anchor="end">{escape(_short(name))}</text>'
        for i, name in enumerate(names)
    )
    columns = "".join(
        f'<text transform="translate({room + CELL * (i + 0.66):.0f} {room - 6:.0f}) rotate(-90)">'
        f"{escape(_short(name))}</text>"
        for i, name in enumerate(names)
    )
    cells = "".join(_cell(names, matrix, i, j, room) for i in range(len(names)) for j in range(len(names)))
    lines = "".join(
        f"M{room + CELL * i - 0.5:.1f} {room:.0f}v{size}M{room:.0f} {room + CELL * i - 0.5:.1f}h{size}"
        for i in range(len(names) + 1)
    )
    ground = f'<rect class="none" x="{room:.0f}" y="{room:.0f}" width="{size}" height="{size}"/>'
    content = f'{rows}{columns}{ground}<path class="cells" d="{lines}"/>{cells}'
    return _svg("heat", round(room + size + 2), round(room + size + 2), says, content)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}" if value else "0"


def _cell(names: Sequence[str], matrix: npt.NDArray[np.int64], row: int, column: int, room: float) -> str:
    count, whole = int(matrix[row, column]), int(matrix[row].sum())
    x, y = round(room + CELL * column), round(room + CELL * row)
    frame = f'x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" rx="3"'
    if not count:
        return ""
    part = count / whole
    kind = "right" if row == column else "wrong"
    text = f"{names[row]}, answered {names[column]}: {count}"
    deep = " deep" if part > 0.55 else ""
    return (
        f'<g><title>{escape(text)}</title><rect class="{kind}" {frame} fill-opacity="{0.12 + 0.88 * part:.2f}"/>'
        f'<text class="count{deep}" x="{x + CELL / 2 - 0.5}" y="{y + CELL * 0.66:.0f}" text-anchor="middle">{count}'
        "</text></g>"
    )


def _grid(share: float) -> str:
    return (
        f'<path class="grid" d="M{_x(0)} {_y(share)}H{_x(1)}M{_x(share)} {_y(0)}V{_y(1)}"/>'
        f'<text x="{LEFT - 6}" y="{_y(share) + 4}" text-anchor="end">{share:.0%}</text>'
        f'<text x="{_x(share)}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{share:.0%}</text>'
    )


def _line(series: Series) -> str:
    path = "L".join(f"{_x(point.x)} {_y(point.y)}" for point in series.points)
    dots = "".join(
        f'<circle cx="{_x(point.x)}" cy="{_y(point.y)}" r="{point.size:.1f}"><title>{escape(point.says)}</title>'
        "</circle>"
        for point in series.points
        if point.size
    )
    return f'<g class="s{series.style % MOST_SERIES}"><path class="line" d="M{path}"/>{dots}</g>'


def _legend(series: Iterable[Series]) -> str:
    items = "".join(
        f'<li class="s{item.style % MOST_SERIES}"><svg width="30" height="10" aria-hidden="true">'
        f'<path class="line" d="M1 5H29"/></svg>{escape(item.name)}</li>'
        for item in series
    )
    return f'<ul class="legend">{items}</ul>'


def _svg(kind: str, width: int, height: int, says: str, content: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(says)}">{content}</svg>'
    )


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
