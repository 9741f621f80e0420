"""--kind stack against linear probes that are averaged by hand, and its weights against scipy's."""

import json
import re

import numpy as np
import pytest
from golden import make_toy
from looking import some
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from cache.features import open_features
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL
from probe.cli import main
from probe.metrics.losses import log_loss
from probe.solvers.mixture import mixture_weights, stacking_weights

TASKS = {"two": "binary-class", "many": "multi-class", "grades": "ordinal-regression"}
TASKS |= {"labels": MULTI_LABEL}
PLACES = [(layer, pool) for layer in range(4) for pool in ("cls", "mean")]


def rows_of(folder, *words, results="results"):
    """JSON and arrays of each row that a command leaves, by kind, place and weights."""
    folders = ["--features", str(folder), "--results", str(folder / results)]
    status = main([*words, *folders, "--resamples", "20"])
    assert status == 0
    found = {}
    for path in folder.glob(f"{results}/*/*.json"):
        row = json.loads(path.read_text())
        with np.load(next(path.parent.glob(f"{path.stem}.*.npz"))) as arrays:
            asked = row["probe"]
            which = asked.get("weights") or (asked["layer"], asked["pool"])
            key = which if "few_shot" not in asked else ("shots", which)
            found[asked["kind"], row["features"]["model"], key] = row, dict(arrays)
    return found


@pytest.mark.parametrize(
    ("data", "choose"), [("two", "cv"), ("many", "val"), ("grades", "val"), ("labels", "cv")]
)
def test_it_is_the_average_of_linear_rows(data, choose, tmp_path):
    make_toy(tmp_path, data, TASKS[data], seed=3)
    common = "--data", data, "--choose", choose
    rows_of(
        tmp_path, "--kind", "linear", "--layer", "all", "--pool", "cls,mean", "--all-test", *common
    )
    found = rows_of(tmp_path, "--kind", "stack", *common)
    each = [found["linear", "toy", place] for place in PLACES]
    assert len(found) == len(PLACES) + 2
    for word in ("equal", "stacked"):
        row, arrays = found["stack", "toy", word]
        weights = np.array(row["chosen"]["weights"])
        assert weights.sum() == pytest.approx(1)
        assert row["chosen"]["strengths"] == [one["chosen"]["strength"] for one, _ in each]
        assert [(p["layer"], p["pool"]) for p in row["probe"]["places"]] == PLACES
        by_hand = np.tensordot(weights, [one["test_scores"] for _, one in each], axes=1)
        assert_allclose(arrays["test_scores"], by_hand, atol=1e-6)
        assert ("train_scores" in arrays) == (choose == "val")
        if choose == "val":  # each of train by fits without it
            of_train = [one["train_scores"] for _, one in each]
            by_hand = np.tensordot(weights, of_train, axes=1)
            assert_allclose(arrays["train_scores"], by_hand, atol=1e-6)
    assert_allclose(found["stack", "toy", "equal"][0]["chosen"]["weights"], 1 / 8)
    # Weights are those of the smallest log-loss on what chose the strengths.
    held_out = [one["val_scores"] for _, one in each]
    labels = each[0][1]["val_labels"]
    expected = stacking_weights(np.array(held_out, np.float64), labels, TASKS[data])
    assert_allclose(found["stack", "toy", "stacked"][0]["chosen"]["weights"], expected, atol=1e-4)
    equal = found["stack", "toy", "equal"][1]["val_scores"]
    assert_allclose(equal, np.mean(held_out, axis=0), atol=1e-6)


def test_val_numbers_are_by_weights_of_other_folds(tmp_path):
    """No sample chooses the weights of its own score; so the row's loss is no smaller than fitted."""
    make_toy(tmp_path, "two", "binary-class", seed=3)
    rows_of(tmp_path, "--kind", "linear", "--layer", "all", "--pool", "cls,mean", "--all-test")
    found = rows_of(tmp_path, "--kind", "stack", "--layer", "1+2")
    each = np.array([found["linear", "toy", place][1]["val_scores"] for place in PLACES[2:6]])
    row, arrays = found["stack", "toy", "stacked"]
    labels = arrays["val_labels"]
    fitted = np.tensordot(row["chosen"]["weights"], each, axes=1)
    assert log_loss(fitted, labels, BINARY) < log_loss(arrays["val_scores"], labels, BINARY)
    assert "val numbers are by weights of the other folds" in row["marks"]


