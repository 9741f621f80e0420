"""Metrics of few-shot episodes: the mean over episodes, and how far it could be off.

Two things were drawn: the samples that an episode learnt from, and the test set. An interval is
the percentile bootstrap over both at once: each resample draws E episodes of E and N test samples
of N (or patients, where known), and takes the mean of the drawn episodes on the drawn samples. All
episodes meet the same draw of test samples. One episode has no draw of episodes to resample: its
interval is about the test set alone.

Metrics of counts are exact on each resample. An AUC moves by DeLong's deviations
(``probe.delong``), which is linear in the draw: sorting a thousand resamples of a hundred episodes
would take minutes. Left out is what two drawn samples do together, of order 1 / (positives *
negatives). Calibration error and average precision have a value and no interval, and test images
of one patient alone give none at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.labels import REGRESSION
from probe import metrics, regression_metrics
from probe.delong import deviations
from probe.intervals import NONE, Interval, clusters, multiplicities, percentiles, weighted_sums
from probe.measure import NONE_WRONG, why_no_auc

TWO_LEVEL, TWO_LEVEL_GROUPS = (
    "bootstrap of episodes and samples",
    "bootstrap of episodes and groups",
)
CHUNK_CELLS = 2**22  # numbers of all episodes' contributions in work at one time


class EpisodeMetrics(NamedTuple):
    """The numbers of the episodes of one number of shots. E episodes."""

    mean: dict[str, Interval]  # over episodes
    episodes: dict[str, list[float]]  # name -> (E,)
    methods: dict[str, str]  # of the intervals
    marks: list[str]  # what a reader of them must know


def measure_episodes(
    scores: NDArray[np.floating],
    labels: NDArray[Any],
    task: str,
    n_resamples: int = 1000,
    seed: int = 0,
    *,
    score_type: str = metrics.PROBABILITY,
    groups: NDArray[np.str_] | None = None,
    class_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> EpisodeMetrics:
    """Evaluate every episode.

    Args:
        scores: (E, N, C) probabilities or margins, of regression (E, N, 1) predictions.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``probe.metrics.TASKS``, or "regression".
        n_resamples: R.
        seed: of the bootstrap.
        score_type: ``probe.metrics.PROBABILITY`` or ``MARGIN``.
        groups: (N,) patients, where known; as in ``probe.intervals.estimate``, they matter only
            where one has several samples.
        class_names: C, for the marks; None: the classes' numbers.
        level: how often the interval holds the mean of all episodes on all images there could be.

    Raises:
        RequestError: what ``probe.metrics.validate`` or ``probe.regression_metrics.validate``
            refuses.
    """
    if task == REGRESSION:
        each = [regression_metrics.evaluate(answers, labels) for answers in scores]
    else:
        each = [metrics.evaluate(answers, labels, task, score_type) for answers in scores]
    values = {name: [float(found[name]) for found in each] for name in each[0]}
    n_clusters = len(labels) if groups is None else int(clusters(groups).max()) + 1
    groups = groups if n_clusters < len(labels) else None
    drawn_means = {}
    if groups is None or n_clusters > 1:
        drawn_means = _resampled(scores, labels, task, score_type, groups, n_resamples, seed)
    method = TWO_LEVEL if groups is None else TWO_LEVEL_GROUPS
    means, methods = {}, {}
    for name, of_episodes in values.items():
        known = name in drawn_means
        ends = percentiles(drawn_means[name], level) if known else (np.nan, np.nan)
        means[name] = Interval(float(np.mean(of_episodes)), *ends)
        methods[name] = method if known else NONE
    names = [str(c) for c in range(scores.shape[2])] if class_names is None else class_names
    return EpisodeMetrics(means, values, methods, _marks(means, labels, task, score_type, names))


def _marks(
    means: dict[str, Interval],
    labels: NDArray[Any],
    task: str,
    score_type: str,
    class_names: Sequence[str],
) -> list[str]:
    marks = ["scores are margins, no probabilities"] if score_type == metrics.MARGIN else []
    if task == REGRESSION:
        return marks if means["r2"].value > 0 else ["no better than the mean of the test labels"]
    if abs(means["acc"].value - metrics.larger_class_rate(labels, task)) < 1e-12:
        marks.append("accuracy equals the larger-class rate")
    if means["acc"].value == 1 and not np.isnan(means["acc"].low):
        marks.append(NONE_WRONG)
    if np.isnan(means["auc"].value):
        marks.append(why_no_auc("test", labels, task, class_names))
    return marks


def _resampled(
    scores: NDArray[np.floating],
    labels: NDArray[Any],
    task: str,
    score_type: str,
    groups: NDArray[np.str_] | None,
    n_resamples: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """name -> (R,) the mean over the drawn episodes, nan where one has no value."""
    weights = _episode_weights(len(scores), n_resamples, seed)  # (R, E)
    found: dict[str, NDArray[np.float64]] = {}
    for episodes in _pieces(scores):
        parts, auc = _contributions(scores[episodes], labels, task, score_type)
        start = 0
        for drawn in multiplicities(scores.shape[1], n_resamples, seed, groups):  # (R', N)
            rows = slice(start, start + len(drawn))
            values = _values(weighted_sums(drawn, parts), auc, task)  # (R', e)
            for name, value in values.items():
                whole = found.setdefault(name, np.zeros(n_resamples))
                whole[rows] += (weights[rows, episodes] * value).sum(axis=1)
            start += len(drawn)
    if "auc" in found:
        # DeLong's deviations are linear, and an AUC is not: near its end the line leads past it.
        found["auc"] = np.clip(found["auc"], 0, 1)
    return found


def _episode_weights(n_episodes: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """(R, E) how often each episode is drawn, over E."""
    rng = np.random.default_rng([seed, 1])  # the test samples' generator is that of seed alone
    drawn = rng.integers(n_episodes, size=(n_resamples, n_episodes))
    cells = np.arange(n_resamples)[:, None] * n_episodes + drawn
    counts = np.bincount(cells.ravel(), minlength=n_resamples * n_episodes)
    return counts.reshape(n_resamples, n_episodes) / n_episodes


def _pieces(scores: NDArray[np.floating]) -> Iterator[slice]:
    """Consecutive episodes, as many as fit."""
    size = max(1, CHUNK_CELLS // (4 * scores[0].size + 8 * len(scores[0])))
    return (slice(start, start + size) for start in range(0, len(scores), size))


def _contributions(
    scores: NDArray[np.floating], labels: NDArray[Any], task: str, score_type: str
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """name -> (N, e, ...) what each sample adds to each episode's metrics; and (e,) the AUC."""
    if task == REGRESSION:
        moments = [regression_metrics.sample_moments(answers, labels) for answers in scores]
        return {"moments": np.stack(moments, axis=1)}, np.zeros(len(scores))
    each, auc = [], np.zeros(len(scores))
    for e, answers in enumerate(scores):
        parts = metrics.sample_parts(answers, labels, task, score_type)
        parts.pop("calibration", None)
        columns = metrics.auc_columns(answers, labels, task)
        parts["auc"] = np.zeros(len(answers))
        for column in columns:
            value, shift, _ = deviations(*column)
            auc[e] += value / len(columns)
            parts["auc"] += shift / len(columns)
        each.append(parts)
    return {name: np.stack([parts[name] for parts in each], axis=1) for name in each[0]}, auc


def _values(
    sums: dict[str, NDArray[np.float64]], auc: NDArray[np.float64], task: str
) -> dict[str, NDArray[np.float64]]:
    """name -> (R', e) metrics from sums; the AUC's sum is what the draw moves it by."""
    if task == REGRESSION:
        moments = regression_metrics.Moments(*np.moveaxis(sums["moments"], -1, 0))
        return regression_metrics.metrics_of(moments)
    return {**metrics.metrics_of(sums, task), "auc": auc + sums["auc"]}
