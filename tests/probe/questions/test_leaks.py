"""What splits share, in rows and tables: counted, refused with --strict, and done without."""

import dataclasses

import numpy as np
import probing
import pytest
from answering import make_earlier
from leaking import COPIES, FIRST_TEST, TWINS, make_file
from probing import probe_file
from reading import printed

from cache.features import open_features
from probe.choosing.plan import ChoosingConfig
from probe.config import ProbeConfig
from probe.kinds.knn import Knn
from probe.metrics import classification as metrics
from probe.metrics import regression as regression_metrics
from probe.metrics.metric import Measuring
from probe.places import PlacesConfig
from probe.report.pages.listing import format_rows
from probe.results import read_row


@pytest.fixture
def root(tmp_path):
    return tmp_path / "features"


def ask(path, **settings):
    config = ProbeConfig(Knn(k=(1,)), measuring=Measuring(20))
    (row,) = probe_file(dataclasses.replace(config, **settings), open_features(path))
    return row


def run(capsys, *words):
    return probing.run(capsys, [*words, "--kind", "knn", "--k", "1", "--resamples", "20"])


def answered(capsys, *words):
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    return out


def kept_metrics(row, evaluate, left_out):
    kept = ~np.isin(row.scores["test_ids"], [f"toys/{i:03d}" for i in left_out])
    return evaluate(
        row.scores["test_scores"][kept].astype(np.float64), row.scores["test_labels"][kept]
    )


# ---------------------------------------------------------------------------- rows


@pytest.mark.parametrize("slices", [1, 3])
def test_a_row_counts_leaks_and_does_without_them(root, slices):
    row = ask(make_file(root, slices=slices))
    assert row.posed.leaks == {
        "n": 40,
        "exact": 2,
        "near": 3,
        "groups": None,
        "group_samples": None,
        "val_n": 20,
        "val_exact": 0,
        "val_near": 1,
        "val_groups": None,
        "val_group_samples": None,
    }
    assert row.measured.without_twins["n"] == 35
    expected = kept_metrics(
        row, lambda s, y: metrics.evaluate(s, y, "multi-class"), [*COPIES, *TWINS]
    )
    assert {m: v for m, v in row.measured.without_twins.items() if m != "n"} == pytest.approx(
        expected
    )
    # One neighbour: whoever has a twin in train is right.
    assert row.measured.without_twins["acc"] < row.measured.test["acc"].value


@pytest.mark.parametrize("task", ["regression", "multi-label, binary-class"])
def test_other_tasks_do_without_them_too(root, task):
    row = ask(make_file(root, task=task))
    evaluate = regression_metrics.evaluate
    if task != "regression":
        evaluate = lambda s, y: metrics.evaluate(s, y, task)  # noqa: E731
    expected = kept_metrics(row, evaluate, [*COPIES, *TWINS])
    assert row.measured.without_twins == pytest.approx({"n": 35, **expected})


def test_nothing_shared_is_said_by_zeros_and_nothing_known_by_nothing(root):
    row = ask(make_file(root, copies={}, twins={}))
    assert {row.posed.leaks[name] for name in ("exact", "near", "val_exact", "val_near")} == {0}
    assert (row.measured.without_twins, row.marks) == ({}, ())
    row = ask(make_file(root, "unseen", looks=False))
    assert (row.posed.leaks, row.measured.without_twins, row.marks) == (None, {}, ())


def test_leaks_change_no_question(root, tmp_path):
    counted, not_counted = ask(make_file(root)), ask(make_file(tmp_path / "old", looks=False))
    assert counted.digest == not_counted.digest
    assert counted.path(tmp_path) == not_counted.path(tmp_path)


def test_rows_are_kept_as_json(root, capsys, tmp_path):
    assert run(capsys, str(make_file(root)))[0] == 0
    (path,) = (tmp_path / "results" / "toys").glob("*.json")
    row = read_row(path)
    assert row["leaks"]["near"] == 3
    assert row["without_twins"]["n"] == 35
    make_earlier(path, "leaks", "without_twins")
    assert (read_row(path)["leaks"], read_row(path)["without_twins"]) == (None, {})


def test_where_every_test_sample_has_a_twin_nothing_is_left(root, capsys):
    every = {FIRST_TEST + i: i for i in range(40)}
    path = make_file(root, copies=every, twins={})
    assert ask(path).measured.without_twins == {"n": 0}
    out = answered(capsys, str(path))
    assert "40+0" in out


def test_a_class_that_only_twins_have_leaves_no_auc(root, tmp_path, capsys):
    path = make_file(root)
    features = open_features(path)
    label = (~np.isin(np.arange(120), [*COPIES, *TWINS])).astype(int)
    label[:60:2] = 0
    lines = [f"{name},{'cd'[y]}" for name, y in zip(features.ids, label, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *lines]))
    answered(capsys, str(path), "--labels", str(tmp_path / "labels.csv"))
    (stored,) = (tmp_path / "results" / "toys").glob("*.json")
    assert read_row(stored)["without_twins"]["auc"] is None


# ---------------------------------------------------------------------------- which splits


def test_layers_compared_on_val_count_vals_leaks(root):
    row = ask(make_file(root), places=PlacesConfig("all"), choosing=ChoosingConfig("val"))
    assert (row.posed.leaks["n"], row.posed.leaks["val_n"], row.posed.leaks["val_near"]) == (
        0,
        20,
        1,
    )
    assert row.measured.without_twins == {}
    assert [line["leaks"] for line in printed(format_rows([row]))] == ["0+1 ?p"]


