"""The linear probe against scikit-learn's LogisticRegression on every shape of problem."""

import numpy as np
import pytest
from looking import some
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL
from probe.kinds.linear import Linear, fit_path, path_losses, path_scores
from probe.metrics.losses import log_loss

STRENGTHS = (1e-5, 1e-2, 1.0, 1e3)  # very strong to very weak
PRECISE = Linear(STRENGTHS, tolerance=1e-13, max_products=10_000)


def clouds(n, width, n_classes=2, spread=1.5, seed=0):
    """Correlated features, some of them large, and classes that overlap."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(width, width)) / np.arange(1, width + 1)
    centres = np.random.default_rng(2).normal(size=(n_classes, width))
    labels = rng.integers(0, n_classes, n)
    labels[:n_classes] = np.arange(n_classes)
    features = (centres[labels] + spread * rng.normal(size=(n, width))) @ mixing * 10 + 3
    return features, labels


def reference(features, labels, strength):
    """scikit-learn on the same standardised features, driven to the last digit."""
    standardised = StandardScaler().fit_transform(features)
    solver = "newton-cholesky" if len(np.unique(labels)) == 2 else "lbfgs"
    model = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000, solver=solver)
    return standardised, model.fit(standardised, labels)


def objective(standardised, labels, weights, intercept, strength):
    """C * sum of log-losses + |w|^2 / 2 of a softmax, or of one sigmoid."""
    logits = standardised @ weights + intercept
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return strength * losses.sum() + (weights**2).sum() / 2


SHAPES = {
    "more images than features": (300, 20),
    "fewer images than features": (40, 90),
    "as many": (60, 60),
}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equal_to_scikit_learn(shape, n_classes):
    features, labels = clouds(*shape, n_classes=n_classes)
    queries, _ = clouds(50, shape[1], n_classes, seed=5)
    task = BINARY if n_classes == 2 else MULTI_CLASS
    for fit in some(fit_path(features, labels, task, n_classes, PRECISE)):
        standardised, model = reference(features, labels, fit.strength)
        assert fit.converged
        ours = objective(standardised, labels, fit.weights, fit.intercept, fit.strength)
        theirs = objective(standardised, labels, model.coef_.T, model.intercept_, fit.strength)
        assert ours <= theirs * (1 + 1e-9)
        assert_allclose(fit.objective, ours, rtol=1e-9)

        size = np.abs(model.coef_).max()
        assert_allclose(fit.weights, model.coef_.T, atol=2e-4 * size)
        shift = model.intercept_.mean() - fit.intercept.mean() if n_classes > 2 else 0
        assert_allclose(fit.intercept + shift, model.intercept_, rtol=1e-3, atol=1e-4)
        scaler = StandardScaler().fit(features)
        expected = model.predict_proba(scaler.transform(queries))
        assert_allclose(fit.predict_scores(queries), expected, atol=1e-4)


def test_multilabel_equals_one_problem_for_each_label():
    features, classes = clouds(200, 15, 4)
    labels = np.stack([classes == 0, classes >= 2, classes % 2], axis=1).astype(int)
    for fit in some(fit_path(features, labels, MULTI_LABEL, 3, PRECISE)):
        scores = fit.predict_scores(features)
        for label in range(3):
            standardised, model = reference(features, labels[:, label], fit.strength)
            expected = model.predict_proba(standardised)[:, 1]
            assert_allclose(scores[:, label], expected, atol=1e-5)


def test_one_against_the_rest():
    features, labels = clouds(200, 15, 4)
    config = Linear((0.1, 10.0), form="ovr", tolerance=1e-13, max_products=10_000)
    standardised = StandardScaler().fit_transform(features)
    for fit in some(fit_path(features, labels, MULTI_CLASS, 4, config)):
        one = LogisticRegression(C=fit.strength, tol=1e-10, solver="newton-cholesky")
        expected = OneVsRestClassifier(one).fit(standardised, labels).predict_proba(standardised)
        assert_allclose(fit.predict_scores(features), expected, atol=1e-6)


def test_separable_data_converge():
    features, labels = clouds(60, 100, 3, spread=0.1)
    fits = fit_path(features, labels, MULTI_CLASS, 3, Linear((1e-3, 1e2, 1e6)))
    assert all(fit.converged for fit in some(fits))
    assert (fits[-1].predict_scores(features).argmax(axis=1) == labels).all()
    sizes = [np.linalg.norm(fit.weights) for fit in fits]
    assert sizes == sorted(sizes)


def test_strong_regularisation_answers_with_the_shares():
    features, labels = clouds(100, 5, 3)
    fit = fit_path(features, labels, MULTI_CLASS, 3, Linear((1e-12,)))[0]
    expected = np.tile(np.bincount(labels) / 100, (100, 1))
    assert_allclose(fit.predict_scores(features), expected, atol=1e-6)


def test_a_constant_feature_changes_nothing():
    features, labels = clouds(100, 8)
    # 0.1 has no exact float: its mean is off by a digit, and must not pass for a spread.
    wider = np.insert(features, 3, 0.1, axis=1)
    for fit, plain in zip(
        fit_path(wider, labels, BINARY, 2, PRECISE),
        fit_path(features, labels, BINARY, 2, PRECISE),
        strict=True,
    ):
        assert fit.standard.scale[3] == 1
        assert abs(fit.weights[3, 0]) < 1e-9 * np.abs(fit.weights).max()
        assert_allclose(np.delete(fit.weights, 3, axis=0), plain.weights, atol=1e-5)


@pytest.mark.parametrize("task", [BINARY, ORDINAL])
@pytest.mark.parametrize("shape", [(300, 20), (40, 90)])
def test_float32_reaches_the_same_objective(shape, task, monkeypatch):
    features, labels = clouds(*shape, n_classes=2 if task == BINARY else 3)
    n_classes = labels.max() + 1
    exact = fit_path(features, labels, task, n_classes, PRECISE)
    precise_enough = Linear(STRENGTHS, tolerance=1e-9, max_products=10_000)
    monkeypatch.setattr("probe.solvers.training_matrix.SINGLE_ABOVE", 0)
    single = fit_path(features, labels, task, n_classes, precise_enough)
    for one, other in some(zip(exact, single, strict=True)):
        assert other.converged
        assert_allclose(other.objective, one.objective, rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "form"), [(BINARY, ""), (MULTI_CLASS, ""), (MULTI_LABEL, ""), (MULTI_CLASS, "ovr")]
)
def test_blocks_of_images_change_nothing(task, form, monkeypatch):
    """The last block is short, and of several labels some aren't known."""
    features, labels = clouds(70, 12, 2 if task == BINARY else 3)
    if task == MULTI_LABEL:
        labels = (labels[:, None] == np.arange(3)).astype(int)
        labels[::5, 1] = -1
    asked = task, 2 if task == BINARY else 3, Linear((0.01, 1.0), form or "multinomial")
    whole = fit_path(features, labels, *asked)
    monkeypatch.setattr("probe.solvers.logistic.BLOCK_CELLS", 1)
    monkeypatch.setattr("probe.solvers.logistic.SHORTEST_BLOCK", 16)
    for one, other in some(zip(whole, fit_path(features, labels, *asked), strict=True)):
        assert one.n_iter == other.n_iter
        assert one.objective == pytest.approx(other.objective, rel=1e-12)
        assert_allclose(one.weights, other.weights, rtol=1e-8, atol=1e-12)


