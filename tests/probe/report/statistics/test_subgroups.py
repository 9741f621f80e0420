"""Subgroups against slow versions, hand examples, and test sets in which nothing differs."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION
from probe.metrics.classification import MARGIN
from probe.metrics.intervals import estimate
from probe.metrics.jackknife import wilson
from probe.metrics.prepared import prepare
from probe.report.statistics.bands import UNKNOWN
from probe.report.statistics.gaps import correct, find_gap, members, permuted, sampling_variance
from probe.report.statistics.paired import Answers, Samples
from probe.report.statistics.subgroups import Val, subgroups
from probe.report.statistics.thresholds import YOUDEN, fix_threshold, fix_thresholds, rates, share

SEXES = ("F", "M")


def two(p):
    return np.stack([1 - np.asarray(p, float), np.asarray(p, float)], axis=1)


def make(task, n=120, seed=0, per_patient=2):
    """Answers to a task, patients of some samples each, and each patient's sex."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // per_patient
    sex = np.array(SEXES)[rng.integers(2, size=n)[patient]]
    groups = np.char.add("p", patient.astype(str))
    if task == REGRESSION:
        labels = rng.normal(50, 10, n)
        return Answers((labels + rng.normal(0, 5, n))[:, None]), Samples(labels, task, groups), sex
    if task == MULTI_LABEL:
        labels = rng.integers(2, size=(n, 3))
        scores = np.clip(0.3 * labels + 0.7 * rng.random((n, 3)), 0, 1)
        labels[rng.random((n, 3)) < 0.05] = MISSING
    else:
        n_classes = 2 if task == BINARY else 3
        labels = rng.integers(n_classes, size=n)
        scores = rng.dirichlet(np.ones(n_classes), n) + 0.4 * np.eye(n_classes)[labels]
        scores /= scores.sum(axis=1, keepdims=True)
    return Answers(scores), Samples(labels, task, groups), sex


