"""Calibration slope, intercept and curve: against statsmodels' numbers, and by hand."""

import math

import numpy as np
import pytest

from cache.errors import RequestError
from probe.report.statistics.calibration import APART, CERTAIN, SAME, calibrate, curve

# 12 answers, and what statsmodels 0.15 (GLM, binomial; slope free, then 1 by offset) gives of them.
LOGITS = np.array([-3.1, -2.0, -1.4, -1.1, -0.6, -0.2, 0.1, 0.5, 0.9, 1.3, 2.2, 2.9])
TRUTHS = np.array([0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1])
SLOPE = (0.808588327, -0.202425892, 1.819602546)
INTERCEPT = (0.047445334, -1.350026718, 1.444917386)


def binary(logits):
    p = 1 / (1 + np.exp(-np.asarray(logits, float)))
    return np.stack([1 - p, p], axis=1)


def test_slope_and_intercept_are_those_of_statsmodels():
    (found,) = calibrate(binary(LOGITS), TRUTHS, "binary-class")
    np.testing.assert_allclose(found.slope, SLOPE, rtol=1e-7)
    np.testing.assert_allclose(found.intercept, INTERCEPT, rtol=1e-7, atol=1e-9)
    assert (found.method, found.unit, found.notes) == ("Wald", "sample", ())
    assert found.observed == 0.5
    assert found.predicted == pytest.approx(binary(LOGITS)[:, 1].mean())


def test_the_same_question_by_other_columns():
    """Labels are problems of two classes; a class against the rest of three is what merged columns say."""
    two = binary(LOGITS)
    (whole,) = calibrate(two, TRUTHS, "binary-class")
    several = calibrate(two, np.stack([1 - TRUTHS, TRUTHS], axis=1), "multi-label, binary-class")
    np.testing.assert_allclose(several[1].slope, whole.slope, rtol=1e-9)
    three = np.stack([two[:, 0] * 0.25, two[:, 1], two[:, 0] * 0.75], axis=1)
    of_one = calibrate(three, np.where(TRUTHS == 1, 1, 2), "multi-class")[1]
    np.testing.assert_allclose(of_one.slope, whole.slope, rtol=1e-9)
    assert of_one.number == 1


@pytest.mark.parametrize("scale", [1.0, 10.0, 60.0])
def test_logits_that_are_scaled_have_a_slope_that_is_divided(scale):
    p = np.stack([np.exp(-np.logaddexp(0, s * scale * LOGITS)) for s in (1, -1)], axis=1)
    (found,) = calibrate(p, TRUTHS, "binary-class")
    np.testing.assert_allclose(found.slope, np.array(SLOPE) / scale, rtol=1e-6)
    assert math.isfinite(found.intercept.low)


def test_patients_whose_samples_are_copies_count_once():
    one = calibrate(binary(LOGITS), TRUTHS, "binary-class")[0]
    three = [np.repeat(a, 3, axis=0) for a in (binary(LOGITS), TRUTHS, np.arange(12).astype(str))]
    (found,) = calibrate(three[0], three[1], "binary-class", groups=three[2])
    assert (found.n, found.n_units, found.unit) == (36, 12, "patient")
    assert found.slope.value == pytest.approx(one.slope.value)
    alone = calibrate(three[0], three[1], "binary-class")[0]
    wide = [of.slope.high - of.slope.low for of in (alone, one, found)]
    assert wide[0] < wide[1] < wide[2]  # Student's t, and the jackknife


def test_the_jackknife_is_that_of_patients_left_out_one_by_one():
    """One step of Newton's: of many patients it is the whole refit, nearly."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=240)
    truths = (rng.random(240) < 1 / (1 + np.exp(-logits))).astype(int)
    who = np.arange(240) // 4
    (found,) = calibrate(binary(logits), truths, "binary-class", groups=who.astype(str))
    left = np.array(
        [
            calibrate(binary(logits[who != u]), truths[who != u], "binary-class")[0].slope.value
            for u in range(60)
        ]
    )
    se = math.sqrt(59 / 60 * ((left - left.mean()) ** 2).sum())
    assert (found.slope.high - found.slope.low) / 2 == pytest.approx(2.001 * se, rel=0.02)


def test_the_jackknife_of_few_patients_is_a_plain_loops():
    logits, truths, who = np.tile(LOGITS, 3), np.tile(TRUTHS, 3), np.arange(36) % 12
    truths[12:15] = 1 - truths[12:15]
    (found,) = calibrate(binary(logits), truths, "binary-class", groups=who.astype(str))
    p = 1 / (1 + np.exp(-logits - found.intercept.value))  # the slope is 1
    score, bent = (
        np.array([values[who == u].sum() for u in range(12)])
        for values in (truths - p, p * (1 - p))
    )
    moved = score / (bent.sum() - bent)
    se = math.sqrt(11 / 12 * ((moved - moved.mean()) ** 2).sum())
    t = 2.200985160  # of 11 degrees of freedom
    assert found.intercept.high - found.intercept.value == pytest.approx(t * se, rel=1e-6)


@pytest.mark.parametrize("task", ["binary-class", "multi-class"])
def test_samples_whose_label_nobody_knows_are_left_out(task):
    (whole, *_) = calibrate(binary(LOGITS), TRUTHS, task)
    more = np.r_[LOGITS, 5.0], np.r_[TRUTHS, -1]
    (found, *_) = calibrate(binary(more[0]), more[1], task)
    assert found == whole


@pytest.mark.parametrize(
    ("logits", "truths", "why"),
    [
        ([-2, -1, 1, 2] * 5, [0, 0, 1, 1] * 5, APART),
        ([-2, -1, 0, 0, 1, 2] * 5, [0, 0, 0, 1, 1, 1] * 5, APART),  # but for those at 0
        ([2, 1, 0, 0, -1, -2] * 5, [0, 0, 0, 1, 1, 1] * 5, APART),
        ([0.3] * 20, [0, 1] * 10, SAME),
        ([-np.inf, 1, 0, -1] * 5, [0, 1] * 10, CERTAIN),
        ([1, 2] * 5, [1] * 10, "all samples are of the class"),
    ],
)
def test_what_has_no_slope_says_why(logits, truths, why):
    with np.errstate(over="ignore"):
        (found,) = calibrate(binary(logits), np.array(truths), "binary-class")
    assert math.isnan(found.slope.value)
    assert found.notes == (why,)
    assert found.bins


def test_few_of_a_side_have_no_interval():
    (found,) = calibrate(binary(LOGITS), (TRUTHS * (LOGITS > 0)), "binary-class")
    assert math.isfinite(found.slope.value)
    assert math.isnan(found.slope.low)
    assert found.notes == ("no interval: a side has 4 samples, and 5 are needed",)


def test_margins_are_refused():
    with pytest.raises(RequestError, match="only probabilities"):
        calibrate(binary(LOGITS), TRUTHS, "binary-class", "margin")


def test_a_curve_keeps_equal_answers_together():
    p = np.array([0.1] * 5 + [0.2, 0.3, 0.7, 0.8, 0.9])
    truth = np.array([0, 0, 0, 0, 1, 0, 1, 0, 1, 1], bool)
    bins = curve(p, truth, np.arange(10), 5)
    assert [(b.low, b.high, b.observed.hits, b.observed.n) for b in bins] == [
        (0.1, 0.1, 1, 5),
        (0.2, 0.2, 0, 1),
        (0.3, 0.7, 1, 2),
        (0.8, 0.9, 2, 2),
    ]
    assert bins[2].predicted == pytest.approx(0.5)
