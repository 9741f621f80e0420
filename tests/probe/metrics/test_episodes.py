"""Means over episodes, and intervals over episodes and test samples at once."""

import numpy as np
import pytest
from looking import some
from measuring import EVERY, measure_episodes

from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION
from probe.metrics import classification as metrics
from probe.metrics import episodes as episode_metrics
from probe.metrics.episodes import multiplicities
from probe.metrics.intervals import estimate
from probe.metrics.jackknife import by_jackknife, left_out, supports, wilson


def answers(n_episodes, n, n_classes, seed=0, spread=1.0):
    """Episodes that share the test set and are good by different degrees."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    gain = 1 + spread * rng.normal(size=(n_episodes, 1, 1))
    logits = gain * np.eye(n_classes)[labels] + rng.normal(size=(n_episodes, n, n_classes))
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), labels


@pytest.mark.parametrize(("task", "n_classes"), [(BINARY, 2), (MULTI_CLASS, 4), (ORDINAL, 4)])
def test_each_episode_is_evaluated_by_itself(task, n_classes):
    scores, labels = answers(5, 80, n_classes)
    found = measure_episodes(scores, labels, task, 50)
    for e, part in some(enumerate(scores)):
        for name, value in metrics.evaluate(part, labels, task).items():
            assert found.episodes[name][e] == value
    for name, values in some(found.episodes.items()):
        assert found.test[name].value == pytest.approx(np.mean(values))


@pytest.mark.parametrize(("task", "n_classes"), [(BINARY, 2), (MULTI_CLASS, 3)])
def test_intervals_are_those_of_drawing_episodes_and_samples_the_slow_way(task, n_classes):
    scores, labels = answers(12, 150, n_classes)
    found = measure_episodes(scores, labels, task, 2000)
    rng = np.random.default_rng(5)
    slow = {name: [] for name in EVERY}
    for _ in range(400):
        rows, episodes = rng.integers(150, size=150), rng.integers(12, size=12)
        each = [metrics.evaluate(scores[e][rows], labels[rows], task) for e in episodes]
        for name, values in slow.items():
            values.append(np.mean([one[name] for one in each]))
    for name, values in some(slow.items()):
        low, high = np.percentile(values, [2.5, 97.5])
        width = high - low
        assert found.test[name].low == pytest.approx(low, abs=0.15 * width), name
        assert found.test[name].high == pytest.approx(high, abs=0.15 * width), name


def test_pieces_of_episodes_and_of_draws_change_nothing(monkeypatch):
    scores, labels = answers(7, 90, 3)
    whole = measure_episodes(scores, labels, MULTI_CLASS, 60)
    monkeypatch.setattr(episode_metrics, "CHUNK_CELLS", 2000)
    found = measure_episodes(scores, labels, MULTI_CLASS, 60)
    assert found.episodes == whole.episodes
    for name, interval in found.test.items():
        assert interval == pytest.approx(whole.test[name], rel=1e-12, nan_ok=True), name


def test_both_levels_widen_the_interval():
    scores, labels = answers(8, 400, 2, spread=1.0)
    same = np.repeat(scores[:1], 8, axis=0)
    both, of_test = (measure_episodes(s, labels, BINARY, 1000).test["acc"] for s in (scores, same))
    assert both.high - both.low > 1.5 * (of_test.high - of_test.low)


def test_one_episode_is_the_bootstrap_of_the_test_set():
    scores, labels = answers(1, 90, 3)
    found = measure_episodes(scores, labels, MULTI_CLASS, 100, seed=4)
    drawn = multiplicities(90, 100, 4)
    rows = [np.repeat(np.arange(90), times) for times in drawn]
    each = [metrics.evaluate(scores[0][r], labels[r], MULTI_CLASS) for r in rows]
    for name in ("acc", "balanced_accuracy", "f1_macro"):
        ends = np.percentile([one[name] for one in each], [2.5, 97.5])
        assert found.test[name][1:] == pytest.approx(ends)
        assert found.intervals[name] == "bootstrap of episodes and samples"


@pytest.mark.parametrize(("task", "n_classes"), [(BINARY, 2), (MULTI_CLASS, 4), (ORDINAL, 4)])
def test_one_episode_on_few_patients_has_the_interval_of_its_test_set(task, n_classes):
    scores, labels = answers(1, 60, n_classes)
    groups = (np.arange(60) // 3).astype(str)
    found = measure_episodes(scores, labels, task, groups=groups)
    alone = estimate(scores[0], labels, task, groups=groups)
    assert found.intervals == alone.methods
    for name, interval in alone.metrics.items():
        assert found.test[name] == pytest.approx(interval, nan_ok=True), name


def test_few_patients_and_few_episodes_both_widen_the_interval():
    labels = np.arange(60) // 3 % 2
    groups = (np.arange(60) // 3).astype(str)
    rng = np.random.default_rng(0)
    right = np.where(rng.random((8, 60)) < np.linspace(0.5, 0.95, 8)[:, None], labels, 1 - labels)
    scores = np.stack([1 - right, right], axis=2).astype(float)
    found = measure_episodes(scores, labels, BINARY, groups=groups)
    of_patients = left_out(metrics.prepare(scores[0], labels, BINARY), np.arange(60) // 3)["acc"]
    mean_without = np.mean(
        [
            left_out(metrics.prepare(one, labels, BINARY), np.arange(60) // 3)["acc"]
            for one in scores
        ],
        axis=0,
    )
    assert mean_without.shape == of_patients.shape == (20,)
    v = 19 * mean_without.var()
    value, low, high = found.test["acc"]
    support = supports(labels, BINARY, 2, np.arange(60) // 3)["acc"]
    narrow = by_jackknife(value, v, support)
    more = np.var(found.episodes["acc"], ddof=1) / 8
    n = value * (1 - value) / v
    assert n > support.most == 40  # few are believed so far
    n = 1 / (1 / 40 + more / (value * (1 - value)))
    assert (low, high) == pytest.approx(wilson(value, n, quantile=2.093024))  # t of 19
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize(("n_rare", "method"), [(1, "none"), (3, "counts"), (6, "jackknife")])
def test_few_of_a_class_on_test(n_rare, method):
    scores, labels = answers(3, 300, 2)
    labels = (np.arange(300) < n_rare).astype(int)
    found = measure_episodes(scores, labels, BINARY, 20)
    assert found.intervals["auc"] == found.intervals["f1_macro"] == method
    assert found.intervals["acc"] == "jackknife"
    say = [mark for mark in found.marks if "class 1 has" in mark]
    assert (
        say
        == {
            1: ["no interval of auc, balanced_accuracy, f1_macro: class 1 has 1 sample"],
            3: [
                "intervals of auc, balanced_accuracy, f1_macro by counts alone: class 1 has 3 samples"
            ],
            6: [],
        }[n_rare]
    )


def test_patients_are_drawn_whole():
    """Ten copies of each image say no more than one of each."""
    scores, labels = answers(6, 60, 2)
    groups = np.array([f"p{i}" for i in range(60)])
    copies = measure_episodes(
        np.repeat(scores, 10, axis=1),
        np.repeat(labels, 10),
        BINARY,
        500,
        groups=np.repeat(groups, 10),
    )
    once = measure_episodes(scores, labels, BINARY, 500)
    for name in ("acc", "auc"):
        width = [m.test[name].high - m.test[name].low for m in (copies, once)]
        assert width[0] == pytest.approx(width[1], rel=0.1)


def test_several_labels_and_continuous_ones():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((4, 50, 3)), rng.integers(-1, 2, (50, 3))
    found = measure_episodes(scores, labels, MULTI_LABEL, 100)
    assert found.test["auc"].low < found.test["auc"].value < found.test["auc"].high
    assert found.intervals["average_precision"] == "jackknife"
    assert found.test["average_precision"].low < found.test["average_precision"].value
    ages = rng.normal(size=50)
    predicted = ages[None, :, None] + rng.normal(size=(4, 50, 1))
    found = measure_episodes(predicted, ages, "regression", 100)
    assert found.test["mae"].low < found.test["mae"].value < found.test["mae"].high


def test_an_absent_class_leaves_no_auc():
    scores, _ = answers(3, 20, 2)
    found = measure_episodes(scores, np.zeros(20, int), BINARY, 50)
    assert np.isnan(found.test["auc"]).all()
    assert found.intervals["auc"] == "none"
    assert found.test["acc"].low >= 0
    assert "no AUC on test: none there is of class 1" in found.marks
    named = measure_episodes(scores, np.zeros(20, int), BINARY, 50, class_names=("well", "ill"))
    assert "no AUC on test: none there is of class ill" in named.marks


@pytest.mark.parametrize("n", [20, 400])
def test_without_a_wrong_answer_an_interval_goes_by_the_counts(n):
    labels = np.arange(n) % 2
    found = measure_episodes(np.stack([np.eye(2)[labels]] * 3), labels, BINARY, 50)
    for name in ("acc", "balanced_accuracy", "f1_macro", "auc"):
        value, low, high = found.test[name]
        assert (value, high, found.intervals[name]) == (1, 1, "jackknife")
        units = n / 2 if name == "auc" else n  # what they are worth, and z about 2
        assert low == pytest.approx(1 / (1 + 4.4 / units), abs=0.01), name
    assert found.marks == []


def test_patients_matter_where_one_has_several_samples():
    scores, labels = answers(3, 20, 2)
    each = np.array([f"patient {9 - i % 10}{i}" for i in range(20)])
    found = measure_episodes(scores, labels, BINARY, 50, groups=each)
    assert found == measure_episodes(scores, labels, BINARY, 50)


@pytest.mark.filterwarnings("error")  # numpy's, of dividing by nobody
@pytest.mark.parametrize("task", [BINARY, ORDINAL, REGRESSION])
def test_one_patient_alone_gives_no_interval(task):
    scores, labels = answers(3, 20, 2)
    if task == REGRESSION:
        scores, labels = scores[..., 1:], labels + np.linspace(0, 1, 20)
    found = measure_episodes(scores, labels, task, 50, groups=np.full(20, "she"))
    assert set(found.intervals.values()) == {"none"}
    first = next(iter(found.test.values()))
    assert not np.isnan(first.value)
    assert np.isnan(first[1:]).all()