# ------------------------------------------------------------------------------ each subgroup


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, ORDINAL, MULTI_LABEL, REGRESSION])
def test_a_subgroup_is_measured_as_a_test_set_of_its_own(task):
    answers, test, sex = make(task, n=180)
    found = subgroups(answers, test, sex, SEXES, n_permutations=20)
    assert [group.name for group in found.groups] == list(SEXES)
    for group in found.groups:
        who = sex == group.name
        alone = estimate(answers.scores[who], test.labels[who], task, groups=test.groups[who])
        assert dict(group.metrics) == alone.metrics
        assert dict(group.methods) == alone.methods
        assert (group.n, group.n_units) == (who.sum(), who.sum() // 2)
    assert found.unit == "patient"
    assert found.unknown is None


@pytest.mark.parametrize(("n_positive", "is_counted"), [(9, True), (10, False)])
def test_of_few_patients_of_a_class_there_are_counts_alone(n_positive, is_counted):
    labels = np.r_[np.ones(n_positive, int), np.zeros(30, int), np.tile([0, 1], 20)]
    names = np.repeat(["few", "many"], [n_positive + 30, 40])
    scores = two(np.random.default_rng(0).random(len(labels)))
    test = Samples(labels, BINARY, class_names=("no", "yes"))
    found = subgroups(Answers(scores), test, names, ("few", "many"), Val(scores, labels))
    few = found.groups[0]
    assert few.has_metrics != is_counted
    assert bool(few.rates) != is_counted
    assert [count.n for count in few.by_class] == [30, n_positive]
    if is_counted:
        assert few.why == "counts only: class yes has 9 samples, under 10"
        assert found.gaps == {}
        assert found.notes == ("no gap: 1 of 2 subgroups have metrics",)


def test_a_rare_label_takes_the_means_away_and_leaves_the_others_their_rates():
    answers, test, sex = make(MULTI_LABEL)
    test.labels[test.labels[:, 1] == 1, 1] = 0
    test.labels[:3, 1] = 1
    found = subgroups(answers, test, sex, SEXES, Val(answers.scores, test.labels))
    for group in found.groups:
        assert not group.has_metrics
        assert group.why.startswith("no means over labels: label 1 has")
        assert group.why.endswith("under 10 on its smaller side")
        assert [each.threshold.number for each in group.rates] == [0, 2]


def test_patients_are_counted_and_not_their_samples():
    labels = np.tile(np.repeat([0, 1], 20), 2)
    names = np.repeat(["A", "B"], 40)
    groups = np.char.add("p", (np.arange(80) // 4).astype(str))  # five of each class in each
    scores = two(np.random.default_rng(0).random(80))
    found = subgroups(Answers(scores), Samples(labels, BINARY, groups), names, ("A", "B"))
    assert not any(group.has_metrics for group in found.groups)
    assert "class 0 has 5 patients, under 10, as 1 more" in found.groups[0].why


def test_unknown_samples_are_counted_and_in_no_gap():
    answers, test, sex = make(BINARY)
    hidden = sex.astype("U7")
    hidden[:10] = UNKNOWN
    found = subgroups(answers, test, hidden, SEXES)
    rest = Samples(test.labels[10:], BINARY, test.groups[10:])
    without = subgroups(Answers(answers.scores[10:]), rest, sex[10:], SEXES)
    assert found.unknown is not None
    assert (found.unknown.n, found.unknown.n_units) == (10, 5)
    assert not found.unknown.has_metrics
    assert "nobody knows" in found.unknown.why
    assert found.gaps == without.gaps


def test_patients_in_several_subgroups_are_named():
    answers, test, sex = make(BINARY)
    visit = np.where(np.arange(len(sex)) < 60, sex, np.tile(SEXES, 60))
    (note,) = [n for n in subgroups(answers, test, visit, SEXES).notes if "several" in n]
    assert note.startswith("30 patients are in several subgroups")


def test_several_trainings_have_no_subgroups():
    answers, test, sex = make(BINARY)
    with pytest.raises(RequestError, match="one training's answers; found those of 2"):
        subgroups(Answers(np.stack([answers.scores] * 2)), test, sex, SEXES)


# ------------------------------------------------------------------------------ thresholds


@pytest.mark.parametrize(
    ("sensitivity", "threshold", "rule"),
    [
        (None, 0.5, YOUDEN),  # 3/4 less 0; at .2 it is 1 less 2/4
        (0.5, 0.65, "sensitivity 0.5 on val"),
        (0.6, 0.5, "sensitivity 0.6 on val"),
        (1, 0.25, "sensitivity 1 on val"),
    ],
)
def test_the_threshold_of_a_hand_example(sensitivity, threshold, rule):
    scores = np.array([0.9, 0.7, 0.6, 0.3, 0.4, 0.4, 0.2, 0.1])
    positive = np.arange(8) < 4
    found, said = fix_threshold(scores, positive, ~positive, sensitivity)
    assert (found, said) == (pytest.approx(threshold), rule)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sensitivity", [None, 0.8])
def test_a_threshold_is_the_best_of_all_there_are(seed, sensitivity):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=40)
    scores = (labels + rng.normal(size=40)).round(1)
    value, _ = fix_threshold(scores, labels == 1, labels == 0, sensitivity)
    every = np.r_[-np.inf, np.unique(scores)]
    tpr, fpr = ([(scores[labels == c] > t).mean() for t in every] for c in (1, 0))
    says = scores > value
    own_tpr, own_fpr = says[labels == 1].mean(), says[labels == 0].mean()
    if sensitivity is None:
        assert own_tpr - own_fpr == pytest.approx(max(np.subtract(tpr, fpr)))
    else:
        reached = [f for t, f in zip(tpr, fpr, strict=True) if t >= sensitivity]
        assert own_tpr >= sensitivity
        assert own_fpr == pytest.approx(min(reached))
    assert value not in scores


def test_without_val_or_a_side_of_it_there_are_no_rates():
    answers, test, sex = make(BINARY)
    found = subgroups(answers, test, sex, SEXES)
    assert found.thresholds == ()
    assert not found.groups[0].rates
    assert found.notes[0] == "no rates: there are no answers to val to fix a threshold on"
    of_one = Val(answers.scores, np.zeros_like(test.labels))
    assert "val has no positives" in subgroups(answers, test, sex, SEXES, of_one).notes[0]
    with pytest.raises(RequestError, match="above 0, up to 1; found 90"):
        subgroups(answers, test, sex, SEXES, Val(*answers_of_val()), sensitivity=90)


def answers_of_val():
    answers, val, _ = make(BINARY, seed=1)
    return answers.scores, val.labels


def test_test_moves_no_threshold():
    answers, test, sex = make(BINARY)
    val = Val(*answers_of_val())
    found = subgroups(answers, test, sex, SEXES, val)
    turned = Samples(1 - test.labels, BINARY, test.groups)
    assert subgroups(answers, turned, sex, SEXES, val).thresholds == found.thresholds
    (of_all,) = found.thresholds
    for group in found.groups:
        who = sex == group.name
        says, is_one = answers.scores[who, 1] > of_all.value, test.labels[who] == 1
        (own,) = group.rates
        assert (own.tpr.hits, own.tpr.n) == ((says & is_one).sum(), is_one.sum())
        assert (own.fpr.hits, own.fpr.n) == ((says & ~is_one).sum(), (~is_one).sum())
        assert (own.ppv.hits, own.ppv.n) == ((says & is_one).sum(), says.sum())
        assert (own.npv.hits, own.npv.n) == ((~says & ~is_one).sum(), (~says).sum())


def test_several_classes_have_the_rates_of_the_largest_score():
    answers, test, _ = make(MULTI_CLASS)
    thresholds, why = fix_thresholds(answers.scores, test.labels, MULTI_CLASS)
    found = [
        rates(answers.scores, test.labels, MULTI_CLASS, t, np.arange(120), answers.score_type)
        for t in thresholds
    ]
    right = answers.scores.argmax(axis=1)
    assert not why
    assert len(found) == 3
    assert sum(each.tpr.hits for each in found) == (right == test.labels).sum()
    assert [each.ppv.n for each in found] == np.bincount(right).tolist()


def test_a_label_has_a_threshold_of_its_own_and_missing_ones_are_neither():
    answers, test, sex = make(MULTI_LABEL)
    found = subgroups(answers, test, sex, SEXES, Val(answers.scores, test.labels))
    assert [threshold.number for threshold in found.thresholds] == [0, 1, 2]
    for c, each in enumerate(found.groups[0].rates):
        column = test.labels[sex == "F", c]
        assert (each.tpr.n, each.fpr.n) == ((column == 1).sum(), (column == 0).sum())
        assert each.ppv.n + each.npv.n == (column != MISSING).sum()


def test_a_share_of_independent_samples_has_wilsons_interval():
    hits = np.arange(20) < 15
    found = share(hits, np.arange(20))
    assert (found.low, found.high) == wilson(0.75, 20)
    assert found.value == 0.75
    assert math.isnan(share(hits[:0], np.arange(0)).value)


def test_a_share_of_patients_has_the_interval_of_their_accuracy():
    rng = np.random.default_rng(0)
    hits, cluster = rng.random(60) < 0.7, np.arange(60) // 3
    scores = two(hits.astype(float))
    whole = estimate(scores, np.ones(60, int), BINARY, groups=cluster.astype(str))
    found = share(hits, cluster)
    assert_allclose((found.value, found.low, found.high), whole.metrics["acc"], rtol=1e-12)
    alone = share(hits[:3], cluster[:3])
    assert alone.n == 3
    assert math.isnan(alone.low)


# ------------------------------------------------------------------------------ the gap


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (BINARY, ("auc", "acc", "brier")),
        (MULTI_CLASS, ("auc", "balanced_accuracy")),
        (ORDINAL, ("kappa",)),
        (MULTI_LABEL, ("auc", "acc", "average_precision")),
        (REGRESSION, ("mae", "r2")),
    ],
)
def test_gap_and_null_are_those_of_measuring_again(task, names):
    answers, test, sex = make(task)
    number = (sex == "M").astype(int)
    cluster = np.arange(len(sex)) // 2
    of = members(number, cluster, test.labels, task)
    drawn = permuted(of, 21, 0)
    every = prepare(answers.scores, test.labels, task)
    for name in names:
        metric = next(m for m in every.metrics if m.name == name)
        sign = -1 if name in ("brier", "mae") else 1
        gaps, behind = [], []
        for row in drawn:
            parts = [row[of.unit] == k for k in range(2)]
            values = np.array(
                [prepare(answers.scores[p], test.labels[p], task).evaluate()[name] for p in parts]
            )
            gaps.append(np.ptp(values))
            worst = int(np.argmin(sign * values))
            behind.append(sign * (values[1 - worst] - values[worst]))
        draw = {"n_permutations": 20, "seed": 0}
        found = find_gap(metric, every, of, SEXES, np.zeros(2), **draw)
        assert found.value == pytest.approx(gaps[0])
        assert found.behind == pytest.approx(behind[0])
        assert found.null_mean == pytest.approx(np.mean(gaps[1:]))
        assert found.p == pytest.approx(np.mean([gap >= gaps[0] - 1e-9 for gap in gaps]))
        assert found.p_behind == pytest.approx(np.mean([b >= behind[0] - 1e-9 for b in behind]))


