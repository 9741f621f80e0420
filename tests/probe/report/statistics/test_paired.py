"""Differences of two models against published values, and slow versions of the same thing."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION
from probe.metrics.classification import MARGIN
from probe.metrics.jackknife import student
from probe.metrics.prepared import prepare
from probe.report.statistics import paired
from probe.report.statistics.paired import (
    Answers,
    Equivalence,
    Samples,
    delong_difference,
    differences,
)
from probe.report.statistics.resampled import (
    Crossed,
    by_student,
    crossed,
    draw_units,
    resampled,
    student_p,
    widened,
)
from probe.report.statistics.swaps import ranked, swap_p, swapping

ASAH = Path(__file__).parents[3] / "data" / "asah_ranks.csv"


def two(p):
    return np.stack([-np.asarray(p, float), np.asarray(p, float)], axis=1)


def binary(a, b, y, *metrics, groups=None, **options):
    """Two models' margins on a binary task."""
    test = Samples(np.asarray(y), BINARY, groups)
    return differences(Answers(two(a), MARGIN), Answers(two(b), MARGIN), test, metrics, **options)


# ---------------------------------------------------------------------------- DeLong


@pytest.mark.parametrize(
    ("a", "b", "values", "z", "p", "ends"),
    [
        (1, 2, (0.8236789, 0.7313686), 2.20898359144, 0.02717578223, (0.0104061770, 0.1742144192)),
        (1, 3, (0.8236789, 0.6119580), 2.79777591869, 0.00514557971, (0.0634011709, 0.3600405635)),
        (3, 2, (0.6119580, 0.7313686), -1.39077002574, 0.1642951752, (-0.2876917446, 0.0488706064)),
    ],
)
def test_the_example_of_proc(a, b, values, z, p, ends):
    table = np.loadtxt(ASAH, delimiter=",", skiprows=3)
    y = table[:, 0].astype(int)
    found = binary(table[:, a], table[:, b], y, "auc")["auc"]
    assert_allclose((found.a, found.b), values, atol=5e-8)
    assert (found.test, found.method) == (paired.DELONG, paired.DELONG)
    assert found.p == pytest.approx(p, abs=5e-11)
    assert_allclose((found.low, found.high), ends, atol=5e-11)
    value, se, _ = delong_difference(
        *(prepare(two(table[:, c]), y, BINARY, MARGIN) for c in (a, b))
    )
    assert value / se == pytest.approx(z, abs=5e-11)


HAND = (
    [0.9, 0.8, 0.55, 0.4, 0.6, 0.3, 0.3, 0.2, 0.1],
    [0.7, 0.4, 0.6, 0.5, 0.5, 0.8, 0.2, 0.1, 0.3],
    np.array([1, 1, 1, 1, 0, 0, 0, 0, 0]),
)


def test_an_example_by_hand():
    a, b, y = HAND
    value, se, is_blind = delong_difference(*(prepare(two(x), y, BINARY, MARGIN) for x in (a, b)))
    assert (value, is_blind) == (pytest.approx(0.175), False)
    assert se**2 == pytest.approx(0.0133333 + 0.0404167 - 2 * 0.0016667, abs=1e-6)
    assert value / se == pytest.approx(0.7793831, abs=5e-8)


def test_columns_are_averaged_before_they_are_squared():
    rng = np.random.default_rng(0)
    y = (rng.random(90) < 0.4).astype(int)
    a, b = (rng.random(90) + 0.5 * y for _ in range(2))
    one = delong_difference(*(prepare(two(x), y, BINARY, MARGIN) for x in (a, b)))
    three = [np.stack([x, x, x], axis=1) for x in (a, b)]
    labels = np.stack([y, y, y], axis=1)
    many = delong_difference(*(prepare(x, labels, MULTI_LABEL, MARGIN) for x in three))
    assert_allclose(many[:2], one[:2], rtol=1e-12)
    classes = delong_difference(*(prepare(two(x), y, MULTI_CLASS, MARGIN) for x in (a, b)))
    assert_allclose(classes[:2], one[:2], rtol=1e-12)


# ---------------------------------------------------------------------------- swaps


def answers(task, n, seed=0):
    """Two models' probabilities, labels, and patients with one to three samples; ties."""
    rng = np.random.default_rng(seed)
    c = {BINARY: 2, REGRESSION: 1}.get(task, 3)
    cluster = np.sort(np.r_[np.arange(6), rng.integers(6, size=n - 6)])
    labels = np.r_[np.arange(n) % c]
    if task == MULTI_LABEL:
        labels = rng.integers(2, size=(n, c))
        labels[0, 0] = MISSING
    if task == REGRESSION:
        labels = rng.normal(size=n)
        return *(labels[:, None] + rng.normal(size=(n, 1)) for _ in range(2)), labels, cluster
    both = 0.9 * rng.random((2, n, c)).round(1) + 0.05
    if task != MULTI_LABEL:
        both /= both.sum(axis=2, keepdims=True)
    return *both, labels, cluster


