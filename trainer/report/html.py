"""Pieces of HTML that the page's sections are made of: tables, figures, numbers as people read them (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from trainer.report.plots import NUM_COLOURS

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell with a smaller remark behind it."""

    text: str
    remark: str = ""

    def html(self) -> str:
        """The cell's inside."""
        return escape(self.text) + (f" <small>{escape(self.remark)}</small>" if self.remark else "")


Row = Sequence[str | Cell]


def table(
    caption: str, header: Sequence[str], rows: Iterable[Row], remark: str = "", best_rows: Iterable[int] = ()
) -> str:
    """An accessible table that scrolls sideways by itself; the first cell of a row is its heading."""
    strong = set(best_rows)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for number, row in enumerate(rows):
        first, *others = (cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
        cells = f'<th scope="row">{first.html()}</th>' + "".join(f"<td>{cell.html()}</td>" for cell in others)
        body.append(f"<tr{' class=best' if number in strong else ''}>{cells}</tr>")
    small = f"<small>{escape(remark)}</small>" if remark else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption, quote=True)}"><table>'
        f"<caption>{escape(caption)}{small}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def figure(caption: str, remark: str, chart: str, legend: Sequence[tuple[str, int]] = ()) -> str:
    """A chart with its caption and the colours' names; nothing for an empty chart."""
    if not chart:
        return ""
    small = f"<small>{escape(remark)}</small>" if remark else ""
    entries = "".join(
        f'<li><i style="border-color:var(--c{colour % NUM_COLOURS})"></i>{escape(label)}</li>'
        for label, colour in legend
    )
    names = f'<ul class="legend">{entries}</ul>' if entries else ""
    return f"<figure><figcaption>{escape(caption)}{small}</figcaption>{chart}{names}</figure>"


def charts(figures: Iterable[str]) -> str:
    """Figures beside each other where there is room."""
    shown = [one for one in figures if one]
    return f'<div class="charts">{"".join(shown)}</div>' if shown else ""


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """(name, value, note) in large letters."""
    inside = "".join(
        f'<div><dt>{escape(name)}</dt><dd class="value">{escape(value)}</dd><dd class="note">{escape(note)}</dd></div>'
        for name, value, note in entries
    )
    return f'<dl class="tiles">{inside}</dl>' if inside else ""


def details(summary: str, content: str) -> str:
    """Content that is folded away at first; nothing for nothing."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def points(value: Any) -> str:
    """A score times 100, as GLUE's tables have it."""
    return MISSING if not _is_finite(value) else f"{value * 100:.1f}"


def percent(value: Any, digits: int = 1) -> str:
    """0.968 -> 96.8%."""
    return MISSING if not _is_finite(value) else f"{value:.{digits}%}"


def times(value: Any) -> str:
    """7.46 -> 7.5x."""
    return MISSING if not _is_finite(value) else f"{value:.1f}×"


def millions(value: Any) -> str:
    """14,350,248 -> 14.35 M."""
    if not _is_finite(value):
        return MISSING
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{int(value):,}"


def megabytes(value: Any) -> str:
    """Bytes -> MB."""
    if not _is_finite(value):
        return MISSING
    return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.0f} kB"


def count(value: Any) -> str:
    """With thousands separated."""
    return MISSING if not _is_finite(value) else f"{round(value):,}"


def rate(value: Any) -> str:
    """A number a second."""
    return MISSING if not _is_finite(value) else f"{value:.1f}" if value < 20 else f"{round(value):,}"


def duration(value: Any) -> str:
    """Seconds -> 42 s, 7 min, 2.5 h."""
    if not _is_finite(value):
        return MISSING
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def milliseconds(value: Any) -> str:
    """Three figures."""
    return MISSING if not _is_finite(value) else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
