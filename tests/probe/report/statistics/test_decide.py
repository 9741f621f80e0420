"""What a test set can show: textbook values, simulated power, and where it shows nothing."""

import math

import numpy as np
import pytest

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS
from probe.report.statistics.decide import (
    Power,
    assume_accuracy,
    assume_auc,
    auc_variance,
    hanley_mcneil,
    needed_accuracy,
    observe,
    observe_accuracy,
    smallest_accuracy,
)

# n, then the smallest difference at a disagreement of .05, .1 and .2; power .8, level .05. Solved by
# hand from Connor's (1987) equation.
SMALLEST = [
    (156, (0.0498, 0.0704, 0.0996)),
    (400, (0.0312, 0.0442, 0.0625)),
    (1000, (0.0198, 0.0280, 0.0396)),
    (2005, (0.0140, 0.0198, 0.0280)),
    (7180, (0.0074, 0.0105, 0.0148)),
]


@pytest.mark.parametrize(("n", "smallest"), SMALLEST)
def test_accuracy_equals_the_equation_of_mcnemars_power(n, smallest):
    found = [smallest_accuracy(q, n) for q in (0.05, 0.1, 0.2)]
    assert found == pytest.approx(smallest, abs=6e-5)
    for q, d in zip((0.05, 0.1, 0.2), found, strict=True):
        assert needed_accuracy(d, q) == pytest.approx(n)


def test_mcnemars_power_is_what_it_says():
    rng = np.random.default_rng(0)
    n, q = 1000, 0.1
    d = smallest_accuracy(q, n)
    both = rng.multinomial(n, [(q + d) / 2, (q - d) / 2, 1 - q], 4000)
    z = (both[:, 0] - both[:, 1]) / np.sqrt(both[:, 0] + both[:, 1])
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("positives", "negatives", "error", "at_half", "at_eight"),
    [
        (42, 114, 0.0331, 0.0927, 0.0586),
        (100, 900, 0.0209, 0.0585, 0.0370),
        (500, 500, 0.0101, 0.0283, 0.0179),
    ],
)
def test_assumed_auc(positives, negatives, error, at_half, at_eight):
    # By Hanley and McNeil's formula, an AUC of .9, errors correlated .5 and .8.
    assert hanley_mcneil(0.9, positives, negatives) == pytest.approx(error, abs=6e-5)
    counts = np.array([negatives, positives])
    found = [assume_auc(counts, 0.9, r).smallest for r in (0.5, 0.8)]
    assert found == pytest.approx([at_half, at_eight], abs=6e-5)


def test_n_that_is_needed_shows_the_difference():
    decision = assume_auc(np.array([114, 42]), differences=(0.02,))
    times = decision.needed[0.02] / 156
    again = assume_auc(np.round(np.array([114, 42]) * times).astype(int))
    assert again.smallest == pytest.approx(0.02, rel=0.01)
    assert assume_auc(np.array([30, 30, 30])).smallest > assume_auc(np.array([300] * 3)).smallest


def test_words():
    assert assume_accuracy(156, differences=(0.02, 0.05)).describe() == (
        "156 samples show differences in acc from 0.070, 80% of the time (assumed: the two disagree "
        "on 0.1 of samples); samples needed: 1960 for 0.02, 312 for 0.05"
    )
    assert assume_accuracy(20, 0.1, differences=()).describe() == (
        "20 samples show no difference in acc: even if all 0.1 that they disagree on went one way"
    )


def test_seen_disagreement_stands_in_for_an_assumed_one():
    right, other = np.ones(1000, bool), np.ones(1000, bool)
    right[:40], other[40:100] = False, False
    seen = observe_accuracy(right, other)
    assert seen.smallest == smallest_accuracy(0.1, 1000)
    assert seen.needed == assume_accuracy(1000, 0.1).needed
    assert seen.basis == "seen: the two disagree on 0.1 of samples"
    assert observe_accuracy(right, other, np.arange(1000)) == seen


def test_images_of_a_patient_that_are_answered_alike_are_one():
    right, other = np.ones(400, bool), np.ones(400, bool)
    right[:40], other[40:80] = False, False
    cluster = np.arange(400) // 4
    whole = observe_accuracy(right, other, cluster)
    alone = observe_accuracy(right[::4], other[::4])
    assert whole.unit == "patient"
    assert whole.n_units == 100
    # But for Student's quantiles of 99 degrees of freedom, and P - 1 for P.
    assert whole.smallest == pytest.approx(alone.smallest, rel=0.03)
    assert whole.needed[0.05] == pytest.approx(alone.needed[0.05], rel=0.02)


