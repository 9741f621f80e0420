"""Intervals from leaving out one patient after the other, or one sample.

The percentile bootstrap asks much of a test set: of 6 patients its 95 % hold the AUC 59 to 80 times
of 100, of 50 it is 88 to 92, of 200 it is 91 to 94. Here the spread comes from the jackknife (Tukey
1958; Efron and Stein 1981), and the form from Wilson (1927): the metric is taken for a share of n
right answers, n being the number that has the jackknife's variance, and z is Student's t. Such an
interval never leaves the metric's range, and has a width where nothing scatters.

With th(-i) the metric without unit i (a patient, or a sample that is alone) and U units,

    v = (U - 1) / U * sum (th(-i) - mean th(-i))^2        n = th (1 - th) / v

Where units are few, v is rough, and where no answer is wrong it is 0. So n has bounds, and t its
degrees of freedom, by what the units of each class are worth: see ``Support``.
``benchmarks/interval_coverage.py`` counts how often the interval holds the truth.

Nothing is fitted or evaluated U times: metrics of sums are those of the total less a unit's part,
and ranks know what each sample adds (``probe.metrics.ranking``).
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from cache.task import BINARY, MISSING, MULTI_LABEL
from probe.arrays import Array, Bools, Doubles, Indices, Ints
from probe.metrics import classification as metrics
from probe.metrics.metric import (
    F1,
    LOSSES,
    PAIRS,
    POSITIVES,
    RECALLS,
    SHARES,
    Metric,
    Prepared,
    Span,
    metrics_of,
)

ROUNDING = 1e-9  # of a spread, as a share of what scatters

MANY = 50  # units, from which v is believed
MANY_OF_A_CLASS = 20  # of them in each class
MANY_LOSSES = 500  # units, from which v of Brier's score is
TRUSTED, TRUSTED_RANKS = 2.0, 6.0  # times the floor, where there are fewer: by simulation
NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)  # on -1..1
CHUNK_CELLS = 2**22  # numbers of left-out sums in work at one time


@dataclass(frozen=True)
class Support:
    """What a metric stands on: numbers of right-or-wrong answers, and its weakest class."""

    floor: float  # what the units of each class are worth together: n where nothing scatters
    least: float  # n at least: what those of the weakest class are worth
    most: float  # n at most
    df: float  # degrees of freedom of v
    weakest: int  # units of the class, or the side of a column, that has fewest
    is_few: bool  # whether units, or those of the weakest class, are too few to believe v wholly
    who: int | None = None  # that class or label; None: every unit counts alike


def supports(labels: Ints, task: str, n_classes: int, cluster: Indices) -> dict[str, Support]:
    """Name of each metric -> what it stands on.

    A share of right answers stands on all units; a mean of recalls over C classes on
    C^2 / sum(1 / I_c), where I_c units have class c; an AUC on the harmonic mean of the units that
    have the class and those that have any other. Of a mean over columns it is the mean, or what
    independent columns would give where that is less. Units of unequal size count less: see
    ``worth``. That an AUC's n is no less than its smaller side is Birnbaum and Klose's (1957) bound.

    Degrees of freedom are Satterthwaite's (1946), of classes that scatter alike: a rare class makes
    most of v, and tells little of it. Where units are few, v is believed up to ``TRUSTED`` times the
    floor: they may all happen to be of a kind that is answered well.

    Args:
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C.
        cluster: (N,) number of each sample's unit, all from 0.
    """
    several = task == MULTI_LABEL
    truths = labels.T if several else [labels == c for c in range(n_classes)]
    sides = [(cluster[t == 1], cluster[t == 0]) for t in truths]
    counts = np.array([[len(np.unique(units)) for units in pair] for pair in sides])  # (C, 2)
    worths = np.array([[worth(units) for units in pair] for pair in sides])  # (C, 2)
    ones, n_units = worths[:, 0], int(cluster.max()) + 1
    every, answers = worth(cluster), float(n_classes * len(cluster))
    harmonic = 2 / (1 / worths).sum(axis=1)
    columns = slice(1, 2) if task == BINARY else slice(None)

    def of(floor: float, counted: Ints, parts: Doubles, trusted: float = TRUSTED) -> Support:
        return _support(floor, counted, parts, every, n_units, answers, trusted)

    with_class = counts[:, 0]
    both = (
        counts.min(axis=1) if several else with_class
    )  # the other side has another class, or more
    used = worths if several else ones
    shares = of(every, np.array([n_units]), np.array([every]))
    recalls = f1 = of(n_classes**2 / float((1 / ones).sum()), with_class, used)
    if several:
        known = [cluster[t != MISSING] for t in truths]
        units = np.array([worth(part) for part in known])
        shares = of(_together(units), np.array([len(np.unique(part)) for part in known]), units)
        recalls, f1 = (
            of(_together(2 * harmonic), both, used),
            of(_together(harmonic), with_class, used),
        )
    else:
        shares = replace(shares, who=None)
    # Losses scatter less than right and wrong, which few of them don't show.
    losses = TRUSTED * shares.floor if n_units < MANY_LOSSES else math.inf
    found = {
        SHARES: shares,
        LOSSES: replace(shares, most=losses),
        RECALLS: recalls,
        F1: f1,
        PAIRS: of(_together(harmonic[columns]), both, used, TRUSTED_RANKS),
        POSITIVES: of(_together(ones), with_class, ones),
    }
    return {m.name: found[m.stands_on] for m in metrics.METRICS if m.stands_on}


def of_classes(has: Bools, cluster: Indices) -> Support:
    """What a mean over classes of means over the samples that have each stands on.

    Args:
        has: (N, C) which samples have each class; one that none has is in no mean.
        cluster: (N,) number of each sample's unit, all from 0.
    """
    classes = np.flatnonzero(has.any(axis=0))
    if not len(classes):
        return Support(0.5, 0.5, 0.5, 1.0, 0, True)
    units = [cluster[has[:, c]] for c in classes]
    counted = np.array([len(np.unique(each)) for each in units])
    worths = np.array([worth(each) for each in units])
    found = _support(
        *(len(classes) ** 2 / float((1 / worths).sum()), counted, worths, worth(cluster)),
        *(int(cluster.max()) + 1, float(has.size)),
    )
    assert found.who is not None
    return replace(found, who=int(classes[found.who]))


def _support(
    floor: float,
    counted: Ints,
    parts: Doubles,
    every: float,
    n_units: int,
    answers: float,
    trusted: float = TRUSTED,
) -> Support:
    """Bounds and degrees of freedom: see ``supports``.

    Args:
        floor: what the units of the classes are worth together.
        counted: units of each class.
        parts: what they are worth.
        every: what all units are worth.
        n_units: all of them.
        answers: that were given.
        trusted: times the floor, up to where v is believed of few units.
    """
    weakest, who = int(counted.min()), int(counted.argmin())
    floor = min(floor, every)
    is_few = n_units < MANY or weakest < MANY_OF_A_CLASS
    most = trusted * floor if is_few else answers
    df = max(1.0, min(every - 1, _satterthwaite(parts)))
    least = min(floor, float(parts.min()))
    return Support(floor, least, max(most, floor), df, weakest, is_few, who)


def worth(units: Indices) -> float:
    """How many units of one size scatter as much: (sum m)^2 / sum m^2 of m samples each.

    Kish 1965, Survey Sampling, section 8.2. Half a unit where there is none, to divide by.

    Args:
        units: (n,) the unit of each sample.
    """
    m = np.unique(units, return_counts=True)[1].astype(np.float64)
    return float(m.sum() ** 2 / (m**2).sum()) if len(m) else 0.5


def _together(each: Doubles) -> float:
    """What a mean over columns stands on, each column on its own number."""
    return float(min(each.mean(), len(each) ** 2 / (1 / each).sum()))


def _satterthwaite(parts: Doubles) -> float:
    """Degrees of freedom of a sum of variances, each in proportion to 1 / what its units are worth."""
    return float((1 / parts).sum() ** 2 / (1 / (parts**2 * np.maximum(parts - 1, 0.5))).sum())


def left_out(
    prepared: Prepared, cluster: Indices, wanted: Collection[str] | None = None
) -> dict[str, Doubles]:
    """Every metric without each unit in turn, but for errors of calibration.

    Args:
        prepared: answers to N samples.
        cluster: (N,) number of each sample's unit, all from 0 to U - 1.
        wanted: by name, for those of ranks take longest; None: all.

    Returns:
        name -> (U,) values, nan where the rest lacks a class that the metric needs.
    """
    asked = [m for m in prepared.metrics if wanted is None or m.name in wanted]
    chunks = [metrics_of(s, asked, prepared.task) for s in sums_without(prepared.parts, cluster)]
    found = {name: np.concatenate([values[name] for values in chunks]) for name in chunks[0]}
    for metric in asked:
        if metric.without:
            each = [metric.without(problem, cluster) for problem in prepared.problems]
            found[metric.name] = np.mean(each, axis=0)
    return found


def sums_without(parts: Mapping[str, Array], cluster: Indices) -> Iterator[dict[str, Doubles]]:
    """Sums over all samples but a unit's, some units at a time.

    Args:
        parts: name -> (N, ...) contributions, see ``probe.metrics.classification.sample_parts``.
        cluster: (N,) number of each sample's unit.

    Yields:
        name -> (u, ...) for consecutive units.
    """
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[order], np.arange(int(cluster.max()) + 2))
    totals = {name: part.sum(axis=0, dtype=np.float64) for name, part in parts.items()}
    size = max(1, CHUNK_CELLS // max(total.size for total in totals.values()))
    for first in range(0, len(starts) - 1, size):
        at = starts[first : first + size + 1]
        rows = order[at[0] : at[-1]]
        yield {
            name: totals[name]
            - np.add.reduceat(part[rows].astype(np.float64), at[:-1] - at[0], axis=0)
            for name, part in parts.items()
        }


def variance(without: Doubles) -> float:
    """The jackknife's variance, from (U,) values without each unit; nan where one is."""
    return float((len(without) - 1) * without.var())


