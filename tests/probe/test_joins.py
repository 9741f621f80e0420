"""Several layers, pools and encoders side by side: which are found, matched, read and kept."""

import json
from shutil import copy
from types import SimpleNamespace

import numpy as np
import pytest
from features import make_features, make_spec, write_rows
from numpy.testing import assert_allclose, assert_array_equal
from probing import answered, refused, rows, run
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cache import open_features
from cache.errors import CacheError, RequestError
from cache.task import BINARY, Task
from probe.cost import Cost, cost_of
from probe.finding import FindConfig, choose_asked, encoders_of
from probe.joins import find_joins
from probe.places import (
    Place,
    PlacesConfig,
    place_of,
    places_in,
    read_side_by_side,
    settings_of,
)
from probe.questions.joining import _first_unlike, align
from probe.questions.question import Question, Split
from probe.report.rows.stale import read_shelf
from probe.report.rows.stored import read_stored, stored_files
from probe.results import BrokenRow, Row, find_head, from_json, read_row, read_scores
from probe.row_schema import check_row
from probe.run import _standardised

N = (60, 20, 40)


def write_cnn(root, order=slice(None), dataset="toys", **fields):
    """Another encoder on the samples of ``make_features(n=N)``: means alone, of another width."""
    other = open_features(make_features(root / "aside", n=N))
    fields["dataset"] = dataset
    ids, rng = other.ids[order], np.random.default_rng(3)
    labels = fields.pop("labels", other.labels[order])
    split = np.searchsorted(["test", "train", "val"], other.split)[order]
    said = {
        "model": "cnn",
        "class_names": tuple(other.class_names),
        "encoder": "cnn.full",
        "ids": ids,
        "row_ids": ids,
        "labels": labels,
    }
    said |= {"split": np.array([2, 0, 1], np.uint8)[split], "key": {"layers": {"of": 3}}, **fields}
    arrays = {"layers/01/mean": 4, "layers/02/mean": 5}
    spec = make_spec(len(ids), arrays, "float32", row_sample=np.arange(len(ids)), **said)
    own = {n: rng.normal(0, 30, (len(other.ids), w))[order] for n, w in arrays.items()}
    own["layers/02/mean"][:, 0] += 60 * (labels == 1)
    return write_rows(root / dataset / "cnn_8_0123456789ab.h5", spec, own)


def write_views(root, counts, model="views", seed=5):
    """A third encoder on those samples, in another order; each has rows that don't follow one another."""
    other, rng = open_features(make_features(root / "aside", n=N)), np.random.default_rng(seed)
    order = rng.permutation(sum(N))
    sample = rng.permutation(np.repeat(np.arange(sum(N)), counts))
    said = {"model": model, "encoder": f"{model}.full", "class_names": tuple(other.class_names)}
    said |= {"ids": other.ids[order], "labels": other.labels[order], "row_sample": sample}
    said |= {"row_ids": np.array([f"row {i}" for i in range(len(sample))])}
    said |= {
        "split": np.array([2, 0, 1], np.uint8)[
            np.searchsorted(["test", "train", "val"], other.split)[order]
        ]
    }
    spec = make_spec(len(sample), {"layers/01/mean": 4}, key={"size": 8}, **said)
    x = rng.normal(9, 1, (len(sample), 4)) + said["labels"][sample][:, None]
    return write_rows(root / "toys" / f"{model}_8_0123456789ab.h5", spec, {"layers/01/mean": x})


@pytest.fixture
def vit(places):
    return open_features(make_features(places[0], n=N, n_layers=3))


