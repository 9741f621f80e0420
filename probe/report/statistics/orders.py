"""Two orders of the same models: ranks, and what Kendall's tau-b of them can say.

The p of a tau is exact: of all K! ways in which one order could stand beside the other, the share
whose tau is as far from 0. It tells an agreement from none at all; it doesn't say that two orders
are the same. Of few models there are few ways: three give no p below 1/3, four none below 1/12.
"""

import itertools
import math

import numpy as np

from probe.arrays import Doubles
from probe.report.statistics.across import ROUNDING, kendall

MOST_ENUMERATED = 8  # models with equal values: 40,320 ways


def ranks_of(values: Doubles) -> Doubles:
    """(K,) ranks, 1 the best; equal values share their mean rank.

    Args:
        values: (K,) larger is better, all finite.
    """
    gaps = values[None, :] - values[:, None]
    n_better, n_equal = (gaps > ROUNDING).sum(axis=1), (np.abs(gaps) <= ROUNDING).sum(axis=1)
    return 1 + n_better + (n_equal - 1) / 2


def tau_p(a: Doubles, b: Doubles) -> float:
    """Exact two-sided p of ``kendall(a, b)`` under "the two orders have nothing to do with each other".

    Without equal values a tau is a number of inversions, and permutations with so many are counted;
    with some, all ways are enumerated.

    Args:
        a: (K,) values, or ranks.
        b: (K,).

    Returns:
        nan where there is no tau, or some are equal among more than ``MOST_ENUMERATED``.
    """
    tau = kendall(a, b)
    if math.isnan(tau):
        return math.nan
    n = len(a)
    has_equal = len(np.unique(ranks_of(a))) < n or len(np.unique(ranks_of(b))) < n
    if has_equal and n > MOST_ENUMERATED:
        return math.nan
    if has_equal:
        return _by_enumeration(a, b)
    ways, n_pairs = _inversions(n), n * (n - 1) // 2
    taus = 1 - 2 * np.arange(n_pairs + 1) / n_pairs
    return float(ways[np.abs(taus) >= abs(tau) - ROUNDING].sum() / ways.sum())


def describe_taus(n: int) -> str:
    """What a tau of n models can say, in words; "" where it may be told from chance at 0.05.

    Args:
        n: 2 and more, without equal values.
    """
    smallest = 2 / math.factorial(n)
    if smallest <= 0.05:
        return ""
    n_values = n * (n - 1) // 2 + 1
    return (
        f"{n} encoders: tau has {n_values} values and no p below {smallest:.2g}, so none can be told "
        "from chance; it takes 5"
    )


def _inversions(n: int) -> Doubles:
    """(n(n - 1)/2 + 1,) permutations of n with each number of inversions."""
    ways = np.ones(1)
    for length in range(2, n + 1):
        ways = np.convolve(ways, np.ones(length))
    return ways


def _by_enumeration(a: Doubles, b: Doubles) -> float:
    one, other = np.triu_indices(len(a), 1)
    of_a = np.sign(ranks_of(a)[one] - ranks_of(a)[other])
    every = np.array(list(itertools.permutations(ranks_of(b))))
    totals = np.sign(every[:, one] - every[:, other]) @ of_a
    return float((np.abs(totals) >= abs(totals[0])).mean())  # the first way is b as it is
