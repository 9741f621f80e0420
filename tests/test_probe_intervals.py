"""Intervals against slow, obvious ones, and against what an interval is for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.errors import RequestError
from probe import metrics, regression_metrics
from probe.delong import delong
from probe.intervals import (
    BOOTSTRAP,
    DELONG,
    GROUPS,
    NONE,
    ONE_SIDED,
    WILSON,
    Interval,
    clusters,
    estimate,
    estimate_regression,
    perfect_recall,
    resampled_metrics,
    wilson,
)
from probe.metrics import (
    BINARY,
    MARGIN,
    METRICS,
    MULTI_CLASS,
    MULTI_LABEL,
    ORDINAL,
    TASKS,
    metric_names,
)

N_CLASSES = {MULTI_CLASS: 4, BINARY: 2, MULTI_LABEL: 3, ORDINAL: 5}


def answers(task, n=90, seed=0):
    """Probabilities with many ties, and labels in which one class is rare."""
    rng = np.random.default_rng(seed)
    n_classes = N_CLASSES[task]
    scores = rng.dirichlet(np.ones(n_classes), n).round(1)
    if task == MULTI_LABEL:
        return scores, (rng.random((n, n_classes)) < [0.5, 0.2, 0.03]).astype(int)
    labels = rng.integers(0, n_classes, n)
    rare = rng.random(n) < 0.9
    return scores, np.where(rare & (labels == n_classes - 1), 0, labels)


def obvious(scores, labels, task, n_resamples, seed, groups=None, **settings):
    """Draw rows, or groups of them, then evaluate them as if they were a test set."""
    rng = np.random.default_rng(seed)
    number = np.arange(len(scores)) if groups is None else clusters(groups)
    n = number.max() + 1
    found = []
    for _ in range(n_resamples):
        rows = np.concatenate([np.flatnonzero(number == g) for g in rng.integers(n, size=n)])
        found.append(list(metrics.evaluate(scores[rows], labels[rows], task, **settings).values()))
    names = metric_names(task, tempered="temperature" in settings)
    return dict(zip(names, np.array(found).T, strict=True))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_every_resample_equals_the_obvious_one(task, is_grouped):
    scores, labels = answers(task)
    groups = (
        np.array([f"p{i}" if i > 5 else "" for i in np.arange(90) // 4]) if is_grouped else None
    )
    expected = obvious(scores, labels, task, 150, 3, groups)
    found = resampled_metrics(scores, labels, task, 150, 3, groups=groups)
    assert tuple(found) == tuple(name for name in metric_names(task) if name != "ece")
    for name, values in found.items():
        assert_allclose(values, expected[name], rtol=1e-9, err_msg=name)
    # The rare class is there so that undefined resamples are compared as well.
    if task == MULTI_LABEL:
        assert 0 < np.isnan(found["auc"]).sum() < 150


def test_who_is_in_no_group_is_one_alone():
    assert clusters(np.array(["b", "", "a", "b", ""])).tolist() == [1, 2, 0, 1, 3]


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_has_its_method(task):
    scores, labels = answers(task, n=300)
    values = metrics.evaluate(scores, labels, task, temperature=1.7)
    found, methods = estimate(scores, labels, task, 100, level=0.9, temperature=1.7)
    assert tuple(found) == tuple(methods) == metric_names(task, tempered=True)
    samples = obvious(scores, labels, task, 100, 0, temperature=1.7)
    several = task == MULTI_LABEL
    for name, interval in found.items():
        assert interval.value == values[name]
        if name in ("ece", "ece_tempered"):
            expected, method = (np.nan, np.nan), NONE
        elif name == "auc":
            expected, method = delong(scores, labels, task, 0.9), DELONG
        elif name in ("acc", "acc_expected") and not several:
            expected, method = wilson(values[name], 300, 0.9), WILSON
        else:
            expected, method = np.nanpercentile(samples[name], [5, 95]), BOOTSTRAP
        assert methods[name] == method, name
        assert_allclose(interval[1:], expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("task", TASKS)
def test_of_patients_with_several_samples_patients_are_drawn(task):
    scores, labels = answers(task)
    groups = np.array([f"p{i}" for i in np.arange(90) // 3])
    samples = obvious(scores, labels, task, 100, 0, groups)
    found, methods = estimate(scores, labels, task, 100, groups=groups)
    assert set(methods.values()) == {GROUPS, NONE}
    for name, interval in found.items():
        if methods[name] == GROUPS:
            expected = np.nanpercentile(samples[name], [2.5, 97.5])
            assert_allclose(interval[1:], expected, rtol=1e-9, err_msg=name)


def test_patients_with_one_sample_each_are_samples():
    scores, labels = answers(BINARY)
    groups = np.array([f"p{i}" if i % 2 else "" for i in range(90)])
    found, methods = estimate(scores, labels, BINARY, 20, groups=groups)
    same, same_methods = estimate(scores, labels, BINARY, 20)
    assert_allclose([*found.values()], [*same.values()])
    assert methods == same_methods


def test_one_patient_alone_has_no_interval():
    scores, labels = answers(BINARY)
    found, methods = estimate(scores, labels, BINARY, 20, groups=np.full(90, "p"))
    assert set(methods.values()) == {NONE}
    assert np.isnan([interval[1:] for interval in found.values()]).all()


def test_images_of_one_patient_are_no_independent_images():
    # Each patient eight times over: nothing is learnt, and the interval knows.
    scores, labels = answers(BINARY)
    once, _ = estimate(scores, labels, BINARY, 500)
    again = np.repeat(scores, 8, axis=0), np.repeat(labels, 8)
    blind, _ = estimate(*again, BINARY, 500)
    knowing, _ = estimate(*again, BINARY, 500, groups=np.repeat(np.arange(90), 8).astype(str))
    for name in METRICS:
        widths = [found[name].high - found[name].low for found in (once, blind, knowing)]
        assert widths[1] < 0.5 * widths[0], name
        assert 0.75 < widths[2] / widths[0] < 1.3, name


def test_wilson_by_the_textbook():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
    for hits, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert_allclose(wilson(hits / n, n), [low, high], atol=5e-5)
    low, high = wilson(1.0, 29)
    assert (low, high) == (pytest.approx(0.8830, abs=5e-5), 1.0)


def test_the_seed_decides_and_chunks_do_not(monkeypatch):
    scores, labels = answers(MULTI_CLASS)
    whole = estimate(scores, labels, MULTI_CLASS, 60, seed=5)
    f1 = whole.metrics["f1_macro"]
    assert f1 != estimate(scores, labels, MULTI_CLASS, 60, seed=6).metrics["f1_macro"]
    for cells in (7 * len(scores), 1):
        monkeypatch.setattr("probe.intervals.CHUNK_CELLS", cells)
        again = estimate(scores, labels, MULTI_CLASS, 60, seed=5)
        assert again.methods == whole.methods
        assert_allclose([*again.metrics.values()], [*whole.metrics.values()], rtol=1e-12)


def test_perfect_answers():
    labels = np.repeat([0, 1, 2], [20, 25, 30])
    found, methods = estimate(np.eye(3)[labels], labels, MULTI_CLASS, 50)
    assert found["acc"] == (1, *wilson(1.0, 75))
    pairs = [0.05 ** (1 / k) for k in (20, 25, 30)]
    assert (found["auc"], methods["auc"]) == ((1, pytest.approx(np.mean(pairs)), 1), ONE_SIDED)
    low = perfect_recall(np.array([20, 25, 30]))[0]  # the bootstrap can't know of errors
    assert found["balanced_accuracy"] == (1, low, 1)


def test_perfect_answers_of_patients_count_patients():
    labels = np.repeat([0, 1], [40, 24])
    groups = (np.arange(64) // 8).astype(str)  # five patients of class 0, three of class 1
    found, methods = estimate(np.eye(2)[labels], labels, BINARY, 20, groups=groups)
    assert (found["auc"].low, methods["auc"]) == (pytest.approx(0.05 ** (1 / 3)), ONE_SIDED)
    mixed = np.repeat(np.arange(4), 16).astype(str)  # one of four patients has both
    found, _ = estimate(np.eye(2)[labels], labels, BINARY, 20, groups=mixed)
    assert found["auc"].low == pytest.approx(0.05 ** (1 / 2))


def test_width_of_a_coin():
    # The accuracy of 400 answers, half of them right: 0.5 +- 1.96 * sqrt(0.25 / 400) = 0.049.
    labels = np.tile([0, 1], 200)
    scores = np.repeat([[1.0, 0.0]], 400, axis=0)
    found = estimate(scores, labels, BINARY, 4000)[0]["acc"]
    assert_allclose(found, [0.5, 0.451, 0.549], atol=0.001)
    by_resamples = resampled_metrics(scores, labels, BINARY, 4000, 0)["acc"]
    assert_allclose(np.percentile(by_resamples, [2.5, 97.5]), [0.451, 0.549], atol=0.004)


def test_undefined_everywhere_is_nan():
    labels = np.zeros(10, dtype=int)
    found, _ = estimate(np.full((10, 2), 0.5), labels, BINARY, 20)
    assert np.isnan(found["auc"]).all()
    assert found["acc"] == (1, *wilson(1.0, 10))


def test_one_sample():
    found, _ = estimate(np.array([[0.2, 0.8]]), np.array([1]), BINARY, 5)
    assert found["acc"] == (1, *wilson(1.0, 1))
    assert found["balanced_accuracy"] == (1, pytest.approx(0.05), 1)


def test_margins_have_intervals_too():
    scores, labels = answers(BINARY)
    margins = np.stack([0.5 - scores[:, 1], scores[:, 1] - 0.5], axis=1)
    found, methods = estimate(margins, labels, BINARY, 50, score_type=MARGIN)
    same, _ = estimate(scores, labels, BINARY, 50)
    assert tuple(found) == tuple(methods) == METRICS
    for name in METRICS:
        assert_allclose(found[name], same[name], rtol=1e-12)


def test_continuous_labels_by_patient():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=60)
    predictions = (labels + rng.normal(size=60))[:, None]
    groups = (np.arange(60) // 4).astype(str)
    found, methods = estimate_regression(predictions, labels, 80, 1, groups=groups)
    assert set(methods.values()) == {GROUPS}
    assert set(estimate_regression(predictions, labels, 5).methods.values()) == {BOOTSTRAP}
    rng, expected = np.random.default_rng(1), []
    for _ in range(80):
        drawn = rng.integers(15, size=15)
        rows = np.concatenate([np.flatnonzero(clusters(groups) == g) for g in drawn])
        expected.append(regression_metrics.evaluate(predictions[rows], labels[rows])["mae"])
    ends = np.percentile(expected, [2.5, 97.5])
    assert found["mae"] == Interval(found["mae"].value, *map(pytest.approx, ends))


def test_refusals():
    scores, labels = answers(BINARY)
    with pytest.raises(RequestError, match="at least 1 resample, found 0"):
        estimate(scores, labels, BINARY, n_resamples=0)
    with pytest.raises(RequestError, match=r"found 95"):
        estimate(scores, labels, BINARY, level=95)
    with pytest.raises(RequestError, match="90 rows of scores and 89 of labels"):
        estimate(scores, labels[:-1], BINARY)


@pytest.mark.parametrize("counts", [(1, 1), (1, 100), (7, 9), (42, 114), (5, 0, 30), (3, 4, 50)])
def test_a_perfect_balanced_accuracy_begins_at_the_worst_recalls_that_could_be(counts):
    """By a grid over all recalls but one, which the bound on the product then gives."""
    n = np.array([c for c in counts if c])
    grids = np.meshgrid(*[np.linspace(0.002, 1, 500)] * (len(n) - 1), indexing="ij")
    rest = sum(c * np.log(r) for c, r in zip(n[:-1], grids, strict=True))
    last = np.exp((np.log(0.05) - rest) / n[-1])
    means = (sum(grids) + last) / len(n)
    low, high = perfect_recall(np.array(counts))
    assert (low, high) == (pytest.approx(means[last <= 1].min(), abs=3e-3), 1)


def test_one_class_alone_begins_where_its_rule_of_three_does():
    assert perfect_recall(np.array([100]))[0] == pytest.approx(0.05 ** (1 / 100))


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, ORDINAL])
def test_without_a_wrong_answer_no_interval_is_without_width(task):
    labels = np.arange(60) % N_CLASSES[task]
    found, methods = estimate(np.eye(N_CLASSES[task])[labels], labels, task, 50)
    assert methods["acc"] == WILSON
    assert methods["balanced_accuracy"] == ONE_SIDED
    assert methods["f1_macro"] == methods.get("kappa", NONE) == NONE
    assert found["balanced_accuracy"].low < found["balanced_accuracy"].high == 1
    groups = (np.arange(60) // 2).astype(str)
    grouped = estimate(np.eye(N_CLASSES[task])[labels], labels, task, 50, groups=groups).methods
    assert grouped["acc"] == grouped["balanced_accuracy"] == grouped["f1_macro"] == NONE


def test_a_metric_that_is_not_defined_has_no_method():
    found, methods = estimate(np.full((9, 2), 0.5), np.zeros(9, int), BINARY, 20)
    assert np.isnan(found["auc"].value)
    assert methods["auc"] == NONE
    found, methods = estimate_regression(np.ones((9, 1)), np.ones(9), 20)
    assert methods["r2"] == NONE
    assert methods["mae"] == BOOTSTRAP