@pytest.mark.parametrize(
    ("layer", "pools", "expected"),
    [
        ("0+2", ("cls",), [[(0, "cls"), (2, "cls")]]),
        ("2+0", ("cls",), [[(0, "cls"), (2, "cls")]]),
        ("-1+1", ("mean+cls",), [[(n, p) for n in (1, 2) for p in ("cls", "mean")]]),
        ("all+", (), [[(0, "cls"), (1, "cls"), (2, "cls")]]),
        ("0,2", ("cls",), [[(0, "cls")], [(2, "cls")]]),
        ("0,-3", ("cls",), [[(0, "cls")]]),
        ("1,0+-1", ("mean",), [[(1, "mean")], [(0, "mean"), (2, "mean")]]),
        (1, ("cls+mean",), [[(1, "cls"), (1, "mean")]]),
        ("all", ("cls+mean",), [[(n, p) for p in ("cls", "mean")] for n in range(3)]),
        ("1+2", ("mean", "cls+mean"), [[(1, "mean"), (2, "mean")], "both"]),
        ("last2", ("cls+mean",), [[(2, "cls"), (2, "mean")]]),
        ("1+2", ("cls+head",), [[(1, "cls"), (2, "cls"), (2, "head")]]),
    ],
)
def test_a_comma_compares_and_a_plus_joins(vit, layer, pools, expected):
    PlacesConfig(layer, pools)
    both = [(n, p) for n in (1, 2) for p in ("cls", "mean")]
    found = find_joins([vit], layer, pools)
    wanted = [both if at == "both" else at for at in expected]
    assert [[(place.layer, place.pool) for place in at] for at in found] == wanted
    assert {place.n_last for at in found for place in at} == {2 if layer == "last2" else 1}


@pytest.mark.parametrize(
    ("layer", "pools", "match"),
    [
        ("2+2", (), "each layer may be named once"),
        ("2,2", (), "each layer may be named once"),
        ("2+", (), "--layer takes"),
        ("auto+", (), "--layer takes"),
        ("auto,2", (), "--layer takes"),
        ("auto", ("cls+mean",), "chooses among single pools"),
        (1, ("cls+cls",), "each pool may be named once"),
        (1, ("cls+mena",), "not 'mena'"),
        (1, ("+",), "--pool takes cls.*not ''"),
        (1, ("concat+mean",), "concat is cls and mean"),
    ],
)
def test_words_that_are_refused(layer, pools, match):
    with pytest.raises(RequestError, match=match):
        PlacesConfig(layer, pools)


def test_layers_that_a_file_lacks_or_that_are_one(vit):
    with pytest.raises(RequestError, match="has no layer 7"):
        find_joins([vit], "1+7")
    with pytest.raises(RequestError, match="each layer may be named once"):
        find_joins([vit], "2+-1")


def test_encoders_side_by_side_are_matched_by_id(places, vit):
    order = np.random.default_rng(1).permutation(sum(N))
    cnn = open_features(write_cnn(places[0], order))
    files = align([vit, cnn])
    assert_array_equal(files[1].ids, vit.ids)
    assert_array_equal(files[1].labels, vit.labels)
    at = find_joins(files, "all+", ("cls+mean",))
    assert [(p.file, p.layer, p.pool) for p in at[0]][-2:] == [(1, 1, "mean"), (1, 2, "mean")]
    x = read_side_by_side(at[0], files)
    assert x.shape == (sum(N), 6 * vit.memmap(0, "cls").shape[1] + 9)
    back = np.argsort(order)
    assert_array_equal(x[:, -5:], cnn.array(2, "mean")[back])
    assert_array_equal(x[:, :4], vit.array(0, "cls")[:, :4])
    # The first one's order is everybody's.
    assert_array_equal(read_side_by_side(find_joins(align([cnn, vit]), -1)[0], align([cnn, vit]))[:, :5],
                       cnn.array(2, "mean"))  # fmt: skip
    with pytest.raises(RequestError, match="compares layers of one encoder"):
        find_joins(files, "all")
    with pytest.raises(RequestError, match="has no pool cls at the layers of cnn.full"):
        find_joins(files, -1, ("cls",))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"order": np.arange(sum(N) - 3)}, "cnn at 8 px lacks 3 of 120, the first '00117'"),
        ({"class_names": ("a", "b", "c")}, "classes are class 0, class 1, class 2 and a, b, c"),
        ({"labels": 0}, "the label of '0.*' is 1 and 0, 80 differ"),
        ({"split": 0}, "the split of '0.*' is val and train, 60 differ"),
        ({"groups": 0}, "the patient of '0.*' is  and p, 120 differ"),
    ],
)
def test_what_differs_is_refused_by_name(places, vit, changes, match):
    full = {
        "labels": np.zeros(sum(N), int),
        "split": np.zeros(sum(N), np.uint8),
        "groups": np.full(sum(N), "p"),
    }
    changes = {name: full.get(name, value) for name, value in changes.items()}
    cnn = open_features(write_cnn(places[0], **changes))
    with pytest.raises(RequestError, match=f"toy at 32 px and cnn at 8 px on toys.*{match}"):
        align([vit, cnn])


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("toy+cnn", "cnn@8+toy@32"),
        ("all+", "cnn@8+toy@32"),
        ("cnn@8+toy", "cnn@8+toy@32"),
    ],
)
def test_a_row_of_two_encoders(places, vit, capsys, words, title):
    cnn = open_features(write_cnn(places[0]))
    answered(capsys, f"--kind linear --strengths 0.01 --layer=1+-1 --model {words}")
    (row,) = rows()
    features, probe = row["features"], row["probe"]
    assert features["label"] == title
    assert features["model"] == title.replace("@32", "").replace("@8", "")
    files = [{"toy": vit, "cnn": cnn}[name] for name in features["model"].split("+")]
    assert [part["digest"] for part in features["joined"]] == [f.digest for f in files]
    assert (probe["layer"], probe["pool"]) == (2, "joined")
    assert len(places_in(probe)) == 4
    assert settings_of(places_in(probe))["places"] == probe["places"]
    # Reference: every column standardised by train, scikit-learn's solver.
    x = np.hstack(
        [f.array(n, "cls" if f is vit else "mean").astype(float) for f in files for n in (1, 2)]
    )
    train, test = vit.split == "train", vit.split == "test"
    scale = StandardScaler().fit(x[train])
    model = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000)
    model.fit(scale.transform(x[train]), vit.labels[train])
    path = next((places[1] / "toys").glob("*.json"))
    stored = read_row(path)
    found = read_scores(path, stored)
    order = np.argsort(found["test_ids"])
    wanted = model.predict_proba(scale.transform(x[test]))[np.argsort(vit.ids[test])]
    assert_allclose(found["test_scores"][order], wanted, atol=2e-3)
    # The head that is kept sees features as they are stored.
    head = find_head(path, stored)
    aligned = align(files)
    assert_allclose(
        head.scores(read_side_by_side(head.places, aligned))[aligned[0].split == "test"],
        found["test_scores"],
        atol=1e-5,
    )
    back: Row = from_json(stored)
    assert back.digest == row["id"]
    assert [source.digest for source in back.sources] == [f.digest for f in files]
    assert all(len(source.places) == 2 for source in back.sources)


