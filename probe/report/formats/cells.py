"""What a table is, whatever it is written as: pages of tables of cells, with notes they share.

Commands make pages; each format is one function that writes a page. No format decides anything:
which cells are marked, which columns there are, what stands above a table is in the page.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

SHARE, UNIT, COUNT, P_VALUE, PLAIN = (
    "share",
    "unit",
    "count",
    "p",
    "plain",
)  # how numbers are written


@dataclass(frozen=True)
class Cell:
    """A text, or a number with what is known of it."""

    text: str = ""  # where it isn't a number, or what stands in a number's place
    value: float | None = None  # nan: it is undefined
    low: float | None = None  # of its interval; nan: it has none
    high: float | None = None
    sd: float | None = None  # over seeds, folds or episodes
    form: str = SHARE  # SHARE .937, UNIT four digits, COUNT whole, P_VALUE "p < .001", PLAIN %g
    is_marked: bool = False  # not separated from the best
    notes: tuple[str, ...] = ()  # each is numbered once a page

    @property
    def is_number(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Column:
    """A column's heading."""

    name: str
    over: str = ""  # a heading that neighbours share, such as a data set
    is_right: bool = False  # numbers that stand alone are flush right


@dataclass(frozen=True)
class Table:
    """Rows that may be compared with each other."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""  # what tells it from the page's other tables
    above: tuple[tuple[str, str], ...] = ()  # what is the same in all rows: name, value
    below: tuple[str, ...] = ()  # lines of its own: the family of tests, say
    feet: int = 0  # how many of the last rows are summaries, set apart by a rule


@dataclass(frozen=True)
class Page:
    """All that a command prints."""

    tables: tuple[Table, ...]
    title: str = ""
    lead: tuple[str, ...] = ()  # the headline, and what must be read before the tables
    notes: tuple[str, ...] = ()  # that belong to no cell

    def numbered(self) -> dict[str, int]:
        """The notes of all cells -> their number, in the order in which they are met."""
        return {note: number for number, note in enumerate(dict.fromkeys(self._met()), start=1)}

    def _met(self) -> Iterator[str]:
        for table in self.tables:
            for row in table.rows:
                for cell in row:
                    yield from cell.notes


def number(value: float, form: str = SHARE) -> str:
    """A number as text; "-" where it is undefined.

    Args:
        value: the number.
        form: SHARE three decimals; UNIT four digits, wherever the point is; COUNT whole; P_VALUE
            three decimals, never "0.000"; PLAIN as short as it is.
    """
    if math.isnan(value):
        return "-"
    if form == P_VALUE:
        return "<0.001" if value < 0.0005 else f"{value:.3f}"
    return f"{value:{dict(share='.3f', unit='.4g', count='.0f', plain='g')[form]}}"


def spread(cell: Cell) -> str:
    """What stands behind a cell's number: " [0.903 0.959]", " ± 0.012", or nothing."""
    found = ""
    if cell.sd is not None and not math.isnan(cell.sd):
        found += f" ± {number(cell.sd, cell.form)}"
    if cell.low is not None and cell.high is not None:
        if math.isnan(cell.low) and math.isnan(cell.high):
            return f"{found} [-]" if not found else found
        found += f" [{number(cell.low, cell.form)} {number(cell.high, cell.form)}]"
    return found