def by_jackknife(
    value: float,
    v: float | None,
    support: Support,
    level: float = 0.95,
    span: Span = (0.0, 1.0),
    more: float = 0.0,
) -> tuple[float, float]:
    """Wilson's interval with as many answers as have the jackknife's variance, and Student's t.

    Without a variance it is one with what the units of each class are worth, and the normal's.

    Args:
        value: the metric.
        v: its variance; nan or 0: as many answers as its units are worth. None: it isn't estimated.
        support: what the metric stands on.
        level: how often the interval holds the metric of all samples there could be.
        span: the least and the largest value that the metric can have.
        more: a variance to add, which isn't that of units.
    """
    share, n, t = (value - span[0]) / _width(span), support.floor, None
    if v is not None:
        of_share, t = v / _width(span) ** 2, student(level, support.df)
        if of_share > ROUNDING**2 and 0 < share < 1:
            n = float(np.clip(share * (1 - share) / of_share, support.least, support.most))
    return _onto(span, *wilson(share, _fewer(n, share, more / _width(span) ** 2), level, t))


def _fewer(n: float, share: float, more: float) -> float:
    """The number of answers that has the variance of n, and a variance more."""
    return n if more == 0 else 1 / (1 / n + more / (share * (1 - share)))


def student(level: float, df: float) -> float:
    """The number that Student's t lies within, on both sides of 0, as often as the level says.

    With x = sqrt(df) tan(a) the density is that of cos(a)^(df - 1), which is smooth: its integral is
    taken by Gauss and Legendre, and inverted by Newton's steps. They begin below, at the normal
    distribution's, and so never go too far. (scipy would take longer to start than all of `probe`.)

    Args:
        level: 0..1.
        df: degrees of freedom, 1 and more; need not be whole.
    """
    scale = 2 * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    angle = math.atan(NormalDist().inv_cdf((1 + level) / 2) / math.sqrt(df))
    for _ in range(50):
        density = scale * np.cos((NODES + 1) * angle / 2) ** (df - 1)
        held = float(density @ WEIGHTS) * angle / 2
        step = (level - held) / (scale * math.cos(angle) ** (df - 1))
        angle += step
        if abs(step) < 1e-14:
            break
    return math.sqrt(df) * math.tan(angle)