def test_the_rest_is_all_others_together():
    answers, test, _ = make(BINARY, n=300)
    names = np.array(["a", "b", "c"])[
        np.random.default_rng(3).integers(3, size=150)[np.arange(300) // 2]
    ]
    found = subgroups(answers, test, names, ("a", "b", "c"), n_permutations=20).gaps["auc"]
    rest = names != found.worst
    of_rest = prepare(answers.scores[rest], test.labels[rest], BINARY).evaluate()["auc"]
    of_worst = prepare(answers.scores[~rest], test.labels[~rest], BINARY).evaluate()["auc"]
    assert found.behind == pytest.approx(of_rest - of_worst)
    assert found.value >= found.behind


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, MULTI_LABEL])
def test_names_move_with_whole_patients_of_the_same_class(task):
    _, test, sex = make(task)
    cluster = np.arange(len(sex)) // 2
    of = members((sex == "M").astype(int), cluster, test.labels, task)
    drawn = permuted(of, 50, 1)
    assert (drawn[0] == of.subgroup).all()
    assert (drawn[1:] != of.subgroup).any()
    for stratum in np.unique(of.stratum):
        places = of.stratum == stratum
        assert (drawn[:, places].sum(axis=1) == of.subgroup[places].sum()).all()
    if task != MULTI_LABEL:
        kinds = {
            frozenset(test.labels[of.unit == u]): of.stratum[u] for u in range(len(of.stratum))
        }
        assert len(set(kinds.values())) == len(kinds)


