"""What a row says of an answer: every metric, its interval's method, and the marks."""

import numpy as np
import pytest
from measuring import metric_names, scored

from cache.task import (
    BINARY,
    CLASSIFICATION,
    MISSING,
    MULTI_CLASS,
    MULTI_LABEL,
    ORDINAL,
    REGRESSION,
    Task,
)
from probe.metrics.classification import MARGIN
from probe.metrics.intervals import DELONG, NONE, WILSON
from probe.metrics.marks import never_learnt
from probe.metrics.measure import measure

NAMES = ("mild", "moderate", "severe", "none")


def answers(task, n=80, seed=0):
    rng = np.random.default_rng(seed)
    n_classes = 2 if task == BINARY else 4
    if task == MULTI_LABEL:
        scores = rng.random((n, 4))
        return scores, (rng.random((n, 4)) < scores).astype(int)
    labels = np.arange(n) % n_classes
    logits = rng.normal(size=(n, n_classes)) + np.eye(n_classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def ask(task, val, test, groups=None, **settings):
    names = NAMES[:2] if task == BINARY else NAMES
    answered = {"val": scored(*val), "test": scored(*test, groups)}
    return measure(answered, Task(task, names), **settings)


def nothing(task):
    return tuple(a[:0] for a in answers(task))


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_every_metric_is_there(task):
    found = ask(task, answers(task, 50, seed=1), answers(task))
    assert tuple(found.val) == metric_names(task)
    assert tuple(found.test) == tuple(found.intervals) == metric_names(task, tempered=True)
    assert found.temperature is not None
    assert found.per_class["class"] == [*(NAMES[:2] if task == BINARY else NAMES)]
    assert found.marks == []


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_margins_have_no_calibration(task):
    val, test = ((4 * s - 2, y) for s, y in (answers(task, 50, seed=1), answers(task)))
    found = ask(task, val, test, score_type=MARGIN)
    assert found.marks == ["scores are margins, no probabilities"]
    assert found.temperature is None
    assert tuple(found.val) == tuple(found.test) == metric_names(task, MARGIN)
    assert not {"brier", "ece", "ece_tempered", "acc_expected"} & set(found.test)
    assert found.intervals["auc"] == DELONG
    assert (found.intervals["acc"] == WILSON) == (task != MULTI_LABEL)


def test_without_val_there_is_no_temperature():
    found = ask(MULTI_CLASS, nothing(MULTI_CLASS), answers(MULTI_CLASS))
    assert (found.val, found.temperature) == ({}, None)
    assert tuple(found.test) == metric_names(MULTI_CLASS)


def test_val_alone_has_no_intervals():
    found = ask(ORDINAL, answers(ORDINAL), nothing(ORDINAL))
    assert (found.test, found.intervals, found.per_class) == ({}, {}, {})
    assert set(found.val) == set(metric_names(ORDINAL))


def test_an_absent_class_is_named():
    scores, labels = answers(MULTI_CLASS)
    here = np.isin(labels, [0, 2])
    found = ask(MULTI_CLASS, answers(MULTI_CLASS), (scores[here], labels[here]))
    assert found.marks == [
        "no interval of balanced_accuracy, f1_macro: class moderate has 0 samples",
        "no AUC on test: none there is of class moderate, none",
    ]
    assert np.isnan(found.test["auc"]).all()
    assert found.intervals["auc"] == NONE
    assert found.per_class["auc"][0] > 0.5
    assert np.isnan(found.per_class["auc"][1])
    only_one = np.zeros(40, int)
    found = ask(MULTI_CLASS, (scores[:40], only_one), answers(MULTI_CLASS))
    assert found.marks == ["no AUC on val: none there is of class moderate, severe, none"]


def test_a_label_of_which_nothing_is_known_in_val_leaves_a_temperature():
    scores, labels = answers(MULTI_LABEL)
    partly = np.where(np.arange(4) == 2, MISSING, labels)
    found = ask(MULTI_LABEL, (scores, partly), answers(MULTI_LABEL, seed=1))
    assert found.marks == ["no numbers on val: nothing is known there of severe"]
    assert found.temperature is not None
    unknown = np.full_like(labels, MISSING)
    assert ask(MULTI_LABEL, (scores, unknown), answers(MULTI_LABEL, seed=1)).temperature is None


def test_a_class_that_nothing_was_learnt_of_leaves_no_temperature():
    (scores, labels), test = answers(MULTI_CLASS), answers(MULTI_CLASS, seed=1)
    train = np.array([0, 1, 1, 3])
    found = ask(MULTI_CLASS, (scores, labels), test, learnt=train)
    assert found.temperature is None
    assert found.marks == ["no temperature: val has class severe that training images lack"]
    assert tuple(found.test) == metric_names(MULTI_CLASS)
    here = labels != 2
    without = ask(MULTI_CLASS, (scores[here], labels[here]), test, learnt=train)
    assert without.temperature is not None
    zeros = np.where(np.arange(4) == 2, 0, scores)
    found = ask(MULTI_CLASS, (zeros, labels), test)
    assert "no temperature: the truth of a val sample has the probability 0" in found.marks
    assert never_learnt(train, Task(MULTI_CLASS, NAMES)) == [
        "no training image is of class severe: nothing was learnt of it"
    ]
    several = np.array([[0, 1, 1, MISSING], [1, 1, 0, 0]])
    assert never_learnt(several, Task(MULTI_LABEL, NAMES)) == [
        "all training images have one value of moderate, none: nothing was learnt of it"
    ]
    assert never_learnt(np.array([0, 1, 2, 3]), Task(ORDINAL, NAMES)) == []


def test_few_patients_are_marked():
    labels = np.arange(40) % 2
    scores = np.eye(2)[labels] * 0.8 + 0.1
    scores[::7] = scores[::7, ::-1]
    labels[8:] = 0  # two patients of five have both
    groups = (np.arange(40) // 4).astype(str)
    found = ask(BINARY, nothing(BINARY), (scores, labels), groups=groups)
    assert found.marks == [
        "intervals of auc, balanced_accuracy, f1_macro by counts alone: class moderate has 2 patients"
    ]
    labels[4:] = 0
    found = ask(BINARY, nothing(BINARY), (scores, labels), groups=groups)
    assert found.marks == [
        "no interval of auc, balanced_accuracy, f1_macro: class moderate has 1 patient"
    ]
    alone = ask(BINARY, nothing(BINARY), (scores, labels), groups=np.full(40, "she"))
    assert alone.marks == [
        "no interval of acc, brier: test has 1 patient",
        "no interval of auc, balanced_accuracy, f1_macro: class mild has 1 patient",
    ]


def test_few_samples_of_continuous_labels_are_marked():
    labels = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    predictions = (labels + 0.1)[:, None] * np.array([[1.0], [0.9], [1.1], [1.0], [1.02]])
    found = ask(REGRESSION, (predictions[:0], labels[:0]), (predictions[:4], labels[:4]))
    assert found.marks == ["no interval of mae, rmse, r2, pearson: test has 4 samples"]
    assert ask(REGRESSION, (predictions[:0], labels[:0]), (predictions, labels)).marks == []
    found = ask(REGRESSION, (predictions[:0], labels[:0]), (labels[:, None], labels))
    assert found.marks == ["no interval of mae, rmse, r2, pearson: nothing scatters"]
