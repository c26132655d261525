"""Small SVG charts: line charts and rows of dots (pure). Colours come from the page's style sheet.

A chart is drawn 460 units wide, so that its text stays readable on a phone. Series differ by colour, and by dashes when
there are more series than colours. What a chart shows is also in a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH = 460
HEIGHT = 270
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 42
MAX_POINTS = 240
LOG_FROM_RATIO = 20.0
"""Values whose largest is more than this many times the smallest are drawn on a logarithmic axis."""
LEAST_LOG = 1e-300
"""Values below this are not drawn on a logarithmic axis: the power of ten below them may underflow to 0."""
DASHES = ("", "7 4", "2 3", "9 3 2 3")
NUM_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its points in order of x, and its colour number."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    has_dots: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DotRow:
    """A row of a dot chart: single values, their mean, and their standard deviation if there are several."""

    label: str
    values: Sequence[float]
    mean: float
    deviation: float | None
    colour: int


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    description: str,
    reference: tuple[str, float] | None = None,
) -> Markup:
    """Lines over x. `reference`: label and value of a dashed horizontal line. Values that are not finite are left out.

    `description` is for screen readers. The result is empty if there is nothing to draw.
    """
    lines = [Series(one.label, _thin(_finite(one.points)), one.colour, one.has_dots) for one in series]
    lines = [one for one in lines if one.points]
    values = [y for one in lines for _, y in one.points] + ([reference[1]] if reference else [])
    if not lines:
        return Markup("")
    is_log = reference is None and min(values) > LEAST_LOG and max(values) / min(values) > LOG_FROM_RATIO
    x_low, x_high = min(x for one in lines for x, _ in one.points), max(x for one in lines for x, _ in one.points)
    x_low = 0.0 if x_low < 0.2 * x_high or x_low == x_high else x_low
    x_scale = _scale(x_low, x_high if x_high > x_low else x_low + 1, LEFT, WIDTH - RIGHT)
    y_ticks, (y_low, y_high) = _log_ticks(min(values), max(values)) if is_log else _ticks(min(values), max(values), 5)
    change: Callable[[float], float] = math.log10 if is_log else float
    inner = _scale(change(y_low), change(y_high), HEIGHT - BOTTOM, TOP)
    parts = [_horizontal(inner(change(tick)), _short(tick)) for tick in y_ticks]
    for tick in _ticks(x_low, x_high, 4)[0]:
        if x_low <= tick <= x_high:
            parts.append(_text(x_scale(tick), HEIGHT - BOTTOM + 17, _short(tick), "middle"))
    if reference is not None:
        level = inner(change(reference[1]))
        parts.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(_text(WIDTH - RIGHT, level - 5 if level > TOP + 14 else level + 14, reference[0], "end"))
    for one in lines:
        parts += _curve(one, [(x_scale(x), inner(change(y))) for x, y in one.points])
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle", "axis"))
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) '
        f'rotate(-90)">{escape(y_label + (" (log)" if is_log else ""))}</text>'
    )
    return _svg(HEIGHT, description, parts)


def dot_chart(
    rows: Sequence[DotRow], *, x_label: str, description: str, reference: tuple[str, float] | None = None
) -> Markup:
    """One row per variant: a dot per seed, a bar at the mean, a whisker of one standard deviation.

    `reference`: label and value of a dashed vertical line.
    """
    if not rows:
        return Markup("")
    row_height, top = 46, 24 if reference else 8
    height = top + row_height * len(rows) + 44
    values = [value for row in rows for value in row.values] + ([reference[1]] if reference else [])
    values += [row.mean + sign * (row.deviation or 0) for row in rows for sign in (-1, 1)]
    ticks, (low, high) = _ticks(min(values), max(values), 4)
    scale = _scale(low, high, 16, WIDTH - 16)
    floor = top + row_height * len(rows)
    parts = []
    for tick in ticks:
        x = scale(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{floor}"/>')
        parts.append(_text(x, floor + 16, _short(tick), "middle"))
    if reference is not None:
        x = scale(reference[1])
        parts.append(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{floor}"/>')
        anchor = "end" if x > WIDTH / 2 else "start"
        parts.append(_text(x + (4 if anchor == "end" else -4), 14, reference[0], anchor))
    for number, row in enumerate(rows):
        parts += _dots(row, scale, top + row_height * number + 30)
    parts.append(_text(WIDTH / 2, height - 6, x_label, "middle", "axis"))
    return _svg(height, description, parts)


def _curve(line: Series, places: Sequence[tuple[float, float]]) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    colour = f"var(--c{line.colour % NUM_COLOURS})"
    dash = DASHES[line.colour // NUM_COLOURS % len(DASHES)]
    parts = [
        f'<polyline class="curve" style="stroke:{colour}" points="{path}"'
        f"{f' stroke-dasharray={dash!r}' if dash else ''}><title>{escape(line.label)}</title></polyline>"
    ]
    if line.has_dots or len(places) == 1:
        parts += [
            f'<circle class="dot" style="fill:{colour}" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="3"><title>{escape(line.label)}: {value:.4g} at {_short(at)}</title></circle>'
            for (x, y), (at, value) in zip(places, line.points, strict=True)
        ]
    return parts


def _dots(row: DotRow, scale: Callable[[float], float], middle: float) -> list[str]:
    """One row of a dot chart; `middle`: its vertical position."""
    colour = f"var(--c{row.colour % NUM_COLOURS})"
    parts = [_text(16, middle - 14, row.label, "start", "rowname")]
    if row.deviation is not None:
        left, right = scale(row.mean - row.deviation), scale(row.mean + row.deviation)
        parts.append(
            f'<line class="whisker" style="stroke:{colour}" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" '
            f'y2="{middle}"/>'
        )
    for value in row.values:
        parts.append(
            f'<circle class="seed" style="fill:{colour}" cx="{scale(value):.1f}" cy="{middle}" r="4.5">'
            f"<title>{escape(row.label)}: {value:.4g}</title></circle>"
        )
    x = scale(row.mean)
    parts.append(
        f'<line class="mean" style="stroke:{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 9}" y2="{middle + 9}"/>'
    )
    return parts


def _svg(height: float, description: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def _horizontal(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 7, y + 4, label, "end")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (stop - start)


def _ticks(low: float, high: float, count: int) -> tuple[list[float], tuple[float, float]]:
    """Round numbers that enclose [low, high], and the ends of the axis."""
    if high - low < 1e-12:
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    return ticks, (ticks[0], ticks[-1])


def _log_ticks(low: float, high: float) -> tuple[list[float], tuple[float, float]]:
    """1, 2 and 5 of every decade, or only 1 for more than two decades; the ends are the closest enclosing ticks."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0,)
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    below = max((tick for tick in every if tick <= low), default=low)
    above = min((tick for tick in every if tick >= high), default=high)
    return [tick for tick in every if below <= tick <= above], (below, above)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points, each the mean of a group of neighbours."""
    stride = math.ceil(len(points) / MAX_POINTS)
    if stride <= 1:
        return list(points)
    groups = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(sum(x for x, _ in one) / len(one), sum(y for _, y in one) / len(one)) for one in groups]


def _short(value: float) -> str:
    """Like 1.2M, 250k, 0.85."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.4g}" if size >= 1e-4 or value == 0 else f"{value:.0e}"
