"""Metrics of few-shot episodes: the mean over episodes, and how far it could be off.

Two things were drawn: the samples that an episode learnt from, and the test set. An interval is
the percentile bootstrap over both at once: each resample draws E episodes of E and N test samples
of N (or patients, where known), and takes the mean of the drawn episodes on the drawn samples. All
episodes meet the same draw of test samples. One episode has no draw of episodes to resample: its
interval is about the test set alone.

Metrics of counts are exact on each resample. An AUC moves by DeLong's deviations
(``probe.delong``), which is linear in the draw: sorting a thousand resamples of a hundred episodes
would take minutes. Left out is what two drawn samples do together, of order 1 / (positives *
negatives). Calibration error and average precision have a value and no interval, nor have metrics
of decisions where no episode answers any sample wrongly; test images of one patient alone give none
at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.labels import REGRESSION
from probe import metrics, regression_metrics
from probe.delong import deviations
from probe.episode_sums import EpisodeSums
from probe.intervals import (
    DECISIONS,
    NO_ENDS,
    NONE,
    Interval,
    clusters,
    multiplicities,
    percentiles,
)
from probe.measure import none_wrong, why_no_auc

TWO_LEVEL, TWO_LEVEL_GROUPS = (
    "bootstrap of episodes and samples",
    "bootstrap of episodes and groups",
)
CHUNK_CELLS = 2**23  # numbers of all episodes' contributions in work at one time


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
        score_type: see ``probe.metrics``.
        groups: (N,) patients, where known; as in ``probe.intervals.estimate``, they matter only
            where one has several samples.
        class_names: C, for the marks; None: the classes' numbers.
        level: how often the interval holds the mean of all episodes on all images there could be.

    Raises:
        RequestError: what ``probe.metrics.validate`` or ``probe.regression_metrics.validate``
            refuses.
    """
    n_clusters = len(labels) if groups is None else int(clusters(groups).max()) + 1
    groups = groups if n_clusters < len(labels) else None
    is_drawn = groups is None or n_clusters > 1
    drawn = _draw(len(labels), n_resamples if is_drawn else 0, seed, groups)
    weights = _episode_weights(len(scores), n_resamples, seed)
    each: list[dict[str, float]] = []
    drawn_means: dict[str, NDArray[np.float64]] = {}
    for episodes in _pieces(scores):
        piece = [_evaluated(answers, labels, task, score_type) for answers in scores[episodes]]
        each += [episode.values for episode in piece]
        for name, mean in _resampled(piece, drawn, weights[:, episodes], task).items():
            drawn_means[name] = drawn_means.get(name, 0) + mean
    if "auc" in drawn_means:
        # DeLong's deviations are linear, and an AUC is not: near its end the line leads past it.
        drawn_means["auc"] = np.clip(drawn_means["auc"], 0, 1)
    values = {name: [float(found[name]) for found in each] for name in each[0]}
    method = TWO_LEVEL if groups is None else TWO_LEVEL_GROUPS
    means, methods = {}, {}
    for name, of_episodes in values.items():
        # Where no episode answers any sample wrongly, resamples would show no width.
        has_width = set(values.get(DECISIONS.get(name, ""), ())) != {1.0}
        known = name in drawn_means and has_width
        ends = percentiles(drawn_means[name], level) if known else NO_ENDS
        means[name] = Interval(float(np.mean(of_episodes)), *ends)
        methods[name] = NONE if np.isnan(ends[0]) else method
    names = [str(c) for c in range(scores.shape[2])] if class_names is None else class_names
    marks = _marks(means, methods, labels, task, score_type, names)
    return EpisodeMetrics(means, values, methods, marks)


def _marks(
    means: dict[str, Interval],
    methods: dict[str, str],
    labels: NDArray[Any],
    task: str,
    score_type: str,
    class_names: Sequence[str],
) -> list[str]:
    marks = [*metrics.SCORE_MARKS[score_type]]
    if task == REGRESSION:
        return marks if means["r2"].value > 0 else ["no better than the mean of the test labels"]
    if abs(means["acc"].value - metrics.larger_class_rate(labels, task)) < 1e-12:
        marks.append("accuracy equals the larger-class rate")
    marks += none_wrong(means, methods)
    if np.isnan(means["auc"].value):
        marks.append(why_no_auc("test", labels, task, class_names))
    return marks


class _Episode(NamedTuple):
    """One episode, looked at once."""

    values: dict[str, float]  # its metrics
    parts: dict[str, NDArray[Any]]  # what each sample adds to them; to the AUC by DeLong
    auc: float  # of regression 0


def _evaluated(
    answers: NDArray[np.floating], labels: NDArray[Any], task: str, score_type: str
) -> _Episode:
    if task == REGRESSION:
        values = regression_metrics.evaluate(answers, labels)
        return _Episode(values, {"moments": regression_metrics.sample_moments(answers, labels)}, 0)
    prepared = metrics.prepare(answers, labels, task, score_type)
    shifts, auc = np.zeros(len(answers)), 0.0
    for problem in prepared.problems:
        value, shift, _ = deviations(problem)
        auc += value / len(prepared.problems)
        shifts += shift / len(prepared.problems)
    return _Episode(prepared.evaluate(), {**prepared.parts, "auc": shifts}, auc)


def _resampled(
    piece: Sequence[_Episode],
    drawn: NDArray[np.unsignedinteger],
    weights: NDArray[np.float64],
    task: str,
) -> dict[str, NDArray[np.float64]]:
    """name -> (R,) the piece's share of the mean over the drawn episodes, nan where one has no value.

    Args:
        piece: e episodes.
        drawn: (R, N) multiplicities.
        weights: (R, e) how often each episode is drawn, over E.
        task: as in ``measure_episodes``.
    """
    sums = EpisodeSums([episode.parts for episode in piece])
    auc = np.array([episode.auc for episode in piece])
    found: dict[str, list[NDArray[np.float64]]] = {}
    size = max(1, CHUNK_CELLS // drawn.shape[1])
    for start in range(0, len(drawn), size):
        rows = slice(start, start + size)
        for name, value in _values(sums.of(drawn[rows]), auc, task).items():  # (R', e)
            found.setdefault(name, []).append((weights[rows] * value).sum(axis=1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _draw(
    n_samples: int, n_resamples: int, seed: int, groups: NDArray[np.str_] | None
) -> NDArray[np.unsignedinteger]:
    """(R, N) multiplicities, drawn once for all episodes: of 1000 resamples 2 KB a sample."""
    drawn = np.empty((n_resamples, n_samples), np.uint16)
    start = 0
    for part in multiplicities(n_samples, n_resamples, seed, groups):
        drawn[start : start + len(part)] = part
        start += len(part)
    return drawn


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


def _values(
    sums: dict[str, NDArray[np.float64]], auc: NDArray[np.float64], task: str
) -> dict[str, NDArray[np.float64]]:
    """name -> (R', e) metrics from sums; the AUC's sum is what the draw moves it by."""
    if task == REGRESSION:
        moments = regression_metrics.Moments(*np.moveaxis(sums["moments"], -1, 0))
        return regression_metrics.metrics_of(moments)
    return {**metrics.metrics_of(sums, task), "auc": auc + sums["auc"]}
