"""Kappa and expected grades against scikit-learn, and by eye."""

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose
from sklearn.metrics import cohen_kappa_score

from cache.task import ORDINAL
from probe.metrics import classification as metrics
from probe.metrics import grades
from probe.metrics.classification import MARGIN
from probe.metrics.grades import expected_grades


def answers(n=150, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    far = np.abs(np.arange(n_classes) - (labels + rng.normal(0, 1, n))[:, None])
    scores = np.exp(-far)
    return scores / scores.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learn(seed):
    scores, labels = answers(seed=seed)
    found = metrics.evaluate(scores, labels, ORDINAL)
    by_argmax, by_mean = scores.argmax(axis=1), np.rint(scores @ np.arange(5)).astype(int)
    assert_allclose(found["kappa"], cohen_kappa_score(labels, by_argmax, weights="quadratic"))
    assert_allclose(
        found["kappa_expected"], cohen_kappa_score(labels, by_mean, weights="quadratic")
    )
    assert found["acc_expected"] == np.mean(by_mean == labels)


def test_a_class_that_nobody_has_or_gives_changes_nothing():
    labels = np.array([0, 0, 3, 3, 4])
    found = metrics.evaluate(np.eye(5)[[0, 3, 3, 4, 4]], labels, ORDINAL)
    # Without labels= scikit-learn would take 0 and 3 for neighbours.
    expected = cohen_kappa_score(labels, [0, 3, 3, 4, 4], labels=range(5), weights="quadratic")
    assert_allclose(found["kappa"], expected)


def test_the_expected_grade_by_eye():
    scores = np.array([
        [0.6, 0.0, 0.4],  # most likely 0, expected 0.8
        [0.5, 0.5, 0.0],  # a half is rounded up
        [0.1, 0.7, 0.2],
        [0.0, 0.0, 1.0],
        [0.2, 0.1, 0.2],  # rows need not sum to 1
        [0.0, 0.0, 0.0],
    ])  # fmt: skip
    assert expected_grades(scores).tolist() == [1, 1, 1, 2, 1, 0]


def test_a_half_is_a_half_whatever_rounding_says():
    # Twenty neighbours, one vote each: 0.05 * k isn't exact in binary.
    votes = np.array([[10, 10, 0], [7, 8, 5], [5, 0, 15], [15, 0, 5], [13, 4, 3]])
    doubled = votes @ [0, 1, 2]
    expected = np.floor((2 * doubled + 20) / 40).astype(int)
    assert expected_grades(votes * 0.05).tolist() == expected.tolist()
    assert expected_grades((votes / 20).astype(np.float32)).tolist() == expected.tolist()


def test_perfect_chance_and_undefined():
    labels = np.array([0, 1, 2, 0, 1, 2])
    assert metrics.evaluate(np.eye(3)[labels], labels, ORDINAL)["kappa"] == 1
    always = np.eye(3)[np.ones(6, int)]
    assert metrics.evaluate(always, labels, ORDINAL)["kappa"] == 0
    # All labels and all answers are one grade: neither right nor wrong by more than chance.
    assert np.isnan(metrics.evaluate(always, np.ones(6, int), ORDINAL)["kappa"])


def test_margins_have_a_kappa_but_no_expected_grade():
    scores, labels = answers()
    found = metrics.evaluate(scores * 10 - 5, labels, ORDINAL, MARGIN)
    assert found["kappa"] == metrics.evaluate(scores, labels, ORDINAL)["kappa"]
    assert "kappa_expected" not in found


def test_moments_take_leading_axes():
    scores, labels = answers()
    moments = grades.sample_moments(scores.argmax(axis=1), labels)
    weights = np.random.default_rng(0).integers(0, 3, (4, len(labels)))
    found = grades.kappa_of(weights @ moments)
    for row, kappa in some(zip(weights, found, strict=True)):
        rows = np.repeat(np.arange(len(labels)), row)
        truth, given = labels[rows], scores.argmax(axis=1)[rows]
        assert_allclose(kappa, cohen_kappa_score(truth, given, weights="quadratic"))
