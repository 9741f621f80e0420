"""Intervals against slow, obvious ones, and against what an interval is for."""

import numpy as np
import pytest
import scipy.stats
from measuring import EVERY, measure_episodes, metric_names
from numpy.testing import assert_allclose

from cache.errors import RequestError
from cache.task import BINARY, CLASSIFICATION, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL
from probe.metrics import classification as metrics
from probe.metrics import regression as regression_metrics
from probe.metrics.classification import MARGIN
from probe.metrics.delong import delong
from probe.metrics.intervals import (
    COUNTS,
    DELONG,
    JACKKNIFE,
    NONE,
    ONE_SIDED,
    WILSON,
    clusters,
    estimate,
    perfect_recall,
)
from probe.metrics.jackknife import left_out, student, supports, wilson, worth

N_CLASSES = {MULTI_CLASS: 4, BINARY: 2, MULTI_LABEL: 3, ORDINAL: 5}


def answers(task, n=90, seed=0, kept=0.1):
    """Probabilities with many ties, and labels in which one class is rare."""
    rng = np.random.default_rng(seed)
    n_classes = N_CLASSES[task]
    scores = rng.dirichlet(np.ones(n_classes), n).round(1)
    if task == MULTI_LABEL:
        return scores, (rng.random((n, n_classes)) < [0.5, 0.2, 0.03]).astype(int)
    labels = rng.integers(0, n_classes, n)
    rare = rng.random(n) < 1 - kept
    return scores, np.where(rare & (labels == n_classes - 1), 0, labels)


def left_out_obviously(scores, labels, task, cluster, name):
    """The variance of a metric by evaluating the rest, unit by unit."""
    n = cluster.max() + 1
    found = [metrics.evaluate(scores[cluster != i], labels[cluster != i], task) for i in range(n)]
    values = np.array([rest[name] for rest in found])
    return (n - 1) / n * np.square(values - values.mean()).sum()


@pytest.mark.parametrize("task", CLASSIFICATION)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_leaving_out_equals_evaluating_the_rest(task, is_grouped):
    scores, labels = answers(task, 60)
    if task == MULTI_LABEL:
        labels = np.where(np.arange(60)[:, None] % 7 == [0, 3, 9], MISSING, labels)
    cluster = np.random.default_rng(1).permutation(np.arange(60) // (3 if is_grouped else 1))
    found = left_out(metrics.prepare(scores, labels, task), cluster)
    assert set(found) == set(metric_names(task)) - {"ece"}
    for i in range(cluster.max() + 1):
        rest = metrics.evaluate(scores[cluster != i], labels[cluster != i], task)
        for name, values in found.items():
            # Of units of several samples an average precision is a first-order one.
            loose = name == "average_precision" and is_grouped
            assert_allclose(values[i], rest[name], atol=0.02 if loose else 1e-12, err_msg=name)


def test_leaving_out_in_pieces_changes_nothing(monkeypatch):
    scores, labels = answers(MULTI_CLASS)
    prepared, cluster = metrics.prepare(scores, labels, MULTI_CLASS), np.arange(90) // 2
    whole = left_out(prepared, cluster)
    monkeypatch.setattr("probe.metrics.jackknife.CHUNK_CELLS", 30)
    for name, values in left_out(prepared, cluster).items():
        assert_allclose(values, whole[name], rtol=1e-12)


def test_leaving_out_of_continuous_labels_equals_evaluating_the_rest():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=40)
    predictions, cluster = (labels + rng.normal(size=40))[:, None], np.arange(40) // 4
    found = left_out(regression_metrics.prepare(predictions, labels), cluster)
    for i in range(10):
        rest = regression_metrics.evaluate(predictions[cluster != i], labels[cluster != i])
        for name, values in found.items():
            assert_allclose(values[i], rest[name], rtol=1e-9)


