"""Rows subgroup by subgroup, as a page: ``--by meta:sex``.

One test set after the other: who is in it, each row's metrics in each subgroup, what lies between
subgroups, and rates at a threshold that val has fixed. Nothing is computed but from rows' scores and
what feature files say of their samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.errors import RequestError
from cache.task import BINARY, MULTI_LABEL
from probe.arrays import Array, Indices, Texts
from probe.metrics.metric import INTERVAL, Metric
from probe.metrics.prepared import METRICS
from probe.report.formats.cells import (
    COUNT,
    P_VALUE,
    SHARE,
    SIGNED,
    UNIT,
    Cell,
    Column,
    Page,
    Table,
)
from probe.report.pages.listing import MODEL, RIGHT, USUAL
from probe.report.pages.notes import as_few
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import BY_NAME, written
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.statistics.bands import By, Divided, divide
from probe.report.statistics.gaps import Gap
from probe.report.statistics.subgroups import Subgroup, Subgroups, Val, subgroups
from probe.report.statistics.thresholds import Rates, Share

# What tells rows of one test set apart; of which it is stands above.
FIELDS = tuple(name for name in USUAL if name not in ("data", "target", "fold", "leaks"))
WEIGHTS = "weights"
ID, N_DIGITS = "id", 8  # where nothing else does
MOST_CLASSES = 10  # whose counts and rates are shown
GAPS = (
    "gap: the best subgroup less the worst, which is never below 0. by chance: the same, names of "
    "subgroups permuted over {unit}s of the same class (mean and 95th percentile of {n}); p: how "
    "often it is as large. corrected: less what sampling adds (Lum, Zhang, Bower 2022); below 0 is "
    "no more than that."
)
BEHIND = "behind: the worst subgroup is so much worse than all others together"
SINGLE = "Each p stands for itself: of 20 gaps that aren't there, one has p < .05."
FEW = "Where a subgroup has under 10 {unit}s of a class, they are counted; no metric is computed of it."
OUT_OF_FOLD = (
    "val of {which}: folds decided, so it is train and val together, answered out of fold."
)
NO_RATES = (
    "Rates of each class are shown where one row is asked for: narrow with --model or --where."
)


@dataclass(frozen=True)
class Measured:
    """One row, by subgroup."""

    row: StoredRow
    test: TestSet
    divided: Divided
    found: Subgroups

    @property
    def by_folds(self) -> bool:
        """Whether what stands as val are answers out of fold to train and val."""
        return "folds" in self.row.row.answered.settings

    @property
    def has_fixed_rates(self) -> bool:
        """Whether there are rates at a threshold that val has fixed."""
        rates = (each for group in self.found.groups for each in group.rates)
        return any(math.isfinite(each.threshold.value) for each in rates)


@dataclass(frozen=True)
class Key:
    """A column that says which row a line is of."""

    column: Column
    words: Sequence[str]  # each row's


def page_of_subgroups(
    rows: Sequence[StoredRow],
    by: By,
    people: People,
    metrics: Sequence[str] = (),
    sensitivity: float | None = None,
) -> Page:
    """Rows by subgroup.

    Args:
        rows: each is shown by itself, folds and seeds, too.
        by: which column of metadata divides the samples.
        people: that knows it.
        metrics: by their names in rows; none: those that tables show with an interval.
        sensitivity: that thresholds reach on val; None: the largest Youden's J.

    Raises:
        RequestError: no row can be shown.
    """
    measured, left_out = [], []
    for of in rows:
        try:
            measured.append(measure(of, by, people, metrics, sensitivity))
        except RequestError as error:
            left_out.append((of, str(error)))
    if not measured:
        raise RequestError("; ".join(dict.fromkeys(why for _, why in left_out)))
    sets = _by_test_set(measured)
    tables = tuple(table for alike in sets for table in _tables(alike, metrics))
    narrow = (NO_RATES,) if any(_has_too_many_rates(alike) for alike in sets) else ()
    return Page(tables, notes=(*_explained(measured), *narrow, *_said(left_out)))


def _said(left_out: Sequence[tuple[StoredRow, str]]) -> list[str]:
    """What is left out, each reason once."""
    found = []
    for why in dict.fromkeys(why for _, why in left_out):
        names = [_short(of) for of, said in left_out if said == why]
        who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        found.append(f"left out: {who}: {why}")
    return as_few(found)


def _short(of: StoredRow) -> str:
    row = of.row
    words = [row.encoded.label, "on", row.encoded.dataset, row.posed.fold]
    return " ".join(filter(None, words))


def measure(
    of: StoredRow,
    by: By,
    people: People,
    metrics: Sequence[str],
    sensitivity: float | None,
) -> Measured:
    (test,) = test_sets([Contender((of,))], people)
    if test.answers[0].scores.ndim == 3:
        raise RequestError("few-shot episodes have no subgroups; ask without --shots")
    values, earlier = _column(of, by.column, test.ids, people)
    divided = divide(values, by, earlier)
    arrays = of.scores()
    val = None
    if "val_scores" in arrays:
        val = Val(arrays["val_scores"], arrays["val_labels"])
    found = subgroups(
        *(test.answers[0], test.samples, divided.names, divided.order, val),
        metrics or [m.name for m in METRICS if INTERVAL in m.also],
        sensitivity=sensitivity,
    )
    return Measured(of, test, divided, found)


def _column(of: StoredRow, column: str, ids: Texts, people: People) -> tuple[Array, Array]:
    """(N,) a column's values of test samples, and (M,) of all samples outside test.

    Of patients that are measured it is what all of a patient's samples have, else a missing value.
    """
    features = people.file_of(of.row)
    if column not in features.meta:
        known = ", ".join(sorted(features.meta)) or "none"
        raise RequestError(
            f"{of.row.encoded.dataset} has no column meta:{column}; its columns are {known}"
        )
    values = features.meta[column]
    if of.row.answered.settings.get("scores_of") == "patients" and features.groups is not None:
        names = np.where(features.groups == "", features.ids, features.groups)
        of_test = np.isin(names, ids)
        return _of_patients(values, names, ids), values[~of_test]
    return people.meta_of(of.row, ids)[column], values[~np.isin(features.ids, ids)]


def _of_patients(values: Array, names: Texts, ids: Texts) -> Array:
    """(N,) what all samples of a patient have; a missing value where they differ."""
    distinct, first, patient = np.unique(names, return_index=True, return_inverse=True)
    differs = np.zeros(len(distinct), np.bool_)
    of_first = values[first][patient]
    same = (values == of_first) | ((values != values) & (of_first != of_first))
    differs[patient[~same]] = True
    if not np.isin(ids, distinct).all():
        raise RequestError("its feature file hasn't all patients of the row; ask again")
    places: Indices = np.searchsorted(distinct, ids)
    found = values[first][places]
    if found.dtype.kind in "iub":
        found = found.astype(np.float64)
    found[differs[places]] = np.nan if found.dtype.kind == "f" else ""
    return found


def _by_test_set(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Rows of the same samples with the same labels and subgroups together, in order."""
    found: dict[tuple[object, ...], list[Measured]] = {}
    for one in measured:
        test = one.test
        same = (
            *(one.row.row.encoded.dataset, test.fold, test.ids.tobytes()),
            *(test.samples.labels.tobytes(), one.divided.names.tobytes(), one.divided.order),
        )
        found.setdefault(same, []).append(one)
    return list(found.values())


