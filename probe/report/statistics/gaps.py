"""How far subgroups lie apart, beside how far they would if there were nothing between them.

The largest metric of K subgroups less the smallest is never below 0, so it is above 0 where nothing
differs: of an accuracy of .85 in 2 subgroups of 50 samples it is .056 in the mean, of 5 of 50 .117, of
5 of 200 .059. The worst subgroup reads as much too low. So beside each gap stand

its permutation null: names of subgroups permuted over patients of the same class, so that each
subgroup keeps its size and its shares of classes. p is how often the gap is as large as it was. It
asks whether answers are alike: where one subgroup's scores lie elsewhere, p may be small for a gap
that is no larger than others;

and a gap from which that is taken which sampling adds. The variance of K metrics is that of the true
ones and, in the mean, that of sampling; so

    between = variance of the K metrics (over K - 1)  -  mean of the K sampling variances

is right in the mean (Lum, Zhang and Bower 2022, FAccT, "De-biasing 'bias' measurement"), and below 0
about as often as not where nothing differs. Sampling variances are the jackknife's over units. On the
gap's own scale it is

    corrected = gap * sqrt(between / variance of the K metrics), with the sign of between

of two subgroups: gap^2 less both sampling variances. Its mean without any gap is -.015, -.009 and
-.005 in the three cases above; where two subgroups of 200 are .10 apart it is .091, of five of 50
that span .20 it is .17, the plain gap .23.

Measured (benchmarks/subgroup_gaps.py; 600 test sets a cell, samples alone or two a patient): without
any gap the null's mean is the gap's to .002, p is .05 or less in 3 to 5.5 % of test sets, that of the
worst against the rest in 3 to 5 %.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cache.task import MULTI_LABEL, REGRESSION, SEGMENTATION
from probe.arrays import Array, Bools, Doubles, Indices
from probe.metrics import jackknife
from probe.metrics.metric import RANKS, Metric, Prepared
from probe.report.statistics.swaps import ROUNDING, unit_sums

N_PERMUTATIONS, FEWEST = 2000, 499  # the fewer where one costs much; p is .002 at least
AFFORDABLE = 2**30  # numbers to look at
CHUNK_CELLS = 2**22


@dataclass(frozen=True)
class Gap:
    """One metric over K subgroups. nan where it is undefined in one of them."""

    metric: str
    value: float  # the largest less the smallest
    best: str  # the names of subgroups
    worst: str
    behind: float  # how much the worst is worse than all others together
    corrected: float  # less what sampling adds; below 0: no more than that
    between: float  # variance of the true metrics, as estimated; may be below 0
    null_mean: float  # of the gap, where names are permuted
    null_high: float  # its 95th percentile
    p: float  # of the gap
    p_behind: float  # of the worst against the rest
    n_permutations: int


class Members(NamedTuple):
    """Who is in which of K subgroups. A unit is a patient's samples of one subgroup."""

    subgroup: Indices  # (U,) each unit's, all from 0
    unit: Indices  # (N,) each sample's unit, all from 0
    stratum: Indices  # (U,) within which names are permuted


def members(subgroup: Indices, cluster: Indices, labels: Array, task: str) -> Members:
    """Units, and within which of them names may be permuted.

    A patient of several subgroups is a unit in each: the parts are permuted as if they were others'.
    Whatever they share moves both subgroups alike, so that the null is rather too wide than too
    narrow.

    Args:
        subgroup: (N,) number of each sample's, all from 0.
        cluster: (N,) number of each sample's patient.
        labels: (N,) or (N, C).
        task: one of ``cache.task.TASKS``, or SEGMENTATION. Strata are the sets of classes that a unit
            has; of several labels, and of structures, how many it has, for their patterns are too
            many; of numbers there is one.
    """
    pairs = np.stack([cluster, subgroup], axis=1)
    distinct, unit = np.unique(pairs, axis=0, return_inverse=True)
    unit = unit.reshape(-1)
    n_units = len(distinct)
    if task == REGRESSION:
        return Members(distinct[:, 1], unit, np.zeros(n_units, np.intp))
    if task in (MULTI_LABEL, SEGMENTATION):
        present = np.zeros((n_units, labels.shape[1]), np.bool_)
        np.logical_or.at(present, unit, labels > 0)
        return Members(distinct[:, 1], unit, present.sum(axis=1))
    present = np.zeros((n_units, int(labels.max()) + 1), np.bool_)
    present[unit, labels] = True
    return Members(distinct[:, 1], unit, np.unique(present, axis=0, return_inverse=True)[1].ravel())