def slow_swaps(name, a, b, labels, task, cluster):
    """p by swapping every set of patients, each time evaluating both models anew."""

    def value(x):
        kind = (
            {}
            if task == REGRESSION
            else {"score_type": MARGIN if name in RANKED else "probability"}
        )
        return prepare(x, labels, task, **kind).evaluate()[name]

    if name in RANKED:  # scores by their ranks in each column
        a, b = (
            np.stack([ranked(problem) for problem in prepare(x, labels, task).problems], axis=1)
            for x in (a, b)
        )
        if task == BINARY:
            a, b = two(a[:, 0]), two(b[:, 0])
    found = []
    for swapped in itertools.product([False, True], repeat=cluster.max() + 1):
        where = np.array(swapped)[cluster][:, None]
        found.append(value(np.where(where, b, a)) - value(np.where(where, a, b)))
    return np.mean(np.abs(found) >= abs(found[0]) - 1e-9)


RANKED = ("auc", "average_precision")


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (BINARY, ("auc", "acc", "balanced_accuracy", "f1_macro", "brier")),
        (MULTI_CLASS, ("auc", "f1_macro")),
        (MULTI_LABEL, ("auc", "acc", "average_precision", "f1_macro")),
        (ORDINAL, ("kappa", "acc_expected")),
        (REGRESSION, ("mae", "r2")),
    ],
)
def test_swaps_are_those_of_whole_patients(task, names):
    a, b, labels, cluster = answers(task, 17)
    sides = [prepare(x, labels, task) for x in (a, b)]
    for metric in sides[0].metrics:
        if metric.name in names:
            p = swap_p(swapping(metric, *sides, cluster))
            assert p == pytest.approx(slow_swaps(metric.name, a, b, labels, task, cluster)), metric
    assert {metric.name for metric in sides[0].metrics} >= set(names)


def test_of_single_samples_and_accuracy_swaps_are_the_exact_test():
    y = np.zeros(40, int)
    a, b = -np.ones(40), -np.ones(40)
    a[:1], b[1:9] = 1, 1  # wrong: 1 against 8
    sides = [prepare(two(x), y, BINARY, MARGIN) for x in (a, b)]
    acc = next(m for m in sides[0].metrics if m.name == "acc")
    assert swap_p(swapping(acc, *sides, np.arange(40))) == pytest.approx(0.0390625)
    b[9:16] = 1  # 1 against 15: more than are enumerated
    sides[1] = prepare(two(b), y, BINARY, MARGIN)
    drawn = swap_p(swapping(acc, *sides, np.arange(40)), 40_000)
    assert drawn == pytest.approx(2 * 17 / 2**16, abs=2e-4)


def test_swaps_that_cost_much_are_fewer(monkeypatch):
    labels, cluster = np.arange(60)[:, None] % 2, np.arange(60)
    a, b = (
        labels + noise for noise in (np.zeros((60, 1)), np.random.default_rng(0).random((60, 1)))
    )
    sides = [prepare(x, labels, MULTI_LABEL, MARGIN) for x in (a, -b)]
    precision = next(m for m in sides[0].metrics if m.name == "average_precision")
    monkeypatch.setattr("probe.report.statistics.swaps.AFFORDABLE", 1)
    assert swap_p(swapping(precision, *sides, cluster)) == 1 / 1000


def test_the_smallest_p_is_told_by_the_patients():
    y = np.repeat([0, 1], 8)
    groups = np.repeat(np.arange(8), 2).astype(str)
    found = binary(y + 0.01 * np.arange(16), -y + 0.01 * np.arange(16), y, "auc", groups=groups)
    assert found["auc"].p == 2 ** (1 - 8)
    assert (found["auc"].unit, found["auc"].n_units, found["auc"].n) == ("patient", 8, 16)


# ---------------------------------------------------------------------------- bootstrap


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION])
def test_a_resample_is_the_test_set_with_rows_repeated(task):
    a, _, labels, cluster = answers(task, 40)
    prepared = prepare(a, labels, task)
    drawn = draw_units(6, 5, 0)
    assert (drawn.sum(axis=1) == 6).all()
    for metric in prepared.metrics:
        if metric.has_interval:
            found = resampled(metric, prepared, drawn, cluster)
            rows = [np.repeat(np.arange(40), times[cluster]) for times in drawn]
            each = [prepare(a[r], labels[r], task).evaluate()[metric.name] for r in rows]
            assert_allclose(found, each, rtol=1e-12, err_msg=metric.name)


