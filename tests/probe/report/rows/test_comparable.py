"""Rows of different samples never stand in one table: they are blocks, under what differs."""

import dataclasses

import numpy as np
import pytest
from looking import some
from overlaying import N, make_file
from probing import answered, probe_file, rows, run
from reading import printed

from probe.config import ProbeConfig
from probe.kinds.linear import Linear
from probe.questions.overlay import OverlayConfig
from probe.report.pages.listing import format_rows
from probe.report.rows.comparable import make_blocks
from probe.report.rows.contenders import contenders_of
from probe.report.rows.stored import StoredRow
from probe.results import from_json

KNN = ["--kind", "knn", "--k", "5"]
PATIENTS = np.array([f"p{i // 3}" for i in range(N)])


def blocks_of(rows):
    return make_blocks(contenders_of([StoredRow(row) for row in rows]))


def corrected(features):
    labels = features.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    return labels


def moved(features):
    split = np.repeat([0, 1, 2], [120, 60, 60])
    split[[0, 239]] = 2, 0
    return split


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda f: {}, None),
        (lambda f: {"labels": corrected(f)}, "labels"),
        (lambda f: {"split": moved(f)}, "split"),
        (lambda f: {"groups": PATIENTS}, "patients"),
        (lambda f: {"ids": f.ids[::-1]}, "ids and images of a sample"),
        (lambda f: {"labels": corrected(f), "split": moved(f)}, "labels and split"),
    ],
)
def test_encoders_that_were_asked_about_other_samples_are_blocks(places, capsys, other, what):
    features = make_file(places[0])
    make_file(places[0], model="tuned", **other(features))
    for words in (KNN, ["table"]):
        status, out, err = run(capsys, words)
        assert (status, err) == (0, "")
        if what is None:
            assert "block" not in out
            continue
        first, second = out.split("block 2 of 2: ")
        assert second.startswith(f"other {what} of toys than in block 1\n")
        assert [line["model"] for line in printed(first)] == ["toy"]
        assert [line["model"] for line in printed(second)] == ["tuned"]
        assert "`extract` of any of these encoders lays one table over all" in second


def test_labels_laid_over_both_make_one_question(places, tmp_path, capsys):
    features = make_file(places[0])
    make_file(places[0], model="tuned", labels=corrected(features))
    table = tmp_path / "labels.csv"
    lines = [f"{i},{c}\n" for i, c in zip(features.ids, features.labels, strict=True)]
    table.write_text("id,finding\n" + "".join(lines))
    out = answered(capsys, [*KNN, "--labels", table, "--split", "kfold:4"])
    assert "block" not in out
    # Folds follow labels: without them each file has folds of its own, all in its own block.
    _, out, _ = run(capsys, [*KNN, "--split", "kfold:4"])
    assert out.count("mean of 4") == 2
    assert "block 2 of 2: other labels and split of toys than in block 1\n" in out


def test_another_training_set_of_external_validation_is_another_question(places, capsys):
    toys = make_file(places[0])
    make_file(places[0], "others")
    make_file(places[0], model="tuned", labels=corrected(toys))
    make_file(places[0], "others", model="tuned")
    out = answered(capsys, [*KNN, "--train-data", "toys", "--test-data", "others"])
    assert "block 2 of 2: other labels of toys than in block 1" in out


def test_another_target_fold_or_seed_is_asked_for_and_no_mixture(places):
    features = make_file(places[0], meta={"sex": np.array(["f", "m"] * (N // 2))})
    asked = [{}, {"target": "meta:sex"}, {"split_seed": 1}]
    found = []
    for overlay in asked:
        config = ProbeConfig(Linear(), overlay=OverlayConfig(**overlay))
        found += probe_file(config, features)
    assert len(blocks_of(found)) == 1


def test_a_row_from_before_these_checksums_fits_where_its_labels_do(places):
    (row,) = probe_file(ProbeConfig(Linear()), make_file(places[0]))

    def of(**facts):
        return dataclasses.replace(row, encoded=dataclasses.replace(row.encoded, **facts))

    old = of(tables={})
    patients = of(tables={**row.encoded.tables, "patients": 1})
    labels = of(tables={}, samples={**row.encoded.samples, "labels": 1})
    assert old.digest == row.digest  # the same question: found again as one row
    blocks = blocks_of([old, row, patients, labels])
    assert [len(block.contenders) for block in blocks] == [2, 1, 1]


def test_slices_along_another_axis_are_of_the_same_samples(places, capsys):
    """Their rows differ, and what carries a label doesn't."""
    features = make_file(places[0], slices={"axis": 0})
    tuned = np.char.add(features.ids, "/0")
    make_file(places[0], model="tuned", slices={"axis": 1}, row_ids=tuned)
    assert "block" not in run(capsys, KNN)[1]
    for path in places[0].glob("toys/*.h5"):
        path.unlink()
    for model, ids in (("toy", features.ids), ("tuned", tuned)):
        make_file(places[0], model=model, row_ids=ids)
    assert "other images of a sample of toys" in run(capsys, KNN)[1]


def test_stored_rows_hold_what_they_were_asked_with(places, capsys):
    features = make_file(places[0], groups=PATIENTS)
    run(capsys, [*KNN, "--controls"])
    tables = features.header.tables
    wanted = {
        "patients": tables["samples/groups"],
        "ids": tables["samples/ids"],
        "images of a sample": tables["rows/ids"],
    }
    found = rows()
    assert len(found) >= 2  # a probe, and a control
    assert all(row["features"]["tables"] == wanted for row in some(found))
    assert "block" not in format_rows([from_json(row) for row in found])