def test_samples_that_the_first_lacks_are_missed_as_well(places, vit):
    cnn = open_features(write_cnn(places[0], np.arange(sum(N) - 3)))
    with pytest.raises(RequestError, match="cnn at 8 px lacks 3 of 120, the first '00117'"):
        align([cnn, vit])


def test_all_joins_an_encoder_once(places, vit):
    """Its norm2 file is no encoder of its own, and stands for it where it is alone, or asked for."""
    norm2 = write_cnn(places[0], key={"layers": {"of": 3, "norm": "norm2"}})
    norm2 = norm2.rename(norm2.with_name("cnn_8_norm2.h5"))

    def joined(*where):
        (files,), _ = choose_asked(FindConfig(models=("all+",), where=where, features=places[0]))
        return {file.path.name for file in files}

    assert joined() == {vit.path.name, norm2.name}
    usual = write_cnn(places[0])
    assert joined() == {vit.path.name, usual.name}
    with pytest.raises(CacheError, match=r"cnn \(norm2\) is the only encoder"):
        joined(("layer_norm", "norm2"))


def test_the_question_is_of_all_encoders_and_places(places, vit, capsys):
    write_cnn(places[0])
    make_features(places[0], model="like", n=N, n_layers=3, seed=1)
    for words in (
        "toy",
        "toy+cnn",
        "cnn+toy",
        "toy --layer 1+2",
        "toy --layer 2+1",
        "toy+like",
        "like+toy",
    ):
        answered(capsys, f"--kind ridge --model {words}")
    assert len(rows()) == 4  # the order of a join is no other question


def test_a_kind_without_a_scale_of_its_own_sees_parts_standardised(places, vit, capsys):
    write_cnn(places[0])  # thirty times the scale
    answered(capsys, "--kind knn --k 5 --model toy+cnn")
    (row,) = rows()
    assert row["probe"]["parts"] == "standardised by train"
    single = [answered(capsys, f"--kind knn --k 5 --model {name}") for name in ("toy", "cnn")]
    assert len(single) == 2
    accuracy = {r["features"]["model"]: r["metrics"]["acc"]["value"] for r in rows()}
    assert accuracy["cnn+toy"] >= max(accuracy["toy"], accuracy["cnn"]) - 0.05


