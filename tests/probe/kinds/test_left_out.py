"""kNN's leave-one-out against leaving out by hand."""

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose

from cache.task import MULTI_CLASS, MULTI_LABEL
from probe.kinds.knn import Knn
from probe.solvers import knn
from probe.solvers.knn import largest_k, left_out_scores

UNITS = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8])


def samples(task):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 4))
    x[7] = x[8]  # a copy in another unit
    if task == MULTI_LABEL:
        return x, rng.integers(0, 2, (12, 3))
    return x, rng.normal(size=12) if task == "regression" else np.arange(12) % 3


def by_hand(config, x, y, task):
    found = {}
    for unit in range(9):
        own = UNITS == unit
        if task == "regression":
            said = knn.scores(config, x[~own], y[~own][:, None], x[own], task, 1)
        else:
            said = knn.scores(config, x[~own], y[~own], x[own], task, 3)
        for k, scores in said.items():
            found.setdefault(k, []).append(scores)
    return {k: np.concatenate(parts) for k, parts in found.items()}


@pytest.mark.parametrize("large", [0, 2, 500])  # all units have searches of their own, one, none
@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (MULTI_CLASS, {}),
        (MULTI_CLASS, {"metric": "euclidean"}),
        (MULTI_LABEL, {}),
        (MULTI_LABEL, {"vote": "mlknn"}),
        ("regression", {"vote": "majority"}),
    ],
)
def test_each_unit_is_told_by_the_others(task, settings, large, monkeypatch):
    monkeypatch.setattr(knn, "LARGE_UNIT", large)
    x, y = samples(task)
    config = Knn(k=(1, 3, 8), **settings)
    found = left_out_scores(config, x, y, UNITS, task, 3)
    for k, expected in some(by_hand(config, x, y, task).items()):
        assert_allclose(found[k], expected, atol=1e-5, err_msg=str(k))


def test_the_largest_k_is_what_the_largest_unit_leaves():
    assert largest_k(Knn(), UNITS) == 9
    assert largest_k(Knn(vote="mlknn"), UNITS) == 8
    x, y = samples(MULTI_CLASS)
    assert left_out_scores(Knn(k=(9,)), x, y, UNITS, MULTI_CLASS, 3)[9].shape == (12, 3)
    assert largest_k(Knn(), np.array([0])) == 0