def test_of_many_units_an_auc_moves_by_deviations():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.4).astype(int)
    prepared, cluster = (
        prepare(two(y + rng.normal(size=3000)), y, BINARY, MARGIN),
        np.arange(3000) // 2,
    )
    auc = next(m for m in prepared.metrics if m.name == "auc")
    drawn = draw_units(1500, 100, 0)
    line, exact = (
        resampled(auc, prepared, drawn, cluster, is_linear=is_linear) for is_linear in (True, False)
    )
    assert_allclose(line, exact, atol=0.1 * exact.std())
    assert line.std() == pytest.approx(exact.std(), rel=0.02)


def test_few_units_widen():
    drawn = np.random.default_rng(0).normal(size=100_000)
    low, high = widened(0.0, drawn, 0.95, 9)
    assert_allclose((low, high), np.array([-2.2622, 2.2622]) * math.sqrt(10 / 9), rtol=0.02)


def test_one_draw_serves_every_model():
    a, b, labels, cluster = answers(BINARY, 60)
    test = Samples(labels, BINARY, cluster.astype(str))
    ab, ba = (differences(*map(Answers, pair), test)["auc"] for pair in ((a, b), (b, a)))
    assert ab.method == "paired bootstrap of patients"
    assert_allclose((ab.low, ab.high), (-ba.high, -ba.low), atol=1e-12)
    assert ab.p == ba.p
    assert ab == differences(Answers(a), Answers(b), test)["auc"]


# ---------------------------------------------------------------------------- trainings


@pytest.mark.parametrize("df", [1, 2.5, 10, 200, 1e6])
@pytest.mark.parametrize("level", [0.1, 0.9, 0.95, 0.9999])
def test_students_p_is_the_other_way_round_of_his_quantile(df, level):
    assert student_p(student(level, df), Crossed(1.0, df)) == pytest.approx(1 - level, rel=1e-5)


def test_trainings_alone_scatter_as_their_mean_does():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=4), rng.normal(size=3)
    constant = [[np.full(20_000, v) for v in side] for side in (a, b)]
    found = crossed(*constant, (a, b), 50)
    parts = a.var(ddof=1) / 4, b.var(ddof=1) / 3
    assert found.se**2 == pytest.approx(sum(parts), rel=0.03)
    welch = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    assert found.df == pytest.approx(welch, rel=0.03)
    pairs = crossed(constant[0][:3], constant[1], (a[:3], b), 50, together=True)
    assert pairs.se**2 == pytest.approx((a[:3] - b).var(ddof=1) / 3, rel=0.03)


def test_one_training_each_scatters_by_samples_alone():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500))
    found = crossed([a], [b], (np.zeros(1), np.zeros(1)), 50)
    assert found == (pytest.approx((a - b).std()), pytest.approx(49))
    low, high = by_student(0.0, found, 0.95)
    assert high == -low == pytest.approx(2.0096 * found.se, rel=1e-4)


def test_the_mean_of_trainings_is_compared_and_their_ensemble_is_another_model():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    runs = np.stack([two(y + rng.normal(size=80)) for _ in range(3)])
    a, b = Answers(runs, MARGIN), Answers(two(rng.normal(size=80)), MARGIN)
    found = differences(a, b, Samples(y, BINARY))["auc"]
    each = [prepare(run, y, BINARY, MARGIN).evaluate()["auc"] for run in runs]
    assert found.a == pytest.approx(np.mean(each))
    assert (found.method, found.test) == (paired.CROSSED, paired.CROSSED)
    assert found.low < found.value < found.high
    assert [note for note in found.notes if "trained once" in note]
    assert_allclose(a.ensemble().scores, runs.mean(axis=0))
    assert prepare(a.ensemble().scores, y, BINARY, MARGIN).evaluate()["auc"] > max(each)


# ---------------------------------------------------------------------------- where nothing can be said

LABELS = np.repeat([0, 1], 30)
GOOD = LABELS + np.random.default_rng(0).normal(size=60)


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(30), 2).astype(str)])
@pytest.mark.parametrize(
    "scores", [GOOD, np.zeros(60), LABELS], ids=["good", "constant", "perfect"]
)
def test_equal_answers_have_no_interval_but_that_of_counts(scores, groups):
    found = binary(scores, scores, LABELS, "auc", "acc", "balanced_accuracy", groups=groups)
    for name, difference in found.items():
        assert (difference.value, difference.p) == (0, 1)
        if name == "acc" and groups is None:
            assert difference.low == -difference.high
            assert difference.high > 0.01
        else:
            assert math.isnan(difference.low)
            assert difference.method == "none"
            assert "0 " in difference.notes[0]