def test_train_alone_tells_the_scale_of_parts():
    rng = np.random.default_rng(0)
    splits = {
        name: Split(rng.normal(n, n + 1, (30, 4)), np.zeros(30, int), np.arange(30).astype(str))
        for n, name in enumerate(("train", "val", "test"))
    }
    _, found = _standardised(splits, "knn")
    scaler = StandardScaler().fit(splits["train"].x)
    for name, split in splits.items():
        assert_allclose(found[name].x, scaler.transform(split.x), rtol=1e-5, atol=1e-6)


def test_a_trained_head_of_standardised_parts_is_kept_as_features_are(places, vit, capsys):
    words = "--kind adamw --seeds 0 --epochs 3 --batch-size 16 --layer all+"
    answered(capsys, words)
    path = next((places[1] / "toys").glob("*.json"))
    row = read_row(path)
    head = find_head(path, row)
    x = read_side_by_side(head.places, [vit])
    found = read_scores(path, row)
    assert_allclose(head.scores(x)[vit.split == "test"], found["test_scores"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--kind linear --model toy+nobody", "no features of nobody"),
        ("--kind linear --model toy@x+cnn", "NAME@PIXELS"),
        ("--kind linear --model toy@32+cnn+toy", "names one encoder twice"),
        ("--kind linear --model all+ --layer all", "compares layers of one encoder"),
    ],
)
def test_joins_that_are_refused(places, vit, capsys, words, match):
    write_cnn(places[0])
    assert match in refused(capsys, words)


def test_parts_that_would_take_too_much_memory(places, vit, capsys, monkeypatch):
    monkeypatch.setattr("probe.run.MOST_STANDARDISED", 1000)
    assert "name fewer, or use --kind linear" in refused(capsys, "--kind knn --k 5 --layer all+")
    answered(capsys, "--kind ridge --layer all+")


@pytest.mark.parametrize("model", ["views", "early"])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_one_encoder_of_several_rows_a_sample(places, vit, capsys, tmp_path, how, model):
    """Whichever is the first: its rows are aggregated, as the row and its kept head say."""
    path = write_views(places[0], np.arange(sum(N)) % 3 + 1, model)
    views = open_features(path)
    answered(capsys, f"--kind linear --strengths 0.01 --model toy+{model} --aggregate {how}")
    is_last = model == "views"
    (path,) = (places[1] / "toys").glob("*.json")
    row = read_row(path)
    assert row["probe"]["aggregate"] == how
    head, files = find_head(path, row), align([vit, views] if is_last else [views, vit])
    assert head.aggregate == how
    x = read_side_by_side(head.places, files, how)
    assert x.dtype == np.float32
    for number, name in enumerate(files[0].ids):
        rows_of_it = views.array(1, "mean")[views.row_sample == views.ids.tolist().index(name)]
        wanted = getattr(rows_of_it.astype(np.float64), how)(axis=0)
        assert_allclose(x[number, -4:] if is_last else x[number, :4], wanted, rtol=1e-6)
    found = read_scores(path, row)
    scores = dict(zip(files[0].ids, head.scores(x), strict=True))
    assert_allclose([scores[i] for i in found["test_ids"]], found["test_scores"], atol=1e-5)


def test_which_rows_make_a_sample_of_any_encoder_is_part_of_the_question(places, vit, capsys):
    for counts in ([1, 2, 3] * 40, [3, 2, 1] * 40):
        for model in ("views", "early"):
            write_views(places[0], counts, model)
            answered(capsys, f"--kind ridge --model toy+{model}")
    assert len({row["id"] for row in rows()}) == 4
    stored, _ = read_stored(places[1], stored_files(places[1]))
    shelf = read_shelf(places[0])
    why = [fault.why for of in stored for fault in shelf.faults_of(of)]
    assert why == ["images of a sample of toys changed since"] * 2


@pytest.mark.parametrize("word", ["toy+", "toy++cnn", "all", "toy+all", "all+toy"])
def test_models_that_are_no_names(places, vit, capsys, word):
    with pytest.raises(SystemExit):
        run(capsys, f"--kind linear --model {word}")
    assert "for every one that is there; not" in capsys.readouterr().err


