"""Metrics of few-shot episodes: the mean over episodes, and how far it could be off.

Two things were drawn: the samples that an episode learnt from, and the test set. Where test has
few units (patients, where known, else samples), or few of a class, both variances are added: the
jackknife's of the mean over episodes, which leaves out one unit after the other, and that of
episodes over their number (of one episode none is known). The interval's form is that of
``probe.metrics.jackknife``; with 2 to 4 units of a class their counts stand for the first variance, with
fewer there is no interval.

Where they are many, it is the percentile bootstrap over both at once: each resample draws E
episodes of E and N test samples of N (or patients), and takes the mean of the drawn episodes on the
drawn samples. All episodes meet the same draw of test samples. Metrics of counts are exact on each
resample. An AUC moves by DeLong's deviations (``probe.metrics.delong``), which is linear in the draw:
sorting a thousand resamples of a hundred episodes would take minutes. Left out is what two drawn
samples do together, of order 1 / (positives * negatives). Where no resample differs, and of the
average precision, the jackknife serves. Calibration error has a value and no interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.task import SEGMENTATION
from probe.arrays import Array, Bools, Doubles, Floats, Ints, Singles, Texts
from probe.metrics import classification as metrics
from probe.metrics import intervals, jackknife, overlap
from probe.metrics.delong import deviations
from probe.metrics.intervals import ENOUGH, Estimates, Interval, by_units, clusters, unit_of
from probe.metrics.jackknife import MANY
from probe.metrics.metric import Metric, Prepared, metrics_of
from probe.metrics.prepared import prepare

TWO_LEVEL, TWO_LEVEL_GROUPS = (
    "bootstrap of episodes and samples",
    "bootstrap of episodes and groups",
)
CHUNK_CELLS = 2**23  # numbers of all episodes' contributions in work at one time


def estimate_episodes(
    scores: Floats,
    labels: Array,
    task: str,
    n_resamples: int = 1000,
    seed: int = 0,
    *,
    score_type: str = metrics.PROBABILITY,
    groups: Texts | None = None,
    level: float = 0.95,
) -> Estimates:
    """Evaluate every episode; the estimates are of the mean over them.

    Args:
        scores: (E, N, C) probabilities or margins, of regression (E, N, 1) predictions, of
            segmentation (E, N, 6 C).
        labels: (N,), or (N, C) for the multi-label task and segmentation.
        task: one of ``cache.task.TASKS``, or SEGMENTATION.
        n_resamples: R.
        seed: of the bootstrap.
        score_type: see ``probe.metrics.classification``.
        groups: (N,) patients, where known; as in ``probe.metrics.intervals.estimate``, they matter only
            where one has several samples.
        level: how often the interval holds the mean of all episodes on all images there could be.

    Raises:
        RequestError: what ``probe.metrics.prepared.prepare`` refuses.
    """
    cluster = np.arange(len(labels)) if groups is None else clusters(groups)
    n_units = int(cluster.max()) + 1
    is_grouped = n_units < len(labels)
    supports = intervals.supports_of(scores[0], labels, task, cluster)
    is_few = n_units < MANY or any(support.is_few for support in supports.values())
    drawn = multiplicities(
        len(labels), 0 if is_few else n_resamples, seed, groups if is_grouped else None
    )
    weights = _episode_weights(len(scores), len(drawn), seed)
    each: list[dict[str, float]] = []
    drawn_means: dict[str, Doubles] = {}
    for episodes in _pieces(scores):
        piece = [_evaluated(prepare(s, labels, task, score_type)) for s in scores[episodes]]
        each += [episode.values for episode in piece]
        for name, mean in _resampled(piece, drawn, weights[:, episodes]).items():
            drawn_means[name] = drawn_means.get(name, 0) + mean
    if "auc" in drawn_means:
        # DeLong's deviations are linear, and an AUC is not: near its end the line leads past it.
        drawn_means["auc"] = np.clip(drawn_means["auc"], 0, 1)
    values = {name: [float(found[name]) for found in each] for name in each[0]}
    ends = {name: intervals.percentiles(samples, level) for name, samples in drawn_means.items()}
    ends = {name: both for name, both in ends.items() if both[1] - both[0] > jackknife.ROUNDING}
    methods = dict.fromkeys(ends, TWO_LEVEL_GROUPS if is_grouped else TWO_LEVEL)
    known = [m for m in prepare(scores[0], labels, task, score_type).metrics if m.has_interval]
    if lacking := [metric for metric in known if metric.name not in ends]:
        leaving: dict[str, Doubles] = {}
        if n_units >= ENOUGH:  # of one alone nothing would be left
            wanted = [metric.name for metric in lacking]
            for answers in scores:
                prepared = prepare(answers, labels, task, score_type)
                for name, rest in jackknife.left_out(prepared, cluster, wanted).items():
                    leaving[name] = leaving.get(name, 0) + rest / len(scores)
        rare: dict[str, float] = {}
        if task == SEGMENTATION:  # a miss that isn't in test is in no episode's answers
            of_each = [overlap.unseen(answers, labels, cluster) for answers in scores]
            rare = {name: float(np.mean([of[name] for of in of_each])) for name in of_each[0]}
        for metric in lacking:
            name = metric.name
            support, without = supports.get(name), leaving.get(name, np.empty(0))
            mean = float(np.mean(values[name]))
            more = _variance_of_mean(metric, values[name]) + rare.get(name, 0.0)
            found = by_units(metric, mean, without, support, cluster, level, more)
            ends[name], methods[name] = found
    means = {
        n: Interval(float(np.mean(v)), *ends.get(n, intervals.NO_ENDS)) for n, v in values.items()
    }
    methods = {name: methods.get(name, intervals.NONE) for name in values}
    return Estimates(means, methods, supports, n_units, unit_of(is_grouped), values)


def _variance_of_mean(metric: Metric, values: list[float]) -> float:
    """That of a mean over episodes, on the metric's scale; of one episode none is known."""
    if len(values) < 2:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # a perfect one is at the scale's end
        found = metric.scale[0](np.array(values)) if metric.scale else np.array(values)
        return float(np.var(found, ddof=1)) / len(values)


