"""Sensitivity and specificity at one threshold, which val has fixed, and predictive values beside.

A threshold that is chosen on test flatters, and one for each subgroup hides what differs between
them: so one is chosen on val, for all. Without another wish it is the one of the largest Youden's J,
sensitivity + specificity - 1 (Youden 1950, Cancer 3:32); or the highest with a sensitivity that is
asked for. Of several classes there is no threshold: rates are those of the class with the largest
score.
"""

import math
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from cache.task import BINARY, MULTI_LABEL
from probe.arrays import Bools, Floats, Indices, Ints
from probe.metrics import jackknife
from probe.metrics.classification import predict
from probe.metrics.intervals import ENOUGH, Interval, by_units
from probe.metrics.prepared import METRICS

YOUDEN = "largest Youden's J on val (of equal ones the lowest threshold)"
ARGMAX = "the class with the largest score"
ACCURACY = next(metric for metric in METRICS if metric.name == "acc")


@dataclass(frozen=True)
class Share:
    """So many of so many, with an interval."""

    hits: int
    n: int
    low: float = math.nan  # both nan where units are too few, or there is nothing
    high: float = math.nan

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else math.nan


@dataclass(frozen=True)
class Threshold:
    """Above it an answer is a yes."""

    number: int  # of the class or label
    value: float  # nan of ARGMAX
    rule: str  # how it was chosen


@dataclass(frozen=True)
class Rates:
    """What becomes of the samples of one class, or of one label's ones, and of all others."""

    threshold: Threshold
    tpr: Share  # sensitivity, recall
    fpr: Share  # 1 - specificity
    ppv: Share  # by the shares of classes that are here
    npv: Share


