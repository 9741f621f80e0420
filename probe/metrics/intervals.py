"""Intervals: how much each metric would move with another test set of this size.

Training, and so the choice of k or of a strength, is held fixed: an interval is about the test set,
not about seeds. Units are patients where they are known, else samples.

    accuracy, samples are independent              Wilson (1927)
    AUC, samples are independent and of each       DeLong, see delong.py
      class are many
    AUC of 1 or 0; balanced accuracy of 1 where    exact and one-sided, see below
      samples are independent
    every other                                    jackknife of units, see jackknife.py
    a class has 2 to 4 units                       Wilson, by the counts of units alone
    a class has 1 unit or none                     none, of metrics that need the class
    calibration error                              none

A metric that no unit's absence moves is not certain: where no answer is wrong, an interval goes by
what the units are worth. That every sample of every class is right has the probability of the
recalls' product, each as often as its class has samples, so the balanced accuracy's holds every
mean recall for which that is at least 1 - level; the perfect AUC's goes by disjoint pairs.

Continuous labels, and masks, have the jackknife of units on a scale of their metric; fewer than 5
units (of masks those that have the rarest structure), or answers that are all exact, say too little.

None can see that a calibration error of few samples is too large: of 156 answers by a perfectly
calibrated probe, the bootstrap's 95 % covered the truth never in 600 test sets, turned around its
value 61 % of the time. So there is none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cache.errors import RequestError
from cache.task import MULTI_LABEL, REGRESSION, SEGMENTATION
from probe.arrays import Array, Doubles, Floats, Indices, Ints, Texts
from probe.metrics import classification as metrics
from probe.metrics import jackknife, overlap
from probe.metrics.calibration import Votes
from probe.metrics.delong import delong, one_sided
from probe.metrics.jackknife import Support, wilson
from probe.metrics.metric import Metric
from probe.metrics.prepared import prepare

WILSON, DELONG, ONE_SIDED, NONE = "wilson", "delong", "one-sided", "none"
JACKKNIFE, COUNTS = "jackknife", "counts"
NO_ENDS = math.nan, math.nan  # one object each, so that equal rows compare as equal
ENOUGH, FEWEST = 5, 2  # units of a class, for the jackknife and for any interval


class Interval(NamedTuple):
    """A metric of the full test set, and the two ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """Every metric with its interval, and how that was made."""

    metrics: dict[str, Interval]
    methods: dict[str, str]  # name -> WILSON, DELONG, ONE_SIDED, JACKKNIFE, COUNTS or NONE
    supports: dict[str, Support]  # of those of classes
    n_units: int
    unit: str  # "sample", or "patient" where one has several samples
    episodes: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of each, few-shot


def estimate(
    scores: Floats,
    labels: Ints,
    task: str,
    *,
    level: float = 0.95,
    score_type: str = metrics.PROBABILITY,
    temperature: float | None = None,
    votes: Votes | None = None,
    groups: Texts | None = None,
) -> Estimates:
    """Evaluate, with the interval that fits around every metric.

    Args:
        scores: (N, C) probabilities or margins, of regression (N, 1) predictions, of segmentation
            (N, 6 C).
        labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task, and numbers of
            pixels of segmentation.
        task: one of ``cache.task.TASKS``, or SEGMENTATION.
        level: how often an interval holds the metric of all images there could be.
        score_type: see ``probe.metrics.classification``.
        temperature: see ``probe.metrics.classification.evaluate``.
        votes: see ``probe.metrics.classification.evaluate``.
        groups: (N,) patients, where known; an empty text is nobody. They matter only where one has
            several samples.

    Returns:
        Both ends are nan where there is no interval.

    Raises:
        RequestError: a level outside (0, 1), or anything that ``probe.metrics.prepared.prepare`` refuses.
    """
    if not 0 < level < 1:
        raise RequestError(f"level lies between 0 and 1, such as 0.95; found {level}")
    prepared = prepare(scores, labels, task, score_type, temperature, votes)
    values = prepared.evaluate()
    cluster = np.arange(len(scores)) if groups is None else clusters(groups)
    n_units = int(cluster.max()) + 1
    is_grouped = n_units < len(scores)
    supports = supports_of(scores, labels, task, cluster)
    methods = {
        m.name: method_of(m, values[m.name], supports.get(m.name), task, is_grouped, n_units)
        for m in prepared.metrics
    }
    without: dict[str, Doubles] = {}
    if wanted := [name for name, method in methods.items() if method == JACKKNIFE]:
        without = jackknife.left_out(prepared, cluster, wanted)
    found, more = {}, overlap.unseen(scores, labels, cluster) if task == SEGMENTATION else {}
    for metric in prepared.metrics:
        name, value, ends = metric.name, values[metric.name], NO_ENDS
        method = methods[name]
        if method == WILSON:
            ends = wilson(value, len(labels), level)
        elif method == DELONG:
            ends = delong(scores, labels, task, level)
        elif method == ONE_SIDED and name == "auc":
            ends = _of_perfect(value, scores, labels, task, cluster, level)
        elif method == ONE_SIDED:
            ends = perfect_recall(np.bincount(labels), level)
        else:
            of_units = without.get(name, np.empty(0)), supports.get(name), cluster, level
            ends, methods[name] = by_units(metric, value, *of_units, more.get(name, 0.0))
        low, high = ends
        # Rounding may take an end past the value.
        found[name] = Interval(value, min(low, value), max(high, value))
    return Estimates(found, methods, supports, n_units, unit_of(is_grouped))


