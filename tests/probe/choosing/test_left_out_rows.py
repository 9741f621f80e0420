"""Scores of train by what was fitted without it: against scikit-learn, and which rows keep them."""

import json

import numpy as np
import pytest
from answering import scores_file
from features import Looks, make_features
from numpy.testing import assert_allclose, assert_array_equal
from probing import answered
from sklearn import linear_model
from sklearn.preprocessing import StandardScaler

from cache.features import open_features
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, REGRESSION, Task
from probe.choosing import left_out
from probe.kinds.linear import Linear, left_out_scores
from probe.kinds.ridge import Ridge, left_out_outputs
from probe.questions.question import Split

N = 60
FOLD = np.arange(N) * 7 % 5


def draw(task, width=6):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3 if task == MULTI_CLASS else 2, N)
    if task == MULTI_LABEL:
        labels = rng.integers(0, 2, (N, 3))
    x = rng.normal(size=(N, width)) + labels.reshape(N, -1).sum(axis=1, keepdims=True)
    return (3 * x + 5).astype(np.float32), labels


def each_fold(x, y, fit):
    """Every sample by a fit to the other folds, of features that all of them standardise."""
    x = StandardScaler().fit_transform(x)
    found = [fit(x[FOLD != i], y[FOLD != i], x[FOLD == i]) for i in range(5)]
    scores = np.empty((N, *found[0].shape[1:]))
    for i, part in enumerate(found):
        scores[FOLD == i] = part
    return scores


@pytest.mark.parametrize("width", [6, 90])
@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS])
def test_linear_is_scikit_learns_of_each_fold(task, width):
    def fit(x, y, own):
        model = linear_model.LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000)
        return model.fit(x, y).predict_proba(own)

    x, y = draw(task, width)
    config = Linear(strengths=(0.3,), tolerance=1e-12)
    n_classes = int(y.max()) + 1
    found = left_out_scores(x, y, FOLD, task, n_classes, config)
    assert_allclose(found, each_fold(x, y, fit), atol=1e-3)


def test_a_label_that_nobody_knows_has_no_say():
    x, y = draw(MULTI_LABEL)
    y[np.random.default_rng(4).random(y.shape) < 0.3] = -1

    def fit(x, y, own):
        model = linear_model.LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000)
        known = [y[:, c] >= 0 for c in range(3)]
        each = [model.fit(x[k], y[k, c]).predict_proba(own) for c, k in enumerate(known)]
        return np.stack([p[:, 1] for p in each], axis=1)

    found = left_out_scores(x, y, FOLD, MULTI_LABEL, 3, Linear(strengths=(0.3,), tolerance=1e-12))
    assert_allclose(found, each_fold(x, y, fit), atol=1e-3)


@pytest.mark.parametrize("width", [6, 90])
@pytest.mark.parametrize("setting", [{"penalties": (0.2,)}, {"alpha": 9.0}])
def test_ridge_is_scikit_learns_of_each_fold(setting, width):
    def fit(x, y, own):
        alpha = setting.get("alpha") or 0.2 * len(x)
        return linear_model.Ridge(alpha=alpha).fit(x, y).predict(own)

    x, y = draw(REGRESSION, width)
    targets = np.column_stack([y, y**2 - 3.0 * y])
    found = left_out_outputs(x, targets, FOLD, Ridge(**setting))
    assert_allclose(found, each_fold(x, targets, fit), atol=1e-6)


@pytest.mark.parametrize(("kind", "setting"), [(Linear, "strengths"), (Ridge, "penalties")])
def test_the_chosen_candidate_answers(kind, setting):
    x, y = draw(BINARY)
    train = Split(x, y, np.arange(N).astype(str), None)
    task = Task(BINARY, ("no", "yes"))

    def scores(value, *values):
        config = kind(**{setting: values})
        fitted = config.fit(train, task)
        place = next(i for i in range(len(values)) if config.value(fitted, i) == value)
        return config.left_out(fitted, place, train, FOLD, task)

    for value in (0.01, 0.5):
        assert_allclose(scores(value, 0.01, 0.5), scores(value, value))
    assert np.abs(scores(0.5, 0.5) - scores(0.01, 0.01)).max() > 0.01


@pytest.mark.parametrize("task", [BINARY, MULTI_LABEL])
def test_the_folds_own_labels_are_unseen(task):
    x, y = draw(task)
    other = np.where((FOLD == 2).reshape(-1, *[1] * (y.ndim - 1)), 1 - y, y)
    args = FOLD, task, 3 if task == MULTI_LABEL else 2, Linear(strengths=(1.0,))
    a, b = left_out_scores(x, y, *args), left_out_scores(x, other, *args)
    assert_array_equal(a[FOLD == 2], b[FOLD == 2])
    assert not np.allclose(a[FOLD == 1], b[FOLD == 1])


def test_a_class_that_one_fold_alone_has_scores_nothing_there():
    x, y = draw(BINARY)
    y = np.where(np.arange(N) == 4, 2, y)
    found = left_out_scores(x, y, FOLD, MULTI_CLASS, 3, Linear(strengths=(1.0,)))
    assert (found[FOLD == FOLD[4], 2] == 0).all()
    assert np.isfinite(found).all()


# ---------------------------------------------------------------------------- rows

KINDS = {"knn": "--k 5", "linear": "", "ridge": ""}


