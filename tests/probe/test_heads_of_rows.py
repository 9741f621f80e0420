"""Rows keep the weights of the model whose test scores they hold, and new images are scored by it."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answering import make_earlier, make_row
from features import make_features, make_spec, make_text_spec, write_file, write_rows
from probing import answered, refused, run

from cache import open_features
from cache.errors import RequestError
from cache.labels.target import unlabelled
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION, Task
from probe.places import Place, read_side_by_side
from probe.results import BrokenRow, from_json, load_head, read_row, read_scores, write_row
from probe.solvers.head import IDENTITY, SOFTMAX, Head, head_of
from probe.solvers.standardise import Standard

ADAMW = "adamw --iterations 40 --batch-size 30 --lr 0.01 --seeds 3"
HEADS = "heads --lr 0.05,0.5 --epochs 1 --iterations 20"
TASKS = {MULTI_CLASS: 3, ORDINAL: 3, BINARY: 2, MULTI_LABEL: 3, REGRESSION: 1}
NO_CLASS_1 = {"labels": lambda y: np.where(y == 1, 2, y)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDPROBE_FEATURES", "features")
    monkeypatch.setenv("MEDPROBE_RESULTS", "results")
    return tmp_path


def paths(folder):
    return sorted((folder / "results").glob("*/*.json"))


def of_test(row, features):
    """What a row's head says of its test images, and what the row says."""
    head, stored = load_head(row), read_scores(row, read_row(row))
    x = read_side_by_side(head.places, (features,), head.aggregate)
    places = {name: i for i, name in enumerate(features.ids.tolist())}
    return head.scores(x[[places[name] for name in stored["test_ids"]]]), stored["test_scores"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "words",
    [
        "linear --choose val --strengths 0.01,1",
        "linear --choose cv --strengths 0.01,1 --layer last2 --pool concat",
        "linear --form ovr --strengths 0.1",
        "ridge --choose cv --penalties 0.01,1",
        "ridge --choose val --refit train+val",
        ADAMW,
        f"{HEADS} --refit train+val",
        f"{HEADS} --pool mean",
    ],
)
def test_a_head_gives_the_rows_scores(folder, capsys, words, task):
    if task == REGRESSION and not words.startswith("ridge"):
        return  # they tell classes apart
    path = make_features(folder / "features", task=task, n_classes=TASKS[task], n_layers=4)
    assert run(capsys, f"--kind {words}")[0] == 0
    found, wanted = of_test(*paths(folder), open_features(path))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "task", "fields"),
    [
        ("--kind linear --choose val", MULTI_CLASS, NO_CLASS_1),
        ("--kind linear --choose cv --form ovr", MULTI_CLASS, NO_CLASS_1),
        (
            "--kind linear --choose val",
            MULTI_LABEL,
            {"labels": lambda y: y * [1, 0, 1] + [0, 1, 0]},
        ),
        ("--kind ridge", MULTI_CLASS, NO_CLASS_1),
        (f"--kind {ADAMW}", MULTI_CLASS, NO_CLASS_1),
        ("--protocol baharoon2023 --as-published --lr 0.1 --epochs 2", MULTI_CLASS, {}),
        ("--protocol wu2025 --iterations 20 --seeds 1", BINARY, {}),
        ("--kind linear --aggregate max", BINARY, {"row_sample": np.arange(220).repeat(2)}),
    ],
)
def test_a_head_of_another_form_gives_them_too(folder, capsys, words, task, fields):
    """Classes and labels that train tells nothing of, sigmoids of classes, slices."""
    about = {"task": task, "n_classes": TASKS[task], "n_layers": 4, **fields}
    path = make_features(folder / "features", **about)
    assert run(capsys, words)[0] == 0
    np.testing.assert_allclose(*of_test(*paths(folder), open_features(path)), atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "words",
    [
        "linear --prior none",
        "linear --prior none --standardise episode",
        "ridge --draw natural",
        "ridge --standardise episode",
        "adamw --iterations 20 --lr 0.01 --seeds 1 --prior none",
        f"{HEADS} --prior none",
    ],
)
def test_heads_of_episodes_are_kept_where_they_are_asked_for(folder, capsys, words, task):
    if task == REGRESSION and not words.startswith("ridge"):
        return  # they tell classes apart
    path = make_features(folder / "features", task=task, n_classes=TASKS[task], n_layers=4)
    words = f"--kind {words} --shots 4 --episodes 3"
    assert run(capsys, words)[0] == 0
    with pytest.raises(RequestError, match="keeps no weights"):
        load_head(*paths(folder))
    assert run(capsys, f"{words} --keep-heads")[0] == 0
    found, wanted = of_test(*paths(folder), open_features(path))
    assert found.shape[0] == 3
    np.testing.assert_allclose(found, wanted, atol=1e-5)


