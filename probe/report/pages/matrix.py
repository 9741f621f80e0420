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
from probe.report.findings.contest import Contest, Line, Reach, make_contest, value_of
from probe.report.findings.parts import Part, Shape, make_parts, word_of
from probe.report.findings.standing import Untested, metric_of
from probe.report.formats.cells import COUNT, SHARE, UNIT, Cell, Column, Page, Table
from probe.report.rows.comparable import NOT_TO_COMPARE
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import find_field, natural, no_metric
from probe.report.rows.ledger import Ledger
from probe.report.rows.people import People
from probe.report.statistics.families import Family, Ranks

DESCRIBED = ("size", "depth", "fitted")  # of a line, where it isn't one for all and nothing says it
APART = (
    "tables differ in more than their encoders, and nothing is ranked across them: ask all alike, narrow "
    "with --where, or spell the difference out with --by or --across"
)
NO_WORD = {"shots": "all"}  # what a column without the field is called
TALLIED = ("first", "open", "out")
TALLIES = (
    "first: in so many it alone isn't separated from the best; open: nor are others; out: a test puts "
    "another above it"
)
EACH = "; data sets that share patients count one by one"
SMALLEST, ASKED = "smallest difference", "looked at (K)"
LOOKED_AT = f"{ASKED}: questions that a test set was asked, by these rows and others; its best is a best of K"


def page_of_metric(
    contenders: Sequence[Contender],
    metric_name: str,
    shape: Shape,
    people: People,
    lead_of: Callable[[Sequence[Sequence[Contender]]], tuple[str, ...]] = lambda sets: (),
    ledger: Ledger | None = None,
) -> Page:
    """The tables of one metric.

    Args:
        contenders: to show.
        metric_name: in rows.
        shape: what stands where.
        people: that knows patients, for tests.
        lead_of: what stands before the tables, from the contenders of each of their data sets.
        ledger: that counts the questions of each test set; None: nobody does.

    Raises:
        RequestError: no row has the metric on test; scores or patients that tests need are missing.
    """
    metric = metric_of(metric_name)
    having = [c for c in contenders if c.value(metric_name) is not None]
    if not having:
        raise no_metric(metric_name, [of for c in contenders for of in c.rows])
    parts = make_parts(having, shape)
    notes = []
    if len(having) < len(contenders):
        n = len(contenders) - len(having)
        notes.append(f"left out: {n} without {metric_name} on test")
    contests = [make_contest(part, metric, shape, people, ledger) for part in parts]
    tables = [_table(contest, number, parts, shape) for number, contest in enumerate(contests)]
    notes += dict.fromkeys(line for contest in contests for line in _told(contest))
    if len(parts) > 1:
        notes.append(APART)
        samples = any("other " in part.differs for part in parts)
        notes += [NOT_TO_COMPARE] if samples else []
    better = "smaller is better" if metric.is_loss else "larger is better"
    lead = lead_of([of for part in parts for of in part.sets()])
    return Page(tuple(tables), f"{metric_name} on test, {better}", lead, tuple(notes))


def _table(contest: Contest, number: int, parts: Sequence[Part], shape: Shape) -> Table:
    part, metric = contest.part, contest.metric
    form = UNIT if metric.has_unit else SHARE
    summaries = _summaries(contest, form)
    lines = _sorted(contest, shape.sort, summaries)
    marked = {column: contest.marked(column) for column in contest.columns}
    rows = []
    described = _described(part, shape)
    for line in lines:
        row = [Cell(word) for word in (*line, *(of[line] for of in described.values()))]
        for column in contest.columns:
            contender = part.cells.get((line, column))
            row.append(_cell(contender, metric, form, line in marked[column]))
        rows.append((*row, *(summary.cells[line] for summary in summaries)))
    heads_of = {column: column or NO_WORD.get(shape.across, "none") for column in contest.columns}
    feet = _feet(contest, len(part.names) + len(described), len(summaries))
    heads = [
        *(Column(find_field(name).title) for name in part.names),
        *(Column(find_field(name).title) for name in described),
        *(Column(heads_of[column], is_right=True) for column in contest.columns),
        *(Column(summary.name, summary.over, is_right=True) for summary in summaries),
    ]
    below = [note for summary in summaries for note in summary.notes]
    below += _families_said(contest.families, heads_of)
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
    some = "" if all(c.is_of_seeds for c in part.contenders) else ", where a number has ±"
    return (*found, *([("trainings", f"{n.pop()}{some}")] if len(n) == 1 else []))


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


@dataclass(frozen=True)
class Summary:
    """A column over the others."""

    name: str
    cells: Mapping[Line, Cell]
    values: Mapping[Line, float]  # to sort by
    notes: tuple[str, ...] = ()
    over: str = ""  # a heading that neighbours share


