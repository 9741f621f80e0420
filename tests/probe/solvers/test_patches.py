"""Logistic and ridge regression on patches with shares as targets."""

import tracemalloc

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression, Ridge

from cache.errors import RequestError
from probe.solvers import patches as module
from probe.solvers.patch_ridge import fit_ridge, ridge_losses
from probe.solvers.patches import (
    LOWEST,
    WORST,
    Blocks,
    Part,
    Patches,
    Told,
    fit_and_choose,
    fit_path,
    path_losses,
)
from probe.solvers.standardise import Standard

STRENGTHS = (1e-3, 1e-2, 0.1, 1.0)


def make_patches(n, n_classes, seed=0, width=7, scale=0.7):
    """Features (n, 7) of unlike means and scales, one constant, and shares that sum to 1 or less."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_classes, 0.3), n).astype(np.float32)
    shares[::5] = np.eye(n_classes, dtype=np.float32)[
        rng.integers(n_classes, size=len(shares[::5]))
    ]
    shares[::7] *= 0.25  # at an image's edge
    shares[3::50] = 0  # ignored
    centres = np.random.default_rng(1).normal(size=(n_classes, width))
    x = shares @ centres + scale * rng.normal(size=(n, width))
    x = x * 10.0 ** (np.arange(width) % 7 - 3) + np.arange(width)
    x[:, 2] = 3
    return x.astype(np.float32), shares


def repeated(x, shares):
    """Each patch once a class, standardised, with labels and weights, for scikit-learn."""
    kept = shares.sum(axis=1) > 0
    x, shares = x[kept].astype(np.float64), shares[kept].astype(np.float64)
    rows, classes = np.nonzero(shares)
    return Standard.of(x).wide(x)[rows], classes, shares[rows, classes]


def fits_of(x, shares, strengths=STRENGTHS, tolerance=1e-12):
    patches = Patches.of(x, shares)
    told = Told.of(patches)
    blocks = Blocks(patches, told)
    part = Part.of(blocks, patches.n_rows, patches.width)
    return list(fit_path(blocks, part, told, strengths, tolerance))


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("of_width", [64, 6])
def test_equals_scikit_learn_on_repeated_patches(n_classes, of_width, monkeypatch):
    monkeypatch.setattr(module, "PART_OF_WIDTH", of_width)  # 6: second derivatives of 42 patches
    monkeypatch.setattr(module, "BLOCK_CELLS", 500)
    x, shares = make_patches(600, n_classes)
    rows, classes, weights = repeated(x, shares)
    for fit in some(fits_of(x, shares)):
        model = LogisticRegression(C=fit.strength, tol=1e-10, max_iter=10_000)
        model.fit(rows, classes, sample_weight=weights)
        assert fit.converged
        assert_allclose(fit.weights.T, model.coef_, atol=1e-5)
        assert_allclose(
            fit.intercept - fit.intercept.mean() * (n_classes > 2), model.intercept_, atol=1e-5
        )
        logs = np.log(model.predict_proba(rows)[np.arange(len(rows)), classes])
        objective = -fit.strength * weights @ logs + np.sum(model.coef_**2) / 2
        assert_allclose(fit.objective * fit.strength * weights.sum(), objective, rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_gradient_and_curvature_are_those_of_the_loss(n_classes):
    x, shares = make_patches(90, n_classes)
    patches = Patches.of(x, shares)
    (problem,) = Blocks(patches, Told.of(patches))
    rng = np.random.default_rng(0)
    weights, move = rng.normal(size=(2, len(problem.targets), problem.width))

    def loss(t):
        return float(problem.loss(problem.logits(weights + t * move)).sum())

    look = problem.look(problem.logits(weights))
    assert_allclose(np.sum(look.gradient * move), (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-6)
    bent = np.sum(problem.bend(look.probabilities, move) * move)
    assert_allclose(bent, (loss(1e-3) - 2 * loss(0) + loss(-1e-3)) / 1e-6, rtol=1e-3)


def test_whole_shares_are_the_labels_of_the_linear_probe():
    from probe.kinds.linear import Linear
    from probe.kinds.linear import fit_path as linear_path

    x, shares = make_patches(400, 3)
    labels = shares.argmax(axis=1)
    fits = fits_of(x, np.eye(3)[labels])
    config = Linear(STRENGTHS, tolerance=1e-12)
    for fit, own in zip(some(fits), linear_path(x, labels, "multi-class", 3, config), strict=True):
        assert_allclose(fit.weights, own.weights, atol=1e-4)
        assert_allclose(fit.objective * fit.strength * 400, own.objective, rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_float32_blocks_and_a_sample_come_to_the_same_fit(n_classes, monkeypatch):
    x, shares = make_patches(4000, n_classes, width=9)
    val = Patches.of(*make_patches(700, n_classes, seed=5, width=9))
    train, half = Patches.of(x, shares), Patches.of(x[::2], shares[::2])
    monkeypatch.setattr(module, "TOLERANCE", 1e-7)
    monkeypatch.setattr(module, "CHOICE_TOLERANCE", 1e-6)  # losses of two strengths are close
    exact = fit_and_choose(train, train, val, STRENGTHS)
    monkeypatch.setattr(module, "SINGLE_ABOVE", 100)
    said = []
    found = fit_and_choose(train, half, val, STRENGTHS, said.append)
    assert found.place == exact.place
    assert_allclose(found.fit.weights, exact.fit.weights, atol=2e-3)
    assert_allclose(found.fit.objective, exact.fit.objective, rtol=1e-6)
    assert said == [
        f"C {found.fit.strength:g} is chosen, and fitted to all {train.n_rows:_} patches"
    ]
    again = fit_and_choose(train, half, val, STRENGTHS)
    assert np.array_equal(again.fit.weights, found.fit.weights)


def test_the_path_is_near_enough_to_choose_by():
    x, shares = make_patches(3000, 3)
    val = Patches.of(*make_patches(900, 3, seed=5))
    found = fit_and_choose(Patches.of(x, shares), train := Patches.of(x, shares), val, STRENGTHS)
    exact = path_losses(fits_of(x, shares), val)
    assert_allclose(found.losses, exact, rtol=5e-4)
    assert found.fit.strength == STRENGTHS[int(exact.argmin())]
    assert train.n_rows == 3000 - 60


def test_losses_are_of_shares_and_of_classes_that_train_lacks():
    x, shares = make_patches(300, 3)
    shares[:, 1] = 0
    (fit,) = fits_of(x, shares, [0.1])
    assert fit.told.columns.tolist() == [2]
    new, truth = make_patches(80, 3, seed=8)
    said = fit.outputs(new).astype(np.float64)
    assert (said[:, 0] == 0).all()
    assert (said[:, 1] == LOWEST).all()
    log = np.log1p(np.exp(-said[:, 2]))
    worst = np.stack([log + said[:, 2], np.full(80, WORST), log], axis=1)
    expected = (worst * truth).sum() / truth.sum()
    assert_allclose(path_losses([fit], Patches.of(new, truth)), [expected], rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_ridge_equals_scikit_learn_on_repeated_patches(n_classes, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", 500)
    x, shares = make_patches(500, n_classes)
    rows, classes, weights = repeated(x, shares)
    targets, val = np.eye(n_classes)[classes], make_patches(200, n_classes, seed=4)
    fits = fit_ridge(Patches.of(x, shares), [1e-3, 1.0])
    assert [fit.penalty for fit in fits] == [1.0, 1e-3]
    losses = ridge_losses(fits, Patches.of(*val))
    for fit, loss in zip(some(fits), losses, strict=True):
        model = Ridge(alpha=fit.penalty * weights.sum()).fit(rows, targets, sample_weight=weights)
        assert_allclose(fit.weights.T, model.coef_, atol=1e-9)
        assert_allclose(fit.intercept, model.intercept_, atol=1e-9)
        said = fit.outputs(val[0])[:, None] - np.eye(n_classes)
        each = np.square(said).sum(axis=2) * val[1]
        assert_allclose(loss, each.sum() / val[1].sum(), rtol=1e-5)


def test_memory_is_of_what_is_held_and_not_of_what_is_read(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", 2**14)
    monkeypatch.setattr(module, "SINGLE_ABOVE", 100)
    x, shares = make_patches(512, 3, width=64)

    def peak(n_times):
        def read():
            for start in range(0, 512 * n_times, 256):
                rows = slice(start % 512, start % 512 + 256)
                kept = shares[rows].sum(axis=1) > 0
                yield x[rows][kept], shares[rows][kept]

        n = int((shares.sum(axis=1) > 0).sum())
        train = Patches(n * n_times, 64, read)
        tracemalloc.start()
        fit_and_choose(train, Patches.of(x, shares), None, [0.1])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < 1.1 * peak(2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x, s: (x, 0 * s), "masks ignore them all"),
        (lambda x, s: (x, s * [1, 0, 0]), "two classes, found only class 0"),
        (lambda x, s: (np.where(np.arange(7) == 4, np.nan, x), s), "nan in column 4"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, why):
    x, shares = change(*make_patches(60, 3))
    with pytest.raises(RequestError, match=why):
        Told.of(Patches.of(x, shares))


def test_without_val_one_strength_is_needed():
    train = Patches.of(*make_patches(60, 3))
    with pytest.raises(RequestError, match="found none; name one: --strengths 0.1"):
        fit_and_choose(train, train, None, STRENGTHS)
    assert len(fit_and_choose(train, train, None, [0.1]).losses) == 0
