"""Models over several data sets: an exact test whose units are data sets.

Data sets are few, so the test is Wilcoxon's (1945) signed-rank, exact: under "no difference" each
unit's difference is as likely one way as the other, and all 2^m ways are counted. Zeros are ranked,
and have no sign (Pratt 1959). There is no test of all models at once before it, and no test of mean
ranks, whose answer depends on which other models are in the table (Benavoli, Corani and Mangili
2016).

Data sets that share patients say the same thing twice, so they are one unit: the mean of its
members' differences. MedMNIST's twelve are ten units. Seeds, models or layers are never units.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from probe.arrays import Doubles
from probe.report.statistics.families import Family, by_holm

# Made from images of the same people: LiTS's scans seen from three sides, and as volumes; HAM10000,
# which is a part of ISIC 2019; NIH's chest X-rays; CheXpert's, split in several ways; DDSM's films.
SHARED = (
    ("organamnist", "organcmnist", "organsmnist", "organmnist3d"),
    ("dermamnist", "isic2019"),
    ("chestmnist", "chestxray14", "chestxray14-baharoon2023"),
    (
        "chexpert",
        "chexpert-huix2024",
        "chexpert-baharoon2023-ap",
        "chexpert-baharoon2023-frontal",
    ),
    ("cbis-ddsm", "ddsm-huix2024"),
)
ROUNDING = 1e-12  # a difference below is none, and differences that are nearer tie


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's test of m differences."""

    total: float  # ranks of what is above 0 less ranks of what is below
    p: float  # two-sided, exact; nan where there is no unit
    n_units: int  # m
    n_zeros: int  # units without a difference

    @property
    def smallest(self) -> float:
        """The smallest p that these many units could have given."""
        return smallest_p(self.n_units - self.n_zeros)


def units_of(
    datasets: Iterable[str], shared: Sequence[Iterable[str]] = SHARED
) -> list[tuple[str, ...]]:
    """Data sets, those that share patients together, each unit where its first one stands.

    Args:
        datasets: by name.
        shared: groups of names, ``SHARED`` and those whose tables of patients are the same, say;
            groups that have a name in common are one.
    """
    groups: list[set[str]] = []
    for group in map(set, shared):
        for known in [known for known in groups if known & group]:
            groups.remove(known)
            group |= known
        groups.append(group)
    units: dict[frozenset[str], list[str]] = {}
    for name in dict.fromkeys(datasets):
        own = next((group for group in groups if name in group), {name})
        units.setdefault(frozenset(own), []).append(name)
    return [tuple(members) for members in units.values()]


def signed_rank(differences: Doubles) -> SignedRank:
    """The exact signed-rank test of "each difference is as likely above 0 as below".

    Ranks of |d|, zeros among them; ties share their mean rank. Twice the ranks are whole numbers,
    so how many of the 2^m ways give each total is a product of polynomials, one factor a unit.

    Args:
        differences: (m,) one a unit; nan: the unit has none, and isn't counted.
    """
    d = differences[~np.isnan(differences)]
    d = np.where(np.abs(d) <= ROUNDING, 0, d)
    _, place, counts = np.unique(
        np.round(np.abs(d) / ROUNDING).astype(np.float64), return_inverse=True, return_counts=True
    )
    twice = (2 * counts.cumsum() - counts + 1)[place]  # of the mean rank of those that tie
    signed = twice[d != 0].astype(np.int64)
    total = int((np.sign(d[d != 0]) * signed).sum()) if len(signed) else 0
    if not len(d):
        return SignedRank(0.0, math.nan, 0, 0)
    ways = np.ones(1)  # chance of each sum of the ranks above 0, in halves
    for rank in signed:
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    totals = 2 * np.arange(len(ways)) - int(signed.sum())
    p = min(1.0, float(ways[np.abs(totals) >= abs(total)].sum()))
    return SignedRank(total / 2, p, len(d), int((d == 0).sum()))


def pseudomedian(differences: Doubles) -> float:
    """Hodges and Lehmann's (1963) estimate: the median of the means of all pairs of units.

    The one that goes with the signed-rank test: where that points one way, so does this. A mean
    needn't, for one data set may move it.

    Args:
        differences: (m,) one a unit, each paired with itself too; nan: the unit has none.
    """
    d = differences[~np.isnan(differences)]
    one, other = np.triu_indices(len(d))
    return float(np.median((d[one] + d[other]) / 2)) if len(d) else math.nan


