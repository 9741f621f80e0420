"""Tables of a study as reviewers ask for them: who is in it, what was reported, how well, where it fails.

Each gives one table of all test sets, or none where nobody knows.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from cache.commands.names import counted
from cache.errors import RequestError
from probe.metrics.intervals import Interval
from probe.report.findings.cohort import Counted, Value, characterise, count_splits
from probe.report.findings.operating import (
    Operating,
    calibration_of,
    confuse,
    failures,
    has_classes,
    operate,
)
from probe.report.findings.reported import Reported
from probe.report.formats.cells import COUNT, SHARE, SIGNED, UNIT, Cell, Column, Table
from probe.report.rows.fields import find_field
from probe.report.rows.people import count_patients
from probe.report.statistics.calibration import Calibration
from probe.report.statistics.thresholds import Share

N_DIGITS = 12  # of a digest
CURVES = 3  # classes whose curve is written out
DATA = Column("data")
METHODS = {  # of intervals, as rows call them
    "wilson": "Wilson",
    "delong": "DeLong",
    "one-sided": "exact, one-sided",
    "jackknife": "jackknife of units",
    "counts": "Wilson by counts of units",
    "none": "none",
}
THRESHOLDS = (
    "class: the one that a yes is; PPV and NPV, positive and negative predictive value, are those of "
    "test's own shares of classes"
)
AT_PREVALENCE = "PPV and NPV at a prevalence of {:g}: by Bayes' rule from the likelihood ratios, intervals by MOVER"
RECALIBRATED = (
    "slope: of a logistic regression of the truth on the answers' logits, below 1 they are too extreme; "
    "intercept: with the slope fixed to 1, below 0 they are too high. Perfect is 1 and 0"
)
NUMBERS = "numbers: mean ± standard deviation (smallest to largest)"
CURVE = "tenths of the test samples by rising answers, equal answers together"
WRONG = "wrong: the class with the largest score isn't the sample's; of several labels any of them"


def right(*names: str, over: str = "") -> list[Column]:
    """Columns of numbers."""
    return [Column(name, over, is_right=True) for name in names]


def table(
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    below: Iterable[str] = (),
) -> list[Table]:
    """A table, where it has rows."""
    lines = tuple(map(tuple, rows))
    return [Table(tuple(columns), lines, title, below=tuple(dict.fromkeys(below)))] if lines else []


def count(n: float | None) -> Cell:
    """A number of things; nothing where nobody knows it."""
    return Cell("") if n is None else Cell(value=n, form=COUNT)


def of_share(of: Share) -> Cell:
    """A share with its interval."""
    return Cell(value=of.value, low=of.low, high=of.high)


def of_interval(of: Interval, form: str = SHARE) -> Cell:
    """A number with its interval."""
    return Cell(value=of.value, low=of.low, high=of.high, form=form)


def flow(reported: Sequence[Reported]) -> list[Table]:
    """Samples, images and patients of each split, and of each class."""
    rows = []
    for of in reported:
        for split in count_splits(of):
            numbers = (split.n, split.n_images, split.n_patients, split.n_unlabelled)
            words = ", ".join(f"{name} {n}" for name, n in split.by_class)
            rows.append([Cell(of.name), Cell(split.split), *map(count, numbers), Cell(words)])
    names = right("samples", "images", "patients", "without a label")
    return table("Flow", [DATA, Column("split"), *names, Column("samples of each class")], rows)


def imbalance(split: Counted) -> str:
    """The shares of a split's classes, in words."""
    total = sum(n for _, n in split.by_class)
    return ", ".join(f"{name} {n / total:.0%}" for name, n in split.by_class) if total else ""


def characteristics(reported: Sequence[Reported]) -> list[Table]:
    """What each column of metadata says of each split."""
    rows, splits = [], ("train", "val", "test")
    below = []
    for of in reported:
        found = characterise(of)
        if found:
            known = of.features is not None and of.features.groups is not None
            unit = "patients" if known else "samples"
            below.append(
                f"{of.name}: of {unit}"
                + "; a patient counts once in a split, with his first sample" * known
            )
            below.append(NUMBERS)
        for each in found:
            values = dict(each.by_split)
            cells = [Cell(_value(values[s]) if s in values else "") for s in splits]
            rows.append([Cell(of.name), Cell(" ".join([each.column, each.value]).strip()), *cells])
    columns = [DATA, Column("characteristic"), *map(Column, splits)]
    return table("Characteristics", columns, rows, filter(None, below))


