"""Rows as tables, a line each: what differs gets a column, what is the same stands once above."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from probe.metrics import classification, regression
from probe.metrics.metric import INTERVAL, REST, SD, VAL, Metric
from probe.metrics.prepared import METRICS
from probe.report.formats.cells import SHARE, UNIT, Cell, Column, Page, Table
from probe.report.rows.comparable import NOT_TO_COMPARE, describe_block, make_blocks
from probe.report.rows.contenders import Contender, contenders_of
from probe.report.rows.fields import ENCODER, METRIC_NAMES, METRIC_WORDS, find_field, written
from probe.report.rows.stored import StoredRow

LEAKS = (
    "leaks: exact copies + near twins in an earlier split; p: patients there; ?: unknown (?p: "
    "patients unknown); w/o: without those test samples"
)
MODEL = "model"  # always a column: whose numbers they are
# Fields that are shown where they tell rows apart, and above the table where they don't.
USUAL = (
    *("data", MODEL, "weights", "size", "prepared", "kind", "protocol", "mode", "layer", "pool"),
    *("depth", "aggregate", "measured", "shots", "scale", "k", "prompts", "target", "split"),
    *("trained", "fold", "seed", "control"),
)
OF_CHOICE = ("encoder_lr", "head_lr", "set", "C", "penalty")  # for whoever has just asked
QUIET: Mapping[str, Sequence[str]] = {  # values that show no column, beside none
    "leaks": ("0", "0 ?p"),
    "scale": ("train",),
}
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


def page_of_rows(
    rows: Sequence[StoredRow], columns: Sequence[str] = (), *, chosen: bool = False
) -> Page:
    """Rows as a page.

    Folds of one question stand below one another, with their mean and standard deviation. Rows of
    one data set that were asked about different samples are a table each, under what differs.

    Args:
        rows: in order.
        columns: fields and metrics to show, in this order; "+C" adds one to the usual; none: those.
        chosen: whether what val or folds chose is among the usual.

    Raises:
        RequestError: there is no such field.
    """
    blocks = make_blocks(contenders_of(rows))
    own = [name for name in columns if not name.startswith("+")]
    more = [name.removeprefix("+") for name in columns if name.startswith("+")]
    tables = []
    for number, block in enumerate(blocks, start=1):
        lines = [line for contender in block.contenders for line in _lines(contender)]
        title = describe_block(number, blocks) if len(blocks) > 1 else ""
        if own:
            tables.append(_table(lines, title, [*own, *more], is_usual=False))
        else:
            fields = [*USUAL, *(OF_CHOICE if chosen else ()), *more]
            tables.append(_table(lines, title, fields, is_usual=True))
    return Page(tuple(tables), notes=(NOT_TO_COMPARE,) if len(blocks) > 1 else ())


def _lines(contender: Contender) -> list[Line]:
    lines = [Line(Contender((of,))) for of in contender.rows]
    return [*lines, Line(contender, is_mean=True)] if len(lines) > 1 else lines


def _table(lines: Sequence[Line], title: str, names: Sequence[str], *, is_usual: bool) -> Table:
    """A table of fields, and of numbers where they are the usual ones."""
    shown: list[tuple[Column, list[Cell]]] = []
    above: list[tuple[str, str]] = []
    for name in dict.fromkeys(names):
        if numbers := _numbers_named(name):
            cells = [numbers.of(line) or Cell() for line in lines]
            shown.append((Column(numbers.heading, is_right=True), cells))
            continue
        field, words = find_field(name), [line.words(name) for line in lines]
        told = {w for w, line in zip(words, lines, strict=True) if not line.is_mean}
        is_one = len(told) == 1 and is_usual and name != MODEL
        if is_one and not told <= {"", *QUIET.get(name, ())}:
            above.append((field.title, told.pop()))
        if is_one or (is_usual and told <= {"", *QUIET.get(name, ())}):
            continue
        if is_usual and field.part == ENCODER and name != MODEL and _follows_model(name, lines):
            continue
        column = Column(field.title, is_right=name in RIGHT)
        shown.append((column, [Cell(word) for word in words]))
    below: tuple[str, ...] = ()
    if is_usual:
        for numbers in USUAL_NUMBERS:
            cells = [numbers.of(line) for line in lines]
            if any(cell is not None for cell in cells):
                shown.append((Column(numbers.heading, is_right=True), [c or Cell() for c in cells]))
        leaks = [line.words("leaks") if not line.is_mean else "" for line in lines]
        if not set(leaks) <= {"", *QUIET["leaks"]}:
            shown.append((Column("leaks"), [Cell(word) for word in leaks]))
            below = (LEAKS,)
    every = _shared([line.notes for line in lines if not line.is_mean]) if len(lines) > 1 else ()
    own = [tuple(note for note in line.notes if note not in every) for line in lines]
    if any(own):
        shown.append((Column("note"), [Cell(notes=notes) for notes in own]))
    columns = tuple(column for column, _ in shown)
    rows = tuple(zip(*(cells for _, cells in shown), strict=True))
    return Table(columns, rows, title, tuple(above), (*below, *every))


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


def _numbers_named(name: str) -> Numbers | None:
    """The column of a metric, "auc" or "val:auc"; None: it isn't one."""
    word = name.removeprefix("val:")
    metric = METRIC_WORDS.get(word, word)
    if metric not in METRIC_NAMES:
        return None
    of = next(m for m in METRICS if m.name == metric)
    if word != name:
        return _of_val(of, always=True)
    return _of_test(of, with_interval=True)


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

    return Numbers(REST.format(metric.column), of)


def _of_episodes(metric: Metric) -> Numbers:
    """Their standard deviation."""

    def of(line: Line) -> Cell | None:
        rows = [of.row for of in line.contender.rows]
        if line.is_mean or len(rows[0].measured.episodes.get(metric.name, ())) < 2:
            return None
        found = line.contender.value(metric.name)
        return None if found is None else Cell(value=found.sd, form=_form(metric))

    return Numbers(SD.format(metric.column), of)


def _plain(value: float, sd: float, metric: Metric) -> Cell:
    return Cell(value=value, sd=None if math.isnan(sd) else sd, form=_form(metric))


def _form(metric: Metric) -> str:
    return UNIT if metric.has_unit else SHARE


def _usual_numbers() -> tuple[Numbers, ...]:
    """Those of test, those with an interval first; then val's, episodes' and the others'."""
    found: list[Numbers] = []
    for metrics in (classification.METRICS, regression.METRICS):
        first = [m for m in metrics if INTERVAL in m.also]
        found += [_of_test(m, with_interval=True) for m in first]
        rest = [m for m in metrics if m.column and m not in first]
        found += [_of_test(m, with_interval=False) for m in rest]
    found += [_of_val(m) for m in METRICS if VAL in m.also]
    found += [_of_episodes(m) for m in METRICS if SD in m.also]
    return (*found, *(_of_rest(m) for m in METRICS if REST in m.also))


USUAL_NUMBERS = _usual_numbers()
