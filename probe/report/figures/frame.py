"""What a picture is drawn from: a record for each mark in it, which any format of a page writes.

A figure NAME is two modules. ``figures.NAME`` has a frozen dataclass of texts and numbers, whose fields
are the columns, and ``make``, which gives its records of stored rows; it needs no library that draws,
so that pictures of any kind share it. ``figures.drawn.NAME`` has ``draw``, which sees these records and
nothing else. So a picture shows what its CSV holds.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cache.errors import RequestError
from probe.report.formats.cells import PLAIN, Cell, Column, Page, Table
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.statistics.bands import By

Point = TypeVar("Point")


@dataclass(frozen=True)
class Frame(Generic[Point]):
    """What a picture shows, in long form."""

    points: tuple[Point, ...]  # one at least, all of one dataclass
    caption: str  # what bars are, of how many, units; it stands below the picture
    notes: tuple[str, ...] = ()  # what is left out, and why

    def page(self) -> Page:
        """As a table, a line a point. What isn't known is empty."""
        names = [field.name for field in dataclasses.fields(self.points[0])]  # type: ignore[arg-type]
        rows = tuple(tuple(_cell(getattr(p, name)) for name in names) for p in self.points)
        columns = tuple(Column(name) for name in names)
        return Page((Table(columns, rows),), notes=(self.caption, *self.notes))


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


def nothing(what: str, command: str) -> RequestError:
    """The error of a figure that has nothing to draw.

    Args:
        what: rows that it needs: "three layers of one encoder, asked alike".
        command: that makes them.
    """
    return RequestError(f"nothing to draw: it needs {what}; `{command}` makes them")