def _width(span: Span) -> float:
    return span[1] - span[0]


def _onto(span: Span, low: float, high: float) -> tuple[float, float]:
    return span[0] + low * _width(span), span[0] + high * _width(span)


def wilson(
    share: float, n: float, level: float = 0.95, quantile: float | None = None
) -> tuple[float, float]:
    """Wilson's (1927) score interval for a share of n independent samples.

    Unlike the bootstrap's, it has a width where the share is 0 or 1: of 100 right answers out of
    100 it begins at 0.963.

    Args:
        share: 0..1.
        n: 1 and more.
        level: how often the interval holds the share of all samples there could be.
        quantile: in the place of the normal distribution's, at (1 + level) / 2.
    """
    z = NormalDist().inv_cdf((1 + level) / 2) if quantile is None else quantile
    centre = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (centre + np.array([-half, half])) / (1 + z**2 / n)
    # Rounding may take an end past the share, or the range.
    return max(0.0, float(min(low, share))), min(1.0, float(max(high, share)))


def by_scale(
    metric: Metric,
    value: float,
    without: Doubles,
    units: float,
    level: float = 0.95,
    more: float = 0.0,
) -> tuple[float, float] | None:
    """The interval of a metric that is no share, by the jackknife on its scale.

    Args:
        metric: one with a scale.
        value: it.
        without: (U,) values without each unit.
        units: what all units are worth, above 1: see ``worth``.
        level: how often the interval holds the metric of all samples there could be.
        more: a variance to add on that scale, which isn't that of units.

    Returns:
        The two ends; None where the metric is at the end of its range, or nothing scatters.
    """
    assert metric.scale
    there, back = metric.scale
    with np.errstate(divide="ignore"):
        centre, rest = float(there(value)), there(without)
    if not (math.isfinite(centre) and np.isfinite(rest).all()):
        return None
    spread = math.sqrt(variance(rest))
    if spread <= ROUNDING * max(1.0, abs(centre)):
        return None
    half = student(level, units - 1) * math.hypot(spread, math.sqrt(more))
    low, high = sorted((float(back(centre - half)), float(back(centre + half))))
    return low, high
