"""Continuous labels: ridge and kNN against scikit-learn, their metrics, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from features import make_spec, write_rows
from numpy.testing import assert_allclose, assert_array_equal
from probing import answered, refused, rows, run
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from cache.errors import RequestError
from cache.task import REGRESSION
from probe.cli import main
from probe.kinds.knn import Knn
from probe.kinds.ridge import Ridge, fit_path, path_errors
from probe.metrics import regression as regression_metrics
from probe.metrics.intervals import estimate
from probe.solvers import knn
from probe.solvers.standardise import path_outputs


def slopes(n, width, n_outputs=1, noise=5.0, seed=0):
    """Correlated features, some of them large, and ages that depend on them."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(width, width)) / np.arange(1, width + 1)
    features = rng.normal(size=(n, width)) @ mixing * 10 + 3
    weights = np.random.default_rng(2).normal(size=(width, n_outputs))
    return features, features @ weights + noise * rng.normal(size=(n, n_outputs)) + 60


SHAPES = {
    "more images than features": (300, 20),
    "fewer images than features": (40, 90),
    "as many": (60, 60),
    "one image": (1, 5),
}


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equal_to_scikit_learn_at_every_penalty(shape, n_outputs):
    features, targets = slopes(*shape, n_outputs)
    queries, _ = slopes(50, shape[1], n_outputs, seed=5)
    scaler = StandardScaler().fit(features)
    fits = fit_path(features, targets)
    assert [fit.penalty for fit in fits] == sorted(Ridge().penalties, reverse=True)
    for fit in fits:
        model = SklearnRidge(alpha=fit.penalty * len(features), solver="svd")
        model.fit(scaler.transform(features), targets)
        expected = model.predict(scaler.transform(queries)).reshape(50, n_outputs)
        assert_allclose(fit.predict(queries), expected, rtol=1e-8)
        weights = model.coef_.reshape(n_outputs, -1).T
        assert_allclose(fit.weights, weights, atol=1e-8 * np.abs(weights).max())


@pytest.mark.parametrize("shape", [(90, 12), (30, 70)])
def test_float16_memmap_and_chunks(tmp_path, monkeypatch, shape):
    features, targets = slopes(*shape)
    features = features.astype(np.float16)
    path = tmp_path / "features.bin"
    features.tofile(path)
    stored = np.memmap(path, dtype=np.float16, mode="r", shape=features.shape)
    whole = fit_path(features.astype(np.float64), targets)
    monkeypatch.setattr("probe.solvers.standardise.CHUNK_ROWS", 16)
    parts = fit_path(stored, targets)
    for one, other, found in zip(whole, parts, path_outputs(parts, stored), strict=True):
        assert_allclose(other.weights, one.weights, atol=1e-9 * np.abs(one.weights).max())
        assert_allclose(found, one.predict(features), rtol=1e-9)


def test_a_constant_feature_changes_nothing():
    features, targets = slopes(100, 8)
    # 0.1 has no exact float: its mean is off by a digit, and must not pass for a spread.
    wider = np.insert(features, 3, 0.1, axis=1)
    for fit, plain in zip(fit_path(wider, targets), fit_path(features, targets), strict=True):
        assert abs(fit.weights[3, 0]) < 1e-9 * np.abs(fit.weights).max()
        assert_allclose(np.delete(fit.weights, 3, axis=0), plain.weights, rtol=1e-9)


def test_the_strongest_penalty_predicts_the_mean_of_train():
    features, targets = slopes(100, 8)
    strongest = fit_path(features, targets)[0]
    assert_allclose(strongest.predict(features), targets.mean(), rtol=1e-4)


def test_the_order_and_company_of_penalties_change_nothing():
    features, targets = slopes(120, 10)
    fits = fit_path(features, targets, Ridge((0.2, 1e-4, 10.0)))
    assert [fit.penalty for fit in fits] == [10.0, 0.2, 1e-4]
    alone = fit_path(features, targets, Ridge((0.2,)))[0]
    assert_allclose(fits[1].weights, alone.weights, rtol=1e-12)


def test_errors_of_a_path_are_those_of_its_fits():
    features, targets = slopes(60, 40, 2, noise=40)
    val_features, val_targets = slopes(200, 40, 2, noise=40, seed=9)
    fits = fit_path(features, targets)
    errors = path_errors(fits, val_features, val_targets)
    expected = [np.mean((fit.predict(val_features) - val_targets) ** 2) for fit in fits]
    assert_allclose(errors, expected, rtol=1e-12)
    assert 0 < errors.argmin() < len(fits) - 1


