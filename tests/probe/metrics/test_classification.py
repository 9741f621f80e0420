"""Metrics against scikit-learn, MedMNIST's rules, and numbers that can be checked by eye."""

from typing import Any

import numpy as np
import pytest
from looking import some
from measuring import EVERY, metric_names
from numpy.testing import assert_allclose
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from cache.errors import RequestError
from cache.task import BINARY, CLASSIFICATION, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, Task
from probe.metrics import classification as metrics
from probe.metrics.classification import MARGIN
from probe.metrics.counts import balanced_accuracy_of, f1_macro_of
from probe.metrics.measure import per_class

ZERO: Any = 0  # scikit-learn's inferred type of zero_division is str
N_CLASSES = {MULTI_CLASS: 5, BINARY: 2, MULTI_LABEL: 4, ORDINAL: 3}


def answers(task, n=200, seed=0, decimals=1):
    """Random probabilities with many ties, and labels that agree with them now and then."""
    rng = np.random.default_rng(seed)
    n_classes = N_CLASSES[task]
    if task == MULTI_LABEL:
        scores = rng.random((n, n_classes)).round(decimals)
        return scores, (scores + rng.normal(0, 0.5, scores.shape) > 0.6).astype(int)
    logits = rng.normal(0, 1.5, (n, n_classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.round(decimals), (logits + rng.normal(0, 1.5, logits.shape)).argmax(axis=1)


def expected(scores, labels, task):
    """The same four numbers by scikit-learn, as MedMNIST's evaluator calls it."""
    if task == MULTI_LABEL:
        columns = range(scores.shape[1])
        predicted = (scores > 0.5).astype(int)
        return {
            "acc": np.mean([accuracy_score(labels[:, c], predicted[:, c]) for c in columns]),
            "auc": np.mean([roc_auc_score(labels[:, c], scores[:, c]) for c in columns]),
            "balanced_accuracy": np.mean(
                [balanced_accuracy_score(labels[:, c], predicted[:, c]) for c in columns]
            ),
            "f1_macro": f1_score(labels, predicted, average="macro", zero_division=ZERO),
        }
    if task == BINARY:
        predicted = (scores[:, -1] > 0.5).astype(int)
        area = roc_auc_score(labels, scores[:, -1])
    else:
        predicted = scores.argmax(axis=1)
        columns = range(scores.shape[1])
        area = np.mean([roc_auc_score(labels == c, scores[:, c]) for c in columns])
    return {
        "acc": accuracy_score(labels, predicted),
        "auc": area,
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "f1_macro": f1_score(labels, predicted, average="macro"),
    }


@pytest.mark.parametrize("task", CLASSIFICATION)
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(task, seed):
    scores, labels = answers(task, seed=seed)
    found = metrics.evaluate(scores, labels, task)
    assert tuple(found) == metric_names(task)
    wanted = expected(scores, labels, task)
    assert tuple(wanted) == EVERY
    assert_allclose([found[name] for name in wanted], list(wanted.values()), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_scikit_learn(seed):
    scores, labels = answers(MULTI_LABEL, seed=seed)
    found = metrics.evaluate(scores, labels, MULTI_LABEL)["average_precision"]
    assert_allclose(found, average_precision_score(labels, scores, average="macro"), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_brier_equals_scikit_learn(seed):
    scores, labels = answers(MULTI_CLASS, seed=seed, decimals=9)
    scores /= scores.sum(axis=1, keepdims=True)
    found = metrics.evaluate(scores, labels, MULTI_CLASS)["brier"]
    assert_allclose(found, brier_score_loss(labels, scores), rtol=1e-12)
    two = np.stack([1 - scores[:, 0], scores[:, 0]], axis=1)
    found = metrics.evaluate(two, (labels == 0).astype(int), BINARY)["brier"]
    expected = brier_score_loss(labels == 0, scores[:, 0], scale_by_half=False)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("score_type", ["probability", MARGIN])
def test_one_of_several_labels_alone_is_a_binary_task(score_type):
    """What the multi-label task means is what a binary task means, label by label."""
    scores, labels = answers(MULTI_LABEL)

    def two(s):
        return np.stack([1 - s, s] if score_type == "probability" else [-s, s], axis=1)

    if score_type == MARGIN:
        scores = scores * 8 - 4
    together = metrics.evaluate(scores, labels, MULTI_LABEL, score_type)
    alone = [
        metrics.evaluate(two(scores[:, c]), labels[:, c], BINARY, score_type) for c in range(4)
    ]
    for name in some(alone[0]):
        if name != "f1_macro":  # of the value one alone, as scikit-learn has it
            assert_allclose(together[name], np.mean([a[name] for a in alone]), rtol=1e-12)


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_one_by_one_equals_all_at_once(task):
    scores, labels = answers(task, seed=7)
    found = metrics.evaluate(scores, labels, task)
    assert {name: found[name] for name in ("acc", "auc")} == {
        "acc": metrics.accuracy(scores, labels, task),
        "auc": metrics.auc(scores, labels, task),
    }


def test_by_eye_binary():
    positive = np.array([0.9, 0.5, 0.6, 0.5])
    scores = np.stack([1 - positive, positive], axis=1)
    found = metrics.evaluate(scores, np.array([1, 1, 0, 0]), BINARY)
    # 0.5 isn't above 0.5: the answers are 1, 0, 1, 0. Of the four pairs of a positive and a
    # negative, two are in order, one is reversed and one ties.
    assert found["acc"] == 0.5
    assert found["auc"] == 2.5 / 4


def test_half_is_no_positive_label():
    scores = np.array([[0.5, 0.51], [0.0, 1.0]])
    assert metrics.predict(scores, MULTI_LABEL).tolist() == [[0, 1], [0, 1]]


def test_smallest_class_wins_a_tie():
    assert metrics.predict(np.array([[0.2, 0.4, 0.4]]), MULTI_CLASS).tolist() == [1]


def test_absent_classes_as_in_scikit_learn():
    # Class 1 occurs nowhere; class 3 is predicted but never labelled.
    labels, predicted = np.array([0, 0, 2, 2]), np.array([0, 3, 2, 2])
    sums = metrics.indicators(np.eye(4)[predicted], labels, MULTI_CLASS).sum(axis=0)
    assert balanced_accuracy_of(sums, MULTI_CLASS) == 0.75
    assert_allclose(f1_macro_of(sums, MULTI_CLASS), f1_score(labels, predicted, average="macro"))


def test_auc_is_nan_where_a_class_is_absent():
    scores, labels = answers(MULTI_CLASS)
    found = metrics.evaluate(scores, np.where(labels == 4, 0, labels), MULTI_CLASS)
    assert np.isnan(found["auc"])
    assert np.isfinite([found["acc"], found["balanced_accuracy"], found["f1_macro"]]).all()


def test_a_label_never_seen_nor_predicted_counts_zero():
    scores, labels = np.array([[0.9, 0.1], [0.2, 0.1]]), np.array([[1, 0], [0, 0]])
    assert metrics.evaluate(scores, labels, MULTI_LABEL)["f1_macro"] == 0.5


def test_float16_scores_keep_their_order():
    scores, labels = answers(MULTI_CLASS, decimals=6)
    half = scores.astype(np.float16)
    assert metrics.auc(half, labels, MULTI_CLASS) == metrics.auc(
        half.astype(np.float64), labels, MULTI_CLASS
    )


def test_larger_class_rate():
    assert metrics.larger_class_rate(np.array([0, 2, 2, 1]), MULTI_CLASS) == 0.5
    assert metrics.larger_class_rate(np.array([0, 1, 0, 0]), BINARY) == 0.75
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    assert metrics.larger_class_rate(labels, MULTI_LABEL) == 0.75


@pytest.mark.parametrize(
    ("scores", "labels", "task", "message"),
    [
        (np.eye(2), [0, 1], "regression", 'unknown task "regression".*"multi-class"'),
        (np.ones(2), [0, 1], MULTI_CLASS, r"shape \(N, C\), found \(2,\)"),
        (np.eye(3), [0, 1], MULTI_CLASS, "3 rows of scores and 2 of labels"),
        (np.empty((0, 2)), [], MULTI_CLASS, "0 rows of scores"),
        (np.eye(3), [0, 1, 2], BINARY, "2 classes, found 3"),
        (np.eye(2), [[0], [1]], MULTI_CLASS, r"shape \(N,\), found \(2, 1\)"),
        (np.eye(2), [0, 1], MULTI_LABEL, r"shape \(N, 2\)"),
        (np.eye(2), [0, 2], MULTI_CLASS, r"0\.\.1, found 0\.\.2"),
        (np.eye(2), [-1, 0], MULTI_CLASS, r"found -1\.\.0"),
        (np.eye(2), [[0, 2], [1, 1]], MULTI_LABEL, r"-1 where unknown, found 0\.\.2"),
        (np.eye(2), [0.0, 1.0], MULTI_CLASS, "whole numbers, found float64"),
        ([[0.5, np.nan], [0, 1]], [0, 1], MULTI_CLASS, "found nan in row 0, column 1"),
        ([[-3.0, 2.0], [0, 1]], [0, 1], MULTI_CLASS, "softmax or a sigmoid"),
    ],
)
def test_refusals(scores, labels, task, message):
    with pytest.raises(RequestError, match=message):
        metrics.evaluate(np.asarray(scores), np.asarray(labels), task)


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_margins_are_decided_at_zero(task):
    """A monotone map of a binary probability that takes 1/2 to 0 changes no decision, no rank."""
    rng = np.random.default_rng(0)
    scores, labels = answers(task, decimals=6)
    margins = rng.normal(0, 3, scores.shape).round(1)
    if task == BINARY:
        margins[:, 0] = -margins[:, 1]
    found = metrics.evaluate(margins, labels, task, MARGIN)
    squashed = 1 / (1 + np.exp(-margins))  # 0 becomes exactly 0.5
    same = metrics.evaluate(squashed, labels, task)
    assert found == {name: same[name] for name in found}
    assert set(same) - set(found) <= {"brier", "ece", "acc_expected", "kappa_expected"}
    assert {"brier", "ece"} <= set(same) - set(found)


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_per_class_equals_scikit_learn(task):
    scores, labels = answers(task)
    names = [f"class {c}" for c in range(scores.shape[1])]
    found = per_class(scores, labels, Task(task, tuple(names)))
    assert found["class"] == names
    several = task == MULTI_LABEL
    truth = labels if several else np.eye(len(names), dtype=int)[labels]
    predicted = metrics.predict(scores, task)
    assert found["n"] == truth.sum(axis=0).tolist()
    assert_allclose(found["recall"], recall_score(labels, predicted, average=None))
    columns = range(len(names))
    assert_allclose(found["auc"], [roc_auc_score(truth[:, c], scores[:, c]) for c in columns])
    assert ("average_precision" in found) == several
    if several:
        expected = average_precision_score(labels, scores, average=None)
        assert_allclose(found["average_precision"], expected)
    assert np.mean(found["auc"]) == pytest.approx(metrics.auc(scores, labels, task), abs=2e-2)


def test_a_class_that_is_absent_has_no_numbers():
    labels = np.array([0, 0, 2, 2])
    found = per_class(np.eye(3)[[0, 1, 2, 2]], labels, Task(MULTI_CLASS, ("a", "b", "c")))
    assert found["n"] == [2, 0, 2]
    assert_allclose(found["recall"], [0.5, np.nan, 1])
    assert_allclose(found["auc"], [0.75, np.nan, 1])
    missing = np.array([[1, MISSING], [0, MISSING], [MISSING, 1]])
    found = per_class(np.full((3, 2), 0.9), missing, Task(MULTI_LABEL, ("a", "b")))
    assert (found["n"], found["recall"]) == ([1, 1], [1, 1])
    assert_allclose(found["auc"], [0.5, np.nan])
    assert_allclose(found["average_precision"], [0.5, 1])


def test_an_unknown_score_type_is_refused():
    with pytest.raises(RequestError, match="one of probability, margin, unnormalised"):
        metrics.evaluate(np.eye(2), np.array([0, 1]), BINARY, "logit")


def test_no_labels_have_no_larger_class():
    with pytest.raises(RequestError, match="found none"):
        metrics.larger_class_rate(np.empty(0, dtype=int), MULTI_CLASS)