def supports_of(scores: Floats, labels: Array, task: str, cluster: Indices) -> dict[str, Support]:
    """Name of each metric -> what it stands on, as ``estimate`` takes its arguments."""
    if task == REGRESSION:
        return {}
    if task == SEGMENTATION:
        return overlap.supports(scores, labels, cluster)
    return jackknife.supports(labels, task, scores.shape[1], cluster)


def unit_of(is_grouped: bool) -> str:
    """What is left out and counted, in words."""
    return "patient" if is_grouped else "sample"


def method_of(
    metric: Metric, value: float, support: Support | None, task: str, is_grouped: bool, n_units: int
) -> str:
    """How the interval around a metric is made.

    Args:
        metric: of the task.
        value: its.
        support: what it stands on; None: a calibration error, or a metric of continuous labels.
        task: one of ``cache.task.TASKS``, or SEGMENTATION.
        is_grouped: whether a patient has several samples.
        n_units: patients, or samples.
    """
    if metric.scale:
        return JACKKNIFE if (support.weakest if support else n_units) >= metric.fewest else NONE
    if support is None or math.isnan(value):
        return NONE
    is_simple = not is_grouped and task != MULTI_LABEL
    if metric.is_share and is_simple:
        return WILSON
    is_perfect = (metric.name == "auc" and value in (0, 1)) or (
        metric.name == "balanced_accuracy" and value == 1 and is_simple
    )
    if is_perfect and support.weakest:
        return ONE_SIDED
    if support.weakest < FEWEST:
        return NONE
    if support.weakest < ENOUGH:
        return COUNTS
    is_many = metric.name == "auc" and not (is_grouped or support.is_few)
    return DELONG if is_many else JACKKNIFE


def by_units(
    metric: Metric,
    value: float,
    without: Doubles,
    support: Support | None,
    cluster: Indices,
    level: float,
    more: float = 0.0,
) -> tuple[tuple[float, float], str]:
    """The interval of a metric by leaving out units, or by their counts; and its name.

    Args:
        metric: of the task.
        value: its.
        without: (U,) the metric without each unit; empty where these are fewer than ``ENOUGH``.
        support: what it stands on; None: a calibration error, or a metric of continuous labels.
        cluster: (N,) number of each sample's unit.
        level: of the interval.
        more: a variance to add, which isn't that of units; of a metric with a scale, on that.
    """
    if metric.scale:
        found = None
        weakest = support.weakest if support else len(without)
        if min(weakest, len(without)) >= metric.fewest and math.isfinite(more):
            units = support.df + 1 if support else jackknife.worth(cluster)
            found = jackknife.by_scale(metric, value, without, units, level, more)
        return (found, JACKKNIFE) if found else (NO_ENDS, NONE)
    if support is None or math.isnan(value) or support.weakest < FEWEST:
        return NO_ENDS, NONE
    is_few = support.weakest < ENOUGH
    v = None if is_few else jackknife.variance(without)
    ends = jackknife.by_jackknife(value, v, support, level, metric.span, more)
    return ends, COUNTS if is_few else JACKKNIFE


def perfect_recall(counts: Ints, level: float = 0.95) -> tuple[float, float]:
    """The interval of a balanced accuracy of 1, exact and one-sided.

    The smallest mean of recalls r with prod(r ** counts) >= 1 - level. Where the product is at that
    bound, every r below 1 is in proportion to its class's count (Lagrange), so the small classes
    give way first.

    Args:
        counts: of each class's samples; a class without any has no recall, and isn't counted.
        level: how often the interval holds the mean recall of all samples there could be.
    """
    n = np.sort(counts[counts > 0]).astype(np.float64)
    logs = n * np.log(n)
    # For each number of classes below 1, what their counts are multiplied by.
    factors = np.exp((np.log(1 - level) - logs.cumsum()) / n.cumsum())
    n_below = int(np.flatnonzero(factors * n <= 1)[-1]) + 1  # of all that fit, the smallest mean
    return float(np.minimum(factors[n_below - 1] * n, 1).mean()), 1.0


def clusters(groups: Texts) -> Indices:
    """(N,) number of each sample's group, from 0; who is in none is one of their own."""
    _, number = np.unique(groups, return_inverse=True)
    alone = groups == ""
    number = np.where(alone, len(groups) + np.arange(len(groups)), number)
    return np.unique(number, return_inverse=True)[1]


def percentiles(samples: Doubles, level: float) -> tuple[float, float]:
    """The two percentiles that enclose the level, over what is defined; nan where nothing is."""
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0:
        return NO_ENDS
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _of_perfect(
    value: float, scores: Floats, labels: Ints, task: str, cluster: Indices, level: float
) -> tuple[float, float]:
    """The interval of an AUC of 1 or 0, from pairs of which no two share a group."""
    pairs = []
    for _, positive, negative in metrics.auc_columns(scores, labels, task):
        with_positive, with_negative = np.unique(cluster[positive]), np.unique(cluster[negative])
        n_all = len(np.union1d(with_positive, with_negative))
        # A group that has both can give either; one with both, alone, gives a pair by itself.
        pairs.append(max(1, min(len(with_positive), len(with_negative), n_all // 2)))
    return one_sided(value, pairs, level)