@pytest.mark.parametrize(
    ("penalties", "message"),
    [
        ((), "--penalties takes one or more, each once; not nothing"),
        ((1.0, 0.0), r"--penalties takes numbers above 0, not 0\.0"),
        ((float("inf"),), "above 0, not inf"),
        ((1.0, 1.0), "each once; not 1,1"),
    ],
)
def test_config_refusals(penalties, message):
    with pytest.raises(RequestError, match=message):
        Ridge(penalties)


def test_training_refusals():
    features, targets = slopes(20, 4)
    with pytest.raises(RequestError, match=r"shape \(N, O\), one column each, found \(20,\)"):
        fit_path(features, targets[:, 0])
    with pytest.raises(RequestError, match=r"shape \(20, 4\) and 19 targets"):
        fit_path(features, targets[1:])
    with pytest.raises(RequestError, match="trained on 4 features, found shape"):
        fit_path(features, targets)[0].predict(features[:, :3])
    with pytest.raises(RequestError, match="on val images, found none"):
        path_errors(fit_path(features, targets), features[:0], targets[:0])
    unknown = np.where(np.arange(20) == 7, np.nan, targets[:, 0])[:, None]
    with pytest.raises(RequestError, match="found nan in row 7: leave out the samples"):
        fit_path(features, unknown)
    features[7, 2] = np.inf
    with pytest.raises(RequestError, match="inf or nan in column 2"):
        fit_path(features, targets)


# ---------------------------------------------------------------------------- kNN


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_knn_equals_scikit_learn(metric, n_outputs):
    bank, targets = slopes(400, 16, n_outputs, seed=1)
    queries, _ = slopes(80, 16, n_outputs, seed=2)
    rules = {"majority": "uniform"}
    if metric == "cosine":
        rules["weighted"] = lambda distances: np.exp((1 - distances) / 0.07)
    for vote, weights in rules.items():
        found = knn.scores(
            Knn((1, 5, 50), metric, vote), bank, targets, queries, REGRESSION, targets.shape[1]
        )
        assert list(found) == [1, 5, 50]
        for k, predicted in found.items():
            model = KNeighborsRegressor(k, metric=metric, algorithm="brute", weights=weights)
            assert_allclose(predicted, model.fit(bank, targets).predict(queries), rtol=1e-4)


def test_knn_in_chunks_changes_nothing(monkeypatch):
    bank, targets = slopes(100, 8, 3)
    whole = knn.scores(Knn((5, 9)), bank, targets, bank, REGRESSION, targets.shape[1])
    monkeypatch.setattr("probe.solvers.knn.CHUNK_VOTES", 70)
    parts = knn.scores(Knn((5, 9)), bank, targets, bank, REGRESSION, targets.shape[1])
    for k in (5, 9):
        assert_array_equal(whole[k], parts[k])


def test_knn_refusals():
    bank, targets = slopes(20, 4)
    with pytest.raises(RequestError, match="19 labels and 20 rows"):
        knn.scores(Knn((3,)), bank, targets[1:], bank, REGRESSION, targets.shape[1])
    with pytest.raises(RequestError, match="found nan in row 0"):
        knn.scores(Knn((3,)), bank, targets * np.nan, bank, REGRESSION, targets.shape[1])


# ---------------------------------------------------------------------------- metrics