def test_what_every_encoder_leaves_out_is_said(places, vit, capsys):
    write_cnn(places[0])
    make_features(places[0], model="noise", n=N, notes={"random_weights": True})
    out = answered(capsys, "--kind ridge --model all+")
    assert "all+ leaves out noise (random) on toys" in out
    assert len(rows()[0]["features"]["joined"]) == 2


def test_stored_splits_may_differ_where_another_is_laid_over_them(places, vit, capsys):
    write_cnn(places[0], split=np.zeros(sum(N), np.uint8))
    assert "the split of" in refused(capsys, "--kind ridge --model toy+cnn")
    answered(capsys, "--kind ridge --model toy+cnn --split 60/20/20")


def test_encoders_of_two_sizes_are_named_by_both_or_by_each(places, vit, capsys):
    write_cnn(places[0])
    answered(capsys, "--kind ridge --model toy+cnn --size 8,32")
    answered(capsys, "--kind ridge --model toy@32+cnn@8")
    assert len(rows()) == 1
    told = refused(capsys, "--kind ridge --model all+ --size 8")
    assert "cnn is the only encoder at 8 px that all+ joins" in told


@pytest.mark.parametrize("layer", ["all", "auto"])
def test_a_kind_of_all_layers_compares_none(places, vit, capsys, layer):
    with pytest.raises(SystemExit):
        run(capsys, f"--kind stack --layer {layer}")
    assert "--kind stack sees layers side by side" in capsys.readouterr().err


def test_a_path_on_one_side_of_a_plus(places, vit, capsys):
    with pytest.raises(SystemExit):
        run(capsys, [f"{vit.path}+", "--kind", "ridge"])
    assert "a plus joins two feature files" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["heads", "zeroshot"])
def test_kinds_of_one_encoder(places, vit, capsys, kind):
    with pytest.raises(SystemExit):
        run(capsys, f"--kind {kind} --model a+b")
    assert "takes one encoder at a time" in capsys.readouterr().err


def test_a_data_set_that_lacks_an_encoder_is_named(places, vit, capsys):
    write_cnn(places[0])
    make_features(places[0], "others", n=N)
    status, out, err = run(capsys, "--kind ridge --model toy+cnn")
    assert status == 1
    assert "1 row" in out
    assert "toy+cnn on others: no features of cnn" in err


def test_a_plus_in_names_of_folders_and_files_joins_nothing(places, vit, capsys, tmp_path):
    cnn, folder = write_cnn(places[0]), tmp_path / "c++"
    folder.mkdir()
    one, other = (copy(path, folder / name) for path, name in ((vit.path, "a+.h5"), (cnn, "b.h5")))
    answered(capsys, f"--kind ridge {one}+{other}")
    (row,) = rows()
    assert row["features"]["model"] == "cnn+toy"
    assert "names one feature file twice" in refused(capsys, f"--kind ridge {one}+{other}+{one}")
    _, _, err = run(capsys, f"--kind abmil {one}")  # it takes one encoder, and this is one
    assert "each sample of toys is one row" in err
    assert encoders_of("vit (a+b.pth 3f2a)+cnn") == ["vit (a+b.pth 3f2a)", "cnn"]


def test_by_path_and_few_shots_and_folds(places, vit, capsys):
    cnn = write_cnn(places[0])
    answered(capsys, f"{vit.path}+{cnn} --kind linear --shots 3 --episodes 4")
    answered(capsys, f"{vit.path}+{cnn} --kind linear --split kfold:3")
    found = rows()
    assert len(found) == 4
    assert all(row["probe"]["pool"] == "joined" for row in found)


def test_external_validation_of_encoders_side_by_side(places, vit, capsys):
    write_cnn(places[0])
    make_features(places[0], "others", n=N, n_layers=3, seed=9, key={"images": "others"})
    status, _, err = run(
        capsys, "--kind ridge --model toy+cnn --train-data toys --test-data others"
    )
    assert status == 1
    assert "no features of cnn on others" in err