def test_one_discordant_sample_decides_nothing():
    other = GOOD.copy()
    other[0] = -GOOD[0]
    groups = np.repeat(np.arange(30), 2).astype(str)
    found = binary(GOOD, other, LABELS, "acc", "balanced_accuracy", groups=groups)
    for difference in found.values():
        assert (difference.p, math.isnan(difference.low)) == (1, True)
        assert "1 of 30 patients move" in difference.notes[0]
    assert binary(GOOD, other, LABELS, "acc")["acc"].p == 0.5  # half of what was seen counts


def test_a_perfect_model_is_told_from_a_good_one_by_swaps():
    found = binary(LABELS, GOOD, LABELS, "auc")["auc"]
    assert found.a == 1
    assert found.test == "swaps of samples"
    assert 0 < found.p < 0.001
    assert 0 < found.low < found.value < found.high


@pytest.mark.parametrize(("n_rare", "word"), [(1, "1 patient,"), (4, "4 patients,")])
def test_a_rare_class_has_a_test_and_no_interval(n_rare, word):
    y = np.r_[np.ones(2 * n_rare, int), np.zeros(60, int)]
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(len(y) // 2), 2).astype(str)
    found = binary(*rng.normal(size=(2, len(y))), y, "auc", "acc", groups=groups)
    assert math.isnan(found["auc"].low)
    assert 0 < found["auc"].p <= 1
    assert f"class 1 has {word}" in found["auc"].notes[0]
    assert not math.isnan(found["acc"].low)


def test_what_is_undefined_has_neither():
    found = binary(GOOD, -GOOD, np.zeros(60, int), "auc")["auc"]
    assert np.isnan([found.value, found.p, found.low]).all()
    a, b, labels, _ = answers(BINARY, 60)
    found = differences(Answers(a), Answers(b), Samples(labels, BINARY), ["ece", "kappa"])
    assert list(found) == ["ece"]  # a binary task has no kappa
    assert math.isnan(found["ece"].p)


def test_labels_that_are_missing_are_as_if_their_samples_were_not_there():
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 1)) < 0.5).astype(int)
    a, b = rng.random((2, 80, 1))
    longer = [np.vstack([x, rng.random((9, 1))]) for x in (a, b)]
    more = np.vstack([labels, np.full((9, 1), MISSING)])
    test = Samples(labels, MULTI_LABEL)
    one = differences(Answers(a), Answers(b), test)["auc"]
    other = differences(*map(Answers, longer), Samples(more, MULTI_LABEL))["auc"]
    assert_allclose((other.p, other.low, other.high), (one.p, one.low, one.high), rtol=1e-9)
    counts = [
        paired.disagreement(*map(Answers, x), t).right
        for x, t in (((a, b), test), (longer, Samples(more, MULTI_LABEL)))
    ]
    assert counts[0].only_a == counts[1].only_a


# ---------------------------------------------------------------------------- equivalence, and who moves


def test_equivalence_needs_the_whole_90_percent_interval():
    found = binary(GOOD, GOOD + 0.01, LABELS, "acc", margin=0.1)["acc"]
    narrower = binary(GOOD, GOOD + 0.01, LABELS, "acc", level=0.9)["acc"]
    assert found.equivalence == Equivalence(0.1, narrower.low, narrower.high)
    assert found.equivalence.holds
    assert not binary(GOOD, GOOD + 0.01, LABELS, "acc", margin=0.01)["acc"].equivalence.holds
    assert not Equivalence(0.1, math.nan, math.nan).holds
    assert binary(GOOD, GOOD, LABELS, "acc")["acc"].equivalence is None


def test_which_class_moves():
    y = np.array([0, 0, 1, 1, 1])
    test = Samples(y, BINARY, class_names=("benign", "malignant"))
    a, b = (Answers(two(x), MARGIN) for x in ([-1, -1, 1, 1, -1], [-1, 1, 1, -1, 1]))
    found = paired.disagreement(a, b, test)
    assert (found.n, found.differ, found.right.only_a, found.right.only_b) == (5, 3, 2, 1)
    benign, malignant = paired.class_moves(a, b, test)
    assert (benign.name, benign.n, benign.recalls, benign.alone) == ("benign", 2, (1, 0.5), (1, 0))
    assert (malignant.recalls, malignant.alone) == (pytest.approx((2 / 3, 2 / 3)), (1, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"level": 1}, "level"), ({"margin": 0}, "margin"), ({"together": True}, "as many")],
)
def test_what_is_asked_wrongly(options, words):
    a = Answers(np.stack([two(GOOD)] * 2), MARGIN)
    with pytest.raises(RequestError, match=words):
        differences(a, Answers(two(GOOD), MARGIN), Samples(LABELS, BINARY), **options)