def ages(n=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.normal(60, 15, n)
    return (labels + rng.normal(3, 8, n))[:, None], labels


def reference(predictions, labels):
    return {
        "mae": mean_absolute_error(labels, predictions),
        "rmse": root_mean_squared_error(labels, predictions),
        "r2": r2_score(labels, predictions),
        "pearson": pearsonr(labels, predictions[:, 0])[0],
    }


@pytest.mark.parametrize("offset", [0, -60, 1e9])
def test_metrics_equal_scikit_learn_and_scipy(offset):
    predictions, labels = ages()
    found = regression_metrics.evaluate(predictions + offset, labels + offset)
    assert tuple(found) == ("mae", "rmse", "r2", "pearson")
    for name, expected in reference(predictions + offset, labels + offset).items():
        assert_allclose(found[name], expected, rtol=1e-9, err_msg=name)


def test_a_perfect_answer():
    labels = ages()[1]
    found = regression_metrics.evaluate(labels[:, None], labels)
    assert (found["mae"], found["rmse"], found["r2"]) == (0, 0, 1)
    assert 1 - 1e-15 < found["pearson"] <= 1


def test_r2_is_about_the_mean_of_test():
    labels = np.array([1.0, 2.0, 3.0])
    assert regression_metrics.evaluate(np.full((3, 1), 2.0), labels)["r2"] == 0
    assert regression_metrics.evaluate(np.full((3, 1), 3.0), labels)["r2"] == 1 - 5 / 2


@pytest.mark.parametrize("same", [0.1, 60, -1e9])
def test_what_is_not_defined_is_nan(same):
    predictions, labels = ages()
    found = regression_metrics.evaluate(predictions, np.full(90, same))
    assert np.isnan([found["r2"], found["pearson"]]).all()
    assert np.isfinite([found["mae"], found["rmse"]]).all()
    # A mean of equal numbers differs from them in the last digit, now and then.
    nearly = np.full((90, 1), same) * (1 + 2e-16 * (np.arange(90) % 2))[:, None]
    found = regression_metrics.evaluate(nearly, labels)
    assert np.isnan(found["pearson"])
    assert found["r2"] <= 0


@pytest.mark.parametrize("n", [8, 30])
def test_the_truth_is_held_as_often_as_promised(n):
    """Independent normal labels and predictions. 500 sets: two errors are .02."""
    rng = np.random.default_rng(0)
    truth = {"mae": np.sqrt(2 / np.pi), "rmse": 1, "r2": 1 / 2, "pearson": np.sqrt(1 / 2)}
    held = dict.fromkeys(truth, 0)
    for _ in range(500):
        predictions = rng.normal(size=n)
        labels = predictions + rng.normal(size=n)
        found = estimate(predictions[:, None], labels, "regression").metrics
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    assert min(held.values()) >= 0.92 * 500, held


def test_one_sample_has_an_error_and_no_r2():
    found = estimate(np.array([[3.0]]), np.array([5.0]), "regression")
    assert found.metrics["mae"].value == found.metrics["rmse"].value == 2
    assert np.isnan([*found.metrics["r2"], *found.metrics["pearson"]]).all()
    assert set(found.methods.values()) == {"none"}


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (np.ones(3), np.ones(3), r"found \(3,\) and \(3,\)"),
        (np.ones((3, 2)), np.ones(3), r"found \(3, 2\) and \(3,\)"),
        (np.ones((0, 1)), np.ones(0), r"found \(0, 1\) and \(0,\)"),
        (np.ones((3, 1)), np.array([1, np.nan, 2]), "labels are finite, found nan in row 1"),
        (np.full((3, 1), np.inf), np.ones(3), "predictions are finite, found inf in row 0"),
    ],
)
def test_metric_refusals(predictions, labels, message):
    with pytest.raises(RequestError, match=message):
        regression_metrics.evaluate(predictions, labels)


def test_a_level_is_a_share():
    with pytest.raises(RequestError, match="found 95"):
        estimate(*ages(), "regression", level=95)


# ---------------------------------------------------------------------------- the command


def write_ages(root, labels=None, noise=1.0, dataset="bones", shuffled=False):
    """A file in which layer 1 tells the age and layer 0 is noise; train, val and test 233 each."""
    rng = np.random.default_rng(4)
    x = {name: rng.normal(size=(700, 6)) for name in make_spec().arrays if name != "head"}
    told = 100 + 30 * x["layers/01/cls"][:, 0] + noise * rng.normal(size=700)
    told = rng.permutation(told) if shuffled else told
    labels = told if labels is None else labels
    spec = make_spec(labels=labels, task="regression", dataset=dataset, arrays=dict.fromkeys(x, 6))
    path = root / "features" / dataset / "toy_8_0123456789ab.h5"
    return write_rows(path, replace(spec, class_names=("months",)), x)


def test_the_scores_file_gives_the_numbers_back(tmp_path, capsys):
    write_ages(tmp_path)
    run(capsys, "--kind ridge")
    (path,) = (tmp_path / "results").glob("*/*.npz")
    (stored_row,) = (tmp_path / "results").glob("*/*.json")
    row = json.loads(stored_row.read_text())
    with np.load(path, allow_pickle=False) as stored:
        found = regression_metrics.evaluate(stored["test_scores"], stored["test_labels"])
    assert found == {name: ends["value"] for name, ends in row["metrics"].items()}


