"""Linear and ridge probes of many more features than images, and of too many of both to rotate."""

import re
import tracemalloc

import numpy as np
import pytest
from golden import make_toy
from looking import some
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, Task
from probe.cli import main
from probe.kinds import linear, ridge
from probe.kinds.linear import Linear
from probe.kinds.ridge import Ridge
from probe.questions.question import Split
from probe.solvers import standardise, training_matrix
from probe.solvers.standardise import Standard, row_blocks

STRENGTHS = (1e-4, 1e-2, 1.0, 100.0)
PRECISE = Linear(STRENGTHS, tolerance=1e-12, max_products=20_000)


def layers(n, width, n_layers, n_classes=2, seed=0):
    """Float16 layers side by side, each nearly the one before; copies and constants among them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    x = np.random.default_rng(9).normal(size=(n_classes, width))[y] + 2 * rng.normal(
        size=(n, width)
    )
    parts = []
    for number in range(n_layers):
        x = x + 0.05 * rng.normal(size=x.shape)
        parts.append(x * 10.0 ** (number % 3 - 1) + 3 * number)
    found = np.concatenate(parts, axis=1).astype(np.float16)
    found[:, 1] = found[:, 0]  # a copy
    found[:, 2] = 0.1  # a constant
    return found, y


SHAPES = {"N < D": (40, 16, 6), "N = D": (60, 12, 5), "N > D": (150, 8, 5)}


def labels_of(task, y):
    if task == MULTI_LABEL:
        return np.stack([y == 0, y >= 1, y % 2 == 0], axis=1).astype(int)
    return y


@pytest.fixture(params=["rotated", "as stored"])
def way(request, monkeypatch):
    """Each way that a training matrix may take, in blocks that are small."""
    monkeypatch.setattr(standardise, "CHUNK_CELLS", 2000)
    monkeypatch.setattr(standardise, "SHORTEST", 5)
    if request.param == "as stored":
        monkeypatch.setattr(training_matrix, "MOST_ROTATED", 0)
        monkeypatch.setattr(training_matrix, "STORED_CELLS", 1000)
        monkeypatch.setattr(training_matrix, "N_DRAWN", 30)
    return request.param


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, ORDINAL, MULTI_LABEL])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logistic_is_scikit_learns_on_layers_side_by_side(shape, task, way):
    n_classes = 2 if task == BINARY else 3
    x, y = layers(*shape, n_classes)
    labels = labels_of(task, y)
    scaler = StandardScaler().fit(x.astype(np.float64))
    queries = layers(*shape, n_classes, seed=1)[0]
    # Products of stored features are float32.
    config = PRECISE if way == "rotated" else Linear(STRENGTHS, tolerance=1e-8, max_products=20_000)
    columns = labels.T if task == MULTI_LABEL else [labels]
    for fit in some(linear.fit_path(x, labels, task, n_classes, config)):
        expected = []
        for column in columns:
            solver = "lbfgs" if len(np.unique(column)) > 2 else "newton-cholesky"
            model = LogisticRegression(C=fit.strength, tol=1e-9, max_iter=20_000, solver=solver)
            model.fit(scaler.transform(x.astype(np.float64)), column)
            found = model.predict_proba(scaler.transform(queries.astype(np.float64)))
            expected.append(found[:, 1:] if task == MULTI_LABEL else found)
        assert fit.converged
        atol = 3e-5 if way == "rotated" else 3e-3
        assert_allclose(fit.predict_scores(queries), np.hstack(expected), atol=atol)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_ridge_is_scikit_learns_on_layers_side_by_side(shape, n_outputs):
    x, y = layers(*shape, 3)
    wide = x.astype(np.float64)
    targets = np.random.default_rng(3).normal(size=(len(x), n_outputs)) + y[:, None]
    scaler = StandardScaler().fit(wide)
    queries = layers(*shape, 3, seed=1)[0].astype(np.float64)
    for fit in some(ridge.fit_path(x, targets)):
        model = SklearnRidge(alpha=fit.penalty * len(x), solver="svd")
        model.fit(scaler.transform(wide), targets)
        expected = model.predict(scaler.transform(queries)).reshape(-1, n_outputs)
        assert_allclose(fit.predict(queries), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS])
def test_images_and_features_say_the_same(task):
    """By images where they are fewer; more features, all constant, take it the other way."""
    x, y = layers(50, 12, 4, 2 if task == BINARY else 3)
    more = np.hstack([x, np.ones((50, 10), np.float16)])
    asked = y, task, 2 if task == BINARY else 3, PRECISE
    assert x.shape[1] < len(x) < more.shape[1]
    both = zip(linear.fit_path(x, *asked), linear.fit_path(more, *asked), strict=True)
    for by_features, by_images in some(both):
        assert by_images.objective == pytest.approx(by_features.objective, rel=1e-9)
        assert_allclose(by_images.weights[:48], by_features.weights, atol=5e-5)
        assert_allclose(by_images.weights[48:], 0, atol=1e-12)
    targets = y[:, None] * 1.0
    ways = zip(ridge.fit_path(x, targets), ridge.fit_path(more, targets), strict=True)
    for one, other in some(ways):
        assert_allclose(other.weights[:48], one.weights, atol=1e-7)


@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e3, 1e5])
def test_near_collinear_layers_reach_the_objective_of_an_orthonormal_basis(strength):
    """What the Gram matrix's precision leaves out is no loss; the reference is by QR, and slow."""
    x, _ = layers(60, 40, 12, 3)
    y = np.random.default_rng(4).integers(0, 2, 60)
    z = StandardScaler().fit_transform(x.astype(np.float64))
    span = np.linalg.qr(z.T)[0]
    config = Linear((strength,), tolerance=1e-13, max_products=20_000)
    (fit,) = linear.fit_path(x, y, BINARY, 2, config)
    model = LogisticRegression(C=strength, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    model.fit(z @ span, y)
    weights = span @ model.coef_.T

    def objective(w, b):
        logits = z @ w + b
        return strength * (np.logaddexp(0, logits) - logits * y[:, None]).sum() + (w**2).sum() / 2

    ours = objective(fit.weights, fit.intercept)
    assert ours <= objective(weights, model.intercept_) * (1 + 1e-8)
    assert fit.objective == pytest.approx(ours, rel=1e-7)  # of all features, as of all directions


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_left_out_answers_are_those_of_fits_without_the_fold(shape):
    """On features that all of train standardises, as it says."""
    x, y = layers(*shape, 2)
    fold = np.arange(len(x)) // 2 % 5
    z = Standard.of(x).wide(x)
    config = Linear((0.1,), tolerance=1e-12, max_products=20_000)
    found = linear.left_out_scores(x, y, fold, BINARY, 2, config)
    targets = np.random.default_rng(3).normal(size=(len(x), 2)) + y[:, None]
    outputs = ridge.left_out_outputs(x, targets, fold, Ridge((0.1,)))
    for part in range(5):
        rest, own = fold != part, fold == part
        model = LogisticRegression(C=0.1, tol=1e-10, solver="newton-cholesky").fit(z[rest], y[rest])
        assert_allclose(found[own], model.predict_proba(z[own]), atol=1e-5)
        by_ridge = SklearnRidge(alpha=0.1 * rest.sum(), solver="svd").fit(z[rest], targets[rest])
        assert_allclose(outputs[own], by_ridge.predict(z[own]), atol=1e-8)


def test_unknown_labels_as_stored(way):
    x, y = layers(60, 12, 6, 3)
    labels = labels_of(MULTI_LABEL, y)
    labels[::4, 1] = MISSING
    for fit in some(linear.fit_path(x, labels, MULTI_LABEL, 3, Linear((0.01, 1.0)))):
        known = labels[:, 1] != MISSING
        standard = Standard.of(x)
        model = LogisticRegression(C=fit.strength, tol=1e-9, solver="newton-cholesky")
        model.fit(standard.wide(x[known]), labels[known, 1])
        expected = model.predict_proba(standard.wide(x))[:, 1]
        assert_allclose(fit.predict_scores(x)[:, 1], expected, atol=3e-3)


def test_nothing_as_wide_as_the_features_is_square(monkeypatch):
    """Neither (D, D) nor a float64 copy of all features, of either solver and of left-out scores."""
    monkeypatch.setattr(standardise, "CHUNK_CELLS", 2**16)
    x, y = layers(60, 1024, 12)
    fold = np.arange(60) // 2 % 5
    one, targets = Linear((0.01,)), y[:, None] * 2.0 - 1
    copy = 8 * x.size
    for work in (
        lambda: linear.fit_path(x, y, BINARY, 2, one),
        lambda: ridge.fit_path(x, targets, Ridge((1.0,))),
        lambda: linear.left_out_scores(x, y, fold, BINARY, 2, one),
        lambda: ridge.left_out_outputs(x, targets, fold, Ridge((1.0,))),
    ):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < copy / 2


def test_of_too_many_to_rotate_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(training_matrix, "MOST_ROTATED", 30)
    monkeypatch.setattr(ridge, "MOST_ROTATED", 30)
    x, y = layers(40, 16, 6)
    train, task = Split(x, y, np.arange(40).astype(str)), Task(BINARY, ("a", "b"))
    for kind in (Linear((0.1,)), Ridge((0.1,))):
        fitted = kind.fit(train, task)
        assert kind.left_out(fitted, 0, train, np.arange(40) % 5, task) is None
    assert training_matrix.is_rotated((30, 100))
    assert training_matrix.is_rotated((100, 30))
    assert not training_matrix.is_rotated((31, 100))
    monkeypatch.setattr(training_matrix, "MOST_CELLS", 2000)
    assert training_matrix.is_rotated((100, 20))
    assert not training_matrix.is_rotated((101, 20))


def test_blocks_of_rows_hold_few_numbers():
    assert next(row_blocks(np.empty((5000, 1024), np.float16))) == slice(0, 4096)
    assert next(row_blocks(np.empty((5000, 49152), np.float16))) == slice(0, 85)
    assert next(row_blocks(np.empty((50, 10, 49152), np.float16))) == slice(0, 8)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("linear", r"linear on wide: 180 images x 48 features .* rotate; .* \d\.\d h"),
        ("ridge", r"ridge on wide: 180 images x 48 features take about 73.7 kB .* \d\.\d h"),
    ],
)
def test_what_is_too_wide_says_bytes_and_hours_first(kind, said, tmp_path, capsys, monkeypatch):
    make_toy(tmp_path, "wide", "binary-class", seed=1)
    words = ["--features", str(tmp_path), "--results", str(tmp_path / "r"), "--kind", kind]
    words += ["--layer", "all+"]
    assert main(words) == 0
    assert "images x" not in "".join(capsys.readouterr())
    for module in (training_matrix, ridge):
        monkeypatch.setattr(module, "MOST_ROTATED", 30)
    assert main(words) == 0
    assert re.search(said, "".join(capsys.readouterr()))


def test_images_that_are_there_twice_are_one_direction():
    x, _ = layers(20, 30, 4)
    twice = np.concatenate([x, x])
    eigenvalues, basis = training_matrix.eigenbasis_of_images(twice, Standard.of(twice))
    assert eigenvalues.shape == (19,)  # centred
    assert_allclose(basis.T @ basis, np.eye(19), atol=1e-12)
