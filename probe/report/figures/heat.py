"""Matrices of coloured tiles: what heat maps share."""

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
class Scale:
    """What colours mean. Numbers beyond its ends have the colours of these."""

    low: float
    high: float
    label: str  # of the number, with its unit
    is_diverging: bool = False  # white in the middle

    @property
    def colours(self) -> tuple[str, ...]:
        """From low to high."""
        return DIVERGING if self.is_diverging else SEQUENTIAL

    def is_dark(self, value: float) -> bool:
        """Whether text on a number's colour is white."""
        place = (value - self.low) / (self.high - self.low)  # nan: not dark
        return abs(2 * place - 1) > 0.7 if self.is_diverging else place > 0.5
