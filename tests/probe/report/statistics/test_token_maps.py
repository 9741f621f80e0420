"""Maps of patch tokens."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from cache.errors import RequestError
from probe.report.statistics import token_maps
from probe.report.statistics.token_maps import (
    EDGES,
    OTSU,
    ZERO,
    cosines,
    foreground_pca,
    grid_cell,
    norms,
    otsu,
    parts,
    stretched,
)

N, SIDE, WIDTH = 4, 8, 12


def pictured(seed=0, n=N, offset=3.0):
    """Tokens of images with an object in the middle, of two halves, and where it is."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, SIDE, SIDE, WIDTH)) * 0.3
    is_object = np.zeros((n, SIDE, SIDE), bool)
    is_object[:, 2:6, 2:6] = True
    directions = np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0].T
    x[is_object] += 6 * directions[0]
    x[:, 2:6, 2:4] += 2 * directions[1]
    x[:, 2:4, 2:6] += 1 * directions[2]
    return (x + offset).astype(np.float32), is_object


@pytest.mark.parametrize("threshold", [OTSU, ZERO, 0.5])
def test_the_object_is_the_foreground_and_its_components_are_scikit_learns(threshold):
    x, is_object = pictured()
    found = foreground_pca(x, threshold)
    assert np.array_equal(found.foreground, is_object)
    assert found.is_clear
    assert found.n_agree == N
    every = PCA(1).fit(x.reshape(-1, WIDTH).astype(np.float64))
    assert found.first_share == pytest.approx(every.explained_variance_ratio_[0])
    inside = x[is_object].astype(np.float64)
    theirs = PCA(3).fit(inside)
    assert found.shares == pytest.approx(theirs.explained_variance_ratio_)
    wanted = stretched(theirs.transform(inside))
    for component in range(3):
        own = found.colours[is_object][:, component]
        same, turned = wanted[:, component], 1 - wanted[:, component]
        assert np.allclose(own, same, atol=1e-6) or np.allclose(own, turned, atol=1e-6)
    assert not found.colours[~is_object].any()


def test_the_sign_is_that_of_the_border_whatever_the_solver_gives(monkeypatch):
    x, is_object = pictured()
    usual = token_maps.pca
    turned = lambda flat, d=2: usual(flat, d)._replace(points=-usual(flat, d).points)  # noqa: E731
    for solver in (usual, turned):
        monkeypatch.setattr(token_maps, "pca", solver)
        assert np.array_equal(foreground_pca(x).foreground, is_object)
    monkeypatch.setattr(token_maps, "pca", usual)
    assert np.array_equal(foreground_pca(x, flip=True).foreground, ~is_object)
    # An object as bright as the tokens' offset, or a mean far from 0, changes nothing: it is centred.
    assert np.array_equal(foreground_pca(pictured(offset=-50)[0]).foreground, is_object)


def test_where_border_and_middle_are_alike_the_sign_is_not_clear():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, SIDE, SIDE, WIDTH))
    x[:, :, : SIDE // 2] += 5  # halves: the border is of both
    assert not foreground_pca(x).is_clear
    assert not foreground_pca(rng.normal(size=(3, 2, 2, 5))).is_clear  # nothing is in the middle
    x, _ = pictured()
    x[0] = -x[0] + 6  # one of four is the other way round
    assert foreground_pca(x).n_agree == N - 1


def test_what_tells_images_apart_is_told_from_what_tells_places_apart():
    x, _ = pictured()
    assert foreground_pca(x).between < 0.01
    x[3] += 40  # an image unlike the others takes the first component for itself
    assert foreground_pca(x).between > 0.9
    x, is_object = pictured()
    assert foreground_pca(x).colours_between < 0.1
    x[2][is_object[2]] += np.random.default_rng(5).normal(size=WIDTH) * 2  # its object alone
    found = foreground_pca(x, ZERO)
    inside = x[found.foreground].astype(np.float64)
    points = PCA(1).fit_transform(inside)[:, 0]
    image = np.nonzero(found.foreground)[0]
    means = np.array([points[image == i].mean() for i in image])
    assert found.colours_between == pytest.approx(means.var() / points.var())
    assert found.colours_between > 0.5


def test_without_a_threshold_all_is_foreground():
    found = foreground_pca(pictured()[0], None)
    assert found.foreground.all()
    assert found.shares[0] == pytest.approx(found.first_share)


def test_what_has_no_components_is_refused():
    with pytest.raises(RequestError, match="are the same"):
        foreground_pca(np.ones((2, 3, 3, 4)))
    with pytest.raises(RequestError, match="0 of 256 patches are above"):
        foreground_pca(pictured()[0], 40.0)


def slow_otsu(values):
    """The middle of two neighbours whose sides vary least."""
    ordered = np.unique(values)
    cuts = (ordered[1:] + ordered[:-1]) / 2
    within = [sum(((s - s.mean()) ** 2).sum() for s in (values[values <= c], values[values > c])) for c in cuts]  # fmt: skip
    return cuts[int(np.argmin(within))]


@pytest.mark.parametrize("seed", range(5))
def test_otsu_is_the_cut_of_least_variance(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 1, 40), rng.normal(4, 2, 25)]).round(1)  # some are equal
    assert otsu(values) == pytest.approx(slow_otsu(values))


