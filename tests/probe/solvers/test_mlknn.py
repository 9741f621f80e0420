"""ML-kNN against the published loop, by eye, and from the command line's side."""

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import NearestNeighbors

from cache.errors import RequestError
from cache.task import MISSING, MULTI_CLASS, MULTI_LABEL, REGRESSION
from probe.kinds.knn import Knn
from probe.solvers import mlknn
from probe.solvers.knn import scores


def many_labels(n, seed, n_labels=4, width=12):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_labels)) < 0.3).astype(int)
    signal = labels @ np.random.default_rng(5).normal(size=(n_labels, width))
    return (signal + rng.normal(size=(n, width))).astype(np.float32), labels


def published(bank, labels, queries, k, ignore_first=0, s=1.0):
    """MLkNN of Baharoon et al.'s eval/utils.py, which is scikit-multilearn's, loop by loop."""
    n, n_labels = labels.shape
    prior = (s + labels.sum(axis=0)) / (2 * s + n)
    search = NearestNeighbors(n_neighbors=k, metric="cosine").fit(bank)
    own = search.kneighbors(bank, k + ignore_first, return_distance=False)[:, ignore_first:]
    with_label, without = np.zeros((2, n_labels, k + 1))
    for row in range(n):
        deltas = labels[own[row]].sum(axis=0)
        for label in range(n_labels):
            counted = with_label if labels[row, label] else without
            counted[label, deltas[label]] += 1
    result = np.zeros((len(queries), n_labels))
    for row, found in enumerate(search.kneighbors(queries, k, return_distance=False)):
        deltas = labels[found].sum(axis=0)
        for label in range(n_labels):
            d = deltas[label]
            true = prior[label] * (s + with_label[label, d])
            true /= s * (k + 1) + with_label[label].sum()
            false = (1 - prior[label]) * (s + without[label, d])
            false /= s * (k + 1) + without[label].sum()
            result[row, label] = true / (true + false)
    return result


@pytest.mark.parametrize("self_counts", [True, False])
def test_equal_to_the_published_loop_at_every_k(self_counts):
    (bank, labels), (queries, _) = many_labels(150, seed=1), many_labels(30, seed=2)
    config = Knn((10, 3, 40), vote="mlknn", self_counts=self_counts)
    found = scores(config, bank, labels, queries, MULTI_LABEL, 4)
    assert list(found) == [10, 3, 40]
    for k, values in found.items():
        expected = published(bank, labels, queries, k, ignore_first=0 if self_counts else 1)
        assert_allclose(values, expected, rtol=1e-12)


def test_a_bank_of_four_by_eye():
    # Of four rows two have the label; each of these finds one neighbour with it, the others none.
    ones, labels = np.array([[1], [1], [0], [0]]), np.array([[1], [1], [0], [0]])
    counted = mlknn.fit(ones, labels, k=1)
    assert counted.prior.tolist() == [3 / 6]
    assert counted.given_one.tolist() == [[1 / 4, 3 / 4]]
    assert counted.given_zero.tolist() == [[3 / 4, 1 / 4]]
    assert counted.predict(np.array([[0], [1]])).tolist() == [[0.25], [0.75]]


def test_a_row_that_is_its_own_neighbour_makes_counts_too_sure():
    # Noise: no neighbour says anything of a label. At k = 1 the published form is sure of it.
    rng = np.random.default_rng(0)
    bank, labels = rng.normal(size=(200, 8)), rng.integers(0, 2, (200, 1))
    queries = rng.normal(size=(50, 8))
    corrected, as_published = (
        scores(Knn((1,), vote="mlknn", self_counts=s), bank, labels, queries, MULTI_LABEL, 1)
        for s in (False, True)
    )
    assert np.abs(corrected[1] - 0.5).max() < 0.15
    assert np.abs(as_published[1] - 0.5).min() > 0.45


def test_what_is_left_out_is_the_row_itself():
    copies = np.array([[1, 0, 2], [0, 1, 2], [2, 0, 1]])  # rows 0 and 1 are alike
    assert_array_equal(mlknn.leave_out_self(copies), [[1, 2], [0, 2], [0, 1]])
    absent = np.array([[1, 2], [1, 2], [2, 1]])  # row 0 resembles nothing, not even itself
    assert_array_equal(mlknn.leave_out_self(absent), [[1], [2], [1]])
    with pytest.raises(RequestError, match="needs a bank of 2 rows"):
        mlknn.leave_out_self(np.array([[0]]))


def test_counts_in_chunks_are_the_same(monkeypatch):
    rng = np.random.default_rng(3)
    labels, indices = rng.integers(0, 2, (20, 3)), rng.integers(0, 20, (17, 9))
    whole = mlknn.count_ones(indices, labels, (9, 2))
    monkeypatch.setattr(mlknn, "CHUNK_LABELS", 60)
    for k, ones in some(mlknn.count_ones(indices, labels, (9, 2)).items()):
        assert_array_equal(ones, whole[k])
        assert_array_equal(ones, labels[indices[:, :k]].sum(axis=1))


def test_what_is_not_known_of_a_label_changes_no_other():
    (bank, labels), (queries, _) = many_labels(120, seed=1), many_labels(20, seed=2)
    hidden = labels.copy()
    hidden[::3, 1] = MISSING
    config = Knn((7,), vote="mlknn")
    whole = scores(config, bank, labels, queries, MULTI_LABEL, 4)[7]
    found = scores(config, bank, hidden, queries, MULTI_LABEL, 4)[7]
    assert_array_equal(found[:, [0, 2, 3]], whole[:, [0, 2, 3]])
    assert not np.allclose(found[:, 1], whole[:, 1])
    # Rows of which it is not known tell nothing: neither prior nor counts change by them.
    ones = np.array([[1], [0], [1]])
    two, three = (mlknn.fit(ones[:n], np.array([[1], [0], [MISSING]])[:n], k=1) for n in (2, 3))
    assert_array_equal(two.predict(ones), three.predict(ones))


def test_refusals():
    bank, labels = many_labels(20, seed=1)
    config = Knn((3,), vote="mlknn")
    with pytest.raises(RequestError, match="mlknn is for several labels at once"):
        scores(config, bank, labels[:, 0], bank, MULTI_CLASS, 4)
    with pytest.raises(RequestError, match="not for continuous ones"):
        scores(config, bank, labels[:, :1] * 1.0, bank, REGRESSION, 1)
    with pytest.raises(RequestError, match="k = 21 neighbours can't be found in a bank of 20"):
        scores(Knn((20,), vote="mlknn"), bank, labels, bank, MULTI_LABEL, 4)