def _tables(alike: Sequence[Measured], metrics: Sequence[str]) -> Iterator[Table]:
    """The tables of one test set: counts, metrics, gaps, rates; those that there are."""
    first = alike[0]
    row, fields = first.row.row, _fields(alike)
    target = written(BY_NAME["target"].of(first.row))
    name = " ".join(filter(None, [row.encoded.dataset, target, first.test.fold]))
    above = (
        ("subgroups", first.divided.rule),
        *((BY_NAME[f].title, w[0]) for f, w in fields.items() if len(set(w)) == 1),
    )
    yield replace(_counts(first), title=f"{name}: who is in test", above=above)
    telling = {f: words for f, words in fields.items() if len(set(words)) > 1}
    key = _key(alike, telling)
    names = metrics or [
        m.name for m in METRICS if INTERVAL in m.also and row.encoded.task in m.tasks
    ]
    known = [m for m in METRICS if m.name in names]
    known.sort(key=lambda metric: names.index(metric.name))
    found = {
        "metrics by subgroup": _metrics(alike, key, known),
        "gaps between subgroups": _gaps(alike, key, known),
        "rates at a threshold fixed on val": _rates(alike, key),
    }
    if key and set(telling) != {MODEL} and any(found.values()):
        yield replace(_key_table(key, telling), title=f"{name}: rows")
    for what, table in found.items():
        if table:
            yield replace(table, title=f"{name}: {what}")


