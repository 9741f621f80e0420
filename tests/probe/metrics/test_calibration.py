"""Calibration against slow, obvious versions, and against what temperatures are for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL
from probe.kinds.knn import Knn
from probe.metrics import calibration
from probe.metrics import classification as metrics
from probe.metrics.calibration import COLDEST, HOTTEST, Votes, fit_temperature, temper
from probe.solvers import knn


def answers(n=500, n_classes=4, seed=0, sharpness=1.0):
    """Probabilities that are true of their labels, then made too sure (or not sure enough)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, n_classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    sharp = true**sharpness
    return sharp / sharp.sum(axis=1, keepdims=True), labels


def obvious_error(probabilities, labels):
    """Guo et al.'s equation 3, bin by bin."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    edges = np.linspace(0, 1, 16)
    confidence = confidence.round(7)  # one that is on an edge, but for float32
    for low, high in zip(edges[:-1].round(7), edges[1:].round(7), strict=True):
        here = (confidence > low) & (confidence <= high)
        if here.any():
            error += here.mean() * abs(right[here].mean() - probabilities.max(axis=1)[here].mean())
    return error


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_error_equals_the_obvious_one(decimals):
    probabilities, labels = answers()
    probabilities = probabilities.round(decimals)  # on the edges of bins, too
    found = metrics.evaluate(probabilities, labels, MULTI_CLASS)["ece"]
    assert_allclose(found, obvious_error(probabilities, labels), rtol=1e-12)


def test_error_by_eye():
    # Eight of ten are right, and all were answered with 95 %: 0.15 too sure. The bins differ.
    p = np.full(10, 0.95)
    p[:5] = 0.94
    labels = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    found = metrics.evaluate(np.stack([1 - p, p], axis=1), labels, BINARY)
    assert_allclose(found["ece"], 0.145)
    assert_allclose(found["brier"], 2 * np.mean((p - labels) ** 2))


def test_several_labels_are_measured_where_they_are_known():
    rng = np.random.default_rng(0)
    scores = rng.random((80, 2)).round(2)
    labels = (rng.random((80, 2)) < scores).astype(int)
    labels[30:, 1] = MISSING
    found = metrics.evaluate(scores, labels, MULTI_LABEL)
    known = [slice(None), slice(30)]
    alone = [
        (np.stack([1 - scores[rows, c], scores[rows, c]], axis=1), labels[rows, c])
        for c, rows in enumerate(known)
    ]
    assert_allclose(found["ece"], np.mean([obvious_error(*a) for a in alone]), rtol=1e-12)
    brier = [2 * np.mean((p[:, 1] - y) ** 2) for p, y in alone]
    assert_allclose(found["brier"], np.mean(brier), rtol=1e-12)


def test_float16_and_rounding_stay_in_the_last_bin():
    probabilities = np.array([[1.0005, 0.0], [0.0, 1.0]], np.float16)
    assert metrics.evaluate(probabilities, np.array([0, 1]), BINARY)["ece"] == 0


# ---------------------------------------------------------------------------- votes


@pytest.mark.parametrize("rule", ["weighted", "majority"])
def test_one_vote_more_has_the_mean_weight_and_is_shared_as_the_bank_is(rule):
    rng = np.random.default_rng(0)
    bank, labels = rng.normal(size=(40, 6)), rng.choice(3, 40, p=[0.6, 0.3, 0.1])
    config = Knn(k=(7,), vote=rule)
    queries = rng.normal(size=(9, 6))
    scores = knn.scores(config, bank, labels, queries, MULTI_CLASS, 4)[7]
    near, place = knn.neighbours(bank, queries, 7)
    shares = np.bincount(labels, minlength=4) / 40
    found = Votes(7, shares).smooth(scores)
    for q, weights in enumerate(knn.weigh(near, rule)[:, :7]):
        votes = np.array([weights[labels[place[q, :7]] == c].sum() for c in range(4)])
        more = weights.mean()
        assert_allclose(found[q], (votes + shares * more) / (weights.sum() + more), rtol=1e-6)
    assert (found[:, 3] == 0).all()  # nobody in the bank


def test_a_unanimous_mistake_moves_the_temperature_of_votes_little():
    """By clipping at 2e-16 it went from 1.1 to 3.4."""
    scores, labels = np.full((78, 2), (0.1, 0.9)), np.ones(78, int)
    labels[:10] = 0  # 87 % are right where 90 % are said
    votes = Votes(10, np.array([0.27, 0.73]))
    before = metrics.fit_temperature(scores, labels, BINARY, votes=votes)
    scores[10] = (1.0, 0.0)
    assert metrics.fit_temperature(scores, labels, BINARY) is None
    after = metrics.fit_temperature(scores, labels, BINARY, votes=votes)
    assert_allclose([before, after], 1, atol=0.25)
    found = metrics.evaluate(scores, labels, BINARY, temperature=2.0, votes=votes)
    smooth = metrics.evaluate(votes.smooth(scores), labels, BINARY, temperature=2.0)
    assert found["ece_tempered"] == smooth["ece_tempered"] != smooth["ece"] != found["ece"]


# ---------------------------------------------------------------------------- temperature


def log_loss(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("sharpness", [0.3, 4.0])
def test_temperature_has_the_smallest_log_loss(sharpness):
    probabilities, labels = answers(sharpness=sharpness)
    found = fit_temperature(probabilities, labels)
    near = [log_loss(temper(probabilities, found * f), labels) for f in (0.999, 1, 1.001)]
    assert near[1] == min(near)
    grid = np.geomspace(0.1, HOTTEST, 2000)
    losses = [log_loss(temper(probabilities, t), labels) for t in grid]
    assert_allclose(found, grid[np.argmin(losses)], rtol=5e-3)
    assert_allclose(found, sharpness, rtol=0.2)  # the probabilities were true before


def test_what_lowers_no_log_loss_out_of_fold_is_not_taken():
    probabilities, labels = answers(
        60, seed=1
    )  # true of their labels: what is left to fit is chance
    assert fit_temperature(probabilities, labels) == 1
    fold = np.arange(60) % 5
    tempered, plain = [], []
    for part in range(5):
        held, rest = fold == part, fold != part
        grid = np.geomspace(0.2, 5, 1000)
        losses = [log_loss(temper(probabilities[rest], t), labels[rest]) for t in grid]
        best = temper(probabilities[held], grid[np.argmin(losses)])
        tempered.append(log_loss(best, labels[held]))
        plain.append(log_loss(probabilities[held], labels[held]))
    assert np.mean(tempered) > np.mean(plain)
    # Folds are the caller's where samples belong together; one alone proves nothing.
    sharp, labels = answers(sharpness=4.0)
    assert fit_temperature(sharp, labels, np.zeros(500, int)) == 1
    assert fit_temperature(sharp, labels, np.arange(500) // 250) == fit_temperature(sharp, labels)


def test_tempering_mends_what_is_too_sure():
    val, test = answers(seed=1, sharpness=4.0), answers(seed=2, sharpness=4.0)
    t = metrics.fit_temperature(*val, MULTI_CLASS)
    found = metrics.evaluate(*test, MULTI_CLASS, temperature=t)
    assert found["ece_tempered"] < 0.5 * found["ece"]
    assert_allclose(found["ece_tempered"], obvious_error(temper(test[0], t), test[1]), rtol=1e-12)
    # No decision changes, and no order within a sample.
    assert (temper(test[0], t).argmax(axis=1) == test[0].argmax(axis=1)).all()


def test_one_temperature_for_all_labels():
    probabilities, labels = answers(n_classes=2, sharpness=3.0)
    p = probabilities[:, 1].reshape(-1, 2)
    y = labels.reshape(-1, 2)
    expected = fit_temperature(probabilities, labels)
    assert_allclose(metrics.fit_temperature(p, y, MULTI_LABEL), expected)
    half = np.where(np.arange(len(y))[:, None] < 100, y, MISSING)
    expected = fit_temperature(probabilities[:200], labels[:200])
    assert_allclose(metrics.fit_temperature(p, half, MULTI_LABEL), expected)


def test_without_a_wrong_answer_the_temperature_ends_its_range():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    found = fit_temperature(probabilities, np.array([0, 1]))
    assert COLDEST <= found < 0.05
    assert_allclose(temper(probabilities, found), np.eye(2), atol=1e-12)
    assert_allclose(fit_temperature(probabilities, np.array([1, 0])), HOTTEST, rtol=1e-3)


def test_equal_probabilities_have_no_temperature():
    assert fit_temperature(np.full((6, 3), 1 / 3), np.arange(6) % 3) == 1


def test_exact_zeros_and_no_information():
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert fit_temperature(sure, np.array([0, 1, 1])) is None  # nothing makes a 0 likelier
    assert fit_temperature(sure, np.array([0, 1, 0])) == 1
    third = np.array([[0.6, 0.4, 0.0]])
    assert_allclose(temper(third, HOTTEST), [[0.501, 0.499, 0.0]], atol=1e-3)
    assert_allclose(temper(np.array([[1e-200, 1.0]]), 100.0)[0, 0], 0.01 / 1.01, rtol=1e-9)
    assert fit_temperature(np.full((4, 2), 0.5), np.array([0, 1, 1, 0])) > 0
    assert np.isfinite(temper(np.zeros((1, 3)), 2.0)).all()


def test_sums_take_leading_axes():
    probabilities, labels = answers(60)
    for sums, value in (
        (calibration.squares(probabilities, labels).sum(axis=0), calibration.brier_of),
        (calibration.gap_sums(probabilities, labels), calibration.calibration_error_of),
    ):
        found = value(np.stack([sums, 2 * sums]))
        assert found.shape == (2,)
        assert found[0] == found[1] > 0