def test_layers_are_compared_on_val(tmp_path, capsys):
    write_ages(tmp_path)
    out = answered(capsys, "--kind ridge --layer all")
    assert "val mae" in out
    by_layer = {row["probe"]["layer"]: row["val_metrics"]["r2"] for row in rows()}
    assert by_layer[0] < 0.1 < 0.9 < by_layer[1]
    assert [row["metrics"] for row in rows()] == [{}, {}]


def test_marks_tell_what_a_number_is_worth(tmp_path, capsys):
    write_ages(tmp_path, shuffled=True)
    _, out, _ = run(capsys, "--kind ridge --penalties 1e-6,1e-5")
    assert "the chosen penalty 1e-05 is the end of the grid" in out
    assert "no better than the mean of the test labels" in out
    same = np.where(np.arange(700) < 460, np.arange(700.0), 5.0)
    write_ages(tmp_path, same, dataset="same")
    _, out, _ = run(capsys, "--kind ridge --data same")
    assert "no R2 on test: all labels are one number there" in out


@pytest.mark.parametrize("kind", ["linear", "zeroshot"])
def test_kinds_that_tell_classes_apart_name_ridge(tmp_path, capsys, kind):
    write_ages(tmp_path)
    err = refused(capsys, f"--kind {kind}")
    assert f"has continuous labels, and --kind {kind} tells classes apart; use --kind ridge" in err


def classes_of(task, n):
    """Labels that the features below tell nearly apart, and (n, 6) features."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    scores = x[:, :3] + 0.7 * rng.normal(size=(n, 3))
    if task == "multi-label, binary-class":
        return (scores > 0.4).astype(np.int64), x
    if task == "binary-class":
        return (scores[:, 0] > 0.4).astype(np.int64), x
    return scores.argmax(axis=1), x


@pytest.mark.parametrize("task", ["binary-class", "multi-class", "multi-label, binary-class"])
def test_ridge_on_classes_is_scikit_learns_ridge_classifier(tmp_path, capsys, task):
    n = 300
    labels, x = classes_of(task, n)
    names = ("no", "yes") if task == "binary-class" else ("a", "b", "c")
    spec = make_spec(n, {"layers/01/cls": 6}, "float32", labels=labels, task=task)
    spec = replace(spec, class_names=names, positive_class=names[1] if len(names) == 2 else None)
    write_rows(tmp_path / "features" / "toys" / "toy_8_a.h5", spec, {"layers/01/cls": x})
    out = answered(capsys, "--kind ridge --penalties 0.3 --choose val")
    assert "scores are margins, no probabilities" in out
    (row,) = rows()
    assert row["score_type"] == "margin"
    (path,) = (tmp_path / "results").glob("*/*.npz")
    with np.load(path) as file:
        scores, answers = file["test_scores"], file["test_labels"]
    train, test = spec.samples.split == 0, spec.samples.split == 2
    scaler = StandardScaler().fit(x[train])
    model = RidgeClassifier(alpha=0.3 * train.sum(), solver="svd")
    model.fit(scaler.transform(x[train]), labels[train])
    expected = model.decision_function(scaler.transform(x[test]))
    if task == "binary-class":
        expected = np.stack([-expected, expected], axis=1)
    assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    predicted = model.predict(scaler.transform(x[test]))
    assert row["metrics"]["acc"]["value"] == pytest.approx((predicted == answers).mean())


def test_ridge_needs_every_label(tmp_path, capsys):
    labels, x = classes_of("multi-label, binary-class", 300)
    labels[5, 1] = -1
    task = "multi-label, binary-class"
    spec = make_spec(300, {"layers/01/cls": 6}, "float32", labels=labels, task=task)
    write_rows(tmp_path / "features" / "toys" / "toy_8_a.h5", spec, {"layers/01/cls": x})
    err = refused(capsys, "--kind ridge --choose val")
    assert "--kind ridge needs every label, and 1 are missing; use --kind linear" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--kind ridge --strengths 1",
            "--strengths belongs to --kind linear or stack or segment, not to ridge",
        ),
        ("--kind linear --penalties 1", "--penalties belongs to --kind ridge, not to linear"),
        ("--kind ridge --penalties 0", "--penalties takes numbers above 0"),
        ("--kind ridge --penalties many", "--penalties takes numbers"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1
