"""Rows as tables, a line each: what differs gets a column, what is the same stands once above."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.commands.terminal import cut_text
from probe.metrics import classification, overlap, regression
from probe.metrics.metric import INTERVAL, REST, SD, VAL, Metric
from probe.metrics.prepared import METRICS
from probe.report.formats.cells import SHARE, UNIT, Cell, Column, Page, Table
from probe.report.formats.write import write
from probe.report.pages.notes import joined
from probe.report.rows.comparable import NOT_TO_COMPARE, describe_block, make_blocks
from probe.report.rows.contenders import Contender, contenders_of, differing
from probe.report.rows.fields import ENCODER, METRIC_NAMES, METRIC_WORDS, find_field, written
from probe.report.rows.stored import StoredRow
from probe.results import Row

LEAKS = (
    "leaks: exact copies + near twins in an earlier split; p: patients there; ?: unknown (?p: "
    "patients unknown)"
)
OF_MASKS = (
    "dice, jaccard, hd95, nsd: means over classes of the mean over test samples that have the "
    "structure; a missed one counts 0, in hd95 (mm) the diagonal of its image; det.: whether anything "
    "is predicted of a structure where it is (sens), and nothing where it isn't (spec); bound: dice of "
    "the true masks pooled to the grid and back"
)
WITHOUT = "w/o: without test samples that leak"
MODEL = "model"  # always a column: whose numbers they are
# Fields that are shown where they tell rows apart, and above the table where they don't.
USUAL = (
    *("data", MODEL, "weights", "size", "prepared", "kind", "protocol", "mode", "layer", "pool"),
    *("depth", "place", "aggregate", "measured", "shots", "scale", "k", "prompts", "pooling"),
    *("averaging", "target", "split", "trained", "fold", "seed", "control", "leaks"),
)
FIRST = (MODEL, "weights", "data", "size", "kind")  # who answered
OF_CHOICE = ("encoder_lr", "head_lr", "set", "C", "penalty")  # for whoever has just asked
QUIET: Mapping[str, Sequence[str]] = {  # values that show no column, beside none
    "leaks": ("0", "0 ?p"),
    "scale": ("train",),
    "place": ("named", "joined"),  # of which layer and pool say more
}
HEADINGS = {"chosen.k": "k chosen"}
MOST_SETTINGS, WIDTH = 3, 24  # columns of further settings, and letters of such a value
RIGHT = {"size", "layer", "depth", "shots", "k", "prompts", "seed", *OF_CHOICE} - {"set"}


@dataclass(frozen=True)
class Line:
    """A row, or what the rows of one question come to."""

    contender: Contender
    is_mean: bool = False

    def words(self, name: str) -> str:
        """A field; of a mean, what all its rows share, and how many they are."""
        if not self.is_mean:
            return written(find_field(name).of(self.contender.first))
        if name == ("fold" if self.contender.is_of_folds else "seed"):
            n, n_asked = len(self.contender.rows), self.contender.n_asked
            lacking = self.contender.is_of_folds and n < n_asked
            return f"mean of {n} of {n_asked}" if lacking else f"mean of {n}"
        return written(self.contender.field(name))

    @property
    def notes(self) -> tuple[str, ...]:
        return self.contender.notes if self.is_mean else self.contender.marks


@dataclass(frozen=True)
class Numbers:
    """A column of numbers."""

    heading: str
    of: Callable[[Line], Cell | None]  # None: the line hasn't it


def format_rows(rows: Sequence[Row]) -> str:
    """Rows that were just made, for a terminal or a log.

    Args:
        rows: in order.
    """
    return write(page_of_rows([StoredRow(row) for row in rows], is_full=True)).rstrip("\n")


def page_of_rows(
    rows: Sequence[StoredRow],
    columns: Sequence[str] = (),
    *,
    is_full: bool = False,
    is_wide: bool = False,
) -> Page:
    """Rows as a page.

    Folds of one question stand below one another, with their mean and standard deviation. Rows of
    one data set that were asked about different samples are a table each, under what differs.

    Args:
        rows: in order.
        columns: fields and numbers to show, in this order; "+C" adds one to the usual; none: those.
        is_full: whether the usual ones are all that there are, with what val or folds chose.
        is_wide: whether it is for a screen that cuts it off on the right: numbers stand behind who
            answered, and what else tells rows apart behind them.

    Raises:
        RequestError: there is no such field.
    """
    blocks = make_blocks(contenders_of(rows))
    own = [name for name in columns if not name.startswith("+")]
    more = [name.removeprefix("+") for name in columns if name.startswith("+")]
    shown = Shown((*own, *more), False)
    if not own:
        shown = Shown((*USUAL, *(OF_CHOICE if is_full else ()), *more), True, is_full, is_wide)
    notes = joined(note for of in rows for note in of.row.marks)
    tables = []
    for number, block in enumerate(blocks, start=1):
        lines = [line for contender in block.contenders for line in _lines(contender)]
        title = describe_block(number, blocks) if len(blocks) > 1 else ""
        tables.append(_table(lines, title, shown, notes))
    return Page(tuple(tables), notes=(NOT_TO_COMPARE,) if len(blocks) > 1 else ())


@dataclass(frozen=True)
class Shown:
    """Which columns."""

    names: Sequence[str]  # fields and numbers
    is_usual: bool  # fields that say the same of all lines stand above; numbers are the usual ones
    is_full: bool = False
    is_wide: bool = False


def _lines(contender: Contender) -> list[Line]:
    lines = [Line(Contender((of,))) for of in contender.rows]
    return [*lines, Line(contender, is_mean=True)] if len(lines) > 1 else lines


def _table(lines: Sequence[Line], title: str, shown: Shown, notes: Mapping[str, str]) -> Table:
    fields: list[tuple[Column, list[Cell]]] = []
    numbers: list[Numbers] = []
    above: list[tuple[str, str]] = []
    for name in dict.fromkeys(shown.names):
        if found := numbers_named(name):
            numbers.append(found)
            if not shown.is_usual:  # as it was asked for
                fields.append(_column(found, lines))
            continue
        field, words = find_field(name), [line.words(name) for line in lines]
        told = {w for w, line in zip(words, lines, strict=True) if not line.is_mean}
        if shown.is_usual and name != MODEL:
            if told <= {"", *QUIET.get(name, ())}:
                continue
            if field.part == ENCODER and _follows_model(name, lines):
                continue
            if len(told) == 1:
                above.append((field.title, told.pop()))
                continue
        fields.append((Column(field.title, is_right=name in RIGHT), [Cell(word) for word in words]))
    if shown.is_usual:
        fields += _settings_that_tell(lines, [cells for _, cells in fields])
        usual = [n for n in ALL_NUMBERS if shown.is_full or n in FEW_NUMBERS]
        columns = [_column(n, lines) for n in dict.fromkeys((*usual, *numbers))]
        asked = {n.heading for n in numbers}
        measured = [
            c for c in columns if c[0].name in asked or any(cell != Cell() for cell in c[1])
        ]
        place = len(fields)
        if shown.is_wide:
            order = {find_field(name).title: at for at, name in enumerate(FIRST)}
            fields.sort(key=lambda field: order.get(field[0].name, len(order)))
            place = sum(column.name in order for column, _ in fields)
        fields[place:place] = measured
    said = [tuple(dict.fromkeys(notes.get(n, n) for n in line.notes)) for line in lines]
    of_rows = [of for of, line in zip(said, lines, strict=True) if not line.is_mean]
    every = _shared(of_rows) if len(of_rows) > 1 else ()
    own = [tuple(note for note in of if note not in every) for of in said]
    if any(own):
        fields.append((Column("note"), [Cell(notes=of) for of in own]))
    headings = [*(name for name, _ in above), *(column.name for column, _ in fields)]
    explained = {
        LEAKS: "leaks" in headings,
        OF_MASKS: DICE in headings,
        WITHOUT: any("w/o" in name for name in headings),
    }
    below = (*(text for text, is_needed in explained.items() if is_needed), *every)
    rows = tuple(zip(*(cells for _, cells in fields), strict=True))
    return Table(tuple(column for column, _ in fields), rows, title, tuple(above), below)


def _column(numbers: Numbers, lines: Sequence[Line]) -> tuple[Column, list[Cell]]:
    return Column(numbers.heading, is_right=True), [numbers.of(line) or Cell() for line in lines]


def _settings_that_tell(
    lines: Sequence[Line], columns: Sequence[Sequence[Cell]]
) -> list[tuple[Column, list[Cell]]]:
    """Columns of settings in which lines differ that all other columns say the same of."""
    alike: dict[tuple[str, ...], list[Line]] = {}
    for i, line in enumerate(lines):
        alike.setdefault(tuple(cells[i].text for cells in columns), []).append(line)
    names: dict[str, None] = {}
    conditions = {id(line): line.contender.condition() for line in lines}
    for members in alike.values():
        names |= dict.fromkeys(differing([conditions[id(line)] for line in members]))
    return [
        (
            Column(HEADINGS.get(n, n.removeprefix("probe."))),
            [_short(conditions[id(line)], n) for line in lines],
        )
        for n in list(names)[:MOST_SETTINGS]
    ]


def _short(condition: Mapping[str, Any], name: str) -> Cell:
    value = condition.get(name)
    return Cell("yes" if value is True else cut_text(written(value), WIDTH))


def _shared(notes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Notes that every row has."""
    return tuple(note for note in notes[0] if all(note in of for of in notes[1:]))