def test_each_data_set_s_samples_are_matched(places, vit, capsys, tmp_path):
    """Of external validation, and where a row's heads score new images: files in any order."""
    rng = np.random.default_rng(4)
    orders = {"toys": rng.permutation(sum(N)), "others": rng.permutation(sum(N))}
    other = make_features(places[0], "others", n=N, n_layers=3, seed=9, key={"images": "others"})
    vits, cnns = {"toys": vit, "others": open_features(other)}, {}
    for name, order in orders.items():
        cnns[name] = open_features(write_cnn(places[0], order, name))
    words = "--kind linear --strengths 0.1 --model toy+cnn --layer -1"
    answered(capsys, f"{words} --train-data toys --test-data others")
    x = {
        name: np.hstack(
            [vits[name].array(2, "cls"), cnns[name].array(2, "mean")[np.argsort(order)]]
        )
        for name, order in orders.items()
    }
    train, test = (v.split == s for v, s in zip(vits.values(), ("train", "test"), strict=True))
    scaler = StandardScaler().fit(x["toys"][train].astype(float))
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000)
    model.fit(scaler.transform(x["toys"][train].astype(float)), vit.labels[train])
    wanted = model.predict_proba(scaler.transform(x["others"].astype(float)))
    (path,) = (places[1] / "others").glob("*.json")
    found = read_scores(path, read_row(path))
    place = dict(zip(vits["others"].ids, wanted, strict=True))
    assert {*found["test_ids"]} == {*vits["others"].ids[test]}
    of_ids = [place[i] for i in found["test_ids"]]
    assert_allclose(found["test_scores"], of_ids, atol=2e-3)
    out = tmp_path / "new.csv"
    answered(capsys, ["apply", path, cnns["others"].path, other, "--out", out])
    with np.load(out.with_suffix(".npz")) as stored:
        assert {*stored["ids"]} == {*vits["others"].ids}
        assert_allclose(stored["scores"], [place[i] for i in stored["ids"]], atol=2e-3)
    told = refused(capsys, f"{words[:-11]} --train-data {vit.path} --test-data others")
    assert "name the data to train on" in told


def test_tables_come_in_the_order_that_is_asked(places, vit):
    order = np.random.default_rng(4).permutation(sum(N))
    groups = np.array([f"p{i % 50}" for i in range(sum(N))])
    meta = {"age": np.arange(sum(N)) * 1.0}
    own = {"groups": groups[order], "meta": {"age": meta["age"][order]}}
    cnn = open_features(write_cnn(places[0], order, **own)).in_order(vit.ids)
    assert_array_equal(cnn.groups, groups)
    assert_array_equal(cnn.meta["age"], meta["age"])
    assert_array_equal(cnn.split, vit.split)
    own = {"groups": groups, "dataset": "others"}
    other = open_features(make_features(places[0], n=N, **own | {"dataset": "grouped"}))
    with pytest.raises(RequestError, match="the second is of toys"):
        align([other, cnn])


def test_labels_that_nobody_knows_are_the_same():
    known, unknown = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    assert _first_unlike(unknown, unknown) is None
    assert _first_unlike(known, unknown) == (1, 1)
    assert _first_unlike(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 0]])) == (1, 1)


def test_what_a_reader_must_know_of_any_encoder_is_in_the_row(places, capsys):
    make_features(places[0], n=N, notes={"seen": "no", "fitted": "whitened"})
    write_cnn(places[0], notes={"seen": "yes: toys", "fitted": "scaled"})
    answered(capsys, "--kind ridge --model toy+cnn --name all")
    (row,) = rows()
    assert (row["seen"], row["features"]["size"]) == ("yes: toys", 32)
    assert {"toy@32: whitened", "cnn@8: scaled"} <= {*row["marks"]}
    assert any(mark.startswith("cnn@8: the encoder saw these images") for mark in row["marks"])


def test_only_some_encoders_are_joined_by_all(places, vit, capsys):
    """None of random weights; and a size may be named for one encoder alone."""
    write_cnn(places[0])
    make_features(places[0], model="noise", n=N, notes={"random_weights": True})
    make_features(places[0], n=N, size=64, key={"size": 64, "more": 1})
    assert "fits 3 files of toys; name one size" in refused(capsys, "--kind ridge --model toy+cnn")
    answered(capsys, "--kind ridge --model toy@64+cnn")
    (row,) = rows()
    assert row["features"]["label"] == "cnn@8+toy@64"
    answered(capsys, "--kind ridge --model all+ --size 32,8")
    assert "cnn@8+toy@32" in str(rows())
    assert "noise" not in str(rows())


def test_names_of_many_encoders_fit_a_file_system(places, capsys):
    names = [f"an_encoder_of_a_long_name_{number:02d}" for number in range(12)]
    for number, name in enumerate(names):
        make_features(places[0], model=name, n=N, seed=number)
    answered(capsys, "--kind ridge --model all+")
    (row,) = rows()
    assert row["features"]["model"] == "+".join(names)


