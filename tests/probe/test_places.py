"""Places in the encoder: which are found, what is read there, and the one that is chosen."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from features import write_rows
from looking import some
from numpy.testing import assert_allclose, assert_array_equal
from probing import probe_file

from cache import open_features
from cache.errors import RequestError
from cache.format.spec import FileSpec, Samples
from probe.choosing.plan import ChoosingConfig, make_folds
from probe.cli import main
from probe.config import ProbeConfig
from probe.kinds import linear
from probe.kinds.linear import Linear
from probe.metrics.metric import Measuring
from probe.places import Place, PlacesConfig, find_places, last_place, read_place
from probe.questions.laying import lay_over
from probe.questions.overlay import OverlayConfig
from probe.questions.question import divide_samples, join

N = (100, 20, 40)  # train, val, test
LAYERS = {0: ("cls", "mean"), 1: ("cls", "mean"), 2: ("mean",), 3: ("cls", "mean")}
STRENGTHS = (0.01, 1.0)


def write_toys(root, model="toy", layers=LAYERS):
    """Layer 1 tells the classes apart, the others hardly."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(sum(N)) % 2

    def made(layer, width):
        x = rng.normal(0, 0.5 if layer == 1 else 5, (sum(N), width))
        return x + labels[:, None]

    content = {
        f"layers/{layer:02d}/{pool}": made(layer, 3 if pool == "cls" else 2)
        for layer, pools in layers.items()
        for pool in pools
    }
    content["head"] = made(3, 4)
    ids = np.array([f"{i:03d}" for i in range(sum(N))])
    spec = FileSpec(
        model=model,
        encoder=f"{model}.full",
        size=32,
        dataset="toys",
        task="binary-class",
        class_names=("no", "yes"),
        key={"layers": {"of": len(layers)}},
        arrays={name: x.shape[1] for name, x in content.items()},
        dtype="float32",
        row_ids=ids,
        row_sample=np.arange(sum(N)),
        samples=Samples(ids, np.repeat(np.arange(3, dtype=np.uint8), N), labels),
        command=f"extract --model {model} --data toys",
    )
    return write_rows(root / "features" / "toys" / f"{model}_32_000000000000.h5", spec, content)


@pytest.fixture
def toys(tmp_path):
    return write_toys(tmp_path)


@pytest.fixture
def features(toys):
    return open_features(toys)


def ask(features, **settings):
    config = ProbeConfig(Linear(STRENGTHS), measuring=Measuring(20))
    return list(probe_file(dataclasses.replace(config, **settings), features))


# ---------------------------------------------------------------------------- which places


@pytest.mark.parametrize(
    ("layer", "pools", "expected"),
    [
        (-1, (), [Place(3, "cls")]),
        (2, (), [Place(2, "mean")]),
        (-1, ("mean", "head"), [Place(3, "mean"), Place(3, "head")]),
        ("all", (), [Place(0, "cls"), Place(1, "cls"), Place(2, "mean"), Place(3, "cls")]),
        ("auto", ("head", "concat"), [Place(0, "concat"), Place(1, "concat"), Place(3, "head"), Place(3, "concat")]),
        ("all", ("proj", "head"), [Place(3, "head")]),
        (2, ("cls", "mean", "concat"), [Place(2, "mean")]),
        ("last1", ("concat",), [Place(3, "concat")]),
        ("last2", ("proj", "mean"), [Place(3, "mean", 2)]),
        ("last2", ("mean",), [Place(3, "mean", 2)]),
    ],
)  # fmt: skip
def test_places(features, layer, pools, expected):
    assert find_places(features, layer, pools) == expected