def _fields(alike: Sequence[Measured]) -> dict[str, list[str]]:
    """Field -> each row's words; what nobody has is left out."""
    found = {f: [written(BY_NAME[f].of(one.row)) for one in alike] for f in FIELDS}
    found = {f: words for f, words in found.items() if any(words)}
    models = found[MODEL]
    if len(set(zip(models, found.get(WEIGHTS, models), strict=True))) == len(set(models)) > 1:
        found.pop(WEIGHTS, None)  # they follow the model
    if len(set(zip(*found.values(), strict=True))) < len(alike):
        found[ID] = [one.row.id[:N_DIGITS] for one in alike]
    return found


def _key(alike: Sequence[Measured], telling: Mapping[str, Sequence[str]]) -> Key | None:
    """The models, where each row has another; else numbers, which fit beside any numbers.

    Args:
        alike: rows of one test set.
        telling: fields in which they differ -> each row's words.

    Returns:
        None: there is one row.
    """
    if len(alike) == 1:
        return None
    models = telling.get(MODEL, ())
    if len(set(models)) == len(alike):
        return Key(Column(BY_NAME[MODEL].title), models)
    return Key(Column("row", is_right=True), [str(n) for n in range(1, len(alike) + 1)])


def _key_table(key: Key, telling: Mapping[str, Sequence[str]]) -> Table:
    """What rows differ in, a line each."""
    fields = {f: w for f, w in telling.items() if w is not key.words}
    columns = [Column(BY_NAME[f].title, is_right=f in RIGHT) for f in fields]
    rows = zip(key.words, *fields.values(), strict=True)
    return Table((key.column, *columns), tuple(tuple(map(Cell, row)) for row in rows))


def _leading(key: Key | None, place: int) -> tuple[Cell, ...]:
    return (Cell(key.words[place]),) if key else ()


def _headings(key: Key | None) -> tuple[Column, ...]:
    return (key.column,) if key else ()


def _counts(first: Measured) -> Table:
    found, names = first.found, first.test.samples.class_names
    groups = [*found.groups, *([found.unknown] if found.unknown else [])]
    is_grouped = found.unit == "patient"
    columns = [Column("subgroup"), Column("samples", is_right=True)]
    columns += [Column("patients", is_right=True)] if is_grouped else []
    n_classes = len(found.groups[0].by_class) if found.groups else 0
    n_classes = n_classes if n_classes <= MOST_CLASSES else 0
    for c in range(n_classes):
        name = str(names[c]) if len(names) else str(c)
        columns.append(Column(name, f"{found.unit}s that have", is_right=True))

    def cells(group: Subgroup) -> Iterator[Cell]:
        yield Cell(group.name, notes=(group.why,) if group.why else ())
        yield Cell(value=group.n, form=COUNT)
        if is_grouped:
            yield Cell(value=group.n_units, form=COUNT)
        for count in group.by_class[:n_classes]:
            yield Cell(value=count.n_units, form=COUNT)

    return Table(tuple(columns), tuple(tuple(cells(g)) for g in groups), below=found.notes)


def _metrics(alike: Sequence[Measured], key: Key | None, metrics: Sequence[Metric]) -> Table | None:
    rows = []
    for place, one in enumerate(alike):
        for group in one.found.groups:
            if group.has_metrics:
                cells = [_interval_cell(group, metric) for metric in metrics]
                rows.append((*_leading(key, place), Cell(group.name), *cells))
    headings = [Column(INTERVAL.format(m.column or m.name), is_right=True) for m in metrics]
    columns = (*_headings(key), Column("subgroup"), *headings)
    return Table(columns, tuple(rows)) if rows else None


def _interval_cell(group: Subgroup, metric: Metric) -> Cell:
    if metric.name not in group.metrics:
        return Cell()
    value, low, high = group.metrics[metric.name]
    return Cell(value=value, low=low, high=high, form=_form(metric))


def _form(metric: Metric) -> str:
    return UNIT if metric.has_unit else SHARE