def test_the_split_in_use_counts_not_the_stored_one(root, tmp_path, capsys):
    path = make_file(root)
    apart = {
        FIRST_TEST: "train",
        FIRST_TEST + 1: "val",
        **dict.fromkeys(TWINS, "train"),
        70: "train",
    }
    features = open_features(path)
    words = [apart.get(i, word) for i, word in enumerate(features.split)]
    lines = [f"{name},{word}" for name, word in zip(features.ids, words, strict=True)]
    (tmp_path / "split.csv").write_text("\n".join(["id,split", *lines]))
    split = ["--split-file", str(tmp_path / "split.csv")]
    out = answered(capsys, str(path), "--strict", *split)
    assert " leaks " not in out
    assert run(capsys, str(path), "--strict")[0] == 1


def test_samples_that_are_left_out_leak_nothing(root, tmp_path, capsys):
    path = make_file(root)
    features = open_features(path)
    lines = [
        f"{name},{word}"
        for i, (name, word) in enumerate(zip(features.ids, features.split, strict=True))
        if i not in (*COPIES, *TWINS)
    ]
    (tmp_path / "split.csv").write_text("\n".join(["id,split", *lines]))
    answered(capsys, str(path), "--strict", "--split-file", str(tmp_path / "split.csv"))


def test_external_validation_compares_both_data_sets(root, capsys, tmp_path):
    # Both are drawn alike: a test sample of one has its twins in the other's train and val too.
    make_file(root)
    make_file(root, dataset="others")
    words = ["--train-data", "toys", "--test-data", "others"]
    out = answered(capsys, *words)
    (path,) = (tmp_path / "results" / "others").glob("*.json")
    leaks = read_row(path)["leaks"]
    assert (leaks["n"], leaks["exact"], leaks["near"]) == (40, 2, 3)
    assert leaks["groups"] is None
    assert read_row(path)["without_twins"]["n"] == 35
    assert "2+3" in out
    status, _, err = run(capsys, *words, "--strict")
    assert status == 1
    assert "--strict refuses others, whose splits share samples" in err


# ---------------------------------------------------------------------------- --strict


def test_strict_refuses_copies(root, capsys, tmp_path):
    status, out, err = run(capsys, str(make_file(root)), "--strict")
    assert status == 1
    assert err == (
        "probe: toy on toys: --strict refuses toys, whose splits share samples: 2 exact copies, "
        "3 near twins of 40 test samples; 1 near twin of 20 val samples; patients unknown; `extract data twins` lists them\n"
    )
    assert "acc" not in out
    assert not [*(tmp_path / "results").rglob("*.json")]


NOBODY = {"copies": {}, "twins": {}}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            {**NOBODY, "groups": np.array([f"p{i % 119}" for i in range(120)])},
            "whose splits share samples: 1 patient of 40 test samples; `extract",
        ),
        (
            {**NOBODY, "copies": {70: 5}},
            "whose splits share samples: 1 exact copy of 20 val samples; patients unknown",
        ),
        ({"looks": False}, "can't tell"),
        ({"looks": False}, "--overwrite to its command:\n  extract --model toy --data toys"),
    ],
)
def test_strict_looks_at_patients_and_val_and_refuses_not_to_know(root, capsys, made, said):
    status, _, err = run(capsys, str(make_file(root, **made)), "--strict")
    assert status == 1
    assert said in err


def test_strict_leaves_near_twins_to_people(root, capsys):
    out = answered(capsys, str(make_file(root, copies={})), "--strict")
    assert "0+3" in out


def test_one_refused_file_stops_no_other(root, capsys):
    make_file(root)
    make_file(root, dataset="clean", copies={}, twins={})
    status, out, err = run(capsys, "--strict")
    assert status == 1
    assert [line["data"] for line in printed(out)] == ["clean"]
    assert "--strict refuses toys" in err


# ---------------------------------------------------------------------------- the table


def test_the_table_shows_leaks_only_where_there_are_some(root, capsys):
    clean = make_file(root, dataset="clean", copies={}, twins={})
    assert ["leaks" in line for line in printed(run(capsys, str(clean))[1])] == [False]
    groups = np.array([f"p{i % 119}" for i in range(120)])
    shared = make_file(root, dataset="shared", copies={}, twins={}, groups=groups)
    rows = [ask(path) for path in (make_file(root), clean, shared)]
    rows.append(ask(make_file(root, dataset="old", looks=False)))
    text = format_rows(rows)
    lines = printed(text)
    assert [line["leaks"] for line in lines] == ["2+3 ?p", "0 ?p", "0 1p", "?"]
    rest = f"{rows[0].measured.without_twins['acc']:.3f}"
    assert [line.get("acc w/o") for line in lines] == [rest, None, None, None]
    assert text.count("\nleaks: exact copies + near twins in an earlier split") == 1


def test_leaks_are_explained_once(root):
    path = make_file(root)
    config = ProbeConfig(Knn(k=(1, 3)), measuring=Measuring(20))
    rows = [*probe_file(config, open_features(path))]
    text = format_rows(rows)
    assert text.count("leaks: exact copies + near twins") == 1
    assert text.count("w/o: without test samples that leak") == 1