OLD = "of an earlier version"  # which kept no weights


def of_same_encoder(folder, task, **fields):
    """The same features of images that are another data set's, and have no labels."""
    n = 220 if task != MULTI_LABEL else (220, TASKS[task])
    nothing = np.full(n, np.nan) if task == REGRESSION else np.full(n, -1)
    about = {"task": task, "n_classes": TASKS[task], "split": np.zeros(220, np.uint8), **fields}
    return make_features(folder / "features", "new", labels=lambda _: nothing, **about)


def scored(capsys, row, images):
    """What ``probe apply`` writes: lines of the CSV, and the arrays."""
    out = answered(capsys, ["apply", row, images, "--out", "new.csv", "--overwrite"])
    with np.load("new.npz") as arrays:
        lines = csv.reader(Path("new.csv").read_text(encoding="utf-8").splitlines())
        return list(lines), dict(arrays), out


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("words", "how"),
    [
        ("linear --strengths 0.1,1", ""),
        ("linear --strengths 0.1,1 --choose cv", OLD),
        ("linear --strengths 0.1,1 --choose val", OLD),
        ("ridge --penalties 0.1", OLD),
        ("knn --k 3,9", ""),
        ("knn --k auto --choose val", ""),
        (HEADS, ""),
    ],
)
def test_images_without_labels_are_scored(folder, capsys, words, how, task):
    if task == REGRESSION and words.split()[0] in ("linear", "heads"):
        return
    make_features(folder / "features", task=task, n_classes=TASKS[task], n_layers=4)
    assert run(capsys, f"--kind {words}")[0] == 0
    row = paths(folder)[0]
    if how == OLD:
        make_earlier(row)
    lines, arrays, _ = scored(capsys, row, of_same_encoder(folder, task, n_layers=4))
    wanted = read_scores(row, read_row(row))
    place = {name: i for i, name in enumerate(arrays["ids"].tolist())}
    rows = [place[name] for name in wanted["test_ids"].tolist()]
    np.testing.assert_allclose(arrays["scores"][rows], wanted["test_scores"], atol=1e-5)
    names = arrays["class_names"].tolist()
    said = [] if task == REGRESSION else ["predicted"]
    assert lines[0] == ["id", *said, *names]
    assert [line[0] for line in lines[1:]] == arrays["ids"].tolist()
    numbers = np.array([line[1 + len(said) :] for line in lines[1:]], float)
    np.testing.assert_array_equal(numbers, arrays["scores"])
    if task == MULTI_LABEL:
        above = arrays["scores"] > (0 if words.startswith("ridge") else 0.5)
        assert lines[5][1] == "|".join(np.array(names)[above[4]])
    elif task != REGRESSION:
        assert lines[5][1] == names[arrays["scores"][4].argmax()]


def test_labels_may_come_later(folder, capsys):
    nobody = unlabelled(220)
    about = {"task": nobody.task, "class_names": nobody.class_names}
    path = make_features(folder / "features", labels=lambda _: nobody.labels, **about)
    asked = "--kind knn --k 3 --data toys"
    err = refused(capsys, asked)
    assert "toys were stored without labels; lay some over them with --labels FILE, or" in err
    rows = "".join(f"{name},{i % 2}\n" for i, name in enumerate(open_features(path).ids))
    Path("late.csv").write_text(f"id,sick\n{rows}", encoding="utf-8")
    assert run(capsys, f"{asked} --labels late.csv --target sick --split 60/20/20")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        "knn --k 5 --data toys --split kfold:3:2",
        "knn --k 5 --data several --target 1 --split 70/15/15 --split-seed 4",
        "linear --train-data toys --test-data others",
    ],
)
def test_what_was_laid_over_is_laid_over_again(folder, capsys, words):
    make_features(folder / "features")
    make_features(folder / "features", "others", seed=8)
    make_features(folder / "features", "several", task=MULTI_LABEL, class_names=("0", "1", "2"))
    assert run(capsys, f"--kind {words}")[0] == 0
    (row,) = paths(folder)
    make_earlier(row)
    scored(capsys, row, of_same_encoder(folder, MULTI_CLASS))