def _value(of: Value) -> str:
    if of.mean is None:
        return f"{of.n} of {of.of} ({of.n / of.of:.0%})" if of.n else f"0 of {of.of}"
    sd = "" if of.sd is None else f" ± {of.sd:.3g}"
    lacking = f"; {of.of - of.n} of {of.of} unknown" if of.n < of.of else ""
    return f"{of.mean:.4g}{sd} ({of.low:.4g} to {of.high:.4g}){lacking}"


def models(reported: Sequence[Reported]) -> list[Table]:
    """Which answer is told of each test set, and why it."""
    fields = ("encoder", "weights", "size", "kind", "layer", "pool", "depth", "fitted", "trained")
    rows = []
    for of in reported:
        words = [of.contender.field(name) for name in fields]
        cells = [Cell("" if w is None else str(w)[:60]) for w in words]
        rows.append([Cell(of.name), *cells, Cell(of.contender.first.id[:8]), Cell(of.why)])
    columns = [DATA, *(Column(find_field(name).title) for name in fields)]
    columns += [Column("row"), Column("why this one")]
    kept = [n for n in range(len(columns)) if any(row[n] != Cell("") for row in rows)]
    return table(
        "Model",
        [columns[n] for n in kept],
        ([row[n] for n in kept] for row in rows),
    )


def performance(reported: Sequence[Reported]) -> list[Table]:
    """Every metric on test, with its interval."""
    rows, below = [], []
    for of in reported:
        c = of.contender
        below.append(f"{of.name}: {', '.join([*of.asked, of.standing])}")
        for name in c.first.row.measured.test:
            found = c.value(name)
            if found is None or math.isnan(found.value):
                continue
            several = len(c.rows) > 1
            cell = Cell("", found.value, found.low, found.high)
            if several:
                cell = Cell("", found.value, sd=found.sd)
            method = "" if several else c.first.row.measured.intervals.get(name, "")
            val = c.val(name)
            told = Cell("") if math.isnan(val) else Cell(value=val)
            rows.append([Cell(of.name), Cell(name), told, cell, Cell(METHODS.get(method, method))])
    columns = [DATA, Column("metric"), *right("val"), Column("test [95 %]"), Column("interval by")]
    return table("Performance", columns, rows, below)


def operations(reported: Sequence[Reported], prevalence: float | None) -> list[Table]:
    """2 x 2 counts and rates at thresholds that val has fixed.

    Raises:
        RequestError: a prevalence out of range.
    """
    rows, below = [], [THRESHOLDS]
    for of in filter(has_classes, reported):
        found = operate(of, prevalence)
        for each in found.each:
            rows.append([Cell(of.name), *_operating(each)])
            below.append(f"threshold: {each.rates.threshold.rule}")
        below += [f"{of.name}: {why}" for why in found.notes]
        if of.by_folds:
            below.append(f"val of {of.name}: train and val together, answered out of fold")
    columns = [DATA, Column("class"), *right("threshold"), *right("TP", "FN", "FP", "TN")]
    columns += right("sensitivity", "specificity", "PPV", "NPV")
    if prevalence is not None:
        columns += right("PPV", "NPV", over=f"at prevalence {prevalence:g}")
        below.append(AT_PREVALENCE.format(prevalence))
    return table("Thresholds and 2 x 2 counts", columns, rows, below)


def _operating(of: Operating) -> Iterator[Cell]:
    yield Cell(of.name)
    threshold = of.rates.threshold.value
    yield Cell("largest score") if math.isnan(threshold) else Cell(value=threshold, form=UNIT)
    yield from map(count, (of.tp, of.fn, of.fp, of.tn))
    yield from map(of_share, (of.rates.tpr, of.specificity, of.rates.ppv, of.rates.npv))
    if of.ppv is not None and of.npv is not None:
        yield from map(of_interval, (of.ppv, of.npv))


