"""Other labels and splits over a feature file: as if they had been stored, and said in the row."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from answering import scores_file
from looking import some
from overlaying import N, make_file
from probing import answered, probe_file, refused, rows, run
from reading import means_printed, printed

from cache.splits.files import read_split_file
from cache.splits.make import LEFT_OUT, make_splits, split_digest
from cache.splits.rules import SplitRule
from cache.task import MISSING, UNCERTAIN
from probe.choosing.plan import ChoosingConfig
from probe.cli import main
from probe.config import ProbeConfig
from probe.kinds.linear import Linear
from probe.questions.laying import lay_over
from probe.questions.overlay import OverlayConfig
from probe.results import Answered

MULTI_LABEL = "multi-label, binary-class"


def write_table(path, features, columns, rows=slice(None), order=None):
    """A CSV of ids and columns, in an order of its own."""
    places = np.arange(N)[rows]
    places = places[::-1] if order is None else places[order]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *columns])
        for i in places:
            writer.writerow([features.ids[i], *(values[i] for values in columns.values())])
    return path


def one_row(features, **overlay):
    # Not by folds, which go by ids: here the same samples have other ones.
    config = ProbeConfig(Linear(), overlay=OverlayConfig(**overlay), choosing=ChoosingConfig("val"))
    (row,) = probe_file(config, features)
    return row


def numbers(row):
    return row.measured.test, row.measured.val, row.n, row.answered.chosen


# ---------------------------------------------------------------------------- nothing laid over


def test_without_a_wish_a_row_is_what_it_was(places):
    features = make_file(places[0])
    row = one_row(features)
    assert (row.posed.target, row.posed.split, row.posed.trained_on) == ({}, {}, None)
    tables = features.header.tables
    assert row.encoded.samples == {
        "labels": tables["samples/labels"],
        "split": tables["samples/split"],
    }
    # Pinned: a row's name is the digest of its question, and must not move with new features.
    encoded = dataclasses.replace(row.encoded, digest="f", samples={"labels": 1, "split": 2})
    pinned = dataclasses.replace(row, encoded=encoded, answered=Answered({"kind": "knn"}))
    assert pinned.digest[:16] == "eb5c18757ac80c03"


def test_which_rows_make_a_sample_is_part_of_the_question(places):
    shifts = [np.roll(np.arange(N), i) for i in (1, 2)]
    first, second = (one_row(make_file(places[0], row_sample=shift)) for shift in shifts)
    assert first.answered.settings["aggregate"] == "mean"
    assert first.digest != second.digest


def test_samples_without_a_label_are_in_no_split(places):
    labels = make_file(places[0]).labels.copy()
    labels[::7] = MISSING
    features = make_file(places[0], "holes", labels=labels)
    (asked,) = lay_over(OverlayConfig(), features)
    assert (asked.split[::7] == LEFT_OUT).all()
    assert asked.marks == ("35 of 240 samples have no label: left out",)
    assert sum(one_row(features).n.values()) == N - 35


# ---------------------------------------------------------------------------- labels


def test_labels_laid_over_are_as_if_they_were_stored(places, tmp_path):
    features = make_file(places[0])
    other = np.random.default_rng(0).permutation(features.labels)
    names = np.array(["a", "b", "c"])[other]
    table = write_table(tmp_path / "labels.csv", features, {"grade": names})
    stored = make_file(places[0], "toys2", labels=other)
    row = one_row(features, labels=table)
    assert numbers(row) == numbers(one_row(stored))
    assert row.digest != one_row(features).digest
    assert row.posed.target["file"] == "labels.csv"
    # Neither the order of the rows nor the name of the file is part of the question.
    again = write_table(tmp_path / "x.csv", features, {"grade": names}, order=np.arange(N))
    assert one_row(features, labels=again).digest == row.digest
    names[0] = "a" if names[0] != "a" else "b"
    changed = write_table(tmp_path / "y.csv", features, {"grade": names})
    assert one_row(features, labels=changed).digest != row.digest


def test_whose_label_it_is_and_what_it_is_called_are_part_of_the_question(places, tmp_path):
    features = make_file(places[0])
    names = np.array(["a", "b", "c"])[features.labels]
    swapped = np.where(names == "a", "b", np.where(names == "b", "a", "c"))
    renamed = np.where(names == "c", "d", names)
    tables = [
        write_table(tmp_path / f"{i}.csv", features, {"y": y})
        for i, y in enumerate((names, swapped, renamed))
    ]
    assert len({one_row(features, labels=table).digest for table in tables}) == 3


def test_a_class_with_a_comma_in_its_name_is_one_class(places, tmp_path, capsys):
    features = make_file(places[0])
    names = np.array(["malignant", "normal, benign", "z"])[features.labels]
    table = write_table(tmp_path / "labels.csv", features, {"grade": names})
    assert (
        run(capsys, ["--kind", "linear", "--labels", table])[1].count(
            "classes: malignant; normal, benign; z"
        )
        == 1
    )


def test_labels_that_look_missing_are_told_until_they_are_named(places, tmp_path, capsys):
    features = make_file(places[0])
    names = np.array(["N/A", "y", "z"])[features.labels]
    table = write_table(tmp_path / "labels.csv", features, {"grade": names})
    words = ["--kind", "linear", "--labels", table]
    told = (
        "classes that look like missing labels: N/A; of a table, --missing=N/A says that they are"
    )
    assert told in run(capsys, words)[1]
    out = answered(capsys, [*words, "--missing=n/a,-"])
    assert "look like missing" not in out
    assert f"{(features.labels == 0).sum()} of 240 samples have no label: left out" in out
    assert "classes: y, z" in out


def test_ids_without_a_row_are_left_out_and_counted(places, tmp_path, capsys):
    features = make_file(places[0])
    names = np.array(["x", "y", "z"])[features.labels]
    table = write_table(tmp_path / "labels.csv", features, {"grade": names}, slice(0, 200))
    out = answered(capsys, ["--kind", "linear", "--labels", table])
    assert "40 of 240 samples have no label: left out" in out
    assert "40 left out · classes: x, y, z" in out
    (row,) = rows()
    assert row["n"] == {"train": 120, "val": 60, "test": 20}


def test_a_target_is_a_column_or_several(places, tmp_path):
    features = make_file(places[0])
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 2, N) for name in ("edema", "mass", "age")}
    table = write_table(tmp_path / "labels.csv", features, columns)
    row = one_row(features, labels=table, target="edema,mass")
    assert row.encoded.task == MULTI_LABEL
    assert row.scores["class_names"].tolist() == ["edema", "mass"]
    (asked,) = lay_over(OverlayConfig(labels=table, target="mass"), features)
    assert asked.task.word == "binary-class"
    np.testing.assert_array_equal(asked.labels, columns["mass"])


def test_the_positive_class_is_named(places, tmp_path):
    features = make_file(places[0])
    names = np.array(["benign", "malignant"])[np.arange(N) % 2]
    table = write_table(tmp_path / "labels.csv", features, {"finding": names})
    (asked,) = lay_over(OverlayConfig(labels=table, positive="benign"), features)
    assert asked.task.class_names == ("malignant", "benign")
    np.testing.assert_array_equal(asked.labels, np.arange(N) % 2 == 0)


def test_a_stored_column_may_be_the_target(places, capsys):
    rng = np.random.default_rng(0)
    age = 50 + rng.normal(size=N)
    age[:10] = np.nan
    sex = np.array(["F", "M"])[np.arange(N) % 2]
    features = make_file(places[0], meta={"age": age, "sex": sex})
    (asked,) = lay_over(OverlayConfig(target="meta:sex"), features)
    assert (asked.task.word, asked.task.class_names) == ("binary-class", ("F", "M"))
    np.testing.assert_array_equal(asked.labels, np.arange(N) % 2)
    (asked,) = lay_over(OverlayConfig(target="meta:age", task="regression"), features)
    np.testing.assert_array_equal(asked.labels, age)  # every digit
    assert (asked.split[:10] == LEFT_OUT).all()
    words = ["--kind", "ridge", "--target", "meta:age", "--task", "regression"]
    assert run(capsys, words)[0] == 0
    (row,) = rows()
    assert row["n"]["train"] == 110
    assert row["metrics"]["mae"]["value"] > 0
    err = refused(capsys, ["--kind", "linear", "--target", "meta:sexe"])
    assert f"no meta column of {features.path.name}, 'sexe'; did you mean sex?" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--kind linear --target meta:age", "no meta column 'age': FILE has none;"),
        ("--kind linear --target meta:age", "extract with --meta-cols age adds it"),
        ("--kind linear --target a", "--target a: the stored labels are one target of 3 classes"),
        ("--kind knn --split test", "has no training images"),
        (
            "--kind linear --choose val --train-data others --test-data toys",
            "extract --model toy --size 32 --data others",
        ),
    ],
)
def test_what_a_file_lacks_is_said_with_its_cure(places, capsys, words, reason):
    name = make_file(places[0]).path.name
    assert reason.replace("FILE", name) in refused(capsys, words)


def several_labels():
    labels = np.random.default_rng(5).integers(0, 2, (N, 3))
    labels[::5, 1] = UNCERTAIN
    labels[1::5, 2] = MISSING
    return labels


SEVERAL = {"task": MULTI_LABEL, "class_names": ("Edema", "Mass, large", "Nodule")}


def test_uncertain_labels_must_be_decided(places, capsys):
    features = make_file(places[0], labels=several_labels(), **SEVERAL)
    err = refused(capsys, ["--kind", "linear"])
    assert "48 labels of toys are uncertain" in err
    assert "--uncertain ignore, zeros or ones" in err
    for how, value in {"ignore": MISSING, "zeros": 0, "ones": 1}.items():
        (asked,) = lay_over(OverlayConfig(uncertain=how), features)
        assert (asked.labels[::5, 1] == value).all()
        assert asked.marks == (f"uncertain labels: {how}",)
        assert asked.target["uncertain"] == how
    zeros, ones = (one_row(features, uncertain=how) for how in ("zeros", "ones"))
    assert zeros.digest != ones.digest


def test_one_of_several_labels_is_a_task_of_its_own(places, capsys):
    labels = several_labels()
    features = make_file(places[0], labels=labels, **SEVERAL)
    (asked,) = lay_over(OverlayConfig(target="Edema"), features)  # nothing uncertain there
    assert (asked.task.word, asked.task.class_names) == ("binary-class", ("no Edema", "Edema"))
    np.testing.assert_array_equal(asked.labels, labels[:, 0])
    (asked,) = lay_over(OverlayConfig(target="Mass, large", uncertain="ones"), features)
    np.testing.assert_array_equal(asked.labels, np.where(labels[:, 1] < 0, 1, labels[:, 1]))
    (asked,) = lay_over(OverlayConfig(target="Nodule,Edema"), features)
    assert asked.task.class_names == ("Nodule", "Edema")
    np.testing.assert_array_equal(asked.labels, labels[:, [2, 0]])
    (asked,) = lay_over(OverlayConfig(target="Nodule"), features)
    assert asked.marks[1] == "48 of 240 samples have no label: left out"
    stored = make_file(places[0], "toys2", "binary-class", labels[:, 0], class_names=("0", "1"))
    assert numbers(one_row(features, target="Edema")) == numbers(one_row(stored))
    err = refused(capsys, ["--kind", "linear", "--target", "Oedema", "--data", "toys"])
    assert "no label 'Oedema'; did you mean Edema?" in err


def test_one_column_with_uncertain_labels_is_a_label(places, tmp_path, capsys):
    features = make_file(places[0])
    said = np.resize(["1.0", "0.0", "-1.0", ""], N)
    table = write_table(tmp_path / "chex.csv", features, {"Mass, large": said})
    for how, value in {"ignore": MISSING, "zeros": 0, "ones": 1}.items():
        overlay = OverlayConfig(labels=table, target="Mass, large", uncertain=how)
        (asked,) = lay_over(overlay, features)
        assert (asked.task.word, asked.task.class_names) == (
            "binary-class",
            ("no Mass, large", "Mass, large"),
        )
        np.testing.assert_array_equal(asked.labels, np.resize([1, 0, value, MISSING], N))
        assert asked.target["uncertain"] == how
    (asked,) = lay_over(OverlayConfig(labels=table), features)  # nobody said that -1 isn't a class
    assert asked.task.class_names == ("-1", "0", "1")
    words = ["--kind", "linear", "--labels", table, "--uncertain", "zeros", "--task", "ordinal"]
    assert "leave out --task ordinal, or --uncertain" in refused(capsys, words)
    table = write_table(tmp_path / "names.csv", features, {"y": np.resize(["x", "z"], N)})
    words = ["--kind", "linear", "--labels", table, "--uncertain", "zeros"]
    assert "'z'; where several columns are labels, each holds 0 or 1" in refused(capsys, words)


def test_ids_of_several_data_sets_are_no_place_to_join_a_table(places, tmp_path, capsys):
    features = make_file(places[0], "toys")
    twin = make_file(places[0], "others", ids=features.ids[::-1])
    names = np.array(["x", "y", "z"])[features.labels]
    labels = write_table(tmp_path / "labels.csv", features, {"grade": names})
    split = write_table(
        tmp_path / "split.csv", features, {"split": np.resize(["train", "test"], N)}
    )
    reason = "others and toys both have an id 'toys/0000', so no table can tell their samples apart"
    knn = ["--kind", "knn", "--k", "5"]
    assert reason in refused(capsys, [*knn, "--labels", labels])
    assert reason in refused(capsys, [*knn, "--split-file", split])
    err = refused(capsys, [*EXTERNAL, "others", "--labels", labels])
    assert "both have an id 'toys/0000'" in err
    assert not rows()
    assert run(capsys, [*knn, "--labels", labels, "--data", "toys"])[0] == 0
    copy = twin.path.with_name("toy_32_copy.h5")  # the same samples, stored twice
    copy.write_bytes(twin.path.read_bytes())
    assert run(capsys, [twin.path, copy, *knn, "--labels", labels])[0] == 0


def test_an_accent_in_an_id_may_be_a_character_of_its_own(places, tmp_path):
    features = make_file(places[0], "sch\xf6n")
    names = np.array(["x", "y", "z"])[features.labels]
    table = write_table(tmp_path / "labels.csv", features, {"grade": names})
    table.write_text(table.read_text("utf-8").replace("\xf6", "o\u0308"), encoding="utf-8")
    (asked,) = lay_over(OverlayConfig(labels=table), features)
    np.testing.assert_array_equal(asked.labels, features.labels)


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        ("id,y\nnobody,1\n", [], "names no sample of toys: column 'id' holds 'nobody'"),
        ("id,y\ntoys/0000,1\ntoys/0000,2\n", [], "line 3, column id: 'toys/0000' stands there"),
        ("id\ntoys/0000\n", [], "has no column beside 'id'"),
        ("id,y\ntoys/0000,1\n", ["--target", "yy"], "no column 'yy' in"),
        ("id,y,z\ntoys/0000,1,b\n", [], "or name one of y, z with --target"),
        ("id,y\ntoys/0000,1.5\ntoys/0001,2.5\n", [], "say --task regression"),
        ("", [], "is empty"),
        (
            "id,y\ntoys/0000,1\ntoys/0001,-1e300\n",
            ["--task", "regression"],
            "y of toys reaches 1e+300",
        ),
    ],
)
def test_tables_that_fit_nothing_are_refused(places, tmp_path, capsys, text, more, reason):
    make_file(places[0])
    table = tmp_path / "labels.csv"
    table.write_text(text)
    assert reason in refused(capsys, ["--kind", "linear", "--labels", table, *more])


# ---------------------------------------------------------------------------- splits


def test_a_split_laid_over_is_as_if_it_were_stored(places):
    features = make_file(places[0])
    rule = SplitRule.parse("70/15/15")
    (named,) = make_splits(rule, features.ids, features.labels, features.task, seed=4)
    stored = make_file(places[0], "toys2", split=named.split)
    # The rule goes by ids, and those of the two sets differ; the rows' places don't.
    row = one_row(features, split=rule, split_seed=4)
    assert numbers(row) == numbers(one_row(stored))
    assert row.posed.split == {
        "rule": "70/15/15",
        "seed": 4,
        "name": "",
        "digest": f"sha256:{split_digest(features.ids, named.split)}",
    }
    assert row.encoded.samples["split"] == row.posed.split["digest"]
    assert "split: 70/15/15, seed 4, not the data set's own" in row.marks
    digests = {one_row(features, split=rule, split_seed=seed).digest for seed in (0, 4)}
    assert len(digests | {row.digest, one_row(features).digest}) == 3


def test_groups_and_gaps_are_known_to_the_rule(places):
    groups = np.array([f"p{i // 3}" for i in range(N)])
    labels = np.arange(N) % 2
    labels[:30] = MISSING
    features = make_file(
        places[0], task="binary-class", labels=labels, groups=groups, class_names=("a", "b")
    )
    (asked,) = lay_over(OverlayConfig(split=SplitRule.parse("80/10/10")), features)
    assert (asked.split[:30] == LEFT_OUT).all()
    assert np.bincount(asked.split[30:]).tolist() == [168, 21, 21]
    for group in np.unique(groups[30:]):
        assert len(np.unique(asked.split[groups == group])) == 1


def test_folds_are_rows_with_a_mean_below(places, capsys):
    make_file(places[0])
    out = answered(capsys, ["--kind", "knn", "--k", "5,9", "--split", "kfold:4"])
    assert "toys, fold 2/4: train 120" in out
    found = rows()
    assert len({row["id"] for row in found}) == len(found) == 8
    by_k = [row for row in found if row["probe"]["k"] == 5]
    assert {row["split"]["name"] for row in by_k} == {f"fold {i}/4" for i in (1, 2, 3, 4)}
    values = [row["metrics"]["acc"]["value"] for row in by_k]
    lines = printed(out)
    wanted = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"  # and no interval
    assert lines[4]["acc [95 %]"] == wanted
    assert "no 95 % interval" in out
    # Each fold's rows stand together, above their mean.
    folds = ["fold 1/4", "fold 2/4", "fold 3/4", "fold 4/4", "mean of 4"]
    assert [(line["k"], line["fold"]) for line in lines] == [(k, f) for k in "59" for f in folds]
    (path, *_) = places[1].glob("*/*.json")
    with np.load(scores_file(path)) as scores:
        assert len(scores["test_ids"]) == 60


def test_sites_that_allow_other_k_are_one_mean(places, capsys):
    make_file(places[0], meta={"site": np.repeat(["Bonn", "Ulm"], [40, 200])})
    words = ["--kind", "knn", "--k", "auto", "--split", "site-out:site"]
    out = answered(capsys, words)
    found = rows()
    assert [row["split"]["of"] for row in found] == [2, 2]
    assert len({str(row["probe"]["k_among"]) for row in found}) == 2
    assert "mean of 2 " in out
    assert "k among" in out


def test_one_fold_has_no_mean(places, capsys):
    make_file(places[0])
    _, out, _ = run(capsys, ["--kind", "knn", "--k", "5", "--split", "kfold:4:3"])
    assert "fold 3/4" in out
    assert "mean of" not in out
    run(capsys, ["--kind", "knn", "--k", "5", "--split", "kfold:4"])
    assert len(rows()) == 4  # the third is the same question


def test_copies_of_a_file_are_no_folds(places, capsys):
    path = make_file(places[0]).path
    copy = path.with_name("toy_32_copy.h5")
    copy.write_bytes(path.read_bytes())
    _, out, _ = run(capsys, [path, copy, "--kind", "knn", "--k", "5"])
    assert "mean of" not in out


def test_a_sweep_over_folds_reads_val_only(places, capsys):
    make_file(places[0])
    _, out, _ = run(capsys, ["--kind", "knn", "--k", "5", "--layer", "all", "--split", "kfold:3"])
    assert "Test wasn't read" in out
    found = rows()
    assert len(found) == 6
    assert all(row["metrics"] == {} and row["val_metrics"] for row in some(found))
    assert [line["fold"] for line in means_printed(out)] == ["mean of 3"] * 2


def test_sites_test_in_turn(places, capsys):
    make_file(places[0], meta={"site": np.repeat(["Bonn", "Ulm"], 120)})
    assert run(capsys, ["--kind", "knn", "--k", "5", "--split", "site-out:site"])[0] == 0
    assert {row["split"]["name"] for row in rows()} == {"site Bonn", "site Ulm"}
    assert {row["n"]["test"] for row in rows()} == {120}
    err = refused(capsys, ["--kind", "linear", "--split", "site-out:clinic"])
    assert "no meta column 'clinic' for site-out:clinic; there is site" in err


def test_a_split_file_is_written_once_then_kept(places, tmp_path, capsys):
    features = make_file(places[0])
    path = tmp_path / "split.csv"
    words = ["--kind", "knn", "--k", "5", "--split-file", path]
    assert "no file at" in refused(capsys, words)
    assert run(capsys, [*words, "--split", "80/10/10"])[0] == 0
    (asked,) = lay_over(OverlayConfig(split=SplitRule.parse("80/10/10")), features)
    np.testing.assert_array_equal(
        read_split_file(path, features.ids, features.dataset), asked.split
    )
    assert run(capsys, [*words, "--split", "80/10/10"])[0] == 0  # the same again
    kept = path.read_bytes()
    err = refused(capsys, [*words, "--split", "80/10/10", "--split-seed", "1"])
    assert "isn't the split that 80/10/10, seed 1 makes" in err
    assert path.read_bytes() == kept
    assert run(capsys, words)[0] == 0
    (row,) = rows()  # by rule or by file: one split, one question
    assert row["split"]["file"] == "split.csv"


def test_what_a_split_file_leaves_out_is_counted(places, tmp_path, capsys):
    features = make_file(places[0])
    words = np.repeat(["train", "val", "test", ""], 60)
    path = write_table(tmp_path / "split.csv", features, {"split": words})
    _, out, _ = run(capsys, ["--kind", "knn", "--k", "5", "--split-file", path])
    assert "60 of 240 samples aren't in the split file: left out" in out
    (row,) = rows()
    assert row["n"] == {"train": 60, "val": 60, "test": 60}
    path.write_text("id,split\nelsewhere/1,train\n")
    err = refused(capsys, ["--kind", "linear", "--split-file", path])
    assert "names 1 samples that aren't there ('elsewhere/1' in line 2); ids look like" in err


# ---------------------------------------------------------------------------- external validation


def shifted(root, dataset, order=(0, 1, 2), **more):
    """The same images under other ids, their classes in another order."""
    labels = np.asarray(order)[make_file(root, "scratch").labels]
    names = tuple(np.array(["a", "b", "c"])[np.argsort(order)])
    return make_file(root, dataset, labels=labels, class_names=names, **more)


# What feature files note of a split that their data set's owner doesn't give; before there was such a
# note, they said it in words.
DRAWN = {"drawn_split": {"rule": "80/10/10", "seed": 0}}
OLD_DRAWN = {"data": ["split: 80/10/10 by image, seed 0 (the owner has none)"]}
EXTERNAL = ["--kind", "linear", "--choose", "val", "--train-data", "toys", "--test-data"]


def test_fit_on_one_data_set_test_on_another(places, capsys):
    toys = make_file(places[0])
    shifted(places[0], "others", (2, 0, 1), images="sha256:other", source_size=64)
    out = answered(capsys, [*EXTERNAL, "others"])
    assert "others: train 0 · val 0 · test 60" in out
    assert "trained on toys" in out
    (row,) = rows()
    assert row["features"]["dataset"] == "others"
    assert row["trained_on"]["dataset"] == "toys"
    assert row["trained_on"]["digest"] == toys.digest
    # The images are the same, so the answer is that of toys alone: classes were matched by name.
    plain = one_row(toys)
    assert row["n"] == dict(plain.n)
    assert row["metrics"]["acc"]["value"] == plain.measured.test["acc"].value
    assert row["metrics"]["auc"]["value"] == plain.measured.test["auc"].value
    assert row["chosen"] == json.loads(json.dumps(plain.answered.chosen))


def test_several_labels_are_matched_by_name_too(places, capsys):
    labels, order = np.random.default_rng(5).integers(0, 2, (N, 3)), [2, 0, 1]
    names = np.array(["x", "y", "z"])
    toys = make_file(places[0], task=MULTI_LABEL, labels=labels, class_names=tuple(names))
    more = {"task": MULTI_LABEL, "labels": labels[:, order], "class_names": tuple(names[order])}
    make_file(places[0], "others", **more)
    assert run(capsys, [*EXTERNAL, "others"])[0] == 0
    (row,) = rows()
    assert row["metrics"]["auc"]["value"] == one_row(toys).measured.test["auc"].value
    (path,) = places[1].glob("*/*.npz")
    with np.load(path) as scores:
        assert scores["class_names"].tolist() == ["x", "y", "z"]
        np.testing.assert_array_equal(scores["test_labels"], labels[180:])


def test_all_of_the_other_data_set_may_test(places, capsys):
    make_file(places[0])
    shifted(places[0], "others", split=np.zeros(N))
    assert "--test-split all takes every sample" in refused(capsys, [*EXTERNAL, "others"])
    assert run(capsys, [*EXTERNAL, "others", "--test-split", "all"])[0] == 0
    words = [*EXTERNAL, "others", "--test-split", "all", "--split", "90/10/0"]
    assert run(capsys, words)[0] == 0
    # A rule is for the training data alone.
    make_file(places[0], "tested", images="sha256:other")
    assert run(capsys, [*EXTERNAL, "tested", "--split", "90/10/0"])[0] == 0
    n = sorted(tuple(row["n"].values()) for row in rows())
    assert n == [(120, 60, 240), (216, 24, 60), (216, 24, 240)]


@pytest.mark.parametrize(
    ("notes", "words", "n", "said"),
    [
        ({}, [], 60, "tested on the test split of others: 60 of 240 samples"),
        (DRAWN, [], 240, "tested on all 240 samples of others, whose split was only drawn"),
        (OLD_DRAWN, [], 240, "tested on all 240 samples of others, whose split was only drawn"),
        (
            DRAWN,
            ["--test-split", "test"],
            60,
            "tested on the test split of others, whose split was only drawn: 60 of 240 samples",
        ),
        ({}, ["--test-split", "all"], 240, "tested on all 240 samples of others"),
    ],
)
def test_a_split_that_was_only_drawn_sets_nothing_apart(places, capsys, notes, words, n, said):
    make_file(places[0])
    shifted(places[0], "others", notes=notes)
    out = answered(capsys, [*EXTERNAL, "others", *words])
    assert f"others: train 0 · val 0 · test {n}" in out
    assert f"] {said}\n" in out
    (row,) = rows()
    assert row["n"]["test"] == n
    assert row["split"]["rule"] == f"external:{'all' if n == 240 else 'test'}"


def test_a_training_file_may_be_named_by_path(places, capsys):
    train, test = make_file(places[0]).path, shifted(places[0], "others").path
    status, *_ = run(capsys, [test, "--kind", "knn", "--k", "5", "--train-data", train])
    assert status == 0
    (row,) = rows()
    assert (row["features"]["dataset"], row["trained_on"]["dataset"]) == ("others", "toys")


def test_one_target_of_two_data_sets(places, tmp_path, capsys):
    """--labels may hold both, and --target one that both have."""
    toys, others = make_file(places[0]), shifted(places[0], "others")
    path = tmp_path / "labels.csv"
    with path.open("w") as file:
        file.write("id,finding\n")
        for features in (others, toys):
            sick = ["sick" if label else "well" for label in features.labels]
            file.writelines(f"{i},{s}\n" for i, s in zip(features.ids, sick, strict=True))
    out = answered(capsys, [*EXTERNAL, "others", "--labels", path])
    (row,) = rows()
    assert row["features"]["task"] == "binary-class"
    assert out.count("labels: labels.csv") == 1


def test_how_many_files_were_unreadable_is_no_other_way(places, capsys):
    reading = {"decoder": 1, "window": "as stored", "skipped": 0}
    make_file(places[0], reading=reading)
    make_file(places[0], "others", reading={**reading, "skipped": 2})
    make_file(places[0], "arrays")
    assert run(capsys, [*EXTERNAL, "others"])[0] == 0
    assert run(capsys, [*EXTERNAL, "arrays"])[0] == 0
    make_file(places[0], "windowed", reading={**reading, "window": "ct"})
    assert "(reading.window: as stored -> ct)" in refused(capsys, [*EXTERNAL, "windowed"])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"precision": "bf16"}, "made in different ways (precision: (absent) -> bf16)"),
        ({"class_names": ("a", "b", "d")}, "classes must have the same names"),
        ({"task": "ordinal-regression"}, "classes must have the same names"),
    ],
)
def test_data_sets_that_do_not_fit_are_refused(places, capsys, other, reason):
    make_file(places[0])
    make_file(places[0], "others", **other)
    assert reason in refused(capsys, [*EXTERNAL, "others"])


def test_the_same_images_are_no_external_validation(places, capsys):
    make_file(places[0])
    assert "are the same images" in refused(capsys, [*EXTERNAL, "toys", "--test-split", "all"])
    make_file(places[0], "others", images="sha256:x")
    make_file(places[0], "renamed", images="sha256:x")
    words = ["--kind", "linear", "--train-data", "others", "--test-data", "renamed"]
    assert "are the same images" in refused(capsys, words)


# ---------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--split 80/30", "sum to 100"),
        ("--target=", "--target takes one or more, comma separated; not"),
        ("--target ,", "--target takes one or more, comma separated; not"),
        ("--positive a", "--positive says how to read --labels FILE"),
        ("--missing N/A", "--missing says how to read --labels FILE"),
        ("--missing ,", "--missing takes one or more"),
        ("--uncertain maybe", "invalid choice"),
        ("x.h5 --train-data a --test-data b", "by path or by --test-data"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, words, reason):
    with pytest.raises(SystemExit) as end:
        main(["--kind", "linear", *words.split()])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err
