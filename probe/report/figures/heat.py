"""Matrices of coloured tiles: what heat maps share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from probe.report.figures.palette import DIVERGING, SEQUENTIAL


@dataclass(frozen=True)
class Tile:
    """One number of a matrix. A figure's own record adds what it is made of.

    Rows and columns stand in the order of the records; a pair that has none is empty.
    """

    panel: str
    row: str  # its name, from the top
    column: str
    value: float  # nan: unknown
    text: str  # what stands in it, where there is room; "": nothing
    more: str  # a line below that, where there is room for it, too
    is_marked: bool  # by a corner; the caption says what for


@dataclass(frozen=True)
class Grouped(Tile):
    """A number of a matrix whose columns stand in groups, beside each other."""

    group: str  # its name, above its columns
    short: str  # the column's name within it


@dataclass(frozen=True)
class Group:
    """Columns from ``first`` to ``last``."""

    name: str
    first: int
    last: int

    @property
    def middle(self) -> float:
        return (self.first + self.last) / 2


def short_names(tiles: Sequence[Tile]) -> list[str]:
    """What stands below each column."""
    shorts = {t.column: t.short if isinstance(t, Grouped) else t.column for t in tiles}
    return list(shorts.values())


def groups_of(tiles: Sequence[Tile]) -> list[Group]:
    """The groups of the columns, from the left; none where columns stand alone."""
    names = {t.column: t.group for t in tiles if isinstance(t, Grouped)}
    found, first = [], 0
    for name, columns in itertools.groupby(names.values()):
        last = first + len(list(columns)) - 1
        found.append(Group(name, first, last))
        first = last + 1
    return found


@dataclass(frozen=True)
class Scale:
    """What colours mean. Numbers beyond its ends have the colours of these."""

    low: float
    high: float
    label: str  # of the number, with its unit
    is_diverging: bool = False  # white in the middle
    marks: tuple[float, ...] = ()  # a line at each on the bar of colours, which is there then
    is_percent: bool = False  # whether people read the number as a percentage

    def say(self, value: float, form: str) -> str:
        """A number for people, of this form where it is no percentage."""
        return f"{100 * value:.3g} %" if self.is_percent else f"{value:{form}}"

    @property
    def colours(self) -> tuple[str, ...]:
        """From low to high."""
        return DIVERGING if self.is_diverging else SEQUENTIAL

    def is_dark(self, value: float) -> bool:
        """Whether text on a number's colour is white."""
        place = (value - self.low) / (self.high - self.low)  # nan: not dark
        return abs(2 * place - 1) > 0.7 if self.is_diverging else place > 0.5
