"""Intervals: how much each metric would move with another test set of this size.

Training, and so the choice of k or of a strength, is held fixed: an interval is about the test set,
not about seeds.

    metric                        samples are independent    groups (patients) have several samples
    accuracy of one label         Wilson (1927)              bootstrap of groups
    AUC                           DeLong, see delong.py      bootstrap of groups
    balanced accuracy of 1        one-sided, see below       none
    macro F1, kappa of 1          none                       none
    calibration error             none                       none, as of one group alone
    all others                    bootstrap of samples       bootstrap of groups

The bootstrap is Efron's (1979), between percentiles. A resample is a vector of multiplicities, how
often each sample was drawn: metrics of sums are a matrix product, those of ranks a cumulative sum
(ranking.py). Of groups it draws whole groups, so that what a patient's images share is not counted
as often as they have images.

It would have no width where no sample is answered wrongly, which says nothing of the next one. There
Wilson's serves the accuracy. The balanced accuracy has an exact one-sided interval, as the perfect
AUC has: that every sample of every class is right has the probability of the recalls' product, each
as often as its class has samples, so the interval holds every mean recall for which that is at
least 1 - level. Macro F1 and kappa also hang on where the errors would go, which no sample shows:
they have none, nor has any of these where groups are known or labels are several, and a mark says
so.

And it can't see that a calibration error of few samples is too large: of 156 answers by a perfectly
calibrated probe, its 95 % covered the truth never in 600 test sets, turned around its value 61 % of
the time. So there is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe import metrics, regression_metrics
from probe.calibration import Votes
from probe.delong import delong, one_sided

CHUNK_CELLS = 2**20  # resamples by samples in work at one time: about 30 MB in all
WILSON, DELONG, ONE_SIDED, NONE = "wilson", "delong", "one-sided", "none"
BOOTSTRAP, GROUPS = "bootstrap", "bootstrap of groups"
NO_ENDS = math.nan, math.nan  # one object each, so that equal rows compare as equal
# Metrics of decisions, and the one of them that is 1 where no decision is wrong.
DECISIONS = {
    **dict.fromkeys(("acc", "balanced_accuracy", "f1_macro", "kappa"), "acc"),
    **dict.fromkeys(("acc_expected", "kappa_expected"), "acc_expected"),
}


class Interval(NamedTuple):
    """A metric of the full test set, and the two ends of its interval."""

    value: float
    low: float
    high: float


class Estimates(NamedTuple):
    """Every metric with its interval, and how that was made."""

    metrics: dict[str, Interval]
    methods: dict[str, str]  # name -> WILSON, DELONG, ONE_SIDED, BOOTSTRAP, GROUPS or NONE


def estimate(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    *,
    score_type: str = metrics.PROBABILITY,
    temperature: float | None = None,
    votes: Votes | None = None,
    groups: NDArray[np.str_] | None = None,
) -> Estimates:
    """Evaluate, with the interval that fits around every metric.

    Where a class is absent from a resample, or all that is known of a label, and a metric is nan
    (see ``probe.metrics.evaluate``), it is left out of that metric's percentiles: with few
    positives the interval is about the test sets that have some. If no resample is left, both ends
    are nan.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task.
        task: one of ``probe.metrics.TASKS``.
        n_resamples: of the bootstrap; more of them make the ends steadier, not narrower.
        seed: of the bootstrap; the same seed gives the same interval, whatever the size of chunks.
        level: how often an interval holds the metric of all images there could be.
        score_type: see ``probe.metrics``.
        temperature: see ``probe.metrics.evaluate``.
        votes: see ``probe.metrics.evaluate``.
        groups: (N,) patients, where known; an empty text is nobody. They matter only where one has
            several samples.

    Raises:
        RequestError: no resamples, a level outside (0, 1), or anything that
            ``probe.metrics.validate`` refuses.
    """
    _check(n_resamples, level)
    values = metrics.evaluate(scores, labels, task, score_type, temperature, votes)
    cluster = np.arange(len(scores)) if groups is None else clusters(groups)
    n_clusters = int(cluster.max()) + 1
    is_grouped = n_clusters < len(scores)
    is_simple = not is_grouped and task != metrics.MULTI_LABEL
    samples = resampled_metrics(
        scores,
        labels,
        task,
        n_resamples,
        seed,
        score_type=score_type,
        groups=groups if is_grouped else None,
        ranks=metrics.RANKS if is_grouped else ("average_precision",),
    )
    found = Estimates({}, {})
    for name, value in values.items():
        method = GROUPS if is_grouped else BOOTSTRAP
        if name in metrics.ERRORS_OF_CALIBRATION or (is_grouped and n_clusters == 1):
            ends, method = NO_ENDS, NONE
        elif name == "auc" and value in (0, 1):
            ends, method = _of_perfect(value, scores, labels, task, cluster, level), ONE_SIDED
        elif name == "auc" and not is_grouped:
            ends, method = delong(scores, labels, task, level), DELONG
        elif name in ("acc", "acc_expected") and is_simple:
            ends, method = wilson(value, len(labels), level), WILSON
        elif values.get(DECISIONS.get(name, "")) == 1:
            ends, method = NO_ENDS, NONE
            if name == "balanced_accuracy" and is_simple:
                ends, method = perfect_recall(np.bincount(labels), level), ONE_SIDED
        else:
            ends = percentiles(samples[name], level)
        found.metrics[name] = Interval(value, *ends)
        found.methods[name] = NONE if math.isnan(ends[0]) else method
    return found


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) score interval for a share of n independent samples.

    Unlike the bootstrap's, it has a width where the share is 0 or 1: of 100 right answers out of
    100 it begins at 0.963.

    Args:
        share: 0..1.
        n: 1 and more.
        level: how often the interval holds the share of all samples there could be.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (centre + np.array([-half, half])) / (1 + z**2 / n)
    return float(min(low, share)), float(max(high, share))  # rounding may take an end past it


def perfect_recall(counts: NDArray[np.integer], level: float = 0.95) -> tuple[float, float]:
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


def estimate_regression(
    predictions: NDArray[np.floating],
    labels: NDArray[np.floating],
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: NDArray[np.str_] | None = None,
) -> Estimates:
    """``estimate`` for continuous labels: by the bootstrap, of groups where one has several samples.

    Args:
        predictions: (N, 1), in the labels' unit.
        labels: (N,).
        n_resamples: as in ``estimate``.
        seed: as in ``estimate``.
        level: as in ``estimate``.
        groups: as in ``estimate``.

    Raises:
        RequestError: no resamples, a level outside (0, 1), or anything that
            ``probe.regression_metrics.validate`` refuses.
    """
    _check(n_resamples, level)
    values = regression_metrics.evaluate(predictions, labels)
    samples = resampled_regression_metrics(predictions, labels, n_resamples, seed, groups)
    n_clusters = len(labels) if groups is None else int(clusters(groups).max()) + 1
    method = BOOTSTRAP if n_clusters == len(labels) else GROUPS if n_clusters > 1 else NONE
    ends = {name: percentiles(values, level) for name, values in samples.items()}
    if method == NONE:
        ends = dict.fromkeys(ends, NO_ENDS)
    found = {name: Interval(value, *ends[name]) for name, value in values.items()}
    methods = {name: NONE if math.isnan(low) else method for name, (low, _) in ends.items()}
    return Estimates(found, {name: methods[name] for name in found})


def clusters(groups: NDArray[np.str_]) -> NDArray[np.intp]:
    """(N,) number of each sample's group, from 0; who is in none is one of their own."""
    _, number = np.unique(groups, return_inverse=True)
    alone = groups == ""
    number = np.where(alone, len(groups) + np.arange(len(groups)), number)
    return np.unique(number, return_inverse=True)[1]