def test_float16_memmap_and_chunks(tmp_path, monkeypatch):
    features, labels = clouds(90, 12, 3)
    features = features.astype(np.float16)
    path = tmp_path / "features.bin"
    features.tofile(path)
    stored = np.memmap(path, dtype=np.float16, mode="r", shape=features.shape)
    whole = fit_path(features.astype(np.float64), labels, MULTI_CLASS, 3, PRECISE)
    monkeypatch.setattr("probe.solvers.standardise.CHUNK_ROWS", 16)
    parts = fit_path(stored, labels, MULTI_CLASS, 3, PRECISE)
    scores = path_scores(parts, stored)
    for one, other, found in some(zip(whole, parts, scores, strict=True)):
        assert_allclose(other.objective, one.objective, rtol=1e-10)
        assert_allclose(found, one.predict_scores(features), atol=1e-5)


def test_the_order_and_company_of_strengths_change_nothing():
    features, labels = clouds(120, 10, 3)
    config = Linear((10.0, 1e-4, 0.1, 0.2), tolerance=1e-9)
    fits = fit_path(features, labels, MULTI_CLASS, 3, config)
    assert [fit.strength for fit in fits] == [1e-4, 0.1, 0.2, 10.0]
    alone = fit_path(features, labels, MULTI_CLASS, 3, Linear((0.2,), tolerance=1e-9))[0]
    assert_allclose(fits[2].objective, alone.objective, rtol=1e-7)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_default_tolerance_is_near_enough(n_classes):
    features, labels = clouds(400, 60, n_classes, spread=3)
    task = BINARY if n_classes == 2 else MULTI_CLASS
    exact = fit_path(features, labels, task, n_classes, PRECISE)
    for fit, best in zip(
        fit_path(features, labels, task, n_classes, Linear(STRENGTHS)), exact, strict=True
    ):
        assert fit.objective <= best.objective * (1 + 2e-5)


def test_a_budget_of_products_is_kept_and_reported():
    features, labels = clouds(300, 60, 3, spread=3)
    short = Linear((100.0,), max_products=3)
    fit = fit_path(features, labels, MULTI_CLASS, 3, short)[0]
    assert fit.n_iter <= 3
    assert not fit.converged
    assert fit_path(features, labels, MULTI_CLASS, 3, Linear((100.0,)))[0].converged