def fix_threshold(
    scores: Floats, positive: Bools, negative: Bools, sensitivity: float | None = None
) -> tuple[float, str]:
    """The threshold of one problem of two classes, by val.

    Args:
        scores: (N,) of the positive class, on val.
        positive: (N,) which samples are.
        negative: (N,) which are not; a sample whose label is missing is neither.
        sensitivity: that val must reach; None: the largest Youden's J, of equals the lowest.

    Returns:
        It lies between two scores of val, so that rounding moves none across; and its rule.

    Raises:
        RequestError: val lacks a side, or a sensitivity outside 0..1.
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise RequestError(f"a sensitivity lies above 0, up to 1; found {sensitivity}")
    if not (positive.any() and negative.any()):
        side = "positives" if not positive.any() else "negatives"
        raise RequestError(f"no threshold can be fixed: val has no {side}")
    steps = np.unique(scores[positive | negative]).astype(np.float64)
    below = np.r_[np.nextafter(steps[0], -np.inf), (steps[1:] + steps[:-1]) / 2]
    tpr, fpr = (
        1 - np.searchsorted(np.sort(scores[side]), steps, side="left") / side.sum()
        for side in (positive, negative)
    )
    if sensitivity is None:
        youden = tpr - fpr
        return float(below[np.argmax(youden > youden.max() - 1e-12)]), YOUDEN
    reached = np.flatnonzero(tpr >= sensitivity - 1e-12)
    return float(below[reached[-1]]), f"sensitivity {sensitivity:g} on val"


def fix_thresholds(
    scores: Floats,
    labels: Ints,
    task: str,
    sensitivity: float | None = None,
    positive: int = 1,
) -> tuple[tuple[Threshold, ...], tuple[str, ...]]:
    """Those of each problem of a task: of two classes one, of several labels one for each.

    Args:
        scores: (M, C) of val, which nothing was fitted to; unused where classes are several.
        labels: (M,) or (M, C).
        task: one of ``cache.task.CLASSIFICATION``.
        sensitivity: see ``fix_threshold``.
        positive: of two classes the number of the one that a yes is.

    Returns:
        They, and why others lack.
    """
    n_classes = scores.shape[1]
    if task not in (BINARY, MULTI_LABEL):
        return tuple(Threshold(c, math.nan, ARGMAX) for c in range(n_classes)), ()
    found, why = [], []
    for c in range(n_classes) if task == MULTI_LABEL else [positive]:
        # Of two classes as of labels: 1 is a yes, 0 a no, anything else nobody knows.
        column = labels[:, c] if task == MULTI_LABEL else np.where(labels < 0, labels, labels == c)
        try:
            value, rule = fix_threshold(scores[:, c], column == 1, column == 0, sensitivity)
        except RequestError as error:
            if sensitivity is not None and not 0 < sensitivity <= 1:
                raise
            why.append(f"label {c}: {error}" if task == MULTI_LABEL else str(error))
            continue
        found.append(Threshold(c, value, rule))
    return tuple(found), tuple(why)


def rates(
    scores: Floats,
    labels: Ints,
    task: str,
    threshold: Threshold,
    cluster: Indices,
    score_type: str,
    level: float = 0.95,
) -> Rates:
    """The four rates of one class or label at a threshold that is fixed.

    Args:
        scores: (N, C).
        labels: (N,) or (N, C).
        task: one of ``cache.task.CLASSIFICATION``.
        threshold: as ``fix_thresholds`` gives it.
        cluster: (N,) number of each sample's unit.
        score_type: see ``probe.metrics.classification``.
        level: of the intervals.
    """
    c, column = threshold.number, labels
    if task == MULTI_LABEL:
        column = labels[:, c]
        positive, negative = column == 1, column == 0
    else:
        positive, negative = column == c, column != c
    if math.isnan(threshold.value):
        says = predict(scores, task, score_type) == c
    else:
        says = scores[:, c] > threshold.value
    known = positive | negative

    def of(hits: Bools, among: Bools) -> Share:
        return share(hits[among], cluster[among], level)

    return Rates(
        threshold,
        of(says, positive),
        of(says, negative),
        of(positive, says & known),
        of(negative, ~says & known),
    )


def predictive(of: Rates, prevalence: float) -> tuple[Interval, Interval]:
    """Positive and negative predictive value where another share has the condition than in test.

    By Bayes' rule from the likelihood ratios, whose intervals are made of those of sensitivity and
    specificity on the log scale (MOVER: Zou and Donner 2008, Stat Med 27:1693); where one of the two is
    0 or 1, of their far ends.

    Args:
        of: rates with intervals.
        prevalence: above 0, below 1.

    Raises:
        RequestError: it isn't.
    """
    if not 0 < prevalence < 1:
        raise RequestError(f"a prevalence lies between 0 and 1; found {prevalence:g}")
    odds = prevalence / (1 - prevalence)
    ppv = _probability(_ratio(of.tpr, of.fpr), odds)
    miss, right = _turned(of.tpr), _turned(of.fpr)
    wrong = _probability(_ratio(miss, right), odds)  # of those that are told no
    return ppv, Interval(1 - wrong.value, 1 - wrong.high, 1 - wrong.low)


def _turned(of: Share) -> Share:
    return Share(of.n - of.hits, of.n, 1 - of.high, 1 - of.low)


def _ratio(a: Share, b: Share) -> Interval:
    """a / b."""
    if not (a.n and b.n) or (a.hits == 0 and b.hits == 0):
        return Interval(math.nan, math.nan, math.nan)
    value = a.value / b.value if b.hits else math.inf
    if math.isnan(a.low) or math.isnan(b.low):
        return Interval(value, math.nan, math.nan)
    if a.hits == 0 or b.hits == 0:
        high = a.high / b.low if b.low > 0 else math.inf
        return Interval(value, a.low / b.high, high)

    def log(x: float) -> float:
        return math.log(x) if x > 0 else -math.inf

    middle = math.log(value)
    below = math.hypot(log(a.value) - log(a.low), log(b.high) - log(b.value))
    above = math.hypot(log(a.high) - log(a.value), log(b.value) - log(b.low))
    return Interval(value, math.exp(middle - below), math.exp(middle + above))


def _probability(ratio: Interval, odds: float) -> Interval:
    return Interval(*(1.0 if math.isinf(r) else r * odds / (1 + r * odds) for r in ratio))


def share(hits: Bools, cluster: Indices, level: float = 0.95) -> Share:
    """A share with its interval: Wilson's, or that of ``probe.metrics.intervals`` for units.

    Args:
        hits: (n,) which of the samples are.
        cluster: (n,) number of each sample's unit; a patient with several samples is left out whole.
        level: of the interval.
    """
    n, n_hits = len(hits), int(hits.sum())
    if n == 0:
        return Share(0, 0)
    unit = np.unique(cluster, return_inverse=True)[1]
    sizes = np.bincount(unit)
    if len(sizes) == n:
        return Share(n_hits, n, *jackknife.wilson(n_hits / n, n, level))
    support = jackknife.supports(np.ones(n, np.int64), BINARY, 2, unit)[ACCURACY.name]
    without = np.empty(0)
    if len(sizes) >= ENOUGH:
        without = (n_hits - np.bincount(unit, hits)) / (n - sizes)
    ends, _ = by_units(ACCURACY, n_hits / n, without, support, unit, level)
    return Share(n_hits, n, *ends)