def _gaps(alike: Sequence[Measured], key: Key | None, metrics: Sequence[Metric]) -> Table | None:
    n_shown = {sum(g.has_metrics for g in one.found.groups) for one in alike}
    has_rest = max(n_shown) > 2  # of two the rest is the other one
    columns = [
        *(*_headings(key), Column("metric"), Column("gap", is_right=True)),
        *(Column(name, "by chance", is_right=True) for name in ("mean", "95 %")),
        *(Column("p", is_right=True), Column("corrected", is_right=True), Column("worst")),
    ]
    if has_rest:
        columns += [Column("behind", is_right=True), Column("its p", is_right=True)]

    def cells(gap: Gap, metric: Metric) -> Iterator[Cell]:
        form = _form(metric)
        yield Cell(metric.column or metric.name)
        for value in (gap.value, gap.null_mean, gap.null_high):
            yield Cell(value=value, form=form)
        yield Cell(value=gap.p, form=P_VALUE)
        yield Cell(value=gap.corrected, form=UNIT if metric.has_unit else SIGNED)
        yield Cell(gap.worst)
        if has_rest:
            yield Cell(value=gap.behind, form=form)
            yield Cell(value=gap.p_behind, form=P_VALUE)

    rows = [
        (*_leading(key, place), *cells(one.found.gaps[metric.name], metric))
        for place, one in enumerate(alike)
        for metric in metrics
        if metric.name in one.found.gaps
    ]
    below = (BEHIND,) if has_rest else ()
    return Table(tuple(columns), tuple(rows), below=below) if rows else None


def _rates(alike: Sequence[Measured], key: Key | None) -> Table | None:
    task = alike[0].row.row.encoded.task
    if _has_too_many_rates(alike):
        return None
    names = alike[0].test.samples.class_names
    is_fixed = task in (BINARY, MULTI_LABEL)  # else the largest score decides
    has_names = task != BINARY
    rows, rules = [], []
    for place, one in enumerate(alike):
        for threshold in one.found.thresholds[:MOST_CLASSES]:
            c = threshold.number
            named = (Cell(str(names[c]) if len(names) else str(c)),) if has_names else ()
            leading = (*_leading(key, place), *named)
            for group in one.found.groups:
                for each in group.rates:
                    if each.threshold == threshold:
                        rows.append((*leading, Cell(group.name), *_rate_cells(each, is_fixed)))
                        rules.append(threshold.rule)
    if not rows:
        return None
    columns = [*_headings(key), *([Column("class")] if has_names else []), Column("subgroup")]
    columns += [Column("threshold", is_right=True)] if is_fixed else []
    for over in ("sensitivity", "false positive rate"):
        columns += [Column("value [95 %]", over, is_right=True), Column("of", over, is_right=True)]
    columns += [Column(name, is_right=True) for name in ("PPV", "NPV")]
    below = tuple(f"answered yes: {rule}" for rule in dict.fromkeys(rules))
    n_thresholds = max(len(one.found.thresholds) for one in alike)
    if n_thresholds > MOST_CLASSES:
        below += (f"the first {MOST_CLASSES} of {n_thresholds} classes",)
    return Table(tuple(columns), tuple(rows), below=below)


def _has_too_many_rates(alike: Sequence[Measured]) -> bool:
    """Whether several rows have rates of several classes each."""
    return len(alike) > 1 and any(
        len(one.found.thresholds) > 1 and any(group.rates for group in one.found.groups)
        for one in alike
    )


def _rate_cells(each: Rates, is_fixed: bool) -> Iterator[Cell]:
    if is_fixed:
        yield Cell(value=each.threshold.value, form=UNIT)
    for share in (each.tpr, each.fpr):
        yield Cell(value=share.value, low=share.low, high=share.high)
        yield Cell(_of(share))
    for share in (each.ppv, each.npv):
        yield Cell(value=share.value)


def _of(share: Share) -> str:
    return f"{share.hits}/{share.n}"


def _explained(measured: Sequence[Measured]) -> Iterator[str]:
    gaps = [gap for one in measured for gap in one.found.gaps.values()]
    units = {one.found.unit for one in measured}
    unit = units.pop() if len(units) == 1 else "patient"
    if gaps:
        n = min(gap.n_permutations for gap in gaps)
        yield GAPS.format(unit=unit, n=n)
    if len(gaps) > 1:
        yield SINGLE
    if any(group.why for one in measured for group in one.found.groups):
        yield FEW.format(unit=unit)
    fixed = [one for one in measured if one.has_fixed_rates]
    if any(one.by_folds for one in fixed):
        every = all(one.by_folds for one in fixed)
        yield OUT_OF_FOLD.format(which="all rows" if every else "some rows")