def test_place_refusals(features):
    where = "at any layer of toy.full; there it has cls, mean, head, concat"
    with pytest.raises(RequestError, match=f"no pool proj {where}"):
        find_places(features, "all", ("proj",))
    with pytest.raises(RequestError, match="no pool cls or head at layer 2.*it has mean"):
        find_places(features, 2, ("cls", "head"))
    with pytest.raises(RequestError, match=r"last2 needs cls of layers 2 to 3.*none of layer 2"):
        find_places(features, "last2", ("concat",))
    with pytest.raises(RequestError, match="last2 takes --pool cls, mean or concat, not head"):
        find_places(features, "last2", ("head",))
    with pytest.raises(RequestError, match="last5 needs mean.*the encoder has 4 layers"):
        find_places(features, "last5", ("mean",))
    for wrong in ("last", "last0", "first4", "1.5"):
        with pytest.raises(RequestError, match=f"or last4 for the last four.*not '{wrong}'"):
            PlacesConfig(layer=wrong)
    with pytest.raises(RequestError, match="--pool takes cls, mean.*not 'max'"):
        PlacesConfig(pools=("cls", "max"))
    with pytest.raises(RequestError, match="each pool may be named once, found cls, cls"):
        PlacesConfig(pools=("cls", "cls"))
    with pytest.raises(RequestError, match="--all-test belongs to --layer all"):
        ProbeConfig(Linear(), places=PlacesConfig("auto", all_test=True))


def test_the_last_place_takes_the_first_pool_that_it_has(features):
    assert last_place(features) == Place(3, "cls")
    assert last_place(features, ("proj", "concat", "cls")) == Place(3, "concat")


def test_layers_side_by_side_are_dinov2s_input(features):
    cls, mean = features.array(3, "cls"), [features.array(i, "mean") for i in (1, 2, 3)]
    assert_array_equal(read_place(features, Place(3, "mean", 3)), np.hstack(mean))
    assert_array_equal(read_place(features, Place(3, "concat")), np.hstack([cls, mean[2]]))
    four = [features.array(i, "cls") for i in (0, 1)]
    # As if the file ended with layer 1: class tokens of both, then the mean of the last one alone.
    expected = np.hstack([*four, mean[0]])
    assert_array_equal(read_place(features, Place(1, "concat", 2)), expected)


# ---------------------------------------------------------------------------- the chosen one


@pytest.mark.parametrize("how", ["val", "cv"])
def test_the_best_place_without_test_beside_the_last(features, how):
    last, best = ask(
        features, places=PlacesConfig("auto", ("cls", "mean")), choosing=ChoosingConfig(how)
    )
    assert (last.answered.settings["layer"], last.answered.settings["pool"]) == (3, "cls")
    assert best.answered.settings["layer"] == 1
    assert best.measured.test["auc"].value > last.measured.test["auc"].value
    judge = "out-of-fold" if how == "cv" else "val"
    assert best.answered.settings["place_chosen"]["by"] == f"{judge} log-loss"
    # Of equals the default is taken, so it comes first.
    assert best.answered.settings["place_chosen"]["among"][0] == [3, "cls"]
    losses = {(p["layer"], p["pool"]): p["loss"] for p in best.answered.chosen["place"]}
    assert len(losses) == 7
    assert min(losses, key=losses.__getitem__) == (1, best.answered.settings["pool"])
    assert sum(p["wins"] for p in best.answered.chosen["place"]) == (5 if how == "cv" else 1)
    assert any("chosen among 7" in mark for mark in best.marks)
    # The last layer's row is the one that is asked for without a choice.
    assert ask(features, choosing=ChoosingConfig(how))[0].digest == last.digest
    (plain,) = ask(
        features,
        places=PlacesConfig(1, (best.answered.settings["pool"],)),
        choosing=ChoosingConfig(how),
    )
    assert plain.measured.test == best.measured.test
    assert plain.digest != best.digest


def test_losses_of_places_are_those_of_a_plain_loop(features):
    _, best = ask(features, places=PlacesConfig("auto", ("cls",)), choosing=ChoosingConfig("cv"))
    (asked,) = lay_over(OverlayConfig(), features)
    for place in some(best.answered.chosen["place"]):
        splits = divide_samples(read_place(features, Place(place["layer"], "cls")), asked)
        pool = join(splits["train"], splits["val"])
        fold = make_folds(asked, pool)
        sums = np.zeros(2)
        for part in range(5):
            rest, held = fold != part, fold == part
            fits = linear.fit_path(pool.x[rest], pool.y[rest], "binary-class", 2, Linear(STRENGTHS))
            for i, fit in enumerate(fits):
                scores = fit.predict_scores(pool.x[held])
                sums[i] -= np.log(scores[np.arange(len(scores)), pool.y[held]]).sum()
        assert_allclose(place["loss"], sums.min() / len(pool), rtol=1e-9)