def smallest_p(n_units: int) -> float:
    """The smallest two-sided p of any signed-rank test of m units: 2 / 2^m, all on one side."""
    return min(1.0, 2.0 ** (1 - n_units))


def most_models(n_units: int, level: float = 0.05) -> int:
    """How many models at most m units can tell apart, all pairs by Holm; 1: none from another."""
    n_pairs = math.floor(level / smallest_p(n_units) + ROUNDING)
    return (1 + math.isqrt(1 + 8 * n_pairs)) // 2


def undecidable(n_units: int, n_models: int, level: float = 0.05) -> str:
    """Why m units can't tell any two of K models apart, in words; "" where they can."""
    at_least, most = smallest_p(n_units), most_models(n_units, level)
    if n_models <= most:
        return ""
    units = f"{n_units} independent data set" + ("" if n_units == 1 else "s")
    if most < 2:
        return (
            f"{units} can't decide: the smallest two-sided p of the exact signed-rank test is "
            f"{at_least:.3g}, above {level:g} whatever the differences"
        )
    n_pairs = n_models * (n_models - 1) // 2
    return (
        f"{units} can't tell any of {n_models} models apart, all pairs: the smallest two-sided p of "
        f"the exact signed-rank test is {at_least:.3g}, above {level:g} / {n_pairs} = "
        f"{level / n_pairs:.2g}; at most {most} models can be told apart"
    )


def mean_of_units(
    values: Doubles, datasets: Sequence[str], units: Sequence[Sequence[str]]
) -> Doubles:
    """A unit's value is the mean of its members' that are there; nan where none is.

    Args:
        values: (D, ...) one row a data set.
        datasets: (D,) their names.
        units: see ``units_of``.

    Returns:
        (U, ...).
    """
    rows = {name: row for row, name in enumerate(datasets)}
    means = np.full((len(units), *values.shape[1:]), np.nan)
    for u, members in enumerate(units):
        of = values[[rows[name] for name in members]]
        known = ~np.isnan(of)
        n = known.sum(axis=0)
        means[u] = np.where(n > 0, np.where(known, of, 0).sum(axis=0) / np.maximum(n, 1), np.nan)
    return means


def across(
    values: Doubles,
    datasets: Sequence[str],
    level: float = 0.05,
    shared: Sequence[Iterable[str]] = SHARED,
) -> Family:
    """All pairs of K models over D data sets: signed-rank of each, Holm over all.

    Args:
        values: (D, K) metrics, larger is better; nan where a model wasn't asked.
        datasets: (D,) their names.
        level: the chance of any false difference.
        shared: see ``units_of``.

    Returns:
        Gains are ``pseudomedian`` over units; a pair goes by the data sets that both have.

    Raises:
        RequestError: a data set is there twice.
    """
    if len(set(datasets)) < len(datasets):
        raise RequestError("a data set stands in one row")
    units = units_of(datasets, shared)
    n_models = values.shape[1]
    gains, p = np.full((2, n_models, n_models), np.nan)
    differences = mean_of_units(values[:, :, None] - values[:, None, :], datasets, units)
    for j in range(n_models):
        for k in range(j):
            d = differences[:, j, k]
            if np.isnan(d).all():
                continue
            test = signed_rank(d)
            p[j, k] = p[k, j] = test.p
            gains[j, k] = pseudomedian(d)
            gains[k, j] = -gains[j, k]
    return by_holm([gains], [p], level)[0]


def kendall(a: Doubles, b: Doubles) -> float:
    """Kendall's tau-b of two orders of the same models: 1 the same, -1 turned around.

    Args:
        a: (K,) values, or ranks.
        b: (K,), the same way round.

    Returns:
        nan where one of the two has no order at all, or K is below 2.
    """
    pairs = np.triu_indices(len(a), 1)
    of_a, of_b = (np.sign(x[pairs[0]] - x[pairs[1]]) for x in (a, b))
    scale = math.sqrt(float((of_a**2).sum()) * float((of_b**2).sum()))
    return float((of_a * of_b).sum()) / scale if scale else math.nan
