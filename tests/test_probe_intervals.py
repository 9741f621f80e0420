"""The bootstrap against the slow, obvious one, and against what an interval is for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.errors import RequestError
from probe import metrics
from probe.intervals import bootstrap, resampled_metrics
from probe.metrics import BINARY, METRICS, MULTI_CLASS, MULTI_LABEL, ORDINAL, TASKS

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


def obvious(scores, labels, task, n_resamples, seed) -> dict[str, np.ndarray]:
    """Draw rows, then evaluate them as if they were a test set."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_resamples):
        rows = rng.integers(len(scores), size=len(scores))
        found.append(list(metrics.evaluate(scores[rows], labels[rows], task).values()))
    return {name: values for name, values in zip(METRICS, np.array(found).T, strict=True)}


@pytest.mark.parametrize("task", TASKS)
def test_every_resample_equals_the_obvious_one(task):
    scores, labels = answers(task)
    expected = obvious(scores, labels, task, 150, seed=3)
    found = resampled_metrics(scores, labels, task, 150, seed=3)
    assert tuple(found) == METRICS
    for name in METRICS:
        assert_allclose(found[name], expected[name], rtol=1e-12, err_msg=name)
    # The rare class is there so that undefined resamples are compared as well.
    if task == MULTI_LABEL:
        assert 0 < np.isnan(found["auc"]).sum() < 150


@pytest.mark.parametrize("task", TASKS)
def test_ends_are_percentiles_of_what_is_defined(task):
    scores, labels = answers(task)
    samples = obvious(scores, labels, task, 100, seed=0)
    for name, interval in bootstrap(scores, labels, task, 100, level=0.9).items():
        assert interval.value == metrics.evaluate(scores, labels, task)[name]
        expected = np.nanpercentile(samples[name], [5, 95])
        assert_allclose(interval[1:], expected, rtol=1e-12, err_msg=name)


def test_the_seed_decides_and_chunks_do_not(monkeypatch):
    scores, labels = answers(MULTI_CLASS)
    whole = bootstrap(scores, labels, MULTI_CLASS, 60, seed=5)
    assert whole != bootstrap(scores, labels, MULTI_CLASS, 60, seed=6)
    monkeypatch.setattr("probe.intervals.CHUNK_CELLS", 7 * len(scores))
    assert whole == bootstrap(scores, labels, MULTI_CLASS, 60, seed=5)
    monkeypatch.setattr("probe.intervals.CHUNK_CELLS", 1)
    assert whole == bootstrap(scores, labels, MULTI_CLASS, 60, seed=5)


def test_perfect_answers_have_no_width():
    labels = np.repeat([0, 1, 2], 20)
    for interval in bootstrap(np.eye(3)[labels], labels, MULTI_CLASS, 50).values():
        assert interval == (1, 1, 1)


def test_width_of_a_coin():
    # The accuracy of 400 answers, half of them right: 0.5 +- 1.96 * sqrt(0.25 / 400) = 0.049.
    labels = np.tile([0, 1], 200)
    scores = np.repeat([[1.0, 0.0]], 400, axis=0)
    accuracy = bootstrap(scores, labels, BINARY, 4000)["acc"]
    assert_allclose(accuracy, [0.5, 0.451, 0.549], atol=0.004)


def test_undefined_everywhere_is_nan():
    labels = np.zeros(10, dtype=int)
    found = bootstrap(np.full((10, 2), 0.5), labels, BINARY, 20)
    assert np.isnan(found["auc"]).all()
    assert found["acc"] == (1, 1, 1)


def test_one_sample():
    assert bootstrap(np.array([[0.2, 0.8]]), np.array([1]), BINARY, 5)["acc"] == (1, 1, 1)


def test_refusals():
    scores, labels = answers(BINARY)
    with pytest.raises(RequestError, match="at least 1 resample, found 0"):
        bootstrap(scores, labels, BINARY, n_resamples=0)
    with pytest.raises(RequestError, match=r"found 95"):
        bootstrap(scores, labels, BINARY, level=95)
    with pytest.raises(RequestError, match="90 rows of scores and 89 of labels"):
        bootstrap(scores, labels[:-1], BINARY)
