"""`probe table`: stored rows are printed as they were answered."""

import json
import math

import pytest

from probe.cli import main
from probe.intervals import Interval
from probe.results import Row, write_row
from probe.stored import as_row, read_stored
from probe.table import format_table


def make_row(kind="linear", dataset="toys", seed=0, auc=0.8, **probe):
    return Row(
        features={
            "model": "toy",
            "encoder": "toy.full",
            "size": 32,
            "dataset": dataset,
            "task": "binary-class",
            "digest": "d" * 64,
            "key": {},
            "samples": {"labels": 1, "split": 2},
        },
        probe={"kind": kind, "layer": 3, "pool": "cls", **probe},
        seed=seed,
        metrics={"acc": Interval(0.7, 0.6, 0.8), "auc": Interval(auc, math.nan, 0.9)},
        val_metrics={"acc": 0.75, "auc": math.nan},
        n={"train": 10, "val": 5, "test": 5},
        seconds=0.1,
        versions={},
        marks=("a mark",),
        leaks={"n": 5, "exact": 1, "near": 2, "groups": None},
        without_twins={"n": 3, "acc": 0.5, "auc": math.nan},
        intervals={"acc": "wilson", "auc": "delong"},
        episodes={"acc": [0.6, math.nan]},
        chosen={"ddof": 1},
    )


@pytest.fixture
def stored(tmp_path):
    """Two seeds of one training, a probe, and a row of another data set."""
    rows = [
        make_row("finetune", mode="full", training_seed=0),
        make_row("finetune", mode="full", training_seed=1, auc=0.9),
        make_row(),
        make_row(dataset="others"),
    ]
    for row in rows:
        write_row(tmp_path, row, "mine" if row.probe["kind"] == "linear" else "")
    return tmp_path


def test_a_stored_row_is_the_row_that_was_written(tmp_path):
    row = make_row("finetune", mode="lora", training_seed=2)
    path = write_row(tmp_path, row)
    found = as_row(json.loads(path.read_text()))
    assert found.digest == row.digest
    assert format_table([found], with_kind=True) == format_table([row], with_kind=True)


def test_probes_and_trainings_are_one_table(stored, capsys):
    assert main(["table", "--results", str(stored), "--data", "toys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["data", "model", "size", "kind", "mode", "layer"]
    assert [line.split()[3] for line in lines[2:6]] == [
        "finetune",
        "finetune",
        "finetune",
        "linear",
    ]
    assert "0.850 ± 0.071" in lines[4]  # the mean of both seeds
    assert not any("others" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "n"),
    [
        ("", 4),
        ("--kind finetune", 2),
        ("--kind finetune,linear --data others,toys", 4),
        ("--model toy --name mine", 2),
        ("--name other", 0),
        ("--model nothing", 0),
    ],
)
def test_what_is_asked_for_is_read(stored, capsys, words, n):
    assert main(["table", "--results", str(stored), *words.split()]) == (0 if n else 1)
    said = capsys.readouterr()
    rows = [line for line in said.out.splitlines() if line.startswith(("toys", "others"))]
    assert len([row for row in rows if "mean of" not in row]) == n
    assert ("no such row in" in said.err) == (n == 0)


def test_a_file_that_is_no_row_is_named_and_the_others_are_printed(stored, capsys):
    (stored / "toys" / "a.json").write_text('{"rows": 1}')
    (stored / "toys" / "b.json").write_text('{"cut')
    (stored / "toys" / "c.json").write_text("[]")
    assert main(["table", "--results", str(stored)]) == 1
    said = capsys.readouterr()
    assert said.out.count("\ntoys ") == 4
    for name in "abc":
        assert f"{name}.json: no row of probe or finetune" in said.err


def test_rows_by_file(stored):
    paths = sorted(stored.glob("others/*.json"))
    rows, problems = read_stored(paths, {})
    assert [row.features["dataset"] for row in rows] == ["others"]
    assert not problems
    with pytest.raises(SystemExit) as end:
        main(["table", str(paths[0]), "--results", str(stored)])
    assert end.value.code == 2


def test_other_tables_have_no_column_of_kinds():
    assert "kind" not in format_table([make_row()]).splitlines()[0].split()
