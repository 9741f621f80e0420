"""What a test set can decide: the smallest difference of two models that it shows.

Planned before test is read, from what is assumed; or from the scores of two models, of which only
how much they scatter is used, never the difference seen. ("How many patients would have shown the
difference that we saw" says nothing that its p doesn't: Hoenig and Heisey 2001.)

    accuracy    with disagreement q, the share of images that just one of the two gets right, a
                difference d is shown by n images where sqrt(n) d = z sqrt(q) + z' sqrt(q - d^2)
                (Connor 1987; z of the level, z' of the power)
    AUC         (z + z') times the standard error of the difference: DeLong's, or of two assumed
                AUCs with Hanley and McNeil's (1982) error and a correlation

Patients with several images count as patients: what is seen is widened by the design effect, and of
what is assumed n is patients, as if all images of one were a single one. Of fewer than six patients
no test of swapped patients reaches 0.05, for its smallest p is 2^(1 - P).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cache.errors import RequestError
from probe.arrays import Bools, Doubles, Floats, Indices, Ints
from probe.metrics.classification import rankings
from probe.metrics.delong import mean_deviations
from probe.metrics.jackknife import MANY_OF_A_CLASS, student

DIFFERENCES = (0.01, 0.02, 0.05)  # that n is given for
ACCURACY, AUC = "acc", "auc"


@dataclass(frozen=True)
class Power:
    """How sure a test is to be."""

    level: float = 0.05  # of false differences, two-sided
    power: float = 0.8  # how often a difference of that size is shown

    def __post_init__(self) -> None:
        if not (0 < self.level < 1 and 0.5 <= self.power < 1):
            raise RequestError("a level lies in 0..1 and a power in 0.5..1")

    def quantiles(self, df: float = math.inf) -> tuple[float, float]:
        """Of the level and of the power: what a difference must be of its standard errors, in two.

        Args:
            df: degrees of freedom, units less one; infinite: the normal distribution's.
        """
        if math.isinf(df):
            normal = NormalDist().inv_cdf
            return normal(1 - self.level / 2), normal(self.power)
        # student(l, df) is where |t| stays l of the time.
        return student(1 - self.level, df), student(2 * self.power - 1, df)


USUAL = Power()


@dataclass(frozen=True)
class Decision:
    """What a test set can show of two models by one metric."""

    metric: str  # ACCURACY or AUC
    n_units: int
    unit: str  # "sample" or "patient"
    smallest: float  # the smallest difference that it shows; nan: none
    needed: dict[float, int]  # difference -> units that would show it
    basis: str  # what it goes by, in words
    power: Power = USUAL
    why_not: str = ""  # where ``smallest`` is nan

    def describe(self) -> str:
        """In words, one line."""
        units = f"{self.n_units} {self.unit}s"
        if math.isnan(self.smallest):
            shows = f"{units} show no difference in {self.metric}: {self.why_not}"
        else:
            shows = (
                f"{units} show differences in {self.metric} from {self.smallest:.3f}, "
                f"{self.power.power:.0%} of the time ({self.basis})"
            )
        wanted = ", ".join(f"{n} for {d:g}" for d, n in self.needed.items())
        return f"{shows}; {self.unit}s needed: {wanted}" if wanted else shows


def smallest_accuracy(disagreement: float, n: float, power: Power = USUAL) -> float:
    """The smallest difference in accuracy that n images show; nan where even all-one-way shows none.

    Args:
        disagreement: share of images that just one of the two models gets right, 0..1.
        n: independent images; need not be whole.
        power: how sure.
    """
    z, more = power.quantiles()
    q = disagreement

    def lacking(d: float) -> float:
        return z * math.sqrt(q) + more * math.sqrt(max(q - d * d, 0)) - math.sqrt(n) * d

    if q <= 0 or lacking(q) > 0:
        return math.nan
    low, high = 0.0, q
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if lacking(middle) > 0 else (low, middle)
    return high


def needed_accuracy(difference: float, disagreement: float, power: Power = USUAL) -> float:
    """Independent images that show a difference in accuracy; need not be whole.

    Args:
        difference: above 0.
        disagreement: see ``smallest_accuracy``; where it is below the difference, which can't be,
            the difference stands in for it.
        power: how sure.
    """
    z, more = power.quantiles()
    q = max(disagreement, difference)
    return ((z * math.sqrt(q) + more * math.sqrt(q - difference**2)) / difference) ** 2


def hanley_mcneil(auc: float, n_positives: float, n_negatives: float) -> float:
    """Standard error of an AUC, of scores as from exponential distributions (1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    of_positives = (n_positives - 1) * (q1 - auc**2)
    of_negatives = (n_negatives - 1) * (q2 - auc**2)
    variance = (auc * (1 - auc) + of_positives + of_negatives) / (n_positives * n_negatives)
    return math.sqrt(variance)


def assume_accuracy(
    n_units: int,
    disagreement: float = 0.1,
    *,
    differences: Sequence[float] = DIFFERENCES,
    unit: str = "sample",
    power: Power = USUAL,
) -> Decision:
    """What n units can show in accuracy, if two models disagree as assumed.

    Args:
        n_units: images, or patients where some have several.
        disagreement: share that just one of the two gets right: 0.05 of like models, 0.2 of unlike.
        differences: that n is given for.
        unit: "sample" or "patient".
        power: how sure.
    """
    _check(differences)
    if not 0 < disagreement <= 1:
        raise RequestError(f"disagreement is a share in 0..1, found {disagreement:g}")
    smallest, why = _smallest_accuracy(disagreement, n_units, power)
    needed = {d: math.ceil(needed_accuracy(d, disagreement, power)) for d in differences}
    needed, few = _enough(needed, 0, unit, power)
    basis = f"assumed: the two disagree on {disagreement:.3g} of {unit}s{few}"
    return Decision(ACCURACY, n_units, unit, smallest, needed, basis, power, why)


def assume_auc(
    counts: Ints,
    auc: float = 0.9,
    correlation: float = 0.5,
    *,
    differences: Sequence[float] = DIFFERENCES,
    unit: str = "sample",
    power: Power = USUAL,
) -> Decision:
    """What units can show in AUC, if both models' is as assumed.

    Args:
        counts: (C,) units of each class; of two classes both. Of more each against the rest, whose
            errors are taken to go all together, which is the worst.
        auc: of both models, 0..1.
        correlation: of their errors; 0.5 is cautious, 0.8 of like models.
        differences: that n is given for, with the same shares of classes.
        unit: "sample" or "patient".
        power: how sure.
    """
    _check(differences)
    if not (0 < auc < 1 and 0 <= correlation < 1):
        raise RequestError("an assumed AUC lies in 0..1, a correlation in 0..1 and below 1")
    counts = np.asarray(counts)
    n = int(counts.sum())
    if len(counts) < 2 or counts.min() < 1:
        return Decision(
            *(AUC, n, unit, math.nan, {}),
            *("assumed", power, "a class has none, and the AUC doesn't exist"),
        )
    sides = counts[1:] if len(counts) == 2 else counts
    z, more = power.quantiles()

    def smallest_of(times: float) -> float:
        errors = [hanley_mcneil(auc, c * times, (n - c) * times) for c in sides]
        return (z + more) * math.sqrt(2 * (1 - correlation)) * float(np.mean(errors))

    needed = {d: math.ceil(n * _solve(smallest_of, d, 1 / counts.min())) for d in differences}
    needed, few = _enough(needed, least_of_auc(int(counts.min()) / n), unit, power)
    basis = f"assumed: both AUCs {auc:g}, errors correlated {correlation:g}{few}"
    return Decision(AUC, n, unit, smallest_of(1.0), needed, basis, power)


def observe_accuracy(
    right: Bools,
    other: Bools,
    cluster: Indices | None = None,
    *,
    differences: Sequence[float] = DIFFERENCES,
    power: Power = USUAL,
) -> Decision:
    """What a test set can show in accuracy, from how two models' answers disagree on it.

    Args:
        right: (N,) which answers of the one are right.
        other: (N,) of the other.
        cluster: (N,) number of each sample's patient, all from 0; None: each is alone.
        differences: that n is given for.
        power: how sure.
    """
    _check(differences)
    moved = right.astype(np.float64) - other
    n, n_units = len(moved), _n_units(len(moved), cluster)
    is_grouped = n_units < n
    q = float((moved != 0).mean())
    unit = "patient" if is_grouped else "sample"
    basis = f"seen: the two disagree on {q:.3g} of samples"
    why = _too_few(n_units, power) if is_grouped else ""
    why = "the two answer every sample alike" if q == 0 else why
    if why:
        return Decision(ACCURACY, n_units, unit, math.nan, {}, basis, power, why)
    effect = few = 1.0
    if cluster is not None and is_grouped:
        gap = float(moved.mean())
        off = np.bincount(cluster, moved - gap, n_units)
        variance = n_units / (n_units - 1) * float((off**2).sum()) / n**2
        effect = max(1.0, variance * n / max(q - gap**2, 1 / n))
        few = (sum(power.quantiles(n_units - 1)) / sum(power.quantiles())) ** 2
        basis += f", which patients make as if {n / effect:.3g} were independent"
    smallest, why = _smallest_accuracy(q, n / (effect * few), power)
    units = effect * n_units / n
    needed = {d: math.ceil(needed_accuracy(d, q, power) * units) for d in differences}
    needed, too_few = _enough(needed, 0, unit, power)
    return Decision(ACCURACY, n_units, unit, smallest, needed, basis + too_few, power, why)


def observe(
    metric: str,
    variance: float,
    n_units: int,
    *,
    is_grouped: bool = False,
    least: int = 0,
    differences: Sequence[float] = DIFFERENCES,
    power: Power = USUAL,
) -> Decision:
    """What a test set can show in AUC, or in any metric, from the variance of the difference.

    Args:
        metric: its name.
        variance: of the difference of two models' metrics, paired: see ``auc_variance``.
        n_units: samples or patients that it is over.
        is_grouped: whether these are patients with several samples.
        least: units that its test needs, see ``least_of_auc``.
        differences: that n is given for.
        power: how sure.
    """
    _check(differences)
    unit = "patient" if is_grouped else "sample"
    basis = f"seen: standard error of the difference {math.sqrt(variance):.3g}"
    why = _too_few(n_units, power) if is_grouped else ""
    if math.isnan(variance):
        why = "nobody knows how their difference scatters, for a class has too few"
    elif variance == 0:
        why = "no sample moves their difference"
    if why:
        return Decision(metric, n_units, unit, math.nan, {}, basis, power, why)
    z = sum(power.quantiles(n_units - 1 if is_grouped else math.inf))
    of_many = sum(power.quantiles()) ** 2 * variance * n_units
    needed = {d: math.ceil(of_many / d**2) for d in differences}
    needed, few = _enough(needed, least, unit, power)
    return Decision(metric, n_units, unit, z * math.sqrt(variance), needed, basis + few, power)


def auc_variance(
    scores: Floats, other: Floats, labels: Ints, task: str, cluster: Indices | None = None
) -> float:
    """DeLong's variance of the difference of two models' AUCs, of patients Obuchowski's (1997).

    Args:
        scores: (N, C) of the one.
        other: (N, C) of the other.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``cache.task.CLASSIFICATION``.
        cluster: (N,) number of each sample's patient, all from 0; None: each is alone.

    Returns:
        nan where a column has fewer than two positives, or negatives, or there is one patient: one
        doesn't scatter.
    """
    moved = auc_deviations(scores, labels, task) - auc_deviations(other, labels, task)
    return scatter(moved, cluster)


def scatter(moved: Doubles, cluster: Indices | None = None) -> float:
    """The variance of a metric, or of a difference, from how much each sample moves it.

    Args:
        moved: (N,) deviations, whose sum is 0.
        cluster: see ``auc_variance``.

    Returns:
        nan of one patient.
    """
    n_units = _n_units(len(moved), cluster)
    if cluster is None or n_units == len(moved):
        return float((moved**2).sum())
    if n_units == 1:
        return math.nan
    off = np.bincount(cluster, moved, n_units)
    return n_units / (n_units - 1) * float((off**2).sum())


def auc_deviations(scores: Floats, labels: Ints, task: str) -> Doubles:
    """(N,) how much each sample moves the AUC; nan where a column has fewer than two of a side."""
    problems = rankings(scores, labels, task)
    if any(min(len(p.positives), len(p.negatives)) < 2 for p in problems):
        return np.full(len(scores), np.nan)
    return mean_deviations(problems)[1]


def _n_units(n: int, cluster: Indices | None) -> int:
    return n if cluster is None else int(cluster.max()) + 1


def _too_few(n_units: int, power: Power) -> str:
    if 2.0 ** (1 - n_units) <= power.level:
        return ""
    return (
        f"the smallest p of swapping {n_units} patients is {2.0 ** (1 - n_units):.3g}, above "
        f"{power.level:g} whatever the answers"
    )


def least_of_auc(share: float) -> int:
    """Units that DeLong's test needs, by which AUC is planned.

    Args:
        share: of the smallest class.
    """
    return math.ceil(MANY_OF_A_CLASS / share) if share else 0


def _enough(
    needed: dict[float, int], least: int, unit: str, power: Power
) -> tuple[dict[float, int], str]:
    """Units that differences need, without those of which no test shows any; and what is to be said.

    A pair that hardly disagrees scatters so little that its variance asks for fewer.
    """
    least = max(least, 1 + math.ceil(-math.log2(power.level)))  # swaps: p is 2^(1 - n) or more
    left = {d: n for d, n in needed.items() if n >= least}
    gone = ", ".join(f"{d:g}" for d in needed if d not in left)
    few = f"; for {gone} so little scatter asks for fewer than {least} {unit}s, too few for the test that this is planned by"
    return left, few if gone else ""


def _smallest_accuracy(disagreement: float, n: float, power: Power) -> tuple[float, str]:
    """``smallest_accuracy``, and why there is none."""
    smallest = smallest_accuracy(disagreement, n, power)
    one_way = f"even if all {disagreement:.3g} that they disagree on went one way"
    return smallest, one_way if math.isnan(smallest) else ""


def _solve(smallest_of: Callable[[float], float], wanted: float, least: float) -> float:
    """How many times as many units show a difference: what they show falls as they grow."""
    low, high = least, max(least, 1.0)
    while smallest_of(high) > wanted:
        low, high = high, 2 * high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if smallest_of(middle) > wanted else (low, middle)
    return high


def _check(differences: Sequence[float]) -> None:
    if any(not 0 < d < 1 for d in differences):
        raise RequestError("differences and margins lie between 0 and 1, such as 0.02")