class _Episode(NamedTuple):
    """One episode, looked at once."""

    task: str
    metrics: tuple[Metric, ...]
    values: dict[str, float]  # its metrics
    parts: dict[str, Array]  # what each sample adds to them; to the AUC by DeLong
    auc: float  # of regression 0


def _evaluated(prepared: Prepared) -> _Episode:
    parts, auc = dict(prepared.parts), 0.0
    if prepared.problems:
        found = [deviations(problem) for problem in prepared.problems]
        auc, parts["auc"] = 0.0, np.zeros(prepared.problems[0].n_samples)
        for value, shift, _ in found:
            auc += value / len(found)
            parts["auc"] += shift / len(found)
    return _Episode(prepared.task, prepared.metrics, prepared.evaluate(), parts, auc)


def _resampled(
    piece: Sequence[_Episode], drawn: NDArray[np.unsignedinteger], weights: Doubles
) -> dict[str, Doubles]:
    """name -> (R,) the piece's share of the mean over the drawn episodes, nan where one has no value.

    Args:
        piece: e episodes.
        drawn: (R, N) multiplicities.
        weights: (R, e) how often each episode is drawn, over E.
    """
    sums = EpisodeSums([episode.parts for episode in piece])
    auc = np.array([episode.auc for episode in piece])
    found: dict[str, list[Doubles]] = {}
    size = max(1, CHUNK_CELLS // drawn.shape[1])
    for start in range(0, len(drawn), size):
        rows = slice(start, start + size)
        of_rows = sums.of(drawn[rows])
        values = metrics_of(of_rows, piece[0].metrics, piece[0].task)
        if "auc" in of_rows:  # what the draw moves it by
            values["auc"] = auc + of_rows["auc"]
        for name, value in values.items():  # (R', e)
            found.setdefault(name, []).append((weights[rows] * value).sum(axis=1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def multiplicities(
    n_samples: int, n_resamples: int, seed: int, groups: Texts | None = None
) -> NDArray[np.uint16]:
    """(R, N) how often each sample is in each resample: of 1000 resamples 2 KB a sample.

    Args:
        n_samples: N.
        n_resamples: R.
        seed: of the draw.
        groups: (N,) what is drawn as a whole; None: each sample by itself.
    """
    rng = np.random.default_rng(seed)
    cluster = np.arange(n_samples) if groups is None else clusters(groups)
    n = int(cluster.max()) + 1
    drawn = np.empty((n_resamples, n_samples), np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)[cluster]
    return drawn


def _episode_weights(n_episodes: int, n_resamples: int, seed: int) -> Doubles:
    """(R, E) how often each episode is drawn, over E."""
    rng = np.random.default_rng([seed, 1])  # the test samples' generator is that of seed alone
    drawn = rng.integers(n_episodes, size=(n_resamples, n_episodes))
    cells = np.arange(n_resamples)[:, None] * n_episodes + drawn
    counts = np.bincount(cells.ravel(), minlength=n_resamples * n_episodes)
    return counts.reshape(n_resamples, n_episodes) / n_episodes


def _pieces(scores: Floats) -> Iterator[slice]:
    """Consecutive episodes, as many as fit."""
    size = max(1, CHUNK_CELLS // (4 * scores[0].size + 8 * len(scores[0])))
    return (slice(start, start + size) for start in range(0, len(scores), size))


EXACT = 2**24  # up to here every whole number is a float32


class EpisodeSums:
    """What the samples of e episodes contribute to their metrics. N samples.

    Every metric but those of ranks is a function of weighted sums over them, and a thousand
    resamples of a hundred episodes are one matrix product over all samples. Most of it can be
    spared: hits and predictions are whole numbers, whose sums float32 holds exactly, in half the
    time; what is labelled is the same in every episode; and of two values that exclude one another
    the counts of one give the other's.
    """

    def __init__(self, each: Sequence[Mapping[str, Array]]) -> None:
        """Lay the episodes side by side.

        Args:
            each: for each episode name -> (N, ...) contributions, see
                ``probe.metrics.classification.sample_parts``; others than "counts" are summed as they are.
        """
        self._labelled: Bools | None = None  # (N, V), of several labels (N, C, 2)
        is_whole = True  # every label is known of every sample
        if "counts" in each[0]:
            self._labelled = each[0]["counts"][:, 1]
            self._answers = np.stack([self._own(parts["counts"]) for parts in each], axis=1)
            is_whole = bool(self._labelled.any(axis=-1).all())
        self._real = {
            name: np.stack([_column(name, parts[name], is_whole) for parts in each], axis=1)
            for name in each[0]
            if name != "counts"
        }

    def _own(self, counts: Bools) -> Singles:
        """(N, 2, ...) hits and predictions, of two values those of the second."""
        first = int(self._of_two)
        return np.stack([counts[:, 0, ..., first:], counts[:, 2, ..., first:]], 1).astype(
            np.float32
        )

    @property
    def _of_two(self) -> bool:
        return self._labelled is not None and self._labelled.shape[-1] == 2

    def of(self, drawn: Ints) -> dict[str, Doubles]:
        """name -> (R, e, ...) sums over samples, each as often as it was drawn.

        Args:
            drawn: (R, N) multiplicities.

        Returns:
            Equal, but for rounding, to the weighted sums of ``probe.metrics.metric`` of each episode.
        """
        weights = drawn.astype(np.float64)
        sums = {name: _product(weights, part) for name, part in self._real.items()}
        if self._labelled is None:
            return sums
        if drawn.sum(axis=1, dtype=np.int64).max(initial=0) < EXACT:
            weights = drawn.astype(np.float32)
        answers = _product(weights, self._answers)
        labelled = _product(weights, self._labelled)[:, None]  # (R, 1, ...)
        hits, predicted = answers[:, :, 0], answers[:, :, 1]
        known = labelled.sum(axis=-1)
        if self._of_two:
            hits, predicted = hits[..., 0], predicted[..., 0]
            wrong = predicted - hits
            hits = np.stack([labelled[..., 0] - wrong, hits], axis=-1)
            predicted = np.stack([known - predicted, predicted], axis=-1)
        sums["counts"] = np.stack(np.broadcast_arrays(hits, labelled, predicted), axis=2)
        if "brier" in sums:
            problems = known.reshape(len(drawn), 1, -1)[..., : sums["brier"].shape[-1]]
            sums["brier"] = np.stack(np.broadcast_arrays(problems, sums["brier"]), axis=-1)
        return sums


def _column(name: str, part: Array, is_whole: bool) -> Array:
    """(N, ...) what is summed of a contribution; of Brier's (N, P, 2) squares (N, P), or (N, 1).

    The first of its columns is what is known, as the labels say. Where that is everything, the mean
    over labels may be taken before the sum.
    """
    if name != "brier":
        return part
    return part[..., 1].mean(axis=1, keepdims=True) if is_whole else part[..., 1]


def _product(weights: Floats, part: Array) -> Doubles:
    """(R, ...) sums of (N, ...) contributions, in the weights' precision."""
    flat = part.reshape(len(part), -1).astype(weights.dtype, copy=False)
    return (weights @ flat).astype(np.float64).reshape(-1, *part.shape[1:])