def test_heads_of_folds_are_kept_where_they_are_asked_for(folder, capsys):
    path = make_features(folder / "features")
    words = "--kind ridge --penalties 0.1 --split kfold:3"
    assert run(capsys, words)[0] == 0
    for row in paths(folder):
        with pytest.raises(RequestError, match=r"keeps no weights; .* with --keep-heads"):
            load_head(row)
    assert run(capsys, f"{words} --keep-heads")[0] == 0
    for row in paths(folder):
        np.testing.assert_allclose(*of_test(row, open_features(path)), atol=1e-5)
    typed = from_json(read_row(row))
    assert (
        load_head(typed).places
        == load_head(typed, folder / "results").places
        == load_head(row).places
    )


def test_large_weights_are_not_kept_and_the_row_says_so(folder, capsys, monkeypatch):
    make_features(folder / "features")
    monkeypatch.setattr("probe.run.MAX_BYTES", 100)
    assert run(capsys, "--kind ridge --penalties 0.1")[0] == 0
    (row,) = paths(folder)
    assert "its weights aren't kept: 120 B of them" in read_row(row)["marks"]
    with pytest.raises(RequestError, match="keeps no weights"):
        load_head(row)


def test_weights_beyond_float32_are_not_kept_and_the_row_says_so(folder, capsys):
    spec = make_spec(60, {"head": 4}, "float32", key={"layers": {"of": 1, "stored": []}})
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) * np.float32(1e-41)
    write_rows(folder / "features" / "toys" / "tiny.h5", spec, {"head": x})
    assert run(capsys, "--kind ridge --penalties 0.1")[0] == 0
    (row,) = paths(folder)
    assert "its weights aren't kept: beyond float32" in read_row(row)["marks"]


def test_large_means_lose_no_digits():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 8)) * 1e-3 + 1000).astype(np.float32)
    mean, scale = x.astype(float).mean(axis=0), x.astype(float).std(axis=0)
    weights, intercept = rng.normal(size=(8, 1)), rng.normal(size=1)
    folded = Standard(mean, scale).folded(weights, intercept)
    stored = Head(*folded, IDENTITY, NUMBER, places=PLACE, centre=mean).arrays
    head = head_of(stored)
    assert stored["head_weights"].dtype == np.float32
    np.testing.assert_allclose(head.scores(x), (x - mean) / scale @ weights + intercept, atol=1e-6)


NUMBER = Task(REGRESSION, ("y",))
PLACE = (Place(1, "cls"),)
WHOLE = Head(
    np.ones((6, 3), np.float32),
    np.zeros(3),
    SOFTMAX,
    Task(MULTI_CLASS, ("a", "b", "c")),
    places=PLACE,
)


@pytest.mark.parametrize(
    ("array", "value", "match"),
    [
        ("head_weights", np.ones(6, np.float32), "shapes"),
        ("head_weights", np.ones((1, 2, 6, 3), np.float32), "shapes"),
        ("head_weights", np.full((6, 3), "x"), "types"),
        ("head_weights", np.ones((6, 3), complex), "types"),
        ("head_weights", np.full((6, 3), np.nan, np.float32), "numbers"),
        ("head_weights", np.ones((6, 2), np.float32), "shapes"),
        ("head_intercept", np.zeros((2, 3)), "shapes"),
        ("link", "cubic", "links"),
        ("task", "poetry", "tasks"),
        ("class_names", [1, 2, 3], "class names"),
        ("class_names", "abc", "a list"),
        ("columns", [0, 1, -1], "columns"),
        ("columns", [0, 1, 3], "columns"),
        ("columns", [0, 1, 1], "columns"),
        ("columns", ["0", 1, 2], "columns"),
        ("columns", [0, 1], "columns"),
        ("constant", [0.5], "constants"),
        ("places", [], "places"),
        ("places", [{"layer": "0", "pool": "cls"}], "no place"),
        ("places", [{"layer": 0, "pool": "cls", "n_last": 0}], "no place"),
        ("aggregate", "min", "aggregates"),
    ],
)
def test_a_head_of_a_file_is_checked(array, value, match):
    arrays = WHOLE.arrays
    again = head_of(arrays)
    assert again
    np.testing.assert_array_equal(again.weights, WHOLE.weights)
    assert (again.task, again.places) == (WHOLE.task, PLACE)
    if array in arrays:
        arrays[array] = value
    else:
        arrays["head"] = np.array(json.dumps({**json.loads(str(arrays["head"])), array: value}))
    with pytest.raises(ValueError, match=match):
        head_of(arrays)


