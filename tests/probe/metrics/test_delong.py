"""DeLong's interval against the paper's own formula, and against what an interval is for."""

from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL
from probe.metrics import classification as metrics
from probe.metrics.delong import delong, deviations
from probe.metrics.jackknife import wilson
from probe.metrics.ranking import Ranking


def two_columns(p):
    return np.stack([1 - p, p], axis=1)


def placements(positives, negatives):
    """Every pair, as DeLong et al. write it: psi is 1, a half or 0."""
    psi = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    return psi.mean(axis=1), psi.mean(axis=0)


def answers(n=60, n_columns=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_columns)) < 0.3).astype(int)
    scores = (rng.random((n, n_columns)) + 0.3 * labels).round(1) / 2
    return scores, labels


def test_one_column_equals_the_papers_formula():
    scores, labels = answers()
    s, y = scores[:, 0], labels[:, 0]
    v10, v01 = placements(s[y == 1], s[y == 0])
    variance = v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)
    value, moved, unseen = deviations(Ranking(s, y == 1, y == 0))
    assert (value, unseen) == (pytest.approx(v10.mean(), abs=1e-12), 0)
    assert_allclose((moved**2).sum(), variance, rtol=1e-12)
    # On the logit scale, by hand.
    half = 1.959963984540054 * np.sqrt(variance) / (value * (1 - value))
    ends = np.log(value / (1 - value)) + np.array([-half, half])
    assert_allclose(delong(two_columns(s), y, BINARY), 1 / (1 + np.exp(-ends)), rtol=1e-12)


def test_columns_with_the_same_positives_have_the_papers_covariance():
    scores, labels = answers()
    y = labels[:, 0]
    v10, v01 = zip(*(placements(scores[y == 1, c], scores[y == 0, c]) for c in (0, 1)), strict=True)
    expected = np.cov(v10) / y.sum() + np.cov(v01) / (1 - y).sum()
    moved = np.stack([deviations(Ranking(scores[:, c], y == 1, y == 0))[1] for c in (0, 1)])
    assert_allclose(moved @ moved.T, expected, rtol=1e-12)


def test_a_mean_over_equal_columns_is_as_uncertain_as_one():
    scores, labels = answers()
    one = delong(two_columns(scores[:, 0]), labels[:, 0], BINARY)
    thrice = delong(scores[:, [0, 0, 0]], labels[:, [0, 0, 0]], MULTI_LABEL)
    assert_allclose(thrice, one, rtol=1e-12)
    # Two classes against each other are one problem seen twice.
    assert_allclose(delong(two_columns(scores[:, 0]), labels[:, 0], MULTI_CLASS), one, rtol=1e-12)


def test_independent_columns_are_less_uncertain_together():
    scores, labels = answers(n=4000)
    widths = [np.ptp(delong(two_columns(scores[:, c]), labels[:, c], BINARY)) for c in range(3)]
    together = np.ptp(delong(scores, labels, MULTI_LABEL))
    assert_allclose(together, np.mean(widths) / np.sqrt(3), rtol=0.05)


def test_missing_labels_are_as_if_their_samples_were_not_there():
    scores, labels = answers(n_columns=1)
    longer = np.vstack([scores, scores[:7]])
    missing = np.vstack([labels, np.full((7, 1), MISSING)])
    assert_allclose(delong(longer, missing, MULTI_LABEL), delong(scores, labels, MULTI_LABEL))


def coverage(area, n_sets, n=156, share=0.27):
    rng = np.random.default_rng(0)
    shift = NormalDist().inv_cdf(area) * np.sqrt(2)
    held = 0
    for _ in range(n_sets):
        labels = (rng.random(n) < share).astype(int)
        z = rng.normal(size=n) + shift * labels
        low, high = delong(two_columns(1 / (1 + np.exp(-z))), labels, BINARY)
        held += low <= area <= high
    return held / n_sets


@pytest.mark.parametrize("area", [0.7, 0.85, 0.95])
def test_the_truth_is_held_as_often_as_promised(area):
    # 156 samples, 27 % positives: BreastMNIST's test split. 1500 sets: two errors are 0.011.
    assert 0.93 <= coverage(area, 1500) <= 0.97