def _summaries(contest: Contest, form: str) -> list[Summary]:
    """The average over data sets, ranks, and in how many columns a line is first, open or out."""
    lines, columns = contest.lines, contest.columns
    if len(columns) == 1:
        (family,) = contest.families.values() if contest.families else (None,)
        return (
            [_ranks(contest.members(columns[0]), lines, family.ranks, "")]
            if isinstance(family, Family)
            else []
        )
    found = [] if contest.metric.has_unit or not contest.units else [_average(contest, form)]
    if contest.over:
        said = f"ranks: all at once, {contest.over.describe()}, exact signed-rank over data sets"
        why = f"; {contest.why_not}" if contest.why_not else ""
        found.append(_ranks(lines, lines, contest.over.ranks, said + why))
    return found + _tallies(contest)


def _average(contest: Contest, form: str) -> Summary:
    units, average = contest.units, contest.average
    notes = []
    if len(units) < len(contest.columns):
        notes.append(f"average: over {len(units)} independent data sets; {_joined(units)}")
    if np.isnan(average).any() and not np.isnan(average).all():
        notes.append("average: of encoders that have all columns")
    of = dict(zip(contest.lines, map(float, average), strict=True))
    cells = {line: Cell(value=a, form=form) if a == a else Cell("-") for line, a in of.items()}
    return Summary("average", cells, of, tuple(notes))


def _tallies(contest: Contest) -> list[Summary]:
    n, what = len(contest.tested), "sets" if contest.units else "columns"
    if n < 2:
        return []
    each = {line: contest.tally(line) for line in contest.lines}
    counts = {word: {line: getattr(of, word) for line, of in each.items()} for word in TALLIED}
    return [
        Summary(
            word,
            {line: Cell(value=k, form=COUNT) for line, k in of.items()},
            of,
            over=f"of {n} {what}",
        )
        for word, of in counts.items()
    ]


def _ranks(
    members: Sequence[Line], lines: Sequence[Line], ranks: Sequence[Ranks], note: str
) -> Summary:
    """Which ranks each may have; all hold at once."""
    of = dict(zip(members, ranks, strict=True))
    cells = {line: Cell(_rank(of[line]) if line in of else "") for line in lines}
    lowest = {line: float(of[line].low) if line in of else math.inf for line in lines}
    return Summary("rank", cells, lowest, (note,) if note else ())


def _rank(of: Ranks) -> str:
    return f"{of.low}" if of.low == of.high else f"{of.low}-{of.high}"


def _joined(units: Sequence[Sequence[str]]) -> str:
    shared = [unit for unit in units if len(unit) > 1]
    return "; ".join(f"{', '.join(unit)} share patients and are one" for unit in shared)


def _sorted(contest: Contest, sort: str, summaries: Sequence[Summary]) -> list[Line]:
    """Lines by a column, rising; "-NAME": falling."""
    part, lines, metric = contest.part, contest.lines, contest.metric
    if not sort:
        return lines
    name, is_falling = sort.removeprefix("-"), sort.startswith("-")
    of = {summary.name: summary.values for summary in summaries}
    if name == metric.name and len(part.columns) == 1:
        name = part.columns[0]
    if name in of:
        values = dict(of[name])
    elif name in part.columns:
        values = {line: value_of(part.cells.get((line, name)), metric) for line in lines}
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


def _feet(contest: Contest, n_names: int, n_more: int) -> list[tuple[Cell, ...]]:
    """What each column can tell: its samples and patients, its smallest difference, and K."""
    reaches = [contest.reaches.get(column, Reach()) for column in contest.columns]
    shown = [
        ("test samples", [_samples(contest.part, column) for column in contest.columns]),
        ("patients", [_count(of.n_patients) for of in reaches]),
        (SMALLEST, [_smallest(of) for of in reaches]),
        (ASKED, [_count(of.looked_at or None) for of in reaches]),
    ]
    return [
        (Cell(name), *[Cell("")] * (n_names - 1), *cells, *[Cell("")] * n_more)
        for name, cells in shown
        if name == "test samples" or any(cell.is_number for cell in cells)
    ]


def _samples(part: Part, column: str) -> Cell:
    members = [c for (_, of), c in part.cells.items() if of == column]
    found = {sum(row.row.n.get("test", 0) for row in _of_one_seed(c)) for c in members}
    return _count(found.pop() if len(found) == 1 else None)


def _count(n: int | None) -> Cell:
    return Cell("") if n is None else Cell(value=n, form=COUNT)


def _smallest(of: Reach) -> Cell:
    """The smallest difference of two lines that a column shows; "-" where it shows none."""
    if of.decision is None:
        return Cell("")
    why = (f"nothing is shown: {of.decision.why_not}",) if of.decision.why_not else ()
    return Cell(value=of.decision.smallest, notes=why)


def _told(contest: Contest) -> list[str]:
    """What tallies and feet say, where they are."""
    reaches = contest.reaches.values()
    found = []
    if len(contest.tested) > 1:
        is_shared = 0 < len(contest.units) < len(contest.columns)
        found.append(f"{TALLIES}{EACH if is_shared else ''}")
    powers = dict.fromkeys(of.decision.power for of in reaches if of.decision)
    found += [
        f"{SMALLEST}: that one pair shows {of.power:.0%} of the time at level {of.level:g}, as the "
        "median pair scatters"
        for of in powers
    ]
    return [*found, *([LOOKED_AT] if any(of.looked_at for of in reaches) else [])]


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
