"""What the page's templates render: tables, figures, tiles, notes and folded curves (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from trainer.report.plots import NUM_COLOURS


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell, followed by a remark in small type."""

    text: str
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose first cell of each row is the row's heading. `best_row` is set in bold."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    remark: str = ""
    best_row: int | None = None


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """Name and colour number of what a chart shows."""

    label: str
    colour: int

    @property
    def variable(self) -> str:
        """The colour's name in the style sheet."""
        return f"--c{self.colour % NUM_COLOURS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its caption and legend."""

    caption: str
    remark: str
    chart: Markup
    legend: Sequence[LegendEntry] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure in large type."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Note:
    """What is missing from the folder of a run."""

    folder: str
    text: str


@dataclass(frozen=True, slots=True)
class RunCurves:
    """The curves of one run, under its label."""

    label: str
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the page, in the order in which it shows its parts. `link`: its name in the page's navigation.

    paragraph: introductory text; message: shown in place of the tiles; curves: folded under `curves_title`.
    """

    anchor: str
    link: str
    heading: str
    paragraph: str = ""
    message: str = ""
    tiles: Sequence[Tile] = ()
    notes: Sequence[Note] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    curves_title: str = ""
    curves: Sequence[RunCurves] = field(default=())


def cells(*values: str | Cell) -> list[Cell]:
    """A row of a table."""
    return [value if isinstance(value, Cell) else Cell(value) for value in values]