@pytest.mark.parametrize(
    ("right", "cluster", "why"),
    [
        ([1, 1, 0, 1], None, "the two answer every sample alike"),
        ([0, 1, 0, 1], None, "even if all 0.25 that they disagree on went one way"),
        ([0, 1, 0, 1], [0, 0, 0, 0], "the smallest p of swapping 1 patients is 1"),
        ([0, 1, 0, 1], [0, 0, 1, 1], "the smallest p of swapping 2 patients is 0.5, above 0.05"),
    ],
)
def test_where_nothing_can_be_shown(right, cluster, why):
    cluster = None if cluster is None else np.array(cluster)
    found = observe_accuracy(np.array(right, bool), np.array([1, 1, 0, 1], bool), cluster)
    assert math.isnan(found.smallest)
    assert why in found.describe()


def columns(p):
    return np.stack([1 - p, p], axis=1)


def test_auc_goes_by_delongs_variance_of_the_difference():
    # DeLong by hand: variances .0133333 and .0404167, covariance .0016667.
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    a = columns(np.array([0.9, 0.8, 0.55, 0.4, 0.6, 0.3, 0.3, 0.2, 0.1]))
    b = columns(np.array([0.7, 0.4, 0.6, 0.5, 0.5, 0.8, 0.2, 0.1, 0.3]))
    variance = auc_variance(a, b, labels, BINARY)
    assert variance == pytest.approx(0.0133333 + 0.0404167 - 2 * 0.0016667, abs=1e-6)
    decision = observe("auc", variance, 9, differences=(0.05,))
    assert decision.smallest == pytest.approx(2.8016 * math.sqrt(variance), rel=1e-4)
    assert decision.needed[0.05] == math.ceil(9 * (decision.smallest / 0.05) ** 2)
    # Nine patients of two equal images each tell as much as nine images, but for P / (P - 1).
    twice = [np.repeat(x, 2, axis=0) for x in (a, b, labels)]
    grouped = auc_variance(*twice, BINARY, np.repeat(np.arange(9), 2))
    assert grouped == pytest.approx(variance, rel=0.25)
    assert observe("auc", grouped, 9, is_grouped=True).smallest > decision.smallest


def test_auc_that_cannot_be_compared():
    labels = np.array([0, 1, 1, 2, 2])
    scores = np.full((5, 3), 1 / 3)
    unknown = auc_variance(scores, scores, labels, MULTI_CLASS)
    assert "a class has too few" in observe("auc", unknown, 5).describe()
    assert math.isnan(auc_variance(scores, scores, labels, MULTI_CLASS, np.zeros(5, int)))
    assert "no sample moves" in observe("auc", 0.0, 9).describe()
    assert "5 patients" in observe("auc", 0.1, 5, is_grouped=True).describe()
    assert "doesn't exist" in assume_auc(np.array([5, 0])).describe()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Power(level=0),
        lambda: Power(power=1),
        lambda: assume_accuracy(100, 0),
        lambda: assume_accuracy(100, differences=(0.0,)),
        lambda: assume_auc(np.array([50, 50]), auc=1.0),
        lambda: assume_auc(np.array([50, 50]), correlation=1.0),
    ],
)
def test_refuses(ask):
    with pytest.raises(RequestError):
        ask()


def test_fewer_units_than_any_test_works_with_are_none():
    """A pair that hardly disagrees: by its variance one image would show .05."""
    seen = observe("auc", 1e-5, 28, least=10, differences=(0.004, 0.02, 0.05))
    assert list(seen.needed) == [0.004]
    assert "for 0.02, 0.05 so little scatter asks for fewer than 10 samples" in seen.basis
    assert observe("auc", 1e-5, 28, differences=(0.05,)).needed == {}
    right = np.ones(1000, bool)
    other = right.copy()
    other[:1] = False
    assert all(n >= 6 for n in observe_accuracy(right, other).needed.values())
    assert not any(n < 220 for n in assume_auc([1000, 100], 0.999, 0.99).needed.values())