def test_a_val_of_too_few_for_folds_is_weighed_as_it_is(tmp_path):
    make_toy(tmp_path, "two", "binary-class", seed=3)
    ids = open_features(next(tmp_path.glob("two/*.h5"))).ids
    splits = ["val"] * 3 + ["test"] * 20 + ["train"] * (len(ids) - 23)
    lines = [f"{i},{split}" for i, split in zip(ids, splits, strict=True)]
    (tmp_path / "splits.csv").write_text("\n".join(["id,split", *lines]))
    words = "--choose", "val", "--split-file", str(tmp_path / "splits.csv")
    row, arrays = rows_of(tmp_path, "--kind", "stack", *words)["stack", "toy", "stacked"]
    assert len(arrays["val_ids"]) == 3
    assert any("as no folds can be made" in mark for mark in row["marks"])
    # What is said of some places says of how many.
    counts = [int(n) for mark in row["marks"] for n in re.findall(r"grid \(at (\d) of 8", mark)]
    assert counts
    assert sum(counts) <= 8


@pytest.mark.parametrize("choose", ["--choose val", "--choose cv", ""])
def test_one_strength_leaves_weights_to_choose(choose, tmp_path):
    make_toy(tmp_path, "two", "binary-class", seed=3)
    found = rows_of(tmp_path, "--kind", "stack", "--strengths", "0.01", *choose.split())
    row, arrays = found["stack", "toy", "stacked"]
    n_fitted = sum(row["n"][name] for name in ("train", "val"))
    assert len(arrays["val_scores"]) == (row["n"]["val"] if "val" in choose else n_fitted)
    assert len(row["chosen"]["weights"]) == 8


def test_two_encoders_are_an_averaged_pair(tmp_path):
    make_toy(tmp_path, "many", "multi-class", seed=3)
    make_toy(tmp_path, "many", "multi-class", seed=3, encoder="wide.full", weights="sha256:2")
    words = "--layer", "-1", "--pool", "cls", "--choose", "cv"
    rows_of(tmp_path, "--kind", "linear", *words)
    found = rows_of(tmp_path, "--kind", "stack", "--model", "toy+wide", *words)
    by_hand = [found["linear", name, (3, "cls")][1]["test_scores"] for name in ("toy", "wide")]
    pair = found["stack", "toy+wide", "equal"][1]["test_scores"]
    assert_allclose(pair, np.mean(by_hand, axis=0), atol=1e-6)


def test_test_labels_choose_nothing(tmp_path):
    """The same weights and scores, whatever test's labels are."""
    make_toy(tmp_path, "two", "binary-class", seed=3)
    known = rows_of(tmp_path, "--kind", "stack")["stack", "toy", "stacked"]
    arrays = known[1]
    told = [*zip(arrays["val_ids"], arrays["val_labels"], strict=True)]  # out of fold: train's, too
    told += zip(arrays["test_ids"], 1 - arrays["test_labels"], strict=True)
    assert len(told) == 120 + 60 + 64
    table = tmp_path / "labels.csv"
    table.write_text("id,label\n" + "".join(f"{i},{y}\n" for i, y in told))
    words = "--kind", "stack", "--labels", str(table), "--target", "label"
    poisoned = rows_of(tmp_path, *words, results="poisoned")["stack", "toy", "stacked"]
    assert poisoned[0]["chosen"] == known[0]["chosen"]
    assert_allclose(poisoned[1]["test_scores"], known[1]["test_scores"], atol=1e-12)
    assert poisoned[0]["metrics"]["acc"]["value"] < 0.5 < known[0]["metrics"]["acc"]["value"]


