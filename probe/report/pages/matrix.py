"""One metric of encoders x data sets, or of any two fields, with who isn't separated from the best."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.errors import RequestError
from probe.metrics.metric import Metric
from probe.report.findings.parts import WHOLE_TABLE, Part, Shape, make_parts, word_of
from probe.report.findings.standing import ALONE, Untested, metric_of, stand
from probe.report.formats.cells import COUNT, SHARE, UNIT, Cell, Column, Page, Table
from probe.report.rows.answers import test_sets
from probe.report.rows.comparable import NOT_TO_COMPARE
from probe.report.rows.contenders import Contender, sharing
from probe.report.rows.fields import find_field, natural
from probe.report.rows.people import People
from probe.report.statistics.across import SHARED, across, mean_of_units, undecidable, units_of
from probe.report.statistics.families import Family, Ranks

DESCRIBED = ("size", "depth", "fitted")  # of a line, where it isn't one for all and nothing says it
APART = (
    "tables differ in more than their encoders, and nothing is ranked across them: ask all alike, narrow "
    "with --where, or spell the difference out with --by or --across"
)
NO_WORD = {"shots": "all"}  # what a column without the field is called
SEVERAL_SETS = "answers on several data sets are no pairs: let --across be data"


def page_of_metric(
    contenders: Sequence[Contender],
    metric_name: str,
    shape: Shape,
    people: People,
    lead_of: Callable[[Sequence[Sequence[Contender]]], tuple[str, ...]] = lambda sets: (),
) -> Page:
    """The tables of one metric.

    Args:
        contenders: to show.
        metric_name: in rows.
        shape: what stands where.
        people: that knows patients, for tests.
        lead_of: what stands before the tables, from the contenders of each of their data sets.

    Raises:
        RequestError: no row has the metric on test; scores or patients that tests need are missing.
    """
    metric = metric_of(metric_name)
    having = [c for c in contenders if c.value(metric_name) is not None]
    if not having:
        raise RequestError(f"no row has {metric_name} on test; `report table` lists what there is")
    parts = make_parts(having, shape)
    notes = []
    if len(having) < len(contenders):
        n = len(contenders) - len(having)
        notes.append(f"left out: {n} without {metric_name} on test")
    tables = [
        _table(part, number, parts, metric, shape, people) for number, part in enumerate(parts)
    ]
    if len(parts) > 1:
        notes.append(APART)
        samples = any("other " in part.differs for part in parts)
        notes += [NOT_TO_COMPARE] if samples else []
    better = "smaller is better" if metric.is_loss else "larger is better"
    lead = lead_of([of for part in parts for of in part.sets()])
    return Page(tuple(tables), f"{metric_name} on test, {better}", lead, tuple(notes))


def _table(
    part: Part, number: int, parts: Sequence[Part], metric: Metric, shape: Shape, people: People
) -> Table:
    lines, columns = part.lines, part.columns
    families: dict[str, Family | Untested] = {}
    if shape.is_tested and len(lines) > 1:
        families = {column: _stand(part, column, metric, shape, people) for column in columns}
    form = UNIT if metric.has_unit else SHARE
    marked = {
        (line, column)
        for column, family in families.items()
        if isinstance(family, Family)
        for line, is_best in zip(_members(part, column, metric), family.not_separated, strict=True)
        if is_best
    }
    summaries = _summaries(part, metric, families, shape)
    lines = _sorted(part, lines, metric, shape.sort, summaries)
    rows = []
    described = _described(part, shape)
    for line in lines:
        row = [Cell(word) for word in (*line, *(of[line] for of in described.values()))]
        for column in columns:
            contender = part.cells.get((line, column))
            row.append(_cell(contender, metric, form, (line, column) in marked))
        rows.append((*row, *(summary.cells[line] for summary in summaries)))
    heads_of = {column: column or NO_WORD.get(shape.across, "none") for column in columns}
    feet = _feet(part, columns, len(part.names) + len(described), len(summaries))
    heads = [
        *(Column(find_field(name).title) for name in part.names),
        *(Column(find_field(name).title) for name in described),
        *(Column(heads_of[column], is_right=True) for column in columns),
        *(Column(summary.name, is_right=True) for summary in summaries),
    ]
    below = [note for summary in summaries for note in summary.notes]
    below += _families_said(families, heads_of)
    title = f"table {number + 1} of {len(parts)}" if len(parts) > 1 else ""
    title += f": {part.differs}" if part.differs and number else ""
    return Table(
        tuple(heads), (*rows, *feet), title, _above(part, shape), tuple(below), feet=len(feet)
    )


def _described(part: Part, shape: Shape) -> dict[str, dict[tuple[str, ...], str]]:
    """Facts in which contenders differ beside what stands in their lines: name -> line -> words."""
    found: dict[str, dict[tuple[str, ...], str]] = {}
    for name in DESCRIBED:
        if name in (*part.names, shape.across):
            continue
        if len({word_of(c, name) for c in part.contenders}) > 1:
            words: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
            for (line, _), contender in part.cells.items():
                words[line][word_of(contender, name)] = None
            said = {line: ", ".join(filter(None, of)) for line, of in words.items()}
            found |= {name: said} if len(set(said.values())) > 1 else {}
    return found


def _above(part: Part, shape: Shape) -> tuple[tuple[str, str], ...]:
    """What all contenders share."""
    names = ("data", "kind", "protocol", "mode", "size", "prepared", "layer", "pool", "shots", "k")
    more = ("target", "split", "trained", "measured", "place")
    found = []
    for name in (*names, *more):
        if name in (*part.names, shape.across):
            continue
        words = {word_of(c, name) for c in part.contenders}
        if len(words) == 1 and words != {""}:
            found.append((find_field(name).title, words.pop()))
    n = {len(c.rows) for c in part.contenders if c.is_of_seeds}
    return (*found, *([("trainings", str(n.pop()))] if len(n) == 1 else []))


def _cell(contender: Contender | None, metric: Metric, form: str, is_marked: bool) -> Cell:
    if contender is None:
        return Cell("")
    found = contender.value(metric.name)
    assert found is not None
    notes = contender.notes if len(contender.rows) > 1 else _why_wide(contender, metric)
    if len(contender.rows) > 1:
        return Cell(value=found.value, sd=found.sd, form=form, is_marked=is_marked, notes=notes)
    return Cell("", found.value, found.low, found.high, form=form, is_marked=is_marked, notes=notes)


def _why_wide(contender: Contender, metric: Metric) -> tuple[str, ...]:
    """Why a number has no interval, or one by counts alone, as its row says it."""
    said = re.compile(rf"(no interval|intervals) of [^:]*\b{metric.name}\b.*")
    return tuple(mark for mark in contender.marks if said.fullmatch(mark))


def _members(part: Part, column: str, metric: Metric) -> list[tuple[str, ...]]:
    """Lines that have this column, and so were tested."""
    values = {line: _value(part.cells.get((line, column)), metric) for line in part.lines}
    return [line for line, value in values.items() if not math.isnan(value)]


def _stand(
    part: Part, column: str, metric: Metric, shape: Shape, people: People
) -> Family | Untested:
    contenders = [part.cells[line, column] for line in _members(part, column, metric)]
    if len(contenders) < 2:
        return Untested(ALONE)
    if len({c.dataset for c in contenders}) > 1:
        return Untested(SEVERAL_SETS)
    level = shape.level / (len(part.columns) if shape.family == WHOLE_TABLE else 1)
    try:
        return stand(test_sets(contenders, people), metric.name, level)
    except (
        RequestError
    ) as error:  # scores, or patients, that are gone: the numbers stand all the same
        return Untested(str(error))


def _value(contender: Contender | None, metric: Metric) -> float:
    found = None if contender is None else contender.value(metric.name)
    return math.nan if found is None else found.value


@dataclass(frozen=True)
class Summary:
    """A column over the others."""

    name: str
    cells: Mapping[tuple[str, ...], Cell]
    values: Mapping[tuple[str, ...], float]
    notes: tuple[str, ...] = ()


def _summaries(
    part: Part, metric: Metric, families: Mapping[str, Family | Untested], shape: Shape
) -> list[Summary]:
    """The average over data sets, and ranks."""
    lines, columns = part.lines, part.columns
    values = np.array(
        [[_value(part.cells.get((line, c)), metric) for line in lines] for c in columns]
    )
    if len(columns) == 1:
        (family,) = families.values() if families else (None,)
        if not isinstance(family, Family):
            return []
        return [_ranks(_members(part, columns[0], metric), lines, family.ranks, "")]
    if shape.across != "data":
        return []
    shared = (*SHARED, *sharing(part.contenders))
    units = units_of(columns, shared)
    average = mean_of_units(values, columns, units).mean(axis=0)
    average[np.isnan(values).any(axis=0)] = np.nan  # a unit's other members don't stand for one
    form = UNIT if metric.has_unit else SHARE
    notes = (
        [f"average: over {len(units)} independent data sets; {_joined(units)}"]
        if len(units) < len(columns)
        else []
    )
    if np.isnan(average).any() and not np.isnan(average).all():
        notes.append("average: of encoders that have all columns")
    found = (
        [
            Summary(
                "average",
                {
                    line: Cell(value=float(a), form=form) if a == a else Cell("-")
                    for line, a in zip(lines, average, strict=True)
                },
                dict(zip(lines, map(float, average), strict=True)),
                tuple(notes),
            )
        ]
        if not metric.has_unit
        else []
    )
    if not shape.is_tested or len(lines) < 2:
        return found
    both = [sum(~np.isnan(u)) > 1 for u in mean_of_units(values, columns, units)]
    why = undecidable(sum(both), len(lines), shape.level)
    family = across(-values if metric.is_loss else values, columns, shape.level, shared)
    said = f"ranks: all at once, {family.describe()}, exact signed-rank over data sets"
    return [*found, _ranks(lines, lines, family.ranks, f"{said}; {why}" if why else said)]


def _ranks(
    members: Sequence[tuple[str, ...]],
    lines: Sequence[tuple[str, ...]],
    ranks: Sequence[Ranks],
    note: str,
) -> Summary:
    """Which ranks each may have; all hold at once."""
    of = dict(zip(members, ranks, strict=True))
    words = {
        line: (
            f"{of[line].low}"
            if of[line].low == of[line].high
            else f"{of[line].low}-{of[line].high}"
        )
        if line in of
        else ""
        for line in lines
    }
    return Summary(
        "rank",
        {line: Cell(word) for line, word in words.items()},
        {line: float(of[line].low) if line in of else math.inf for line in lines},
        (note,) if note else (),
    )


def _joined(units: Sequence[Sequence[str]]) -> str:
    shared = [unit for unit in units if len(unit) > 1]
    return "; ".join(f"{', '.join(unit)} share patients and are one" for unit in shared)


def _sorted(
    part: Part,
    lines: list[tuple[str, ...]],
    metric: Metric,
    sort: str,
    summaries: Sequence[Summary],
) -> list[tuple[str, ...]]:
    """Lines by a column, rising; "-NAME": falling."""
    if not sort:
        return lines
    name, is_falling = sort.removeprefix("-"), sort.startswith("-")
    of = {summary.name: summary.values for summary in summaries}
    if name == metric.name and len(part.columns) == 1:
        name = part.columns[0]
    if name in of:
        values = dict(of[name])
    elif name in part.columns:
        values = {line: _value(part.cells.get((line, name)), metric) for line in lines}
    elif name in part.names:
        place = part.names.index(name)
        found = sorted(lines, key=lambda line: natural(line[place]))
        return found[::-1] if is_falling else found
    else:
        there = ", ".join((*part.names, *part.columns, *of))
        raise RequestError(f"--sort {sort}: no such column; there are {there}")
    known = [line for line in lines if values[line] == values[line]]
    known.sort(key=lambda line: values[line], reverse=is_falling)
    return known + [line for line in lines if values[line] != values[line]]


def _feet(part: Part, columns: Sequence[str], n_names: int, n_more: int) -> list[tuple[Cell, ...]]:
    """How many test samples each column is of."""
    counts = []
    for column in columns:
        members = [c for (_, of), c in part.cells.items() if of == column]
        found = {sum(row.row.n.get("test", 0) for row in _of_one_seed(c)) for c in members}
        counts.append(found.pop() if len(found) == 1 else None)
    blank = [Cell("")] * (n_names - 1)
    cells = [Cell("") if n is None else Cell(value=n, form=COUNT) for n in counts]
    return [(Cell("test samples"), *blank, *cells, *[Cell("")] * n_more)]


def _of_one_seed(contender: Contender) -> list[Any]:
    seed = contender.first.row.answered.training_seed
    return [of for of in contender.rows if of.row.answered.training_seed == seed]


def _families_said(
    families: Mapping[str, Family | Untested], names: Mapping[str, str]
) -> list[str]:
    """Which tests were made, columns that were tested alike together."""
    said: dict[str, list[str]] = defaultdict(list)
    for column, family in families.items():
        if isinstance(family, Family):
            said[f"tests: {family.describe()}"].append(names[column])
        else:
            said[f"not tested: {family.why}"].append(names[column])
    if len(said) == 1:
        (words,) = said
        return [words + (", in each column by itself" if len(families) > 1 else "")]
    return [f"{words} ({', '.join(columns)})" for words, columns in said.items()]
