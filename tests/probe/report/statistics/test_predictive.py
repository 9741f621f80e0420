"""Predictive values at a prevalence that is stated: Bayes' rule, and ends that hold."""

import math

import numpy as np
import pytest

from cache.errors import RequestError
from probe.report.statistics.thresholds import Rates, Share, Threshold, predictive, share

NOBODY = Share(0, 0)


def rates(tp, positives, fp, negatives):
    def of(hits, n):
        return share(np.arange(n) < hits, np.arange(n))

    return Rates(Threshold(1, 0.5, ""), of(tp, positives), of(fp, negatives), NOBODY, NOBODY)


def test_at_the_share_of_test_they_are_those_of_test():
    ppv, npv = predictive(rates(40, 50, 20, 150), 50 / 200)
    assert ppv.value == pytest.approx(40 / 60)
    assert npv.value == pytest.approx(130 / 140)
    assert ppv.low < ppv.value < ppv.high
    assert npv.low < npv.value < npv.high


def test_ends_are_mover_s():
    """Zou and Donner's of a difference of two logarithms, by hand."""
    of = rates(40, 50, 20, 150)
    se, fpr = of.tpr, of.fpr
    ratio = se.value / fpr.value
    below = math.hypot(math.log(se.value / se.low), math.log(fpr.high / fpr.value))
    low = ratio * math.exp(-below)
    assert predictive(of, 0.5)[0].low == pytest.approx(low / (1 + low))


@pytest.mark.parametrize(
    ("counts", "ppv", "npv"),
    [
        ((40, 50, 0, 150), 1.0, 0.5),  # no false positive
        ((50, 50, 20, 150), 0.5, 1.0),  # no false negative
        ((0, 50, 20, 150), 0.0, 0.5),  # no true positive
    ],
)
def test_rates_of_0_and_1_have_ends_on_one_side(counts, ppv, npv):
    found = predictive(rates(*counts), 0.2)
    for value, end in zip(found, (ppv, npv), strict=True):
        assert value.low <= value.value <= value.high
        if end in (0.0, 1.0):
            assert value.value == end
            assert value.high - value.low > 0.001
        else:
            assert 0 < value.low < value.high < 1


def test_without_a_side_there_is_none():
    ppv, npv = predictive(rates(0, 0, 20, 150), 0.2)
    assert math.isnan(ppv.value)
    assert math.isnan(npv.value)
    ppv, npv = predictive(rates(0, 50, 0, 150), 0.2)  # nobody is told yes
    assert math.isnan(ppv.value)
    assert npv.value == pytest.approx(0.8)


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 1.5])
def test_a_prevalence_is_a_share(prevalence):
    with pytest.raises(RequestError, match="between 0 and 1"):
        predictive(rates(40, 50, 20, 150), prevalence)


def test_intervals_hold_the_truth():
    """40 and 100 samples, sensitivity .85 and specificity .9, at a prevalence of .1; 400 draws."""
    rng = np.random.default_rng(0)
    truth = 0.085 / (0.085 + 0.09), 0.81 / (0.81 + 0.015)
    held = np.zeros(2)
    for _ in range(400):
        tp, fp = (rng.random(40) < 0.85).sum(), (rng.random(100) < 0.1).sum()
        found = predictive(rates(tp, 40, fp, 100), 0.1)
        held += [of.low <= value <= of.high for of, value in zip(found, truth, strict=True)]
    assert (held / 400 > 0.925).all()
    assert (held / 400 < 0.99).all()
