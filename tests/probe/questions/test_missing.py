"""Several labels of which some are missing: each counts as if it stood alone where it is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from answering import scores_file
from features import make_spec, write_rows
from looking import some
from measuring import scored
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, UNCERTAIN, Task
from probe.cli import main
from probe.kinds.knn import Knn
from probe.kinds.linear import Linear, fit_path, path_losses
from probe.metrics import classification as metrics
from probe.metrics.intervals import estimate
from probe.metrics.losses import log_loss
from probe.metrics.measure import measure
from probe.solvers import knn
from probe.solvers.votes import vote_multilabel, weigh

SHARES = (0.0, 0.3, 0.9)  # of each label that is missing


def clouds(n, width=8, n_labels=3, seed=0):
    """Correlated features, and labels that follow from them now and then."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(width, width)) / np.arange(1, width + 1)
    features = rng.normal(size=(n, width)) @ mixing * 10 + 3
    slopes = np.random.default_rng(2).normal(size=(width, n_labels))
    logits = StandardScaler().fit_transform(features @ slopes)
    return features, (logits + rng.normal(size=logits.shape) > 0.3).astype(int)


def hidden(labels, shares=SHARES, seed=3):
    """Labels of which some are missing: of column c the share shares[c]."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(labels.shape) < np.array(shares), MISSING, labels)


# ---------------------------------------------------------------------------- metrics


def answers(n=120, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, 3)).round(1)
    labels = (scores + rng.normal(0, 0.5, scores.shape) > [0.5, 0.7, 0.5]).astype(int)
    return scores, hidden(labels)


def one_by_one(scores, labels):
    """Each label alone, on the samples of which it is known: the mean of their metrics."""
    found = []
    for c in range(labels.shape[1]):
        known = labels[:, c] != MISSING
        if not known.any():
            found.append([np.nan] * 7)
            continue
        alone = metrics.evaluate(scores[known, c : c + 1], labels[known, c : c + 1], MULTI_LABEL)
        found.append([*alone.values()])
    return np.mean(found, axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_each_label_alone(seed):
    scores, labels = answers(seed=seed)
    found = metrics.evaluate(scores, labels, MULTI_LABEL)
    assert_allclose([*found.values()], one_by_one(scores, labels), rtol=1e-12)
    assert {name: found[name] for name in ("acc", "auc")} == {
        "acc": metrics.accuracy(scores, labels, MULTI_LABEL),
        "auc": metrics.auc(scores, labels, MULTI_LABEL),
    }


def test_by_eye():
    scores = np.array([[0.9, 0.9], [0.8, 0.2], [0.7, 0.1], [0.1, 0.9]])
    labels = np.array([[1, 1], [0, 0], [MISSING, 0], [MISSING, MISSING]])
    found = metrics.evaluate(scores, labels, MULTI_LABEL)
    assert found["acc"] == (1 / 2 + 1) / 2
    assert found["auc"] == 1
    assert found["balanced_accuracy"] == (1 / 2 + 1) / 2
    assert_allclose(found["f1_macro"], (2 / 3 + 1) / 2)


def test_a_label_known_nowhere_has_no_number():
    scores, labels = answers()
    labels[:, 1] = MISSING
    assert np.isnan([*metrics.evaluate(scores, labels, MULTI_LABEL).values()]).all()
    assert np.isnan(metrics.larger_class_rate(labels, MULTI_LABEL))
    found = estimate(scores, labels, MULTI_LABEL)
    assert np.isnan([*found.metrics.values()]).all()
    assert set(found.methods.values()) == {"none"}


def test_larger_class_rate_counts_what_is_known():
    labels = np.array([[1, MISSING], [1, 0], [0, MISSING], [MISSING, 0]])
    assert metrics.larger_class_rate(labels, MULTI_LABEL) == (2 / 3 + 1) / 2


@pytest.mark.parametrize("task", [MULTI_CLASS, BINARY, ORDINAL])
def test_one_label_a_sample_is_never_missing_here(task):
    with pytest.raises(RequestError, match=r"0\.\.1, found -1\.\.1"):
        metrics.check_labels(np.array([0, 1, MISSING]), task, 2)


def test_uncertain_labels_reach_no_probe():
    features, labels = clouds(40)
    labels[[3, 5], 1] = UNCERTAIN
    message = "2 labels are uncertain: .* --uncertain ignore, zeros or ones"
    for ask in (
        lambda: metrics.evaluate(np.full((40, 3), 0.5), labels, MULTI_LABEL),
        lambda: fit_path(features, labels, MULTI_LABEL, 3),
        lambda: knn.scores(Knn((1,)), features, labels, features, MULTI_LABEL, 3),
    ):
        with pytest.raises(RequestError, match=message):
            ask()


# ---------------------------------------------------------------------------- linear

PRECISE = Linear((1e-4, 1e-2, 1.0, 1e2), tolerance=1e-13, max_products=10_000)


@pytest.mark.parametrize("shape", [(300, 8), (60, 90)])
def test_each_label_equals_scikit_learn_on_what_is_known(shape):
    features, labels = clouds(*shape)
    labels = hidden(labels)
    queries, _ = clouds(50, shape[1], seed=5)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    for fit in some(fit_path(features, labels, MULTI_LABEL, 3, PRECISE)):
        assert fit.converged
        scores = fit.predict_scores(queries)
        total = 0.0
        for c in range(3):
            known = labels[:, c] != MISSING
            z, truth = (features[known] - mean) / scale, labels[known, c]
            model = LogisticRegression(C=fit.strength, tol=1e-10, solver="newton-cholesky")
            model.fit(z, truth)
            expected = model.predict_proba((queries - mean) / scale)[:, 1]
            assert_allclose(scores[:, c], expected, atol=2e-5)
            logits = z @ fit.weights[:, c] + fit.intercept[c]
            losses = np.logaddexp(0, logits) - truth * logits
            total += fit.strength * losses.sum() + (fit.weights[:, c] ** 2).sum() / 2
        assert_allclose(fit.objective, total, rtol=1e-9)


def test_another_label_of_samples_without_this_one_changes_nothing():
    features, labels = clouds(200)
    labels[:40, 1] = MISSING
    other = labels.copy()
    other[:40, 0] = 1 - other[:40, 0]
    config = Linear((1.0,), tolerance=1e-13, max_products=10_000)
    (fit,) = fit_path(features, labels, MULTI_LABEL, 3, config)
    (moved,) = fit_path(features, other, MULTI_LABEL, 3, config)
    assert_allclose(moved.weights[:, 1:], fit.weights[:, 1:], atol=1e-5)
    assert np.abs(moved.weights[:, 0] - fit.weights[:, 0]).max() > 0.1


@pytest.mark.parametrize("shape", [(300, 8), (60, 90)])
def test_float32_reaches_the_same_objective(shape, monkeypatch):
    features, labels = clouds(*shape)
    labels = hidden(labels, (0.2, 0.5, 0.8))
    exact = fit_path(features, labels, MULTI_LABEL, 3, PRECISE)
    monkeypatch.setattr("probe.solvers.training_matrix.SINGLE_ABOVE", 0)
    single = fit_path(features, labels, MULTI_LABEL, 3, Linear(PRECISE.strengths))
    for one, other in some(zip(exact, single, strict=True)):
        assert other.converged
        assert_allclose(other.objective, one.objective, rtol=1e-6)


def test_strong_regularisation_starts_and_ends_at_the_known_shares():
    features, labels = clouds(200)
    labels = hidden(labels)
    (fit,) = fit_path(features, labels, MULTI_LABEL, 3, Linear((1e-12,)))
    assert_allclose(fit.predict_scores(features)[0], metrics.label_shares(labels), atol=1e-6)
    assert fit.n_iter <= 1


def test_a_label_with_one_known_value_scores_that_value():
    features, labels = clouds(50)
    labels[:, 0] = np.where(labels[:, 0] == 1, 1, MISSING)
    labels[:, 2] = np.where(labels[:, 2] == 0, 0, MISSING)
    scores = fit_path(features, labels, MULTI_LABEL, 3, Linear((1.0,)))[0].predict_scores(features)
    assert (scores[:, 0] == 1).all()
    assert (scores[:, 2] == 0).all()
    assert 0 < scores[:, 1].min() < scores[:, 1].max() < 1


def test_log_loss_is_the_mean_over_labels():
    scores = np.array([[0.2, 0.9, 0.5], [0.6, 0.9, 0.5], [0.5, 0.5, 0.5]])
    labels = np.array([[0, 1, MISSING], [1, MISSING, MISSING], [MISSING, MISSING, MISSING]])
    expected = np.mean([-np.log(0.8 * 0.6) / 2, -np.log(0.9)])
    assert_allclose(log_loss(scores, labels, MULTI_LABEL), expected)
    with pytest.raises(RequestError, match="needs known labels, found none of 3"):
        log_loss(scores[2:], labels[2:], MULTI_LABEL)


def test_the_strength_is_chosen_on_what_is_known():
    features, labels = clouds(60, 40)
    val_features, val_labels = clouds(200, 40, seed=9)
    fits = fit_path(features, hidden(labels), MULTI_LABEL, 3)
    val_labels = hidden(val_labels)
    losses = path_losses(fits, val_features, val_labels, MULTI_LABEL)
    expected = []
    for fit in fits:
        scores = fit.predict_scores(val_features)
        known = [val_labels[:, c] != MISSING for c in range(3)]
        alone = [
            log_loss(scores[rows, c : c + 1], val_labels[rows, c : c + 1], MULTI_LABEL)
            for c, rows in enumerate(known)
        ]
        expected.append(np.mean(alone))
    assert_allclose(losses, expected, rtol=1e-12)


# ---------------------------------------------------------------------------- kNN


@pytest.mark.parametrize("vote", ["weighted", "majority"])
def test_knn_equals_the_obvious_one(vote):
    bank, labels = clouds(80)
    labels = hidden(labels)
    queries, _ = clouds(30, seed=4)
    config = Knn((1, 12), vote=vote)
    found = knn.scores(config, bank, labels, queries, MULTI_LABEL, 3)
    similarities, indices = knn.neighbours(bank, queries, 12)
    n_alone = 0
    for k, scores in found.items():
        for query, label in np.ndindex(scores.shape):
            votes = []
            for similarity, row in zip(similarities[query, :k], indices[query, :k], strict=True):
                if labels[row, label] != MISSING:
                    weight = np.exp(float(similarity) / 0.07) if vote == "weighted" else 1.0
                    votes.append((weight, labels[row, label]))
            if votes:
                expected = sum(w * y for w, y in votes) / sum(w for w, _ in votes)
            else:
                expected = labels[labels[:, label] != MISSING, label].mean()
                n_alone += 1
            assert_allclose(scores[query, label], expected, rtol=1e-9)
    assert n_alone


def test_where_everything_is_known_nothing_changes():
    bank, labels = clouds(80)
    together = knn.scores(Knn((9,)), bank, labels, bank, MULTI_LABEL, 3)[9]
    gaps = knn.scores(Knn((9,)), bank, hidden(labels), bank, MULTI_LABEL, 3)[9]
    assert_allclose(gaps[:, 0], together[:, 0], rtol=1e-12)
    assert not np.allclose(gaps[:, 2], together[:, 2])


def test_a_neighbour_without_weight_has_no_vote():
    # exp(-1 / 1e-4) is 0 in a float64.
    labels = np.array([[[MISSING], [1]]])
    assert np.isnan(
        vote_multilabel(weigh(np.array([[1.0, 0.0]]), "weighted", 1e-4), labels, 1)
    ).all()


def test_a_label_known_nowhere_in_train_cannot_be_learnt():
    features, labels = clouds(40)
    labels[:, 1] = MISSING
    for ask in (
        lambda: fit_path(features, labels, MULTI_LABEL, 3),
        lambda: knn.scores(Knn((1,)), features, labels, features, MULTI_LABEL, 3),
    ):
        with pytest.raises(RequestError, match="label 1 .* is known of none of the 40 training"):
            ask()


# ---------------------------------------------------------------------------- marks, command


def test_marks_name_what_has_no_number():
    scores, labels = answers()
    scores = scores.clip(0.05, 0.95)  # a truth of probability 0 has a mark of its own
    names = ("Edema", "Hernia", "Mass")

    def marks(val, test):
        split = {"val": scored(scores, val), "test": scored(scores, test)}
        found = measure(split, Task(MULTI_LABEL, names)).marks
        return [mark for mark in found if not mark.startswith("interval")]  # Mass has 3 samples

    one_value = np.where(labels == [1, 0, -9], [0, 1, 0], labels)
    assert marks(labels, labels) == []
    assert marks(labels, one_value) == [
        "no interval of balanced_accuracy, f1_macro: label Edema has 0 samples",
        "no AUC on test: one value only there of Edema, Hernia",
    ]
    unknown = np.where(np.arange(3) == 1, MISSING, one_value)
    assert marks(one_value, unknown) == [
        "no AUC on val: one value only there of Edema, Hernia",
        "no numbers on test: nothing is known there of Hernia",
    ]


def write_findings(root, labels):
    rng = np.random.default_rng(4)
    x = {"layers/01/cls": rng.normal(size=(700, 6)) + 2 * (labels == 1) @ np.eye(3, 6)}
    spec = make_spec(labels=labels, task=MULTI_LABEL, arrays={"layers/01/cls": 6})
    path = root / "features" / "toys" / "toy_8_0123456789ab.h5"
    return write_rows(path, replace(spec, class_names=("Edema", "Hernia", "Mass")), x)


@pytest.mark.parametrize("kind", ["linear", "knn --k 11"])
def test_the_command(tmp_path, capsys, kind):
    labels = hidden(np.random.default_rng(0).integers(0, 2, (700, 3)))
    write_findings(tmp_path, labels)
    assert main(["--kind", *kind.split()]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    (path,) = (tmp_path / "results").glob("*/*.json")
    row = json.loads(path.read_text())
    assert row["n"] == {"train": 234, "val": 233, "test": 233}
    assert row["metrics"]["auc"]["value"] > 0.8
    with np.load(scores_file(path), allow_pickle=False) as stored:
        assert_array_equal(stored["test_labels"], labels[467:])
        expected = one_by_one(stored["test_scores"], stored["test_labels"])
    found = {name: ends["value"] for name, ends in row["metrics"].items()}
    assert 0 <= found.pop("ece_tempered") < 0.5  # needs val
    assert_allclose([*found.values()], expected, rtol=1e-6)
    share = (labels[:234, 2] == 1).sum() / (labels[:234, 2] != MISSING).sum()
    assert f" {share:.0%})" in said.out


@pytest.mark.parametrize("kind", ["linear", "knn --k 11"])
def test_a_label_that_train_does_not_know_is_named(tmp_path, capsys, kind):
    labels = np.random.default_rng(0).integers(0, 2, (700, 3))
    labels[:300, 1] = MISSING
    write_findings(tmp_path, labels)
    assert main(["--kind", *kind.split()]) == 1
    said = capsys.readouterr().err
    assert "no training image of which Hernia is known" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("refit", ["train", "train+val"])
def test_what_is_fitted_on_val_too_has_learnt_its_classes(tmp_path, capsys, refit):
    labels = np.random.default_rng(0).integers(0, 2, 300)
    labels[[120, 130, 250]] = 2
    x = np.random.default_rng(1).normal(size=(300, 6)) + 2 * np.eye(3, 6)[labels]
    spec = make_spec(300, labels=labels, arrays={"layers/01/cls": 6})
    path = tmp_path / "features" / "toys" / "toy_8_0123456789ab.h5"
    write_rows(path, spec, {"layers/01/cls": x})
    assert main(["--kind", "linear", "--choose", "val", "--refit", refit]) == 0
    said = capsys.readouterr().out
    assert "no temperature: val has class é that training images lack" in said
    assert ("nothing was learnt of it" in said) == (refit == "train")