def test_of_several_classes_too():
    rng = np.random.default_rng(0)

    def draw(n):
        labels = rng.choice(3, n, p=[0.6, 0.25, 0.15])
        logits = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels

    truth = metrics.auc(*draw(300_000), MULTI_CLASS)
    ends = np.array([delong(*draw(200), MULTI_CLASS) for _ in range(800)])
    assert 0.92 <= np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) <= 0.975


# ---------------------------------------------------------------------------- where nothing scatters


def test_a_perfect_auc_is_one_sided():
    p = np.array([0.1] * 30 + [0.9] * 12)
    labels = np.array([0] * 30 + [1] * 12)
    low, high = delong(two_columns(p), labels, BINARY)
    assert (low, high) == (pytest.approx(0.05 ** (1 / 12)), 1.0)
    # At the lower end, that all twelve pairs are in order happens one time in twenty.
    assert low**12 == pytest.approx(0.05)
    low, high = delong(two_columns(1 - p), labels, BINARY)
    assert (low, high) == (0.0, pytest.approx(1 - 0.05 ** (1 / 12)))
    low, _ = delong(
        np.eye(3)[[0] * 20 + [1] * 9 + [2] * 3], np.repeat([0, 1, 2], [20, 9, 3]), MULTI_CLASS
    )
    assert low == pytest.approx(np.mean([0.05 ** (1 / k) for k in (12, 9, 3)]))


def test_where_nothing_scatters_nothing_is_certain():
    labels = np.arange(40) % 2
    low, high = delong(np.full((40, 2), 0.5), labels, BINARY)
    assert_allclose([low, high], wilson(0.5, 20))
    # One column of three is never scored, the others are perfect: it was [.833, .833].
    labels = np.repeat([0, 1, 2], 10)
    scores = np.stack([(labels == c) + 0.5 * (labels == 2) for c in (0, 1)] + [0 * labels], axis=1)
    low, high = delong(scores, labels, MULTI_CLASS)
    assert 0.6 < low < 0.75 < 5 / 6 < 0.9 < high < 0.95
    # Each column scatters, their mean doesn't.
    wrong = np.roll(np.eye(3)[labels], 1, axis=1)
    low, high = delong(wrong, labels, MULTI_CLASS)
    assert 0.05 < low < 0.2 < metrics.auc(wrong, labels, MULTI_CLASS) < 0.4 < high < 0.6


def test_a_perfect_column_widens_the_mean():
    scores, labels = answers()
    perfect = labels[:, 0] * 0.6 + 0.2
    alone = delong(two_columns(scores[:, 0]), labels[:, 0], BINARY)
    both = np.stack([scores[:, 0], perfect], axis=1)
    low, high = delong(both, labels[:, [0, 0]], MULTI_LABEL)
    value, moved, _ = deviations(Ranking(scores[:, 0], labels[:, 0] == 1, labels[:, 0] == 0))
    mean, certain = (value + 1) / 2, np.sqrt((moved**2).sum()) / 2
    half = 1.96 * certain / (mean * (1 - mean))
    narrow = 1 / (1 + np.exp(-np.log(mean / (1 - mean)) + np.array([half, -half])))
    assert low < narrow[0] < narrow[1] < high
    assert alone[0] < low


def test_a_perfect_column_beside_one_that_is_nearly_so():
    # One of 20,000 pairs of one class is out of order: by a logit's slope it is .99998 [.000, 1].
    labels = np.repeat([0, 1, 2], 100)
    scores = np.eye(3)[labels] * 0.6 + 0.2
    scores[99], scores[100] = (0.3, 0.5, 0.2), (0.2, 0.4, 0.4)
    value = metrics.auc(scores, labels, MULTI_CLASS)
    low, high = delong(scores, labels, MULTI_CLASS)
    assert 0.95 < low < 0.99 < value < high <= 1


def test_one_positive_has_a_wide_interval_not_none():
    p = np.linspace(0, 1, 40)
    labels = np.zeros(40, int)
    labels[30] = 1
    value = metrics.auc(two_columns(p), labels, BINARY)
    low, high = delong(two_columns(p), labels, BINARY)
    assert low < 0.2 < value < high < 1
    many = np.repeat(p, 2), np.repeat(labels, 2)
    narrower = delong(two_columns(many[0]), many[1], BINARY)
    assert low < narrower[0] < narrower[1] < high or narrower[0] > low


def test_an_absent_class_has_no_interval():
    assert np.isnan(delong(np.full((4, 2), 0.5), np.zeros(4, int), BINARY)).all()