def test_one_encoder_at_two_sizes_is_applied_in_any_order(places, vit, capsys, tmp_path):
    large = make_features(places[0], n=N, seed=2, size=64, key={"size": 64, "more": 1})
    answered(capsys, "--kind linear --strengths 0.1 --model toy@64+toy@32")
    (path,) = (places[1] / "toys").glob("*.json")
    out = tmp_path / "new.csv"
    answered(capsys, ["apply", path, vit.path, large, "--out", out])
    with np.load(out.with_suffix(".npz")) as stored:
        scores = stored["scores"][vit.split == "test"]
    assert_allclose(scores, read_scores(path, read_row(path))["test_scores"], atol=1e-5)


def test_what_is_not_fitted_again_says_so(places, vit, capsys, tmp_path):
    cnn = write_cnn(places[0])
    answered(capsys, "--kind knn --k 3 --model toy+cnn")
    (path,) = (places[1] / "toys").glob("*.json")
    told = refused(capsys, ["apply", path, vit.path, cnn, "--out", tmp_path / "new.csv"])
    assert "saw several places side by side, and isn't fitted again" in told


def test_apply_takes_a_file_of_each_encoder(places, vit, capsys, tmp_path, monkeypatch):
    cnn = write_cnn(places[0])
    answered(capsys, "--kind linear --strengths 0.01 --model toy+cnn")
    (path,) = (places[1] / "toys").glob("*.json")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "new.csv"
    answered(capsys, ["apply", str(path), f"{cnn}+{vit.path}", "--out", str(out)])
    answered(
        capsys, ["apply", str(path), str(cnn), str(vit.path), "--out", str(out), "--overwrite"]
    )
    with np.load(out.with_suffix(".npz")) as stored:
        scores, ids = stored["scores"], stored["ids"]
    found = read_scores(path, read_row(path))
    is_test = np.isin(ids, found["test_ids"])
    assert_allclose(scores[is_test], found["test_scores"], atol=1e-5)
    assert "name 2 feature files" in refused(capsys, ["apply", str(path), str(cnn)])


def test_costs_of_encoders_add_up(places, vit):
    cnn = open_features(write_cnn(places[0]))
    at = [Place(1, "cls"), Place(2, "mean", file=1)]
    found = cost_of([vit, cnn], at, None)
    each = [
        cost_of([f], [Place(p.layer, p.pool)], None) for f, p in zip((vit, cnn), at, strict=True)
    ]
    assert isinstance(found, Cost)
    assert found.bytes_per_image == sum(cost.bytes_per_image for cost in each)


@pytest.mark.parametrize(
    "said", [{"layer": 1, "pool": "cls", "file": -1}, {"layer": 1, "pool": "joined"}]
)
def test_places_that_are_none(said):
    with pytest.raises((ValueError, KeyError)):
        place_of(said)


def test_a_damaged_list_of_encoders_is_no_row(places, vit, capsys):
    write_cnn(places[0])
    answered(capsys, "--kind ridge --model toy+cnn")
    (path,) = (places[1] / "toys").glob("*.json")
    row = json.loads(path.read_text())
    row["features"]["joined"][1].pop("key")
    path.write_text(json.dumps(row))
    with pytest.raises(BrokenRow):
        read_row(path)
    with pytest.raises(ValueError, match=r"features\.joined should be a list of two encoders"):
        check_row(row)


def test_rows_of_training_files_are_aggregated_as_well():
    def question(*are_samples, trained_on=None):
        files = [SimpleNamespace(rows_are_samples=one) for one in are_samples]
        task, none = Task(BINARY, ("a", "b")), np.empty(0, np.uint8)
        return Question(files[0], task, none, none, beside=tuple(files[1:]), trained_on=trained_on)

    assert question(True, True).rows_are_samples
    assert not question(True, False).rows_are_samples
    assert not question(True, trained_on=question(True, False)).rows_are_samples
    assert question(True, trained_on=question(True)).rows_are_samples


def test_encoders_side_by_side_have_no_control_with_random_weights(places, vit, capsys):
    write_cnn(places[0])
    _, out, _ = run(capsys, "--kind ridge --model toy+cnn --controls")
    assert "of encoders side by side there is no control with random weights" in out