def test_a_sweep_never_reads_test(features):
    rows = ask(features, places=PlacesConfig("all", ("cls", "concat")))
    assert [(r.answered.settings["layer"], r.answered.settings["pool"]) for r in rows] == [
        (0, "cls"), (0, "concat"), (1, "cls"), (1, "concat"), (3, "cls"), (3, "concat"),
    ]  # fmt: skip
    assert all(
        row.measured.test == {} and row.n["test"] == 0 and row.measured.val for row in some(rows)
    )
    tested = ask(features, places=PlacesConfig("all", ("cls", "concat"), all_test=True))
    assert all(row.measured.test and row.n["test"] == 40 for row in some(tested))
    several = ask(features, places=PlacesConfig(pools=("cls", "mean")))
    assert all(row.measured.test == {} for row in some(several))


def test_out_of_fold_numbers_are_of_train_and_val(features):
    (row,) = ask(features, choosing=ChoosingConfig("cv"))
    assert row.n == {"train": 100, "val": 20, "test": 40}
    assert len(row.scores["val_scores"]) == len(row.scores["val_ids"]) == 120
    assert len(row.answered.chosen["out_of_fold_log_loss"]) == len(STRENGTHS)
    assert sum(row.answered.chosen["wins"]) == 5
    (by_val,) = ask(features, choosing=ChoosingConfig("val"))
    assert len(by_val.scores["val_scores"]) == 20
    assert by_val.digest != row.digest
    assert ask(features, choosing=ChoosingConfig("val", "train+val"))[0].digest not in (
        row.digest, by_val.digest,
    )  # fmt: skip


def test_side_by_side_is_another_question(features):
    (one,) = ask(features, places=PlacesConfig(pools=("mean",)))
    (three,) = ask(features, places=PlacesConfig("last3", ("mean",)))
    assert three.answered.settings["n_last"] == 3
    assert "n_last" not in one.answered.settings
    assert one.digest != three.digest


def test_as_typed(toys, tmp_path, capsys):
    words = f"{toys} --kind knn --k 5,9 --layer auto --pool cls,mean --results {tmp_path / 'r'}"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "layer and pool chosen among 7 by log-loss on 5 folds of train and val" in out
    rows = [json.loads(path.read_text()) for path in (tmp_path / "r").glob("*/*.json")]
    assert sorted((row["probe"]["k"], row["probe"]["layer"]) for row in rows) == [
        (5, 1), (5, 3), (9, 1), (9, 3),
    ]  # fmt: skip
    words = f"{toys} --kind linear --layer all --strengths dinov2 --choose val --results {tmp_path / 's'}"
    assert main(words.split()) == 0
    assert "--layer auto chooses layer and pool" in capsys.readouterr().out
    row = json.loads(next((tmp_path / "s").glob("*/*.json")).read_text())
    assert len(row["probe"]["strengths"]) == 45
    with pytest.raises(SystemExit):
        main([*words.split(), "--refit", "test"])


@pytest.mark.parametrize(
    ("words", "of_vit", "of_cnn"),
    [
        ("--layer all --pool cls,mean,concat", 12, 4),
        ("--layer auto --pool mean,concat,cls", 2, 2),
        ("--layer last3 --pool cls,mean,concat", 3, 1),
        ("--pool concat,mean", 2, 1),
    ],
)
def test_encoders_with_a_class_token_and_without_are_asked_together(
    tmp_path, monkeypatch, capsys, words, of_vit, of_cnn
):
    """Of a CNN, which has the mean alone, that one is asked, and it is said."""
    monkeypatch.chdir(tmp_path)
    write_toys(tmp_path, "vit", dict.fromkeys(range(4), ("cls", "mean")))
    write_toys(tmp_path, "cnn", dict.fromkeys(range(4), ("mean",)))
    assert main(["--kind", "knn", "--k", "5", *words.split()]) == 0
    out = capsys.readouterr().out
    assert "cnn has no " in out
    assert ": mean is read alone" in out
    assert "vit has no " not in out
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("results/*/*.json")]
    found = [row["features"]["model"] for row in rows]
    assert (found.count("vit"), found.count("cnn")) == (of_vit, of_cnn)
    # Of one pool, which it hasn't, there is nothing to say but that.
    assert main("--kind knn --k 5 --layer all --pool cls --model cnn".split()) == 1
    said = capsys.readouterr()
    assert "no pool cls at any layer of cnn.full; there it has mean, head" in said.err
    assert "asked is" not in said.out