def _follows_model(name: str, lines: Sequence[Line]) -> bool:
    """Whether a fact of the encoder is one for each name, and so says nothing beside it.

    Of the input's size and its preparation a reader wants to know all the same.
    """
    if name in ("size", "prepared"):
        return False
    found = {(line.words(MODEL), line.words(name)) for line in lines}
    return len(found) == len({model for model, _ in found})


def numbers_named(name: str) -> Numbers | None:
    """A column of numbers: "auc", "val:auc", "sd:auc" over episodes, "rest:auc" without twins.

    Returns:
        None: it is none.
    """
    prefix, _, word = name.rpartition(":")
    name = METRIC_WORDS.get(word, word)
    if name not in METRIC_NAMES or prefix not in ("", *PREFIXES):
        return None
    metric = next(m for m in METRICS if m.name == name)
    return PREFIXES[prefix](metric) if prefix else _of_test(metric, with_interval=True)


def _of_test(metric: Metric, *, with_interval: bool) -> Numbers:
    heading = INTERVAL.format(metric.column or metric.name) if with_interval else metric.column

    def of(line: Line) -> Cell | None:
        found = line.contender.value(metric.name)
        if found is None:
            return None
        if line.is_mean:
            return Cell(value=found.value, sd=found.sd, form=_form(metric))
        ends = (found.low, found.high) if with_interval else (None, None)
        return Cell(value=found.value, low=ends[0], high=ends[1], form=_form(metric))

    return Numbers(heading, of)