def test_answers_that_are_all_but_sure_keep_their_small_numbers():
    features, labels = clouds(80, 5, 3, spread=0.01)
    fit = fit_path(features, labels, MULTI_CLASS, 3, Linear((1e9,)))[0]
    scores = fit.predict_scores(features)
    assert np.isfinite(fit.objective)
    assert_allclose(scores[np.arange(80), labels], 1)


def test_running_out_of_steps_is_reported():
    features, labels = clouds(100, 20, 3)
    fit = fit_path(features, labels, MULTI_CLASS, 3, Linear((100.0,), max_iter=1))[0]
    assert fit.n_iter == 1
    assert not fit.converged


def test_a_class_without_images_scores_zero():
    features, labels = clouds(100, 8, 3)
    labels = np.where(labels == 1, 3, labels)
    for form in ("multinomial", "ovr"):
        config = Linear((1.0,), form=form)
        scores = fit_path(features, labels, MULTI_CLASS, 4, config)[0].predict_scores(features)
        assert_array_equal(scores[:, 1], 0)
        assert_allclose(scores.sum(axis=1), 1)


def test_a_label_with_one_value_scores_that_value():
    features, labels = clouds(50, 5)
    labels = np.stack([np.zeros(50, int), labels, np.ones(50, int)], axis=1)
    scores = fit_path(features, labels, MULTI_LABEL, 3, Linear((1.0,)))[0].predict_scores(features)
    assert (scores[:, 0] == 0).all()
    assert 0 < scores[:, 1].min() < scores[:, 1].max() < 1
    assert (scores[:, 2] == 1).all()


def test_log_loss_equals_scikit_learn():
    scores, labels = np.array([[0.2, 0.8], [1.0, 0.0], [0.0, 1.0]]), np.array([1, 0, 0])
    assert_allclose(log_loss(scores, labels, BINARY), sklearn_log_loss(labels, scores))
    assert_allclose(log_loss(scores[:2], labels[:2], MULTI_CLASS), -np.log(0.8) / 2)
    both = np.array([[1, 0], [1, 1], [0, 1]])
    columns = [sklearn_log_loss(both[:, c], scores[:, c], labels=[0, 1]) for c in range(2)]
    assert_allclose(log_loss(scores, both, MULTI_LABEL), np.mean(columns))


def test_losses_of_a_path_are_those_of_its_fits():
    features, labels = clouds(60, 40, 3, spread=3)
    val_features, val_labels = clouds(200, 40, 3, spread=3, seed=9)
    fits = fit_path(features, labels, MULTI_CLASS, 3)
    losses = path_losses(fits, val_features, val_labels, MULTI_CLASS)
    expected = [log_loss(f.predict_scores(val_features), val_labels, MULTI_CLASS) for f in fits]
    assert_allclose(losses, expected, rtol=1e-10)
    assert 0 < losses.argmin() < len(fits) - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": ()}, "--strengths takes one or more, each once; not nothing"),
        ({"strengths": (1.0, -1.0)}, r"--strengths takes numbers above 0, not -1\.0"),
        ({"strengths": (float("nan"),)}, "above 0, not nan"),
        ({"strengths": (1.0, 1.0)}, "each once; not 1,1"),
        ({"form": "ova"}, "--form takes multinomial, ovr, not 'ova'"),
        ({"tolerance": 0}, "tolerance is positive, found 0"),
        ({"max_iter": 0}, "max_iter is 1 or more, found 0"),
        ({"max_products": 0}, "max_products is 1 or more, found 0"),
    ],
)
def test_config_refusals(settings, message):
    with pytest.raises(RequestError, match=message):
        Linear(**settings)


def test_training_refusals():
    features, labels = clouds(20, 4)
    with pytest.raises(RequestError, match="only class 1 among the 20"):
        fit_path(features, np.ones(20, dtype=int), BINARY, 2)
    with pytest.raises(RequestError, match="none of the 2 labels has both values"):
        fit_path(features, np.zeros((20, 2), dtype=int), MULTI_LABEL, 2)
    with pytest.raises(RequestError, match=r"shape \(20, 4\) and 19 labels"):
        fit_path(features, labels[1:], BINARY, 2)
    with pytest.raises(RequestError, match=r"0\.\.2, found 0\.\.3"):
        fit_path(features, np.arange(20) % 4, MULTI_CLASS, 3)
    with pytest.raises(RequestError, match="trained on 4 features, found shape"):
        fit_path(features, labels, BINARY, 2)[0].predict_scores(features[:, :3])
    features[7, 2] = np.inf
    with pytest.raises(RequestError, match="inf or nan in column 2"):
        fit_path(features, labels, BINARY, 2)