def resampled_metrics(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    n_resamples: int,
    seed: int,
    *,
    score_type: str = metrics.PROBABILITY,
    groups: NDArray[np.str_] | None = None,
    ranks: Collection[str] = metrics.RANKS,
) -> dict[str, NDArray[np.float64]]:
    """Every metric that has an interval on every resample, without looking at any of them twice.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``probe.metrics.TASKS``.
        n_resamples: R.
        seed: of the draws.
        score_type: see ``probe.metrics``.
        groups: (N,) what is drawn as a whole; None: each sample by itself.
        ranks: which metrics of ranks are wanted; they take longest.

    Returns:
        name -> (R,) values, nan where the metric is undefined; in the order of
        ``probe.metrics.metric_names``, but for errors of calibration and for those of ranks that
        aren't wanted.
    """
    names = metrics.metric_names(task, score_type)
    ranks = [name for name in ranks if name in names]
    parts = metrics.sample_parts(scores, labels, task, score_type)
    problems = metrics.rankings(scores, labels, task) if ranks else []
    found: dict[str, list[NDArray[np.float64]]] = {}
    for drawn in multiplicities(len(scores), n_resamples, seed, groups):  # (R', N)
        values = metrics.metrics_of(weighted_sums(drawn, parts), task)
        values |= metrics.rank_metrics_of(problems, drawn, ranks)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.concatenate(found[name]) for name in names if name in found}