def test_all_permutations_of_a_hand_example():
    labels, right = np.ones(6, int), np.array([1, 1, 1, 1, 0, 0])
    names = np.array([0, 0, 0, 1, 1, 1])
    every = prepare(two(right), labels, BINARY)
    accuracy = next(m for m in every.metrics if m.name == "acc")
    of = members(names, np.arange(6), labels, BINARY)
    found = find_gap(accuracy, every, of, ("A", "B"), np.zeros(2), n_permutations=4000)
    # Both errors are in one half in 8 of 20 ways: a gap of 2/3, else of 0.
    gaps = [
        abs(right[list(half)].sum() - (4 - right[list(half)].sum())) / 3
        for half in itertools.combinations(range(6), 3)
    ]
    assert found.value == pytest.approx(2 / 3)
    assert found.worst == "B"
    assert found.p == pytest.approx(np.mean(np.array(gaps) > 0.6), abs=0.03)


@pytest.mark.parametrize(
    ("n_subgroups", "n", "plain", "corrected"),
    [(2, 50, 0.057, -0.015), (5, 50, 0.117, -0.009), (5, 200, 0.058, -0.005)],
)
def test_without_any_gap_the_corrected_one_is_about_none(n_subgroups, n, plain, corrected):
    rng = np.random.default_rng(0)
    share = rng.binomial(n, 0.85, size=(4000, n_subgroups)) / n
    found = np.array([correct(row, row * (1 - row) / (n - 1)) for row in share])
    between, gaps = found.T
    assert np.ptp(share, axis=1).mean() == pytest.approx(plain, abs=0.002)
    assert gaps.mean() == pytest.approx(corrected, abs=0.003)
    assert abs(between.mean()) < 0.07 * 0.85 * 0.15 / n