def test_what_is_no_head_is_a_broken_row(folder):
    path = write_row(folder, replace(make_row(), scores={"head_weights": np.ones(3)}))
    with pytest.raises(BrokenRow, match="keeps is no head"):
        load_head(path)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (f"{ADAMW}", "is of kind adamw and keeps no weights; ask the probe anew"),
        ("linear --shots 2 --episodes 2", "learnt from episodes, each its own head"),
        ("knn --k 3 --labels labels.csv", "is of labels.csv; name that table with --labels"),
        ("knn --k 3 --split-file split.csv", "is of split.csv; name that table with --split-file"),
        (
            "sklearn.dummy.DummyClassifier",
            "keeps no weights; name a row of linear, ridge, knn, adamw, heads",
        ),
    ],
)
def test_rows_that_cannot_be_applied(folder, capsys, words, match):
    make_features(folder / "features")
    images = of_same_encoder(folder, MULTI_CLASS)
    write_tables(folder)
    assert run(capsys, f"--kind {words} --data toys")[0] == 0
    (row,) = paths(folder)
    make_earlier(row)
    err = refused(capsys, ["apply", row, images])
    assert re.search(match, err)
    assert not list(folder.glob("toy*"))


def write_tables(folder):
    ids = [f"{i:05d}" for i in range(220)]
    lines = [f"{name},{'xyz'[i % 3]}" for i, name in enumerate(ids)]
    (folder / "labels.csv").write_text("\n".join(["id,label", *lines]))
    parts = ["train", "val", "test", "test"]
    lines = [f"{name},{parts[i // 3 % 4]}" for i, name in enumerate(ids)]
    (folder / "split.csv").write_text("\n".join(["id,split", *lines]))


def test_tables_that_a_row_is_of_are_named_again(folder, capsys):
    make_features(folder / "features")
    images = of_same_encoder(folder, MULTI_CLASS)
    write_tables(folder)
    tables = ["--labels", "labels.csv", "--split-file", "split.csv"]
    assert run(capsys, ["--kind", "knn", "--k", "3", "--data", "toys", *tables])[0] == 0
    (row,) = paths(folder)
    apply = ["apply", row.stem, images, "--out", "new.csv"]
    assert run(capsys, [*apply, *tables])[0] == 0
    with np.load("new.npz") as arrays:
        place = {name: i for i, name in enumerate(arrays["ids"].tolist())}
        scores = arrays["scores"]
    wanted = read_scores(row, read_row(row))
    rows = [place[name] for name in wanted["test_ids"].tolist()]
    np.testing.assert_allclose(scores[rows], wanted["test_scores"], atol=1e-6)
    status, _, err = run(capsys, [*apply, *tables])
    assert (status, "new.csv is there already; name another" in err) == (1, True)
    text = Path("split.csv").read_text().replace("test", "val", 1)
    Path("split.csv").write_text(text)
    status, _, err = run(capsys, [*apply, *tables, "--overwrite"])
    assert (status, "of other labels or another split than" in err) == (1, True)
    status, _, err = run(capsys, [*apply, *tables, "--out", "nowhere/new.csv"])
    assert (status, "no folder at nowhere" in err) == (1, True)


def test_images_that_cannot_be_scored(folder, capsys):
    path = make_features(folder / "features")
    for kind in ("knn --k 3", "linear --layer 0"):
        assert run(capsys, f"--kind {kind} --data toys")[0] == 0
    of_knn, of_linear = paths(folder)

    def refused(row, images, match, *more):
        status, _, err = run(capsys, ["apply", row, images, *more])
        assert status == 1
        assert re.search(match, err)

    other = of_same_encoder(folder, MULTI_CLASS, key={"weights": "sha256:2"})
    refused(of_linear, other, r"was made in another way .*weights: \(absent\) -> sha256:2")
    text = write_file(folder / "text.h5", make_text_spec([0, 1, 2]))
    refused(of_linear, text, "holds text features")
    head = of_same_encoder(folder, MULTI_CLASS, n_layers=0, key={"layers": {"of": 2}})
    refused(of_linear, head, "has no layer 0")
    refused(of_linear, path, "ends in .csv, not x.txt", "--out", "x.txt")
    refused(folder / "labels.json", path, "no result .*labels.json. in results")
    (folder / "x.json").write_text("{}")
    refused(folder / "x.json", path, "can't be read as a result")
    refused(of_knn, path, "aren't in nowhere", "--features", "nowhere")
    said = scored(capsys, of_linear, path)[2]
    assert "was made of these features" in said
    make_earlier(of_knn)
    with np.load(of_knn.with_suffix(".npz")) as file:
        scores = dict(file)
    np.savez(of_knn.with_suffix(".npz"), **{**scores, "test_scores": scores["test_scores"][::-1]})
    refused(of_knn, path, "fitted again, .* gives other scores on test")
