"""Who can still be first: contenders that were asked alike, tested in every column, and in all together.

In a column every pair is tested, as ``standing`` says. A line that some test puts below another is out
there; where every other is out it is first, alone; what lies between can't be told. Beside it stands what the column can tell at all: its patients, the smallest difference that a pair of these rows
shows (``deciding``), and how many questions its test set was asked (the ledger).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.errors import RequestError
from probe.arrays import Bools, Doubles
from probe.metrics.metric import Metric
from probe.report.findings.deciding import Asked, choose, from_rows
from probe.report.findings.parts import WHOLE_TABLE, Part, Shape
from probe.report.findings.standing import ALONE, Untested, stand
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.contenders import Contender, sharing
from probe.report.rows.ledger import Ledger
from probe.report.rows.people import People, count_patients
from probe.report.statistics.across import SHARED, across, mean_of_units, undecidable, units_of
from probe.report.statistics.decide import USUAL, Decision
from probe.report.statistics.families import Family

SEVERAL_SETS = "answers on several data sets are no pairs: let --across be data"
Line = tuple[str, ...]  # words of the fields that a line is of


@dataclass(frozen=True)
class Tally:
    """In how many columns a line is what."""

    first: int  # it alone isn't separated from the best
    open: int  # neither is another
    out: int  # a test puts another above it


@dataclass(frozen=True)
class Reach:
    """What a column can tell."""

    n_patients: int | None = None  # None: nobody knows them
    decision: Decision | None = (
        None  # of the median pair; None: fewer than two answers to one test set
    )
    of: str = ""  # which pair that is
    looked_at: int = 0  # questions that its test set was asked, K of "best of K"; 0: nobody counted


@dataclass(frozen=True)
class Contest:
    """A part of a table of one metric, tested. K lines, D columns."""

    part: Part
    metric: Metric
    values: Doubles  # (D, K) of the metric; nan where a line has no answer
    families: Mapping[str, Family | Untested]  # of each column; empty where nothing is tested
    reaches: Mapping[str, Reach]  # of each column; empty as well
    units: tuple[
        tuple[str, ...], ...
    ] = ()  # of columns that are data sets: those that share patients
    over: Family | None = None  # all pairs over the units; None: there are no several data sets
    why_not: str = ""  # why no pair can be told apart over the units; "" where one can

    @property
    def lines(self) -> list[Line]:
        return self.part.lines

    @property
    def columns(self) -> list[str]:
        return self.part.columns

    def members(self, column: str) -> list[Line]:
        """The lines that have a column, and so were tested."""
        row = self.values[self.columns.index(column)]
        return [line for line, value in zip(self.lines, row, strict=True) if value == value]

    def marked(self, column: str) -> set[Line]:
        """The lines that aren't separated from the best of a column."""
        family = self.families.get(column)
        if not isinstance(family, Family):
            return set()
        pairs = zip(self.members(column), family.not_separated, strict=True)
        return {line for line, is_best in pairs if is_best}

    def above(self, column: str) -> Bools:
        """(K, K) whether a test puts the row's line above the column's, on one column of the table."""
        found = np.zeros((len(self.lines), len(self.lines)), np.bool_)
        family = self.families.get(column)
        if isinstance(family, Family):
            places = [self.lines.index(line) for line in self.members(column)]
            found[np.ix_(places, places)] = family.above
        return found

    @property
    def tested(self) -> list[str]:
        """Columns that tests were made in."""
        return [name for name, family in self.families.items() if isinstance(family, Family)]

    def tally(self, line: Line) -> Tally:
        """In how many of the tested columns a line is first, out, or neither."""
        k, found = self.lines.index(line), {"first": 0, "open": 0, "out": 0}
        for column in self.tested:
            marked = self.marked(column)
            if line in marked:
                found["first" if len(marked) == 1 else "open"] += 1
            elif self.above(column)[:, k].any():
                found["out"] += 1
        return Tally(**found)

    @property
    def average(self) -> Doubles:
        """(K,) of each line over the units; nan where it lacks a column.

        A unit's other members don't stand for one that is lacking.
        """
        found = mean_of_units(self.values, self.columns, self.units).mean(axis=0)
        found[np.isnan(self.values).any(axis=0)] = np.nan
        return found


def value_of(contender: Contender | None, metric: Metric) -> float:
    """A contender's metric; nan where there is none."""
    found = None if contender is None else contender.value(metric.name)
    return math.nan if found is None else found.value


def make_contest(
    part: Part, metric: Metric, shape: Shape, people: People, ledger: Ledger | None = None
) -> Contest:
    """Test a part.

    Args:
        part: contenders that were asked alike, about the same samples.
        metric: in rows.
        shape: what stands where, and how it is tested.
        people: that knows patients.
        ledger: that counts questions; None: nobody does.
    """
    lines, columns = part.lines, part.columns
    values = np.array(
        [[value_of(part.cells.get((line, c)), metric) for line in lines] for c in columns]
    )
    families: dict[str, Family | Untested] = {}
    reaches: dict[str, Reach] = {}
    if shape.is_tested:
        for column in columns:
            families[column], reaches[column] = _column(part, column, metric, shape, people, ledger)
    contest = Contest(part, metric, values, families if len(lines) > 1 else {}, reaches)
    if shape.across != "data" or len(columns) < 2:
        return contest
    shared = (*SHARED, *sharing(part.contenders))
    contest = replace(contest, units=tuple(units_of(columns, shared)))
    if not shape.is_tested or len(lines) < 2:
        return contest
    both = [sum(~np.isnan(u)) > 1 for u in mean_of_units(values, columns, contest.units)]
    return replace(
        contest,
        over=across(-values if metric.is_loss else values, columns, shape.level, shared),
        why_not=undecidable(sum(both), len(lines), shape.level),
    )


def _column(
    part: Part, column: str, metric: Metric, shape: Shape, people: People, ledger: Ledger | None
) -> tuple[Family | Untested, Reach]:
    every = [part.cells[line, column] for line in part.lines if (line, column) in part.cells]
    contenders = [c for c in every if not math.isnan(value_of(c, metric))]
    if len({c.dataset for c in every}) > 1:
        return Untested(SEVERAL_SETS), Reach()
    looked_at = ledger.looked_at(every[0].first.row.test_set) if ledger else 0
    reach = Reach(looked_at=looked_at)
    if len(contenders) < 2:
        return Untested(ALONE), reach
    level = shape.level / (len(part.columns) if shape.family == WHOLE_TABLE else 1)
    try:
        sets = test_sets(contenders, people)
        found = stand(sets, metric.name, level)
    except RequestError as error:
        # Scores, or patients, that are gone: the numbers stand all the same.
        return Untested(str(error)), reach
    asked = Asked(power=replace(USUAL, level=shape.level))
    shown = from_rows(
        contenders[0].dataset, choose(contenders[0].dataset, contenders), people, asked
    )
    of = next((of for of in shown if of.decision.metric == metric.name), None)
    reach = replace(reach, n_patients=_patients(sets))
    return found, replace(reach, decision=of.decision, of=of.of) if of else reach


def _patients(sets: Sequence[TestSet]) -> int | None:
    """Patients of all folds together; None where nobody knows them."""
    if sets[0].samples.are_patients:
        return sum(len(test.ids) for test in sets)
    groups = [test.samples.groups for test in sets]
    known = [g for g in groups if g is not None]
    return count_patients(np.concatenate(known)) if len(known) == len(groups) else None
