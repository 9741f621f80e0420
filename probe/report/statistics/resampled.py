"""How far the difference of two models would move with other patients, and other trainings.

Patients are drawn with replacement, each with all samples, and both models answer the same draw: a
patient that is hard for both weighs as often in one as in the other. A draw is a row of
multiplicities, so that every metric, model and pair meets the same ones.

Of several trainings (seeds, or few-shot episodes) the value is the mean of their metrics. Crossed
with the patients, the trainings are drawn too (Owen 2007, Ann Appl Stat 1:386): S - 1 of S, whose
mean scatters as the mean of S does (McCarthy and Snowden 1985, Vital Health Stat 2(95)). Few
trainings know little of their own spread; so the ends are Student's, with Welch's and Satterthwaite's
degrees of freedom, and not percentiles.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from probe.arrays import Doubles, Indices, Ints
from probe.metrics.delong import deviations
from probe.metrics.intervals import percentiles
from probe.metrics.jackknife import NODES, WEIGHTS, student
from probe.metrics.metric import RANKS, Metric, Prepared
from probe.report.statistics.swaps import unit_sums

CHUNK_CELLS = 2**22


def draw_units(n_units: int, n_resamples: int, seed: int) -> Ints:
    """(R, U) how often each unit is in each resample.

    Args:
        n_units: U.
        n_resamples: R.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((n_resamples, n_units), np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)
    return drawn


def resampled(
    metric: Metric, answers: Prepared, drawn: Ints, cluster: Indices, *, is_linear: bool = False
) -> Doubles:
    """A model's metric on each resample.

    Args:
        metric: one of sums or of ranks.
        answers: to N samples.
        drawn: (R, U) as ``draw_units`` gives it; the same for every model.
        cluster: (N,) number of each sample's unit.
        is_linear: take an AUC for as much as each unit moves it by DeLong's deviations, which is a
            hundred times as quick; what two units do together, of order 1 / U, is left out.

    Returns:
        (R,), nan where a class is lacking; a linear AUC never is.
    """
    if is_linear and metric.name == "auc":
        found = [deviations(problem) for problem in answers.problems]
        value = float(np.mean([value for value, _, _ in found]))
        moved = np.bincount(cluster, np.mean([moved for _, moved, _ in found], axis=0))
        return value + drawn.astype(np.float64) @ moved
    if metric.needs != RANKS:
        of_units = unit_sums(answers.parts[metric.needs], cluster)
        flat = of_units.reshape(len(of_units), -1)
        rows = np.array_split(drawn, -(-drawn.size // CHUNK_CELLS))
        sums = np.concatenate([part.astype(np.float64) @ flat for part in rows])
        return metric.of(sums.reshape(-1, *of_units.shape[1:]), answers.task)
    found = []
    for part in np.array_split(drawn, -(-len(drawn) * len(cluster) // CHUNK_CELLS)):
        wide = part[:, cluster].astype(np.int32)
        found.append(np.mean([metric.of(p, wide) for p in answers.problems], axis=0))
    return np.concatenate(found)


def widened(value: float, drawn: Doubles, level: float, df: float) -> tuple[float, float]:
    """The bootstrap's percentiles, each as much further from the value as few units require.

    A resample of U units scatters as if its mean were known, by (U - 1) / U too little, and what it
    shows of the spread is itself rough: both are made good as for a mean of normal numbers, by
    Student's t and that factor (Hesterberg 2015, Am Stat 69:371, widens the level instead, which asks
    more of the tails than a thousand resamples know).

    Args:
        value: of the test set.
        drawn: (R,) of resamples, nan where undefined.
        level: of the interval.
        df: degrees of freedom: of one sort of units U - 1.
    """
    low, high = percentiles(drawn, level)
    wider = student(level, df) / NormalDist().inv_cdf((1 + level) / 2) * math.sqrt((df + 1) / df)
    return value + wider * (low - value), value + wider * (high - value)


class Crossed(NamedTuple):
    """A difference of means over trainings."""

    se: float  # its standard error
    df: float  # degrees of freedom of that


def crossed(
    a: Sequence[Doubles],
    b: Sequence[Doubles],
    values: tuple[Doubles, Doubles],
    n_units: int,
    *,
    together: bool = False,
    seed: int = 0,
) -> Crossed:
    """The spread of a difference over patients and trainings at once.

    Args:
        a: the metric of each of S trainings on the R resamples, nan where it has none.
        b: of each of T.
        values: (S,) and (T,) what they are on the test set.
        n_units: U, patients or samples.
        together: whether training i of one goes with i of the other (the same episode), S = T.
        seed: of the draw.

    Returns:
        nan where no resample has the metric, or everything is one unit's.
    """
    rng = np.random.default_rng([seed, 1])  # patients' generator is that of seed alone
    of_a = _weights(len(a), len(a[0]), rng)
    of_b = of_a if together else _weights(len(b), len(b[0]), rng)
    drawn = (of_a * np.stack(a, axis=1)).sum(axis=1) - (of_b * np.stack(b, axis=1)).sum(axis=1)
    variance = float(np.nanvar(drawn)) if np.isfinite(drawn).any() else math.nan
    sides = [values[0] - values[1]] if together else values
    # Of one training nothing is known of others.
    parts = [(np.var(v, ddof=1) / len(v), len(v) - 1) for v in sides if len(v) > 1]
    parts.append((max(variance - sum(v for v, _ in parts), 0.0), n_units - 1))
    below = sum(v**2 / df for v, df in parts if df)
    total = sum(v for v, _ in parts)
    return Crossed(math.sqrt(variance), total**2 / below if below else math.nan)


def _weights(n: int, n_resamples: int, rng: np.random.Generator) -> Doubles:
    """(R, S) how often each training is drawn, over how many are."""
    n_drawn = max(n - 1, 1)
    drawn = rng.integers(n, size=(n_resamples, n_drawn))
    return (drawn[:, :, None] == np.arange(n)).sum(axis=1) / n_drawn


def by_student(value: float, of: Crossed, level: float) -> tuple[float, float]:
    """The ends around a value."""
    half = student(level, max(of.df, 1.0)) * of.se
    return value - half, value + half


def student_p(value: float, of: Crossed) -> float:
    """How often Student's t is as far from 0, in either direction, as a value is.

    The integral is that of ``probe.metrics.jackknife.student``, taken from the value outwards.
    """
    df = max(of.df, 1.0)
    scale = 2 * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    start = math.atan(abs(value) / of.se / math.sqrt(df))
    rest = math.pi / 2 - start
    # cos falls to nothing long before the end where df is large: the nodes go where it doesn't.
    rest = min(rest, 12 / math.sqrt(df))
    angles = start + (NODES + 1) * rest / 2
    return min(1.0, scale * float(np.cos(angles) ** (df - 1) @ WEIGHTS) * rest / 2)
