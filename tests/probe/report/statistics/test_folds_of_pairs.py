"""The corrected resampled t-test, against a hand computation and where it must be silent."""

import math

import numpy as np
import pytest

from probe.report.statistics.folds import corrected_t


def test_five_folds_by_hand():
    d = np.array([0.02, 0.01, 0.03, -0.01, 0.02])
    found = corrected_t(d, np.full(5, 20), np.full(5, 80))
    # s^2 = 0.00023, (1/5 + 20/80) s^2 = 0.0001035, t = 0.014 / 0.010173495 = 1.376125
    assert found.value == pytest.approx(0.014)
    assert found.p == pytest.approx(0.240816, abs=2e-5)  # two-sided, t of 4 degrees
    half = 2.776445 * math.sqrt(0.0001035)
    assert (found.low, found.high) == pytest.approx((0.014 - half, 0.014 + half), abs=1e-6)


@pytest.mark.parametrize(
    ("d", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.1, 0.1], math.nan), ([0.1], math.nan)]
)
def test_folds_that_do_not_scatter_have_no_interval(d, p):
    found = corrected_t(np.array(d), np.full(len(d), 5), np.full(len(d), 10))
    assert math.isnan(found.low)
    assert found.p == pytest.approx(p, nan_ok=True)