def test_units_of_unequal_size_are_worth_less():
    assert worth(np.arange(9)) == worth(np.arange(9) // 3) * 3 == 9
    assert worth(np.array([0] * 9 + [1])) == pytest.approx(100 / 82)


def test_what_metrics_stand_on():
    labels = np.array([0] * 12 + [1] * 6 + [2] * 2)
    found = supports(labels, MULTI_CLASS, 3, np.arange(20))
    assert (found["acc"].weakest, found["acc"].who, found["acc"].floor) == (20, None, 20)
    recalls = found["balanced_accuracy"]
    assert (recalls.weakest, recalls.who, recalls.least) == (2, 2, 2)
    assert recalls.floor == pytest.approx(9 / (1 / 12 + 1 / 6 + 1 / 2))
    # Satterthwaite's: the two of the rare class make most of the variance.
    df = (1 / 12 + 1 / 6 + 1 / 2) ** 2 / (1 / (144 * 11) + 1 / (36 * 5) + 1 / 4)
    assert recalls.df == pytest.approx(df)
    columns = [2 / (1 / i + 1 / (20 - i)) for i in (12, 6, 2)]
    assert found["auc"].floor == pytest.approx(
        min(np.mean(columns), 9 / sum(1 / c for c in columns))
    )
    pairs = supports(labels, MULTI_CLASS, 3, np.arange(20) // 2)
    assert [pairs["acc"].weakest, pairs["auc"].weakest] == [10, 1]


def test_who_is_in_no_group_is_one_alone():
    assert clusters(np.array(["b", "", "a", "b", ""])).tolist() == [1, 2, 0, 1, 3]


@pytest.mark.parametrize("task", CLASSIFICATION)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_every_metric_has_its_method(task, is_grouped):
    scores, labels = answers(task, n=600, kept=0.5)
    if task == MULTI_LABEL:
        labels[:, 2] |= np.random.default_rng(2).random(600) < 0.2
    groups = (np.arange(600) // 3).astype(str) if is_grouped else None
    cluster = clusters(groups) if is_grouped else np.arange(600)
    values = metrics.evaluate(scores, labels, task, temperature=1.7)
    found = estimate(scores, labels, task, level=0.9, temperature=1.7, groups=groups)
    assert tuple(found.metrics) == tuple(found.methods) == metric_names(task, tempered=True)
    simple = task != MULTI_LABEL and not is_grouped
    for name, interval in found.metrics.items():
        assert interval.value == values[name]
        if name in ("ece", "ece_tempered"):
            expected, method = (np.nan, np.nan), NONE
        elif name == "auc" and not is_grouped:
            expected, method = delong(scores, labels, task, 0.9), DELONG
        elif name in ("acc", "acc_expected") and simple:
            expected, method = wilson(values[name], 600, 0.9), WILSON
        elif name == "f1_macro" and is_grouped:
            v = left_out_obviously(scores, labels, task, cluster, name)
            n = values[name] * (1 - values[name]) / v
            df = found.supports[name].df
            assert found.supports[name].least < n < found.supports[name].most
            expected = wilson(values[name], n, 0.9, scipy.stats.t.ppf(0.95, df))
            method = JACKKNIFE
        else:
            assert interval.low < interval.value < interval.high
            expected, method = interval[1:], JACKKNIFE
        assert found.methods[name] == method, name
        assert_allclose(interval[1:], expected, rtol=1e-9, err_msg=name)


def test_patients_with_one_sample_each_are_samples():
    scores, labels = answers(BINARY)
    groups = np.array([f"p{i}" if i % 2 else "" for i in range(90)])
    found, same = estimate(scores, labels, BINARY, groups=groups), estimate(scores, labels, BINARY)
    assert_allclose([*found.metrics.values()], [*same.metrics.values()])
    assert (found.methods, found.unit) == (same.methods, "sample")


def test_one_patient_alone_has_no_interval():
    scores, labels = answers(BINARY)
    found = estimate(scores, labels, BINARY, groups=np.full(90, "p"))
    assert set(found.methods.values()) == {NONE}
    assert np.isnan([interval[1:] for interval in found.metrics.values()]).all()


def test_images_of_one_patient_are_no_independent_images():
    # Each patient eight times over: nothing is learnt, and the interval knows.
    scores, labels = answers(BINARY)
    once = estimate(scores, labels, BINARY).metrics
    again = np.repeat(scores, 8, axis=0), np.repeat(labels, 8)
    blind = estimate(*again, BINARY).metrics
    knowing = estimate(*again, BINARY, groups=np.repeat(np.arange(90), 8).astype(str)).metrics
    for name in EVERY:
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


def test_perfect_answers():
    labels = np.repeat([0, 1, 2], [20, 25, 30])
    both = estimate(np.eye(3)[labels], labels, MULTI_CLASS)
    found, methods = both.metrics, both.methods
    assert found["acc"] == (1, *wilson(1.0, 75))
    pairs = [0.05 ** (1 / k) for k in (20, 25, 30)]
    assert (found["auc"], methods["auc"]) == ((1, pytest.approx(np.mean(pairs)), 1), ONE_SIDED)
    low = perfect_recall(np.array([20, 25, 30]))[0]
    assert found["balanced_accuracy"] == (1, low, 1)


def test_perfect_answers_of_patients_count_patients():
    labels = np.repeat([0, 1], [40, 24])
    groups = (np.arange(64) // 8).astype(str)  # five patients of class 0, three of class 1
    both = estimate(np.eye(2)[labels], labels, BINARY, groups=groups)
    found, methods = both.metrics, both.methods
    assert (found["auc"].low, methods["auc"]) == (pytest.approx(0.05 ** (1 / 3)), ONE_SIDED)
    mixed = np.repeat(np.arange(4), 16).astype(str)  # one of four patients has both
    found = estimate(np.eye(2)[labels], labels, BINARY, groups=mixed).metrics
    assert found["auc"].low == pytest.approx(0.05 ** (1 / 2))


def test_width_of_a_coin():
    # The accuracy of 400 answers, half of them right: 0.5 +- 1.96 * sqrt(0.25 / 400) = 0.049.
    labels = np.tile([0, 1], 200)
    scores = np.repeat([[1.0, 0.0]], 400, axis=0)
    found = estimate(scores, labels, BINARY).metrics["acc"]
    assert_allclose(found, [0.5, 0.451, 0.549], atol=0.001)


def test_undefined_everywhere_is_nan():
    labels = np.zeros(10, dtype=int)
    found = estimate(np.full((10, 2), 0.5), labels, BINARY).metrics
    assert np.isnan(found["auc"]).all()
    assert found["acc"] == (1, *wilson(1.0, 10))


def test_one_sample():
    found = estimate(np.array([[0.2, 0.8]]), np.array([1]), BINARY)
    assert found.metrics["acc"] == (1, *wilson(1.0, 1))
    assert found.methods["balanced_accuracy"] == NONE  # of the other class nothing is known


def test_margins_have_intervals_too():
    scores, labels = answers(BINARY)
    margins = np.stack([0.5 - scores[:, 1], scores[:, 1] - 0.5], axis=1)
    found = estimate(margins, labels, BINARY, score_type=MARGIN)
    same = estimate(scores, labels, BINARY).metrics
    assert tuple(found.metrics) == tuple(found.methods) == EVERY
    for name in EVERY:
        assert_allclose(found.metrics[name], same[name], rtol=1e-12)


def test_continuous_labels_by_patient():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=60)
    predictions = (labels + rng.normal(size=60))[:, None]
    cluster = np.arange(60) // 4
    found = estimate(predictions, labels, "regression", groups=cluster.astype(str))
    assert (set(found.methods.values()), found.unit) == ({JACKKNIFE}, "patient")
    rests = [
        regression_metrics.evaluate(predictions[cluster != i], labels[cluster != i])["pearson"]
        for i in range(15)
    ]
    spread = np.sqrt(14 * np.arctanh(rests).var())  # Fisher's z
    half = scipy.stats.t.ppf(0.975, 14) * spread
    value = found.metrics["pearson"].value
    ends = np.tanh(np.arctanh(value) + np.array([-half, half]))
    assert_allclose(found.metrics["pearson"], [value, *ends])
    assert found.metrics["r2"].high < 1
    assert 0 < found.metrics["mae"].low < found.metrics["mae"].value < found.metrics["mae"].high
    few = estimate(predictions[:16], labels[:16], "regression", groups=cluster[:16].astype(str))
    assert set(few.methods.values()) == {NONE}


def test_refusals():
    scores, labels = answers(BINARY)
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


def test_students_quantiles_equal_scipys():
    for level in (0.5, 0.9, 0.95, 0.999):
        for df in (1, 1.5, 3.7, 10, 50, 1e3, 1e6):
            expected = scipy.stats.t.ppf((1 + level) / 2, df)
            assert student(level, df) == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------------------- nothing is certain


def degenerate():
    """Every kind of answer that scatters nothing, or little: task, scores, labels."""
    for task, n_classes in N_CLASSES.items():
        for n in (60, 600):
            labels = np.arange(n) % n_classes
            if task == MULTI_LABEL:
                labels = np.stack([np.arange(n) // k % 2 for k in (1, 2, 3)], axis=1)
            right = labels.astype(float) if task == MULTI_LABEL else np.eye(n_classes)[labels]
            wrong = 1 - labels if task == MULTI_LABEL else np.roll(right, 1, axis=1)
            one = right.copy()
            one[0] = wrong[0]
            column = np.where(np.arange(n_classes) == n_classes - 1, 0.0, right)
            yield task, "all right", right, labels
            yield task, "all wrong", wrong.astype(float), labels
            yield task, "one wrong", one, labels
            yield task, "all alike", np.full(right.shape, 1 / n_classes), labels
            yield task, "one column never scored", column, labels


CASES = [pytest.param(*case, id=f"{case[0]}, {len(case[3])}, {case[1]}") for case in degenerate()]


@pytest.mark.parametrize(("task", "what", "scores", "labels"), CASES)
@pytest.mark.parametrize("size", [1, 3])
def test_no_interval_is_without_width(task, what, scores, labels, size):
    """By any metric, of images and of patients, once and as the mean of episodes."""
    groups = None if size == 1 else (np.arange(len(labels)) // size).astype(str)
    several = np.stack([scores] * 3)
    found = estimate(scores, labels, task, groups=groups, temperature=1.0)
    episodes = measure_episodes(several, labels, task, 40, groups=groups)
    n_seen = 0
    for estimates in (found.metrics, episodes.test):
        for name, (value, low, high) in estimates.items():
            if name.startswith("ece") or np.isnan(value):  # kappa of one answer is none
                continue
            assert low <= value <= high, name
            assert high - low > 1e-3, name
            n_seen += 1
    assert n_seen >= 8


@pytest.mark.parametrize("n", [12, 60, 400])
@pytest.mark.parametrize("size", [1, 2])
def test_no_interval_of_continuous_labels_is_without_width(n, size):
    rng = np.random.default_rng(0)
    labels, groups = rng.normal(size=n), (np.arange(n) // size).astype(str)
    answered = {
        "exact": labels,
        "exact but for a scale": 2 * labels + 1,
        "all alike": np.zeros(n),
        "always one too much": labels + 1,
        "usual": labels + rng.normal(size=n),
    }
    for what, predictions in answered.items():
        found = estimate(predictions[:, None], labels, "regression", groups=groups)
        of_episodes = measure_episodes(
            np.stack([predictions[:, None]] * 2), labels, "regression", 40, groups=groups
        )
        for name, (value, low, high) in [*found.metrics.items(), *of_episodes.test.items()]:
            assert np.isnan(low) or (high - low > 1e-6 and low <= value <= high), (what, name)
        scatters = {
            "exact": 0,
            "exact but for a scale": 3,
            "all alike": 3,
            "always one too much": 1,
        }
        assert sum(m != NONE for m in found.methods.values()) == scatters.get(what, 4), what


@pytest.mark.parametrize("task", CLASSIFICATION)
@pytest.mark.parametrize(("rare", "method"), [(1, NONE), (2, COUNTS), (4, COUNTS), (5, JACKKNIFE)])
def test_few_of_a_class(task, rare, method):
    scores, _ = answers(task, 80)
    labels = np.arange(80) % (N_CLASSES[task] - 1)
    labels[:rare] = N_CLASSES[task] - 1
    if task == MULTI_LABEL:
        labels = np.stack([np.arange(80) % 2, np.arange(80) % 3 == 0, np.arange(80) < rare], axis=1)
        labels = labels.astype(int)
    found = estimate(scores, labels, task)
    for name in ("auc", "balanced_accuracy", "f1_macro", "kappa", "average_precision"):
        assert found.methods.get(name, method) == method, name
    assert found.supports["auc"].weakest == rare
    assert found.methods["acc"] == (JACKKNIFE if task == MULTI_LABEL else WILSON)
    assert found.methods["brier"] == JACKKNIFE


def test_a_metric_that_is_not_defined_has_no_method():
    found = estimate(np.full((9, 2), 0.5), np.zeros(9, int), BINARY)
    assert np.isnan(found.metrics["auc"].value)
    assert found.methods["auc"] == NONE
    assert estimate(np.ones((9, 1)), np.ones(9), "regression").methods["r2"] == NONE


# ---------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(("n_patients", "is_unequal"), [(8, False), (22, True)])
def test_of_few_patients_the_truth_is_held(n_patients, is_unequal):
    """By the bootstrap of patients it was 80 to 91 % of the AUCs. 300 sets: two errors are .03."""
    rng = np.random.default_rng(0)

    def draw(n):
        sizes = rng.choice([1, 1, 2, 3, 8], n) if is_unequal else np.full(n, 2)
        who = np.repeat(np.arange(n), sizes)
        labels = (np.arange(n) % 2)[who]
        z = 1.2 * labels + rng.normal(size=n)[who] + rng.normal(size=len(who))
        p = 1 / (1 + np.exp(-1.2 * (z - 0.6)))
        return np.stack([1 - p, p], axis=1), labels, who.astype(str)

    truth = metrics.evaluate(*draw(60_000)[:2], BINARY)
    names = ("acc", "auc", "balanced_accuracy", "f1_macro", "brier")
    held = dict.fromkeys(names, 0)
    for _ in range(300):
        scores, labels, groups = draw(n_patients)
        found = estimate(scores, labels, BINARY, groups=groups).metrics
        for name in names:
            held[name] += found[name].low <= truth[name] <= found[name].high
    assert min(held.values()) >= 0.92 * 300, held
