"""Bootstrap intervals: how much each metric would move with another test set of this size.

The percentile bootstrap of Efron (1979) over test samples. Training, and so the choice of k or of
a strength, is held fixed: the interval is about the test set, not about seeds.

A resample is a vector of multiplicities, how often each sample was drawn. Scores are sorted once;
then counts are a matrix product, and each AUC a cumulative sum over the sorted negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe import metrics, regression_metrics

CHUNK_CELLS = 2**20  # resamples by samples in work at one time: about 30 MB in all


class Interval(NamedTuple):
    """A metric of the full test set, between two percentiles of its bootstrap."""

    value: float
    low: float
    high: float


def bootstrap(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Evaluate, with an interval around every metric.

    A resample draws N samples with replacement. Where a class is absent from it, or all that is
    known of a label, and a metric is nan (see ``probe.metrics.evaluate``), it is left out of that
    metric's percentiles: with few positives the interval is about the test sets that have some. If
    no resample is left, both ends are nan.

    Args:
        scores: (N, C) probabilities.
        labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task.
        task: one of ``probe.metrics.TASKS``.
        n_resamples: more of them make the ends steadier, not the interval narrower.
        seed: the same seed gives the same interval, whatever the size of chunks.
        level: share of the resamples between ``low`` and ``high``.

    Returns:
        name -> interval, in the order of ``probe.metrics.METRICS``.

    Raises:
        RequestError: no resamples, a level outside (0, 1), or anything that
            ``probe.metrics.validate`` refuses.
    """
    _check(n_resamples, level)
    values = metrics.evaluate(scores, labels, task)
    samples = resampled_metrics(scores, labels, task, n_resamples, seed)
    return {name: Interval(values[name], *_ends(samples[name], level)) for name in values}


def bootstrap_regression(
    predictions: NDArray[np.floating],
    labels: NDArray[np.floating],
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """``bootstrap`` for continuous labels: the same seed draws the same samples.

    Args:
        predictions: (N, 1), in the labels' unit.
        labels: (N,).
        n_resamples: as in ``bootstrap``.
        seed: as in ``bootstrap``.
        level: as in ``bootstrap``.

    Returns:
        name -> interval, in the order of ``probe.regression_metrics.METRICS``.

    Raises:
        RequestError: no resamples, a level outside (0, 1), or anything that
            ``probe.regression_metrics.validate`` refuses.
    """
    _check(n_resamples, level)
    values = regression_metrics.evaluate(predictions, labels)
    samples = resampled_regression_metrics(predictions, labels, n_resamples, seed)
    return {name: Interval(values[name], *_ends(samples[name], level)) for name in values}


def resampled_metrics(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    n_resamples: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Every metric on every resample, without looking at any resample twice.

    Args:
        scores: (N, C) probabilities.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``probe.metrics.TASKS``.
        n_resamples: R.
        seed: of the draws.

    Returns:
        name -> (R,) values, nan where the metric is undefined; in the order of
        ``probe.metrics.METRICS``.
    """
    indicators = metrics.indicators(scores, labels, task)  # (N, 3, C) or (N, 3, C, 2)
    shape = indicators.shape[1:]
    flat = indicators.reshape(len(indicators), -1).astype(np.float64)
    problems = [_Ranking(*column) for column in metrics.auc_columns(scores, labels, task)]

    parts = []
    for drawn in _multiplicities(len(scores), n_resamples, seed):  # (R', N)
        sums = (drawn.astype(np.float64) @ flat).reshape(-1, *shape)  # (R', 3, C) or more
        counts = metrics.Counts(*np.moveaxis(sums, 1, 0))
        parts.append(
            {
                "acc": metrics.accuracy_of(counts, task),
                "auc": np.mean([problem.auc(drawn) for problem in problems], axis=0),
                "balanced_accuracy": metrics.balanced_accuracy_of(counts, task),
                "f1_macro": metrics.f1_macro_of(counts, task),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in metrics.METRICS}


def resampled_regression_metrics(
    predictions: NDArray[np.floating], labels: NDArray[np.floating], n_resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """``resampled_metrics`` for continuous labels: name -> (R,) values, nan where undefined."""
    moments = regression_metrics.sample_moments(predictions, labels)  # (N, 8)
    drawn = _multiplicities(len(moments), n_resamples, seed)
    sums = np.concatenate([part.astype(np.float64) @ moments for part in drawn])  # (R, 8)
    return regression_metrics.metrics_of(regression_metrics.Moments(*sums.T))


class _Ranking:
    """One two-class problem, sorted once: its AUC under any multiplicities."""

    def __init__(
        self,
        scores: NDArray[np.floating],
        positive: NDArray[np.bool_],
        negative: NDArray[np.bool_],
    ) -> None:
        order = np.argsort(scores, kind="stable")
        self.positives = order[positive[order]]  # (P,), ascending scores
        self.negatives = order[negative[order]]  # (M,), ascending scores
        self.less, self.less_or_same = metrics.negatives_below(
            scores[self.positives], scores[self.negatives]
        )

    def auc(self, drawn: NDArray[np.int32]) -> NDArray[np.float64]:
        """AUC of each resample, (R,), ties counted half; nan where a class wasn't drawn.

        Args:
            drawn: (R, N) multiplicities.
        """
        # below[:, j]: how many draws fell on the j lowest negatives. Whole numbers all the way, so
        # nothing is rounded. np.take and 32 bits: three times as fast as drawn[:, ...] and 64.
        below = np.zeros((len(drawn), len(self.negatives) + 1), dtype=np.int32)
        np.take(drawn, self.negatives, axis=1).cumsum(axis=1, dtype=np.int32, out=below[:, 1:])
        weights = np.take(drawn, self.positives, axis=1)  # (R, P)
        beaten = np.take(below, self.less, axis=1) + np.take(below, self.less_or_same, axis=1)
        twice = np.einsum("rp,rp->r", weights, beaten, dtype=np.int64)
        pairs = weights.sum(axis=1, dtype=np.int64) * below[:, -1]
        return np.divide(twice, 2 * pairs, out=np.full(len(drawn), np.nan), where=pairs > 0)


def _check(n_resamples: int, level: float) -> None:
    if n_resamples < 1:
        raise RequestError(f"a bootstrap needs at least 1 resample, found {n_resamples}")
    if not 0 < level < 1:
        raise RequestError(f"level lies between 0 and 1, such as 0.95; found {level}")


def _multiplicities(n_samples: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Draw resamples in chunks of (R', N): how often each sample is in each resample."""
    rng = np.random.default_rng(seed)
    size = max(1, CHUNK_CELLS // n_samples)
    for start in range(0, n_resamples, size):
        drawn = np.empty((min(size, n_resamples - start), n_samples), dtype=np.int32)
        for row in drawn:  # one call a resample, so that the chunk's size can't matter
            row[:] = np.bincount(rng.integers(n_samples, size=n_samples), minlength=n_samples)
        yield drawn


def _ends(samples: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The percentiles that enclose the level, over what is defined."""
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