def calibration(reported: Sequence[Reported]) -> list[Table]:
    """Slope and intercept of each class, and the curve in numbers."""
    rows, curves, below = [], [], [RECALIBRATED]
    for of, found in _calibrated(reported, below):
        names = of.test.samples.class_names if of.test else ()
        for each in found:
            name = str(names[each.number])
            below.append(f"intervals: {each.method}" if each.method else "")
            rows.append(
                [
                    *map(Cell, (of.name, name)),
                    *map(count, (each.n, each.n_units)),
                    Cell(value=each.predicted),
                    Cell(value=each.observed),
                    of_interval(each.slope),
                    Cell(
                        "",
                        *each.intercept,
                        form=SIGNED,
                        notes=tuple(f"{of.name}, {name}: {why}" for why in each.notes),
                    ),
                ]
            )
        if len(found) <= CURVES:
            curves += [
                [
                    *map(Cell, (of.name, str(names[each.number]))),
                    Cell(f"{b.low:.4f} to {b.high:.4f}"),
                    count(b.observed.n),
                    Cell(value=b.predicted),
                    of_share(b.observed),
                ]
                for each in found
                for b in each.bins
            ]
    columns = [
        DATA,
        Column("class"),
        *right("n", "units", "mean answer", "share", "slope", "intercept"),
    ]
    heads = [DATA, Column("class"), Column("answers"), *right("n", "mean answer", "share that is")]
    return [
        *table("Calibration", columns, rows, filter(None, below)),
        *table("Calibration curve", heads, curves, [CURVE]),
    ]


def _calibrated(
    reported: Sequence[Reported], below: list[str]
) -> Iterator[tuple[Reported, list[Calibration]]]:
    for of in filter(has_classes, reported):
        try:
            yield of, calibration_of(of)
        except RequestError as error:
            below.append(f"{of.name}: {error}")


def confusion(reported: Sequence[Reported]) -> list[Table]:
    """A confusion matrix of each test set."""
    tables = []
    for of in filter(has_classes, reported):
        found = confuse(of)
        if found is not None:
            heads = [Column("truth"), *right(*found.names, over="answered")]
            rows = [
                [Cell(name), *map(count, row)]
                for name, row in zip(found.names, found.counts, strict=True)
            ]
            tables += table(f"Confusion matrix of {of.name}", heads, rows)
    return tables


def wrong(reported: Sequence[Reported]) -> list[Table]:
    """Wrong answers by stratum."""
    rows, below = [], [WRONG]
    for of in filter(has_classes, reported):
        strata, notes = failures(of)
        below += [f"{of.name}: not by {why}" for why in notes]
        rows += [
            [
                *map(Cell, (of.name, each.column, each.value)),
                *map(count, (each.wrong.hits, each.wrong.n)),
                of_share(each.wrong),
            ]
            for each in strata
        ]
    columns = [DATA, Column("by"), Column("value"), *right("wrong", "of", "share")]
    return table("Wrong answers by stratum", columns, rows, below)


def versions(reported: Sequence[Reported]) -> list[Table]:
    """Libraries of rows and of feature files."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for of in reported:
        sources = [("numbers", r.row.versions) for r in of.contender.rows]
        if of.features is not None:
            sources.append(("features", of.features.versions))
        for part, each in sources:
            for library, version in each.items():
                found.setdefault((part, library), {})[str(version)] = None
    rows = [[Cell(p), Cell(lib), Cell(", ".join(vs))] for (p, lib), vs in sorted(found.items())]
    return table("Software", [Column("made"), Column("library"), Column("version")], rows)


def leaks(reported: Sequence[Reported]) -> list[Table]:
    """What test shares with train and val, and whether pretraining saw it."""
    rows = []
    for of in reported:
        found = leaks_of(of)
        numbers = [found.get(name) for name in ("n", "exact", "near", "groups", "group_samples")]
        seen = of.row.encoded.seen
        rows.append([Cell(of.name), *map(count, numbers), Cell(seen)])
    names = right("test samples", "copies", "near twins", "patients", "their samples")
    return table("Leaks", [DATA, *names, Column("seen in pretraining")], rows, [LEAKS])


def leaks_of(of: Reported) -> dict[str, int]:
    """What test shares with train and val, of folds their sums; what nobody counted lacks."""
    each = [row.posed.leaks or {} for row in of.folds]
    return {
        name: sum(filter(None, (found[name] for found in each)))
        for name in each[0]
        if all(found.get(name) is not None for found in each)
    }


LEAKS = (
    "copies, near twins (thumbnails that correlate above .99) and patients that train or val have too; "
    "empty: nobody knows"
)


def unit_of(of: Reported) -> str:
    """What counts as one, in words."""
    if of.test is None:
        return ""
    groups, n = of.test.samples.groups, len(of.test.ids)
    if of.row.answered.settings.get("scores_of") == "patients":
        return f"{counted(n, 'patient')}, whose samples' scores are averaged"
    if groups is None:
        return f"{counted(n, 'sample')}; nobody knows the patients, so samples count as independent"
    patients = count_patients(groups)
    if patients == n:
        return f"{counted(n, 'patient')}, one sample each"
    return f"{counted(patients, 'patient')} with {n} samples; intervals are over patients"
