"""What a table is, whatever it is written as: pages of tables of cells, with notes they share.

Commands make pages; each format is one function that writes a page. No format decides anything:
which cells are marked, which columns there are, what stands above a table is in the page.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from cache.commands.terminal import in_line

# How numbers are written.
SHARE, SIGNED, UNIT, COUNT, P_VALUE, PLAIN = "share", "signed", "unit", "count", "p", "plain"
PERCENT, POINTS = "percent", "points"  # of values that are in percent already
WRITTEN = {
    **{SHARE: ".3f", SIGNED: "+.3f", UNIT: ".4g", COUNT: ".0f", P_VALUE: ".3f", PLAIN: "g"},
    **{PERCENT: ".2f", POINTS: "+.2f"},
}
OF_SD = {
    SIGNED: SHARE,
    POINTS: PERCENT,
    COUNT: UNIT,
}  # standard deviations have no sign, and of counts decimals

THOUSANDS = re.compile(r"(?<![\w.])\d{1,3}(?:_\d{3})+(?!\w|\.\w)")  # "1_214", no part of a name
PROSE = 60  # letters that a line of a table has room for


def spaced(text: str) -> str:
    """Thousands of a text for people, "1_214", with a narrow space between."""
    return THOUSANDS.sub(lambda found: found[0].replace("_", "\N{NARROW NO-BREAK SPACE}"), text)


@dataclass(frozen=True)
class Cell:
    """A text, or a number with what is known of it."""

    text: str = ""  # where it isn't a number; of a number, what is shown in its place
    value: float | None = None  # nan: it is undefined
    low: float | None = None  # of its interval; nan: it has none
    high: float | None = None
    sd: float | None = None  # over seeds, folds or episodes
    form: str = SHARE  # SHARE 0.937, SIGNED +0.012, UNIT four digits ...: ``number``
    is_marked: bool = False  # not separated from the best
    notes: tuple[str, ...] = ()  # each is numbered once a page

    @property
    def is_number(self) -> bool:
        return self.value is not None

    @property
    def is_prose(self) -> bool:
        """Whether it is a text that needs more than a line where lines can be broken."""
        return not self.is_number and len(self.text) > PROSE and " " in self.text

    @property
    def shown(self) -> str:
        """The text, or the number as text; without its interval, mark and notes."""
        if self.value is None or self.text:
            return line(self.text)
        return number(self.value, self.form)


@dataclass(frozen=True)
class Column:
    """A column's heading."""

    name: str
    over: str = ""  # a heading that neighbours share, such as a data set
    is_right: bool = False  # numbers that stand alone are flush right

    @property
    def whole(self) -> str:
        """Both headings, for formats whose heading is one line."""
        return line(f"{self.over} {self.name}".strip())


@dataclass(frozen=True)
class Span:
    """Neighbouring columns under one shared heading; "" where they have none."""

    over: str
    start: int  # the first column's place
    n: int


@dataclass(frozen=True)
class Table:
    """Rows that may be compared with each other.

    Raises:
        ValueError: a row has another number of cells than there are columns; fewer rows than feet.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""  # what tells it from the page's other tables
    above: tuple[tuple[str, str], ...] = ()  # what is the same in all rows: name, value
    below: tuple[str, ...] = ()  # lines of its own: the family of tests, say
    feet: int = 0  # how many of the last rows are summaries, set apart by a rule

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells in a row, {len(self.columns)} columns")
        if not 0 <= self.feet <= len(self.rows):
            raise ValueError(f"{self.feet} feet, {len(self.rows)} rows")

    @property
    def facts(self) -> str:
        """What is the same in all rows, as one line: "kind linear, size 224"."""
        return line(", ".join(f"{name} {value}" for name, value in self.above))

    @property
    def n_body(self) -> int:
        """Rows above the feet."""
        return len(self.rows) - self.feet

    def spans(self) -> list[Span]:
        """Runs of columns that share a heading, from left to right; none where none is shared."""
        found, start = [], 0
        for over, run in groupby(column.over for column in self.columns):
            found.append(Span(line(over), start, len(list(run))))
            start += found[-1].n
        return found if any(span.over for span in found) else []

    def cells(self) -> Iterator[Cell]:
        for row in self.rows:
            yield from row


@dataclass(frozen=True)
class Page:
    """All that a command prints."""

    tables: tuple[Table, ...]
    title: str = ""
    lead: tuple[str, ...] = ()  # the headline, and what must be read before the tables
    notes: tuple[str, ...] = ()  # that belong to no cell
    marked: str = "not separated from the best"  # what a marked cell is

    @property
    def has_marks(self) -> bool:
        return any(cell.is_marked for table in self.tables for cell in table.cells())

    def numbered(self) -> dict[str, int]:
        """The notes of all cells -> their number, in the order in which they are met."""
        return {note: number for number, note in enumerate(dict.fromkeys(self._met()), start=1)}

    def _met(self) -> Iterator[str]:
        for table in self.tables:
            for cell in table.cells():
                yield from cell.notes


def places(cell: Cell, numbers: dict[str, int]) -> list[int]:
    """The numbers of a cell's notes, in order."""
    return sorted({numbers[note] for note in cell.notes})


def line(text: str) -> str:
    """A text that stands in one line, can be written as UTF-8 and moves no cursor."""
    return in_line(text).encode("utf-8", "backslashreplace").decode()


def number(value: float, form: str = SHARE) -> str:
    """A number as text; "-" where it is undefined.

    Args:
        value: the number.
        form: SHARE three decimals; SIGNED the same, with its sign; UNIT four digits, wherever the
            point is; COUNT whole; P_VALUE three decimals, never "0.000"; PLAIN as short as it is;
            PERCENT two decimals of a value that is in percent; POINTS the same, with its sign.
    """
    if math.isnan(value):
        return "-"
    if form == P_VALUE and value < 0.0005:
        return "<0.001"
    text = f"{value:{WRITTEN[form]}}"
    # No "-0.000": nobody can say on which side of zero it is.
    return text if float(text) else text.lstrip("+-")


def deviation(cell: Cell) -> str:
    """A cell's standard deviation as text, or nothing."""
    return "" if cell.sd is None else number(cell.sd, OF_SD.get(cell.form, cell.form))


def interval(cell: Cell) -> str:
    """A cell's interval as text: "0.903 0.959", or nothing.

    "-" where the number has no interval that covers; nothing behind an undefined number.
    """
    if cell.low is None or cell.high is None:
        return ""
    ends = [number(end, cell.form) for end in (cell.low, cell.high)]
    if ends != ["-", "-"]:
        return " ".join(ends)
    return "" if cell.value is None or math.isnan(cell.value) else "-"


def spread(cell: Cell) -> str:
    """What stands behind a cell's number: "± 0.012", "[0.903 0.959]", both, or nothing."""
    sd, ends = deviation(cell), interval(cell)
    return " ".join([f"± {sd}"] * bool(sd) + [f"[{ends}]"] * bool(ends))
