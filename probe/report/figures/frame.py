"""What a picture is drawn from: a record for each mark in it, which any format of a page writes.

A figure NAME is a module ``figures.NAME`` with ``make``, which gives its frame of stored rows. The
points of a frame are records of one frozen dataclass of texts and numbers; its fields are the columns of
the CSV. A frame says which shape draws it: ``drawn.SHAPE`` with matplotlib into a file,
``plotted.SHAPE`` with plotly into a page. Both see the frame and nothing else, so a picture shows what
its CSV holds; and a figure whose shape is there needs no library that draws.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cache.commands.names import counted
from cache.errors import RequestError
from probe.report.figures.heat import Scale
from probe.report.formats.cells import PLAIN, Cell, Column, Page, Table, line
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.statistics.bands import By

Point = TypeVar("Point")
SHAPES = {  # -> fields in which no two points of a picture are the same
    "curves": ("panel", "line", "along", "x", "metric", "of"),
    "cost": ("panel", "name"),
    "dots": ("panel", "name", "of", "is_published"),
    "heat": ("panel", "row", "column"),
    "ranks": ("panel", "probe", "model"),
    "reliability": ("panel", "of", "above"),
}


@dataclass(frozen=True)
class Frame(Generic[Point]):
    """What a picture shows, in long form."""

    shape: str  # which module of drawn and of plotted draws it
    points: tuple[Point, ...]  # one at least, all of one dataclass
    caption: str  # what bars are, of how many, units; it stands below the picture
    notes: tuple[str, ...] = ()  # what is left out, and why; sentences, a line each
    x: str = ""  # what the axes are, with units; "": the points say it
    y: str = ""
    is_log: bool = False  # whether the x axis is
    scale: Scale | None = None  # of a heat map's colours
    commands: tuple[str, ...] = ()  # that make what is missing
    lists: str = ""  # the command that lists these
    counted: str = ""  # what it is made of, where that isn't all that was asked for

    def __post_init__(self) -> None:
        """Nothing stands twice in one place: two questions must have two titles, or two names.

        Raises:
            RequestError: it does.
        """
        if names := SHAPES.get(self.shape):
            found = Counter(tuple(getattr(p, name) for name in names) for p in self.points)
            twice = [place for place, n in found.items() if n > 1]
            if twice:  # classes of one name, say: files are anyone's
                words = ", ".join(map(str, twice[0]))
                raise RequestError(
                    f"{words}: {found[twice[0]]} numbers of one name can't be told apart"
                )

    @property
    def missing(self) -> str:
        """How many commands make what is missing; "" where none does."""
        n = counted(len(self.commands), "command")
        verb = "makes" if len(self.commands) == 1 else "make"
        return f"{n} {verb} what is missing" if self.commands else ""

    def page(self) -> Page:
        """As a table, a line a point. What isn't known is empty."""
        names = [field.name for field in dataclasses.fields(self.points[0])]  # type: ignore[arg-type]
        rows = tuple(tuple(_cell(getattr(p, name)) for name in names) for p in self.points)
        columns = tuple(Column(name) for name in names)
        return Page((Table(columns, rows),), notes=(self.caption, *self.notes, *self.commands))

    def legible(self) -> "Frame[Point]":
        """Without letters that no font has and no SVG may hold; lines of a name stay."""
        points = tuple(map(_legible, self.points))
        return _legible(dataclasses.replace(self, points=points))


def _legible(of: Any) -> Any:
    texts = {name: text for name, text in vars(of).items() if isinstance(text, str)}
    clean = {name: "\n".join(map(line, text.split("\n"))) for name, text in texts.items()}
    return of if clean == texts else dataclasses.replace(of, **clean)


def _cell(value: Any) -> Cell:
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int | float):
        return Cell() if math.isnan(value) else Cell(value=value, form=PLAIN)
    return Cell(str(value))


@dataclass(frozen=True)
class Asked:
    """What a frame is made of."""

    rows: Sequence[StoredRow]
    contenders: Sequence[Contender]  # of the rows
    people: People
    metric: str = "auc"  # by its name in rows
    by: By | None = None  # what divides samples into subgroups
    across: str = ""  # field of the x axis, as it is typed
    by_class: bool = False  # whether each class is shown by itself

    @property
    def counted(self) -> str:
        """How much of what it is, for people."""
        return counted(len(self.rows), "row")


def nothing(what: str, command: str) -> RequestError:
    """The error of a figure that has nothing to draw.

    Args:
        what: rows that it needs: "three layers of one encoder, asked alike".
        command: that makes them.
    """
    return RequestError(f"nothing to draw: it needs {what}; `{command}` makes them")