def weighted_sums(
    drawn: NDArray[np.int32], parts: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """name -> (R, ...) sums over samples, each as often as it was drawn.

    Args:
        drawn: (R, N) multiplicities.
        parts: name -> (N, ...) contributions, see ``probe.metrics.sample_parts``.
    """
    weights = drawn.astype(np.float64)
    return {
        name: (weights @ part.reshape(len(part), -1).astype(np.float64)).reshape(
            -1, *part.shape[1:]
        )
        for name, part in parts.items()
    }


def resampled_regression_metrics(
    predictions: NDArray[np.floating],
    labels: NDArray[np.floating],
    n_resamples: int,
    seed: int,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """``resampled_metrics`` for continuous labels: name -> (R,) values, nan where undefined."""
    moments = regression_metrics.sample_moments(predictions, labels)  # (N, 8)
    drawn = multiplicities(len(moments), n_resamples, seed, groups)
    sums = np.concatenate([part.astype(np.float64) @ moments for part in drawn])  # (R, 8)
    return regression_metrics.metrics_of(regression_metrics.Moments(*sums.T))


def multiplicities(
    n_samples: int, n_resamples: int, seed: int, groups: NDArray[np.str_] | None = None
) -> Iterator[NDArray[np.int32]]:
    """Draw resamples in chunks of (R', N): how often each sample is in each resample.

    Args:
        n_samples: N.
        n_resamples: R; the chunks' R' add up to it.
        seed: the same seed draws the same, whatever the size of chunks.
        groups: (N,) what is drawn as a whole; None: each sample by itself.
    """
    rng = np.random.default_rng(seed)
    cluster = np.arange(n_samples) if groups is None else clusters(groups)
    n = int(cluster.max()) + 1
    size = max(1, CHUNK_CELLS // n_samples)
    for start in range(0, n_resamples, size):
        drawn = np.empty((min(size, n_resamples - start), n_samples), dtype=np.int32)
        for row in drawn:  # one call a resample, so that the chunk's size can't matter
            row[:] = np.bincount(rng.integers(n, size=n), minlength=n)[cluster]
        yield drawn


def percentiles(samples: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The two percentiles that enclose the level, over what is defined; nan where nothing is."""
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0:
        return NO_ENDS
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _check(n_resamples: int, level: float) -> None:
    if n_resamples < 1:
        raise RequestError(f"a bootstrap needs at least 1 resample, found {n_resamples}")
    if not 0 < level < 1:
        raise RequestError(f"level lies between 0 and 1, such as 0.95; found {level}")


def _of_perfect(
    value: float,
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    cluster: NDArray[np.intp],
    level: float,
) -> tuple[float, float]:
    """The interval of an AUC of 1 or 0, from pairs of which no two share a group."""
    pairs = []
    for _, positive, negative in metrics.auc_columns(scores, labels, task):
        with_positive, with_negative = np.unique(cluster[positive]), np.unique(cluster[negative])
        n_all = len(np.union1d(with_positive, with_negative))
        # A group that has both can give either; one with both, alone, gives a pair by itself.
        pairs.append(max(1, min(len(with_positive), len(with_negative), n_all // 2)))
    return one_sided(value, pairs, level)