def permuted(of: Members, n: int, seed: int) -> Indices:
    """(n, U) subgroups of units, the first as they are, the others permuted within strata."""
    rng = np.random.default_rng(seed)
    found = np.tile(of.subgroup, (n, 1))
    for stratum in np.unique(of.stratum):
        places = np.flatnonzero(of.stratum == stratum)
        found[1:, places] = rng.permuted(found[1:, places], axis=1)
    return found


def find_gap(
    metric: Metric,
    answers: Prepared,
    of: Members,
    names: tuple[str, ...],
    variances: Doubles,
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> Gap:
    """The gap of one metric, its null, and its correction.

    Args:
        metric: one of sums or of ranks.
        answers: to the N samples of all K subgroups.
        of: who is where.
        names: K, of the subgroups.
        variances: (K,) of the metric in each, see ``sampling_variance``.
        n_permutations: to draw, at times ``FEWEST``.
        seed: of the draw.
    """
    cost = len(of.unit) * (len(names) + 1) * len(answers.problems) if metric.needs == RANKS else 0
    if cost:
        n_permutations = min(n_permutations, max(FEWEST, AFFORDABLE // cost))
    drawn = permuted(of, n_permutations + 1, seed)
    values, rest = _values(metric, answers, of, drawn, len(names))
    gaps = np.ptp(values, axis=1)
    behind = _sign(metric) * (rest - _worst_of(metric, values)[1])
    own = values[0]
    best, worst = np.argmax(_sign(metric) * own), np.argmin(_sign(metric) * own)
    between, corrected = correct(own, variances)
    known = gaps[1:][np.isfinite(gaps[1:])]
    return Gap(
        metric.name,
        float(gaps[0]),
        names[best],
        names[worst],
        float(behind[0]),
        corrected,
        between,
        float(known.mean()) if len(known) else math.nan,
        float(np.quantile(known, 0.95)) if len(known) else math.nan,
        _p(gaps),
        _p(behind),
        n_permutations,
    )


def correct(values: Doubles, variances: Doubles) -> tuple[float, float]:
    """The variance between subgroups and the corrected gap, see above.

    Args:
        values: (K,) of the metric.
        variances: (K,) that sampling gives each.
    """
    seen, gap = float(values.var(ddof=1)), float(np.ptp(values))
    between = seen - float(variances.mean())
    # Where all are the same, K = 2 has this, and no other K less.
    ratio = gap / math.sqrt(seen) if seen > 0 else math.sqrt(2)
    return between, math.copysign(ratio * math.sqrt(abs(between)), between)


def sampling_variance(metric: Metric, answers: Prepared, cluster: Indices) -> float:
    """The jackknife's, over one subgroup's units."""
    return jackknife.variance(jackknife.left_out(answers, cluster, [metric.name])[metric.name])


def _sign(metric: Metric) -> int:
    return -1 if metric.is_loss else 1


def _worst_of(metric: Metric, values: Doubles) -> tuple[Indices, Doubles]:
    place = np.argmin(_sign(metric) * values, axis=1)
    return place, np.take_along_axis(values, place[:, None], axis=1)[:, 0]


def _p(drawn: Doubles) -> float:
    """How often a draw is as large as the first, which counts; an undefined one is."""
    if math.isnan(drawn[0]):
        return math.nan
    return float(np.logical_not(drawn < drawn[0] - ROUNDING).mean())


def _values(
    metric: Metric, answers: Prepared, of: Members, drawn: Indices, n: int
) -> tuple[Doubles, Doubles]:
    """(R, K) the metric in each subgroup, and (R,) in all but the worst together."""
    if metric.needs != RANKS:
        sums = unit_sums(answers.parts[metric.needs], of.unit)
        flat, shape = sums.reshape(len(sums), -1), sums.shape[1:]

        def by_sums(chosen: Bools) -> Doubles:
            return metric.of((chosen.astype(np.float64) @ flat).reshape(-1, *shape), answers.task)

        by, width = by_sums, len(of.subgroup)
    else:

        def by_ranks(chosen: Bools) -> Doubles:
            wide = chosen[:, of.unit].astype(np.int32)
            return np.mean([metric.of(problem, wide) for problem in answers.problems], axis=0)

        by, width = by_ranks, len(of.unit)
    values, rest = [], []
    for rows in np.array_split(drawn, -(-len(drawn) * width // CHUNK_CELLS)):
        found = np.stack([by(rows == k) for k in range(n)], axis=1)
        values.append(found)
        rest.append(by(rows != _worst_of(metric, found)[0][:, None]))
    return np.concatenate(values), np.concatenate(rest)