def test_few_shots_are_averaged_with_equal_weights(tmp_path):
    make_toy(tmp_path, "many", "multi-class", seed=3)
    shots = "--shots", "5", "--episodes", "4", "--prior", "none"
    words = "--layer", "all", "--pool", "cls,mean", "--all-test"
    rows_of(tmp_path, "--kind", "linear", *words, *shots)
    found = rows_of(tmp_path, "--kind", "stack", *shots)
    each = [found["linear", "toy", ("shots", place)][1]["test_scores"] for place in PLACES]
    row, arrays = found["stack", "toy", ("shots", "equal")]
    assert row["probe"]["weights"] == "equal"
    assert_allclose(arrays["test_scores"], np.mean(each, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("two", "--layer -1 --pool cls", "several places, found layer 3, cls alone; name more"),
        ("ages", "", "--kind stack tells classes apart; use --kind ridge"),
    ],
)
def test_refusals(data, words, message, tmp_path, capsys):
    make_toy(tmp_path, data, {"two": "binary-class", "ages": "regression"}[data], seed=3)
    folders = ["--features", str(tmp_path), "--results", str(tmp_path / "results")]
    assert main(["--kind", "stack", *words.split(), *folders]) == 1
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------- weights


def likelihoods(n_models, n, seed):
    rng = np.random.default_rng(seed)
    found = 1 / (1 + np.exp(-rng.normal(0.5, 1.5, (n_models, n))))
    return found, np.full(n, 1 / n)


@pytest.mark.parametrize(("n_models", "n"), [(2, 30), (5, 200), (24, 500), (48, 60)])
def test_weights_are_scipys(n_models, n):
    found, shares = likelihoods(n_models, n, seed=n_models)

    def loss(w):
        return -shares @ np.log(w @ found)

    best = minimize(
        loss,
        np.full(n_models, 1 / n_models),
        jac=lambda w: -(found / (w @ found)) @ shares,
        bounds=[(0, 1)] * n_models,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    weights = mixture_weights(found, shares)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert loss(weights) <= best.fun + 1e-9
    # At the smallest, no model's share of the mixture is above 1, and those with weight have 1.
    shared = (found / (weights @ found)) @ shares
    assert shared.max() <= 1 + 1e-5
    assert_allclose(shared[weights > 0.001], 1, atol=1e-5)
    if n_models <= 24:
        assert_allclose(weights, best.x, atol=1e-3)


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, MULTI_LABEL])
def test_what_says_nothing_gets_no_weight(task):
    rng = np.random.default_rng(1)
    n, n_classes = 400, 2 if task == BINARY else 3
    labels = rng.integers(0, n_classes, n)
    truth = np.eye(n_classes)[labels]
    told = (0.6 * truth + 0.4 / n_classes)[None]
    if task == MULTI_LABEL:
        labels = truth.astype(int)
        labels[::7, 1] = MISSING
        told = 0.2 + 0.6 * truth[None]
    noise = rng.dirichlet(np.ones(n_classes), (2, n))
    weights = stacking_weights(np.concatenate([noise[:1], told, noise[1:]]), labels, task)
    assert weights.tolist() == [0, 1, 0]


def test_several_labels_are_weighed_as_their_log_loss():
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 2, (50, 3))
    labels[labels == -1] = MISSING
    scores = 1 / (1 + np.exp(-rng.normal(size=(3, 50, 3))))
    weights = stacking_weights(scores, labels, MULTI_LABEL)
    best = log_loss(np.tensordot(weights, scores, axes=1), labels, MULTI_LABEL)
    for other in some(rng.dirichlet(np.ones(3), 200)):
        assert best <= log_loss(np.tensordot(other, scores, axes=1), labels, MULTI_LABEL) + 1e-9


def test_the_same_twice_and_what_is_sure_and_wrong():
    """Copies share a weight; a probability of 0 of the truth is no infinity."""
    sure = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    fair = np.full((1, 2, 2), 0.5)
    weights = stacking_weights(np.concatenate([sure, fair, fair]), np.array([0, 1]), BINARY)
    assert weights[0] == 0
    assert weights[1:].sum() == pytest.approx(1)
