"""How a reported answer does at a threshold that val has fixed: 2 x 2 counts, rates, and where it fails."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from cache.task import BINARY, MULTI_LABEL, NEVER_WRONG
from probe.arrays import Array, Bools, Ints
from probe.metrics.classification import THRESHOLD, predict
from probe.metrics.intervals import Interval
from probe.report.findings.reported import Reported
from probe.report.findings.standing import cluster_of
from probe.report.rows.answers import TestSet
from probe.report.statistics.bands import By, divide
from probe.report.statistics.calibration import Calibration, calibrate
from probe.report.statistics.thresholds import (
    Rates,
    Share,
    Threshold,
    fix_thresholds,
    predictive,
    rates,
    share,
)

USUAL = "the metrics' usual threshold"
MOST_CLASSES = 15  # of a confusion matrix
MOST_GROUPS = 8  # of a column that failures are counted by
CLASS = "class"


@dataclass(frozen=True)
class Operating:
    """One class against the rest, or one label, at its threshold."""

    name: str
    rates: Rates
    prevalence: float | None = None  # that was stated
    ppv: Interval | None = None  # there
    npv: Interval | None = None

    @property
    def tp(self) -> int:
        return self.rates.tpr.hits

    @property
    def fn(self) -> int:
        return self.rates.tpr.n - self.rates.tpr.hits

    @property
    def fp(self) -> int:
        return self.rates.fpr.hits

    @property
    def tn(self) -> int:
        return self.rates.fpr.n - self.rates.fpr.hits

    @property
    def specificity(self) -> Share:
        of = self.rates.fpr
        return Share(of.n - of.hits, of.n, 1 - of.high, 1 - of.low)


@dataclass(frozen=True)
class Operations:
    """Those of all classes."""

    each: tuple[Operating, ...]
    notes: tuple[str, ...] = ()  # why val fixed none


@dataclass(frozen=True)
class Stratum:
    """Wrong answers among some of the test samples."""

    column: str  # CLASS, or one of metadata
    value: str
    wrong: Share


@dataclass(frozen=True)
class Confusion:
    """(C, C) test samples of each class, by what they were answered."""

    names: tuple[str, ...]
    counts: Ints  # row: the truth


def has_classes(of: Reported) -> bool:
    """Whether there are scores of classes or labels."""
    return of.test is not None and of.test.samples.task not in NEVER_WRONG


def operate(of: Reported, prevalence: float | None = None) -> Operations:
    """Counts and rates on test at thresholds of val.

    Args:
        of: a report with scores of classes; its positive class is the one of two that is told.
        prevalence: at which predictive values are wanted, too.

    Raises:
        RequestError: a prevalence out of range.
    """
    test = of.test
    assert test is not None
    answers, task, names = test.answers[0], test.samples.task, test.samples.class_names
    scores, notes = answers.scores, []
    val = of.val
    nobody = scores[:0], test.samples.labels[:0]
    found, why = fix_thresholds(
        *((val.scores, val.labels) if val else nobody), task, None, of.positive
    )
    notes += why
    there = {threshold.number for threshold in found}
    columns = [of.positive] if task == BINARY else range(scores.shape[1])
    usual = THRESHOLD[answers.score_type]
    found += tuple(Threshold(c, usual, USUAL) for c in columns if c not in there)
    cluster, each = cluster_of(test), []
    for threshold in sorted(found, key=lambda of: of.number):
        at = rates(scores, test.samples.labels, task, threshold, cluster, answers.score_type)
        ppv = npv = None
        if prevalence is not None:
            ppv, npv = predictive(at, prevalence)
        each.append(Operating(str(names[threshold.number]), at, prevalence, ppv, npv))
    return Operations(tuple(each), tuple(notes))


def calibration_of(of: Reported) -> list[Calibration]:
    """Slope, intercept and curve of each class.

    Raises:
        RequestError: scores aren't probabilities.
    """
    test = of.test
    assert test is not None
    samples, answers = test.samples, test.answers[0]
    return calibrate(
        *(answers.scores, samples.labels, samples.task, answers.score_type, samples.groups),
        positive=of.positive,
    )


def confuse(of: Reported) -> Confusion | None:
    """What each class was answered; None of several labels, and of very many classes."""
    test = of.test
    assert test is not None
    task, names = test.samples.task, tuple(map(str, test.samples.class_names))
    if task == MULTI_LABEL or len(names) > MOST_CLASSES:
        return None
    said = predict(test.answers[0].scores, task, test.answers[0].score_type)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (test.samples.labels, said), 1)
    return Confusion(names, counts)


def failures(of: Reported) -> tuple[list[Stratum], tuple[str, ...]]:
    """Wrong answers by class and by each column of metadata, and columns that can't be divided.

    Of several labels an answer is wrong where any label is.
    """
    test = of.test
    assert test is not None
    wrong = _wrong(test)
    cluster, found = cluster_of(test), []
    labels, names = test.samples.labels, test.samples.class_names
    if test.samples.task != MULTI_LABEL:
        truth = np.array([str(names[label]) for label in labels])
        found += _strata(CLASS, truth, list(map(str, names)), wrong, cluster)
    notes = []
    for column, (values, earlier) in _columns(of, test).items():
        try:
            divided = divide(values, By(column), earlier)
        except RequestError as error:
            notes.append(f"{column}: {error}")
            continue
        if len(divided.order) > MOST_GROUPS:
            notes.append(f"{column} has {len(divided.order)} values in test")
        else:
            found += _strata(column, divided.names, divided.order, wrong, cluster)
    return found, tuple(notes)


def _wrong(test: TestSet) -> Bools:
    labels, task = test.samples.labels, test.samples.task
    answers = test.answers[0]
    differs = predict(answers.scores, task, answers.score_type) != labels
    if task == MULTI_LABEL:
        return np.asarray((differs & (labels >= 0)).any(axis=1), bool)
    return np.asarray(differs, bool)


def _strata(
    column: str, names: Array, order: Sequence[str], wrong: Bools, cluster: Array
) -> list[Stratum]:
    found = []
    for name in order:
        here = np.asarray(names == name, bool)
        if here.any():
            found.append(Stratum(column, name, share(wrong[here], cluster[here])))
    return found


def _columns(of: Reported, test: TestSet) -> dict[str, tuple[Array, Array]]:
    """Column of metadata -> its values in test, and outside it."""
    features = of.features
    if features is None or not np.isin(test.ids, features.ids).all():
        return {}  # patients are measured, say
    order = np.argsort(features.ids)
    places = order[np.searchsorted(features.ids, test.ids, sorter=order)]
    others = np.setdiff1d(np.arange(len(features.ids)), places)
    return {name: (values[places], values[others]) for name, values in features.meta.items()}


def is_known(of: Share) -> bool:
    """Whether a share has an interval."""
    return not math.isnan(of.low)