def _of_val(metric: Metric, *, always: bool = False) -> Numbers:
    """Val's numbers, where they stand in the place of test's."""

    def of(line: Line) -> Cell | None:
        rows = [of.row for of in line.contender.rows]
        if any(metric.name not in row.measured.val for row in rows):
            return None
        if not always and any(row.measured.test for row in rows):
            return None
        found = line.contender.mean([row.measured.val[metric.name] for row in rows])
        return _plain(found.value, found.sd if line.is_mean else math.nan, metric)

    return Numbers(VAL.format(metric.column or metric.name), of)


def _of_rest(metric: Metric) -> Numbers:
    """The same of the test samples that have no twin."""

    def of(line: Line) -> Cell | None:
        each = [of.row.measured.without_twins for of in line.contender.rows]
        if any(metric.name not in found for found in each):
            return None
        found = line.contender.mean([found[metric.name] for found in each])
        return _plain(found.value, found.sd if line.is_mean else math.nan, metric)

    return Numbers(REST.format(metric.column or metric.name), of)


def _of_episodes(metric: Metric) -> Numbers:
    """Their standard deviation."""

    def of(line: Line) -> Cell | None:
        rows = [of.row for of in line.contender.rows]
        if line.is_mean or len(rows[0].measured.episodes.get(metric.name, ())) < 2:
            return None
        found = line.contender.value(metric.name)
        return None if found is None else Cell(value=found.sd, form=_form(metric))

    return Numbers(SD.format(metric.column or metric.name), of)


def _plain(value: float, sd: float, metric: Metric) -> Cell:
    return Cell(value=value, sd=None if math.isnan(sd) else sd, form=_form(metric))


def _form(metric: Metric) -> str:
    return UNIT if metric.has_unit else SHARE


def _all_numbers() -> tuple[Numbers, ...]:
    """Those of test, those with an interval first; then val's, episodes' and the others'."""
    found: list[Numbers] = []
    for metrics in (classification.METRICS, regression.METRICS, overlap.METRICS):
        first = [m for m in metrics if INTERVAL in m.also]
        found += [_of_test(m, with_interval=True) for m in first]
        rest = [m for m in metrics if m.column and m not in first]
        found += [_of_test(m, with_interval=False) for m in rest]
    found += [_of_val(m) for m in METRICS if VAL in m.also]
    found += [_of_episodes(m) for m in METRICS if SD in m.also]
    return (*found, *(_of_rest(m) for m in METRICS if REST in m.also))


PREFIXES: Mapping[str, Callable[[Metric], Numbers]] = {
    "val": lambda metric: _of_val(metric, always=True),
    "sd": _of_episodes,
    "rest": _of_rest,
}
ALL_NUMBERS = _all_numbers()
# In a table of many rows: no f1, IoU of whole sets, standard deviations of episodes, or numbers without twins.
SELDOM = re.compile(r"f1|miou|.* (sd|w/o)")
DICE = INTERVAL.format("dice")
FEW_NUMBERS = tuple(n for n in ALL_NUMBERS if not SELDOM.fullmatch(n.heading))
