"""Principal components and t-SNE."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from cache.errors import RequestError
from probe.report.statistics import projections
from probe.report.statistics.projections import pca, tsne


def drawn(n, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) * np.linspace(3, 0.5, width) + 5


@pytest.mark.parametrize(("n", "width"), [(60, 7), (20, 50), (30, 30), (2, 4), (9, 2)])
def test_as_scikit_learn_has_it(n, width):
    x = drawn(n, width)
    found, theirs = pca(x), PCA(2).fit(x)
    assert found.shares == pytest.approx(theirs.explained_variance_ratio_)
    assert np.abs(found.points) == pytest.approx(np.abs(theirs.transform(x)), abs=1e-9)


@pytest.mark.parametrize(("n", "width"), [(60, 7), (20, 50)])
def test_signs_depend_on_nothing_but_the_vectors(n, width):
    x = drawn(n, width)
    found = pca(x)
    order = np.random.default_rng(1).permutation(n)
    assert pca(x[order]).points == pytest.approx(found.points[order])
    assert pca(x + 3).points == pytest.approx(found.points)
    assert pca(-x).points == pytest.approx(-found.points)  # weights are the same
    weights = np.linalg.lstsq(x - x.mean(axis=0), found.points, rcond=None)[0]
    assert (weights[np.argmax(np.abs(weights), axis=0), [0, 1]] > 0).all()


def test_equally_large_weights_have_the_sign_of_the_first():
    line = np.linspace(-1, 1, 9)
    for x in (np.c_[line, -line], np.c_[line, -line * (1 + 1e-9)]):
        assert (np.diff(pca(x).points[:, 0]) > 0).all()


def test_chunks_of_rows_change_nothing(monkeypatch):
    x = drawn(60, 7)
    whole = pca(x)
    monkeypatch.setattr(projections, "CHUNK_ROWS", 11)
    assert pca(x).points == pytest.approx(whole.points)


@pytest.mark.parametrize(
    ("x", "n_without"),
    [
        (np.full((5, 3), 0.1), 2),
        (np.outer(np.arange(5), [1, 2, 3]), 1),
        (np.arange(5.0)[:, None], 1),
    ],
)
def test_directions_without_variance_are_0(x, n_without):
    found = pca(x)
    assert found.points.shape == (len(x), 2)
    assert (found.shares == 0).tolist() == [False] * (2 - n_without) + [True] * n_without
    assert not found.points[:, 2 - n_without :].any()


def test_halves_are_summed_in_doubles():
    x = drawn(300, 6).astype(np.float16)
    assert pca(x).points == pytest.approx(pca(x.astype(float)).points)


def test_tsne_keeps_groups_together_and_repeats():
    x = np.random.default_rng(0).normal(size=(40, 60))
    x[20:] += 10
    points = tsne(x, seed=3)
    assert points.shape == (40, 2)
    assert (points == tsne(x, seed=3)).all()
    away = np.linalg.norm(points[:, None] - points, axis=2)
    assert max(away[:20, :20].max(), away[20:, 20:].max()) < away[:20, 20:].min()


def test_refusals():
    with pytest.raises(RequestError, match="2 samples at least, found 1"):
        pca(np.ones((1, 3)))
    with pytest.raises(RequestError, match="4 samples at least, found 3"):
        tsne(np.eye(3))
    with pytest.raises(RequestError, match="all are the same"):
        tsne(np.ones((5, 3)))
    assert np.isfinite(tsne(np.arange(5.0)[:, None])).all()
