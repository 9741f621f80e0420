"""DeLong's interval for the AUC, also for the mean over several classes or labels.

DeLong, DeLong, Clarke-Pearson (1988, Biometrics 44:837): the AUC of one column is a mean over
positives of their placements (the share of negatives below each) and a mean over negatives of
theirs, and its variance follows from how much those scatter. Here it is written as a sum over
samples: each moves the AUC by its own deviation, and the variance is the sum of the squares. Where
the AUC is a mean over columns (one class against the rest, or one label after the other), each
sample moves several of them; its deviations are averaged before they are squared, which counts
every covariance. For one column, and for columns that share their positives, this is DeLong's
estimate exactly.

The ends are computed on the logit scale, ln(A / (1 - A)), where they can't leave 0..1 and the
distribution is nearer to a normal one. Measured (benchmarks/interval_coverage.py; 156 samples, 27 %
positives, AUCs of .7 to .95): these ends hold the truth 94 to 95 % of the time, the percentile
bootstrap's 93 to 94; at .99 it is 93 and 87 %.

All positives above all negatives scatter nothing, yet nobody believes that A is 1. One such column
of several has a variance all the same, see ``deviations``; and as the logit's slope near 1 would make
0..1 of it, the ends are Wilson's then, of the share that has this variance. Where every column is
perfect the interval is one-sided and exact for any distribution: k disjoint pairs of a positive and
a negative are in order independently of each other, all of them with probability A^k at most. So
A >= (1 - level)^(1 / k), with k the smaller of the two classes (of 42 positives: 0.931).
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from probe.arrays import Doubles, Floats, Ints
from probe.metrics.classification import rankings
from probe.metrics.jackknife import wilson
from probe.metrics.ranking import Ranking

ROUNDING = 1e-20  # of a variance


def delong(scores: Floats, labels: Ints, task: str, level: float = 0.95) -> tuple[float, float]:
    """The ends of the interval around ``probe.metrics.classification.auc``.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``cache.task.CLASSIFICATION``.
        level: how often the interval holds the AUC of all images there could be.

    Returns:
        Two ends in 0..1. Of a perfect AUC one-sided, up to 1 (of an AUC of 0, from 0). nan where a
        column has positives or negatives only.
    """
    problems = rankings(scores, labels, task)
    values = np.empty(len(problems))
    alone = np.zeros(len(problems))  # variance that no deviation can show
    shifts = np.zeros(len(scores))
    for c, problem in enumerate(problems):
        values[c], shift, alone[c] = deviations(problem)
        shifts += shift / len(problems)
    value = float(values.mean())
    if np.isnan(value):
        return float("nan"), float("nan")
    if value in (0, 1):
        pairs = [min(len(p.positives), len(p.negatives)) for p in problems]
        return one_sided(value, pairs, level)
    variance = (shifts**2).sum() + alone.sum() / len(problems) ** 2
    if variance < ROUNDING:  # columns may scatter against each other, and their mean not at all
        alone = np.array([_unseen(value, problem) for problem in problems])
        variance = alone.mean()
    if alone.any():
        # An AUC's n is no less than its smaller side (Birnbaum and Klose 1957).
        least = min(min(len(p.positives), len(p.negatives)) for p in problems)
        return wilson(value, max(value * (1 - value) / variance, least), level)
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance) / (value * (1 - value))
    centre = np.log(value / (1 - value))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-half, half]))))
    return float(low), float(high)


def mean_deviations(problems: Sequence[Ranking]) -> tuple[float, Doubles, bool]:
    """How much each sample moves a mean of AUCs.

    Args:
        problems: one column each, of the same samples.

    Returns:
        The mean AUC; (N,) deviations; and whether a column is perfect, constant or has one sample of
        a side, whose own scatter can't be seen.
    """
    values, moved, blind = zip(*map(deviations, problems), strict=True)
    return float(np.mean(values)), np.mean(moved, axis=0), any(map(bool, blind))


def deviations(problem: Ranking) -> tuple[float, Doubles, float]:
    """How much each sample moves the AUC of one column.

    Args:
        problem: the column, sorted. N samples.

    Returns:
        The AUC; (N,) deviations, whose squares add up to DeLong's variance; and a variance to add.
        The only positive, or negative, has no scatter, and counts as much as a placement with this
        mean could scatter at most, A (1 - A); a column that is perfect, constant or all wrong
        scatters nothing, see ``_unseen``.
    """
    moved = np.zeros(problem.n_samples)
    if not (len(problem.positives) and len(problem.negatives)):
        return float("nan"), moved, 0.0
    of_positives, of_negatives = problem.placements()
    value = float(of_positives.mean())
    unseen = 0.0
    sides = (problem.positives, of_positives), (problem.negatives, of_negatives)
    for where, placements in sides:
        n = len(placements)
        if n == 1:
            unseen += value * (1 - value)
        else:
            # Squares over n (n - 1): the sample variance of a mean.
            moved[where] = (placements - value) / np.sqrt(n * (n - 1))
    if not unseen and (moved**2).sum() < ROUNDING:
        unseen = _unseen(value, problem)
    return value, moved, unseen


def _unseen(value: float, problem: Ranking) -> float:
    """The variance of an AUC that no sample moves: that of a share of n right answers.

    n is the harmonic mean of positives and negatives; two right answers and two wrong ones are
    added (Agresti and Coull 1998), so that it isn't 0 at 0 or 1.
    """
    n = 2 / (1 / len(problem.positives) + 1 / len(problem.negatives))
    share = (n * value + 2) / (n + 4)
    return share * (1 - share) / n


def one_sided(value: float, pairs: list[int], level: float) -> tuple[float, float]:
    """The interval of an AUC of 1, or of 0.

    Args:
        value: 0 or 1.
        pairs: for each column, how many disjoint pairs of a positive and a negative there are
            whose samples are independent.
        level: of the interval.

    Returns:
        The two ends; one of them is the value. Of several columns the mean of their bounds: that
        all are perfect is at most as likely as that the least likely one is.
    """
    bound = float(np.mean([(1 - level) ** (1 / k) for k in pairs]))
    return (bound, 1.0) if value == 1 else (0.0, 1 - bound)