def test_colours_are_stretched_over_percentiles():
    points = np.random.default_rng(0).normal(size=(500, 3))
    points[0] = 1e6  # an outlier takes no colour from the others
    points[:, 2] = 7
    found = stretched(points)
    low, high = np.percentile(points[:, 0], EDGES)
    assert found[5, 0] == pytest.approx(np.clip((points[5, 0] - low) / (high - low), 0, 1))
    assert found[1:, 0].std() > 0.2
    assert (found[:, 2] == 0.5).all()


@pytest.mark.parametrize("is_cosine", [False, True])
def test_parts_are_scikit_learns(is_cosine):
    x, is_object = pictured()
    flat = x.reshape(-1, WIDTH).astype(np.float64)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True) if is_cosine else flat
    theirs: Any = KMeans(3, n_init=4, random_state=0).fit(flat)  # type: ignore[arg-type]
    found = parts(x, 3, is_cosine=is_cosine)
    pairs = {*zip(found.labels.ravel().tolist(), theirs.labels_.tolist(), strict=True)}
    assert len(pairs) == 3
    sizes = np.bincount(found.labels.ravel())
    assert (np.diff(sizes) <= 0).all()
    total = ((flat - flat.mean(axis=0)) ** 2).sum()
    assert found.share == pytest.approx(1 - theirs.inertia_ / total)
    assert len(np.unique(found.labels[~is_object])) <= 2


def test_equal_patches_are_one_part():
    assert not parts(np.ones((1, 2, 2, 3)), 6).labels.any()


def test_threads_change_nothing():
    x, _ = pictured(n=20)
    found = []
    for n in (1, 2):
        with threadpool_limits(n):
            found.append((foreground_pca(x), parts(x)))
    assert np.array_equal(found[0][1].labels, found[1][1].labels)
    assert np.allclose(found[0][0].colours, found[1][0].colours, atol=1e-9)


def test_components_do_not_depend_on_the_order_of_images():
    x, _ = pictured()
    order = [2, 0, 3, 1]
    assert foreground_pca(x[order]).colours == pytest.approx(foreground_pca(x).colours[order])


def test_cosines_and_norms():
    x, _ = pictured()
    found = cosines(x, 1, 2, 3)
    seed = x[1, 2, 3].astype(np.float64)
    one = x[0, 4, 5].astype(np.float64)
    assert found[1, 2, 3] == pytest.approx(1)
    assert found[0, 4, 5] == pytest.approx(seed @ one / np.linalg.norm(seed) / np.linalg.norm(one))
    assert norms(x)[0, 4, 5] == pytest.approx(np.linalg.norm(one))
    x[0, 0, 0] = 0
    assert cosines(x, 1, 2, 3)[0, 0, 0] == 0


def test_places_of_the_picture():
    assert grid_cell(0.0, 0.0, (4, 8)) == (0, 0)
    assert grid_cell(0.49, 0.99, (4, 8)) == (1, 7)
    assert grid_cell(1.0, 1.0, (4, 8)) == (3, 7)
