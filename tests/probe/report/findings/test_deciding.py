"""What a test set can show equals the kernels, called by hand on the median pair or on counts."""

import dataclasses
import itertools

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of
from looking import some

from cache.errors import RequestError
from probe.report.findings.deciding import (
    Asked,
    Assumed,
    choose,
    count_units,
    from_counts,
    from_rows,
)
from probe.report.statistics.decide import (
    assume_accuracy,
    assume_auc,
    auc_variance,
    observe,
    observe_accuracy,
)

BINARY, MULTI_CLASS, MULTI_LABEL = "binary-class", "multi-class", "multi-label, binary-class"
LABELS = labels_of(120)
SCORES = [scores_of(LABELS, skill, seed) for seed, skill in enumerate((1, 2, 2, 1.5))]
ROWS = [answer(f"m{i}", s, LABELS) for i, s in enumerate(SCORES)]


def test_rows_decide_by_the_median_of_their_pairs():
    auc, acc = from_rows("toys", choose("toys", contenders(*ROWS)), NOBODY, Asked())
    pairs = list(itertools.combinations(SCORES, 2))
    variances = [auc_variance(a, b, LABELS, BINARY) for a, b in pairs]
    assert auc.decision == observe("auc", sorted(variances)[2], 120)
    right = [(a.argmax(axis=1) == LABELS, b.argmax(axis=1) == LABELS) for a, b in pairs]
    apart = sorted(right, key=lambda pair: (pair[0] != pair[1]).mean())
    assert acc.decision == observe_accuracy(*apart[2])
    assert "the median of 6 pairs: m" in auc.of


def test_wanted_differences_and_power_are_the_user_s():
    from probe.report.statistics.decide import Power

    asked = Asked((0.03,), Power(0.01, 0.9))
    for of in some(from_rows("toys", choose("toys", contenders(*ROWS[:2])), NOBODY, asked)):
        assert list(of.decision.needed) == [0.03]
        assert of.decision.power == Power(0.01, 0.9)
        assert "the only pair" in of.of


def test_few_shots_folds_and_single_rows_decide_nothing():
    split = {"rule": "kfold:2", "seed": 0, "name": "fold 1/2", "digest": "x"}
    folds = [answer(m, SCORES[0], LABELS, split=split) for m in "ab"]
    shots = {"few_shot": {"shots": 5, "digest": "x"}}
    episodes = [answer(m, scores_of(LABELS, 1, 0, episodes=2), LABELS, **shots) for m in "ab"]
    for rows, n, says in (
        (folds, 2, "of folds or sites"),
        (episodes, 2, "of few shots"),
        (ROWS[:1], 0, ""),
    ):
        chosen = choose("toys", contenders(*rows))
        assert from_rows("toys", chosen, NOBODY, Asked()) == []
        assert len(chosen.notes) == bool(n)
        assert all(f"Left out of toys: {n} answers {says}" in note for note in chosen.notes)


def split_by(file):
    return {"rule": "file", "file": file, "name": "", "digest": file}


def other(model, kind):
    """A row of 60 other test samples."""
    labels = labels_of(60)
    about = {
        "split": {"split": split_by("s1.csv"), "samples": {"labels": 1, "split": 7}},
        "block": {"samples": {"labels": 9, "split": 2}},
        "old split": {"split": split_by("s1.csv"), "samples": {}},
        "measured": {"scores_of": "patients"},
    }[kind]
    ids = np.array([f"p{i}" for i in range(60)])
    return answer(model, scores_of(labels, 1, 5), labels, ids=ids, **about)


@pytest.mark.parametrize("kind", ["split", "block", "old split", "measured"])
def test_others_of_the_data_set_are_left_out_and_said(kind):
    """Whichever comes first: the most of one test set decide."""
    rows = [*(other(m, kind) for m in "ab"), *ROWS]
    chosen = choose("toys", contenders(*rows))
    assert [c.model for c in chosen.contenders] == ["m0", "m1", "m2", "m3"]
    assert chosen.notes == (
        "Left out of toys: 2 answers of other splits, labels, targets or patients than most",
    )
    alone = from_rows("toys", choose("toys", contenders(*ROWS)), NOBODY, Asked())
    assert from_rows("toys", chosen, NOBODY, Asked()) == alone


def test_answers_without_scores_and_beyond_the_most_are_left_out_and_said(monkeypatch):
    from probe.report.findings import deciding

    lost = dataclasses.replace(ROWS[0], lacking="scores are missing")
    chosen = choose("toys", contenders(lost, *ROWS[1:]))
    assert chosen.notes == ("Left out of toys: 1 answer whose scores are missing or damaged",)
    assert len(chosen.contenders) == 3
    monkeypatch.setattr(deciding, "MOST", 3)
    chosen = choose("toys", contenders(*ROWS))
    assert chosen.notes == ("Left out of toys: 1 answer beyond the first 3",)
    assert len(chosen.contenders) == 3


def test_labels_alone_decide_by_what_is_assumed():
    asked = Asked(assumed=Assumed(0.8, 0.3, 0.2))
    auc, acc = from_counts("toys", BINARY, LABELS, None, ("a", "b"), asked)
    assert auc.decision == assume_auc(np.array([60, 60]), 0.8, 0.3)
    assert acc.decision == assume_accuracy(120, 0.2)
    assert (auc.of, auc.n) == ("test wasn't read", 120)


def test_patients_count_as_patients():
    groups = np.array([f"p{i // 4}" for i in range(120)])
    labels = np.repeat(np.arange(30) % 2, 4)
    auc, acc = from_counts("toys", BINARY, labels, groups, ("a", "b"), Asked())
    assert auc.decision == assume_auc(np.array([15, 15]), unit="patient")
    assert acc.decision == assume_accuracy(30, unit="patient")
    assert acc.n == 120


@pytest.mark.parametrize(
    ("task", "labels", "counts"),
    [
        (MULTI_CLASS, [0, 0, 1, 2, 2, 1], [[1, 0, 2]]),
        (MULTI_LABEL, [[0, 1], [1, -1], [0, 0], [0, 0], [0, 0], [1, 0]], [[1, 2], [2, 1]]),
    ],
)
def test_units_of_each_class(task, labels, counts):
    cluster = np.array([0, 0, 1, 1, 1, 2]) if task == MULTI_LABEL else np.array([0, 0, 0, 1, 1, 2])
    labels = np.array(labels)
    if task == MULTI_CLASS:
        labels = np.array([0, 0, 1, 2, 2, 2])
    found = count_units(labels, task, 3 if task == MULTI_CLASS else 2, cluster)
    assert [c.tolist() for c in found] == counts


def test_no_test_samples_are_refused_and_numbers_have_none():
    with pytest.raises(RequestError, match="no test samples"):
        from_counts("toys", BINARY, LABELS[:0], None, ("a", "b"), Asked())
    assert from_counts("toys", "regression", LABELS * 1.0, None, ("x",), Asked()) == []
