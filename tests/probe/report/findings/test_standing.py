"""Which family of tests stands behind a table's marks, and that it says what pairs say."""

import itertools

import numpy as np
import pytest
from contending import answer, contenders, labels_of, scores_of

from probe.report.findings.standing import MOST, Untested, stand
from probe.report.rows.answers import test_sets as sets_of
from probe.report.rows.people import People
from probe.report.statistics.families import HOLM, MAX_T, holm
from probe.report.statistics.folds import corrected_t
from probe.report.statistics.paired import N_RESAMPLES, differences

SKILLS = {"a": 2.0, "b": 1.6, "c": 0.4}


class Known(People):
    """Patients without a feature file."""

    def __init__(self, groups=None):
        super().__init__(None)
        object.__setattr__(self, "names", groups)

    def groups_of(self, row, ids):
        return self.names


def sets(labels, groups=None, skills=SKILLS, episodes=0, **facts):
    rows = [
        answer(name, scores_of(labels, skill, seed, episodes=episodes), labels, **facts)
        for seed, (name, skill) in enumerate(skills.items())
    ]
    return sets_of(contenders(*rows), Known(groups))


@pytest.mark.parametrize(
    ("n", "groups", "method"),
    [
        (120, None, MAX_T),
        (36, None, HOLM),  # 18 of a class
        (120, np.repeat(np.arange(60), 2).astype(str), MAX_T),
        (120, np.repeat(np.arange(12), 10).astype(str), HOLM),
    ],
    ids=["many", "few of a class", "many patients", "few patients"],
)
def test_few_units_are_tested_pair_by_pair(n, groups, method):
    labels = labels_of(n, seed=None)
    found = stand(sets(labels, groups), "auc")
    assert found.method == method
    if method == HOLM:  # as each pair by itself says, adjusted
        (test,) = sets(labels, groups)
        pairs = list(itertools.combinations(range(3), 2))
        p = [
            differences(test.answers[i], test.answers[j], test.samples, ["auc"])["auc"].p
            for i, j in pairs
        ]
        assert [found.p[i, j] for i, j in pairs] == pytest.approx(list(holm(np.array(p))))
    assert found.not_separated[0]
    assert found.gains[0, 2] > 0


def test_episodes_are_compared_draw_by_draw():
    shots = {"few_shot": {"shots": 5, "episodes": 8, "digest": "same"}}
    (test,) = sets(labels_of(60), episodes=8, **shots)
    assert test.is_together
    found = stand([test], "acc")
    pair = differences(test.answers[0], test.answers[2], test.samples, ["acc"], together=True)[
        "acc"
    ]
    assert found.method == HOLM
    assert found.gains[0, 2] == pytest.approx(pair.value)
    pairs = list(itertools.combinations(range(3), 2))
    apart = {"n_resamples": N_RESAMPLES, "together": True}
    p = [
        differences(test.answers[i], test.answers[j], test.samples, ["acc"], **apart)["acc"].p
        for i, j in pairs
    ]
    assert [found.p[i, j] for i, j in pairs] == pytest.approx(list(holm(np.array(p))))
    assert pair.p == p[1]


def test_folds_are_compared_by_the_corrected_t_and_sites_one_by_one():
    def of(rule):
        rows = []
        for fold in range(4):
            labels = labels_of(40, seed=fold)
            split = {"rule": rule, "seed": 0, "name": f"fold {fold + 1}/4", "of": 4}
            ids = np.array([f"{fold}/{i}" for i in range(40)])
            for seed, (name, skill) in enumerate(SKILLS.items()):
                scores = scores_of(labels, skill, 10 * fold + seed)
                rows.append(answer(name, scores, labels, split=split, ids=ids))
        return sets_of(contenders(*rows), Known())

    found = stand(of("kfold:4"), "acc")
    values = np.array(
        [
            [(np.argmax(a.scores, axis=1) == t.samples.labels).mean() for a in t.answers]
            for t in of("kfold:4")
        ]
    )
    d = values[:, 0] - values[:, 2]
    alone = corrected_t(d, np.full(4, 40), np.full(4, 80))
    assert found.gains[0, 2] == pytest.approx(alone.value)
    assert alone.p <= found.p[0, 2] <= 3 * alone.p
    assert "sites are populations" in stand(of("site-out:site"), "acc").why


def test_of_a_loss_the_smaller_is_the_better():
    found = stand(sets(labels_of(36)), "brier")
    assert found.method == HOLM
    assert found.gains[0, 2] > 0
    assert found.not_separated[0]


def test_few_units_that_can_separate_nothing_mark_nobody():
    patients = np.repeat(np.arange(8), 5).astype(str)
    many = {f"m{i}": 4.0 - i for i in range(5)}
    said = stand(sets(labels_of(40), patients, many), "acc").why
    assert "8 patients can't separate 5 contenders" in said
    trainings = {"few_shot": {"shots": 5, "episodes": 4, "digest": "d"}}
    labels = np.r_[1, 1, 1, np.zeros(40, int)]
    assert "a class has 3 samples" in stand(sets(labels, episodes=4, **trainings), "auc").why


def test_what_is_not_tested_says_why():
    labels = labels_of(30)
    many = {f"m{i}": 1.0 for i in range(MOST + 1)}
    assert "too many" in stand(sets(labels, skills=many), "acc").why
    assert isinstance(stand(sets(labels), "ece"), Untested)