def arrays_of(results):
    found = []
    for row in sorted(results.glob("*/*.json")):
        with np.load(scores_file(row)) as file:
            found.append({name: file[name] for name in file.files})
    return found


def by_k(results):
    rows = [json.loads(path.read_text()) for path in sorted(results.glob("*/*.json"))]
    return {row["probe"]["k"]: of for row, of in zip(rows, arrays_of(results), strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_val_decides_keep_them(kind, places, capsys):
    features, results = places
    looks = Looks(copies={0: 3, 6: 9})
    path = make_features(features, looks=looks, groups=np.array([f"p{i // 4}" for i in range(220)]))
    answered(capsys, f"--kind {kind} {KINDS[kind]} --choose val")
    (arrays,) = arrays_of(results)
    file = open_features(path)
    is_train = file.split == "train"
    assert_array_equal(arrays["train_ids"], file.ids[is_train])
    assert_array_equal(arrays["train_labels"], file.labels[is_train])
    scores = arrays["train_scores"]
    assert scores.shape == (120, 3)
    assert scores.dtype == np.float32
    right = (scores.argmax(axis=1) == file.labels[is_train]).mean()
    assert 0.6 < right < 1  # of noise: fitted ones would be nearly all right


def test_knn_passes_over_its_own_patient_and_copies(places, capsys):
    features, results = places
    looks = Looks(
        copies={0: 3, 4: 7}
    )  # with patients of two: 0 1 2 3 and 4 5 6 7 are kept together
    path = make_features(
        features, looks=looks, strength=0, groups=np.array([f"p{i // 2}" for i in range(220)])
    )
    answered(capsys, "--kind knn --k 3,7 --vote majority")
    file = open_features(path)
    x = file.array(-1, "cls").astype(np.float64)[:120]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.arange(120) // 2
    unit[[2, 3]], unit[[6, 7]] = unit[0], unit[4]
    similarities = np.where(unit[:, None] == unit, -np.inf, x @ x.T)
    for k, arrays in by_k(results).items():
        nearest = np.argsort(-similarities, axis=1)[:, :k]
        votes = (file.labels[:120][nearest][..., None] == np.arange(3)).mean(axis=1)
        assert_allclose(arrays["train_scores"], votes, atol=1e-6)


WITHOUT = {
    "folds did it": "--kind linear --choose cv",
    "layers are compared": "--kind linear --choose val --layer all",
    "folds of a split": "--kind knn --k 3 --split kfold:3",
    "few shots": "--kind linear --shots 3 --episodes 2",
    "a fit of its own for each": "--kind knn --k 3 --vote mlknn",
}


@pytest.mark.parametrize("why", WITHOUT)
def test_rows_without_them(why, places, capsys):
    features, results = places
    make_features(features, task=MULTI_LABEL if "mlknn" in WITHOUT[why] else MULTI_CLASS)
    answered(capsys, WITHOUT[why])
    assert not any("train_scores" in arrays for arrays in arrays_of(results))


@pytest.mark.parametrize(("most", "kept"), [(119, False), (120, True)])
def test_of_many_samples_none_are_kept(places, capsys, monkeypatch, most, kept):
    features, results = places
    make_features(features)
    monkeypatch.setattr(left_out, "MOST", most)
    answered(capsys, "--kind knn --k 3")
    assert ("train_scores" in arrays_of(results)[0]) == kept


@pytest.mark.parametrize(
    ("asked", "kept"), [("", {3, 40}), ("--protocol dinov2 --as-published", set())]
)
def test_k_that_other_patients_do_not_fill_has_none(places, capsys, asked, kept):
    """Of 120 samples one patient has 80: 40 others are left for each of his."""
    features, results = places
    make_features(features, groups=np.array([f"p{max(i - 79, 0)}" for i in range(220)]))
    answered(capsys, f"--kind knn --k 3,40,41 {asked}")
    found = by_k(results)
    assert {k for k, arrays in found.items() if "train_scores" in arrays} == kept
    assert set(found) == {3, 40, 41}


def test_patients_are_kept_where_they_are_measured(places, capsys):
    features, results = places
    make_features(
        features,
        labels=np.arange(220) // 2 % 3,
        groups=np.array([f"p{i // 2:03d}" for i in range(220)]),
    )
    answered(capsys, "--kind linear --choose val --aggregate patient")
    (arrays,) = arrays_of(results)
    assert_array_equal(arrays["train_ids"], [f"p{i:03d}" for i in range(60)])
    assert arrays["train_scores"].shape == (60, 3)


def test_a_patient_of_train_with_several_labels_costs_these_scores_alone(places, capsys):
    features, results = places
    labels = np.arange(220) // 2 % 3
    labels[1] = 1  # of test each patient has one
    make_features(features, labels=labels, groups=np.array([f"p{i // 2:03d}" for i in range(220)]))
    answered(capsys, "--kind linear --choose val --aggregate patient")
    (arrays,) = arrays_of(results)
    assert "train_scores" not in arrays
    assert arrays["test_scores"].shape == (30, 3)


def test_external_train_is_another_data_sets(places, capsys):
    features, results = places
    make_features(features, "here")
    there = make_features(features, "there", seed=8)
    answered(capsys, "--kind ridge --choose val --train-data there --test-data here")
    (arrays,) = arrays_of(results)
    assert_array_equal(arrays["train_ids"], open_features(there).ids[:120])
