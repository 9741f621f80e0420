"""Orders: ranks, and the exact p of Kendall's tau."""

import itertools
import math

import numpy as np
import pytest

from probe.report.statistics.across import kendall
from probe.report.statistics.orders import describe_taus, ranks_of, tau_p


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ([0.9, 0.7, 0.8], [1, 3, 2]),
        ([0.8, 0.8, 0.7], [1.5, 1.5, 3]),
        ([0.5, 0.5, 0.5], [2, 2, 2]),
        ([0.1 + 0.2, 0.3], [1.5, 1.5]),  # equal but for rounding
        ([0.4], [1]),
    ],
)
def test_ranks(values, ranks):
    assert ranks_of(np.array(values)).tolist() == ranks


@pytest.mark.parametrize(
    ("a", "b", "tau", "p"),
    [
        # scipy 1.17.1, stats.kendalltau(method="exact")
        ([1, 2], [1, 2], 1.0, 1.0),
        ([3, 1, 2], [3, 2, 1], 0.33333333333333337, 1.0),
        ([1, 4, 3, 2], [4, 2, 3, 1], -0.3333333333333334, 0.75),
        ([1, 3, 4, 5, 2], [4, 3, 1, 2, 5], -0.6, 0.23333333333333334),
        ([7, 5, 3, 6, 2, 4, 1], [6, 5, 4, 1, 2, 3, 7], -0.04761904761904762, 1.0),
        (
            [8, 7, 5, 10, 3, 4, 6, 11, 2, 12, 1, 9],
            [3, 11, 5, 9, 10, 8, 12, 2, 6, 1, 7, 4],
            -0.3636363636363636,
            0.11595087782587783,
        ),
    ],
)
def test_p_of_tau(a, b, tau, p):
    a, b = np.array(a, float), np.array(b, float)
    assert kendall(a, b) == pytest.approx(tau)
    assert tau_p(a, b) == pytest.approx(p)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3, 4], [1, 2, 4, 3]),
        ([1, 2, 2, 4], [1, 3, 2, 4]),
        ([1, 1, 3, 3, 5], [5, 4, 3, 2, 2]),
    ],
)
def test_p_is_the_share_of_all_orders(a, b):
    a, b = np.array(a, float), np.array(b, float)
    taus = [kendall(a, np.array(other)) for other in itertools.permutations(b)]
    share = np.mean([abs(tau) >= abs(kendall(a, b)) - 1e-9 for tau in taus])
    assert tau_p(a, b) == pytest.approx(share)


def test_no_p_where_there_is_none():
    assert math.isnan(tau_p(np.ones(3), np.arange(3.0)))
    many = np.arange(9.0)
    assert math.isnan(tau_p(many, np.minimum(many, 7)))
    assert tau_p(many, many) == pytest.approx(2 / math.factorial(9))


def test_what_a_tau_of_few_encoders_can_say():
    assert describe_taus(3).startswith("3 encoders: tau has 4 values and no p below 0.33")
    assert describe_taus(4).startswith("4 encoders: tau has 7 values and no p below 0.083")
    assert describe_taus(5) == ""
