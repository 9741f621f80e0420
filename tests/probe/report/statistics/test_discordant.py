"""McNemar's mid-p and intervals of paired shares, against published values and slow versions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probe.report.statistics.discordant import Discordance, discordance, mid_p, newcombe, tango

# Fagerland, Lydersen, Laake 2014: airways before and after a transplantation (Bentur 2009); complete
# response before and after consolidation (Cavo 2012).
AIRWAYS, RESPONSE = Discordance(1, 1, 7, 12), Discordance(59, 6, 16, 80)


def of(only_a, only_b):
    return Discordance(20, only_a, only_b, 20)


def exact(only_a, only_b):
    n, fewer = only_a + only_b, min(only_a, only_b)
    return min(Fraction(1), Fraction(2 * sum(math.comb(n, i) for i in range(fewer + 1)), 2**n))


@pytest.mark.parametrize(
    ("counts", "p"),
    [((1, 8), 0.021484), ((5, 15), 0.026604), ((10, 10), 1), ((0, 0), 1), ((1, 7), 0.0390625)],
)
def test_worked_values_of_mid_p(counts, p):
    assert mid_p(of(*counts)) == pytest.approx(p, abs=5e-7)
    assert mid_p(of(*counts[::-1])) == mid_p(of(*counts))


@pytest.mark.parametrize("counts", [(0, 1), (3, 4), (0, 60), (40, 70), (400, 500)])
def test_mid_p_is_the_exact_one_less_half_of_what_was_seen_on_each_side(counts):
    n = sum(counts)
    expected = exact(*counts) - Fraction(math.comb(n, min(counts)), 2**n)
    assert mid_p(of(*counts)) == pytest.approx(float(expected), rel=1e-9)


def test_mid_p_by_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    stats = pytest.importorskip("scipy.stats")
    for b, c in [(1, 8), (5, 15), (12, 30)]:
        p = tables.mcnemar([[20, b], [c, 20]], exact=True).pvalue
        assert mid_p(of(b, c)) == pytest.approx(p - stats.binom.pmf(min(b, c), b + c, 0.5))


def test_published_intervals():
    assert_allclose(newcombe(AIRWAYS), (-0.507, -0.026), atol=5e-4)
    assert_allclose(tango(AIRWAYS), (-0.517, -0.026), atol=5e-4)
    assert_allclose(newcombe(RESPONSE), (-0.1186, -0.0046), atol=5e-5)


def slow_score(found, difference):
    """Of the likeliest table with this difference, found by trying many."""
    b, c, n = found.only_a, found.only_b, found.n
    least, most = max(0.0, -difference), (1 - difference) / 2
    for _ in range(6):
        q = np.linspace(least, most, 201)  # the share that B alone answers rightly
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [(b, q + difference), (c, q), (n - b - c, 1 - 2 * q - difference)]
            likely = sum(k * np.log(np.maximum(share, 0)) for k, share in parts if k)
        best = int(np.nanargmax(likely))
        least, most = q[max(best - 1, 0)], q[min(best + 1, 200)]
    variance = 2 * q[best] + difference - difference**2
    return (b - c - n * difference) / math.sqrt(n * variance)


@pytest.mark.parametrize(
    "found", [AIRWAYS, RESPONSE, of(12, 3), of(0, 6), Discordance(150, 4, 2, 0)]
)
def test_tango_ends_where_the_score_test_does(found):
    low, high = tango(found)
    assert slow_score(found, low) == pytest.approx(1.959964, abs=2e-4)
    assert slow_score(found, high) == pytest.approx(-1.959964, abs=2e-4)


@pytest.mark.parametrize("interval", [newcombe, tango])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_who_is_called_a_changes_the_sign_only(interval, level):
    low, high = interval(Discordance(50, 12, 4, 9), level)
    assert_allclose(interval(Discordance(50, 4, 12, 9), level), (-high, -low), atol=1e-12)


@pytest.mark.parametrize("interval", [newcombe, tango])
@pytest.mark.parametrize(
    "found", [Discordance(100, 0, 0, 0), Discordance(0, 0, 0, 100), Discordance(0, 100, 0, 0)]
)
def test_what_was_always_so_need_not_be(interval, found):
    low, high = interval(found)
    assert -1 <= low <= found.value <= high <= 1
    assert high - low > 0.03


def test_a_score_interval_of_equal_answers():
    share = 1.959964**2 / (100 + 1.959964**2)  # Wilson's end for none of 100
    assert_allclose(tango(Discordance(60, 0, 0, 40)), (-share, share), atol=1e-6)


def test_counts():
    a, b = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    found = discordance(a, b)
    assert found == Discordance(2, 1, 1, 1)
    assert (found.n, found.value) == (5, 0)