@pytest.mark.parametrize(
    ("true", "n", "plain", "corrected"),
    [((0.9, 0.8), 200, 0.100, 0.091), ((0.7, 0.75, 0.8, 0.85, 0.9), 50, 0.228, 0.171)],
)
def test_a_gap_that_is_there_stays(true, n, plain, corrected):
    share = np.random.default_rng(0).binomial(n, true, size=(4000, len(true))) / n
    gaps = [correct(row, row * (1 - row) / (n - 1))[1] for row in share]
    assert np.ptp(share, axis=1).mean() == pytest.approx(plain, abs=0.003)
    assert np.mean(gaps) == pytest.approx(corrected, abs=0.004)


def test_the_corrected_gap_of_two_is_less_both_variances():
    assert correct(np.array([0.9, 0.7]), np.array([0.01, 0.02]))[1] == pytest.approx(0.01**0.5)
    assert correct(np.array([0.8, 0.8]), np.array([0.01, 0.01])) == pytest.approx(
        (-0.01, -(0.02**0.5))
    )


def test_sampling_variance_of_a_share_is_that_of_the_textbook():
    right = np.arange(40) < 30
    every = prepare(two(right), np.ones(40, int), BINARY)
    accuracy = next(m for m in every.metrics if m.name == "acc")
    found = sampling_variance(accuracy, every, np.arange(40))
    assert found == pytest.approx(0.75 * 0.25 / 39)


@pytest.mark.parametrize("per_patient", [1, 2])
def test_without_any_gap_p_is_rarely_small(per_patient):
    rng = np.random.default_rng(per_patient)
    below = {name: [] for name in ("auc", "acc")}
    for _ in range(300):
        n = 80
        patient = np.arange(n) // per_patient
        labels = rng.integers(2, size=n)[patient]
        shared = rng.normal(size=n)[patient]
        score = 1.2 * labels + 0.7 * shared + 0.7 * rng.normal(size=n)
        scores = np.stack([0.6 - score, score - 0.6], axis=1)
        number = rng.integers(3, size=n)[patient]
        every = prepare(scores, labels, BINARY, MARGIN)
        of = members(number, patient, labels, BINARY)
        for metric in every.metrics:
            if metric.name in below:
                draw = {"n_permutations": 99, "seed": 0}
                gap = find_gap(metric, every, of, ("a", "b", "c"), np.zeros(3), **draw)
                below[metric.name].append([gap.p, gap.p_behind])
    for found in below.values():
        # Of 300 sets 5 % are 15, and two standard deviations more are 23.
        assert ((np.array(found) <= 0.05).mean(axis=0) <= 0.077).all()
        assert (np.array(found) <= 0.5).mean() == pytest.approx(0.5, abs=0.08)
