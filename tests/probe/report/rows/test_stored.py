"""Stored rows are read as they were written, and what is no row takes no other down."""

import contextlib
import dataclasses
import io
import json
import math
import multiprocessing
import os
import re
import zipfile

import numpy as np
import pytest
from answering import make_earlier, make_row, rewrite, scores_file
from features import make_features
from probing import answered
from reading import printed, rows_printed

from probe.cli import main
from probe.ledger import utc
from probe.report.cli import main as report
from probe.report.pages.listing import format_rows
from probe.report.rows.fields import find_field
from probe.report.rows.frame import make_frame
from probe.report.rows.stored import CURE, read_stored, stored_files
from probe.results import (
    Answered,
    BrokenRow,
    from_json,
    read_row,
    read_scores,
    write_row,
)

ITS_CHECKSUM = "its checksum is of other content"


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
        write_row(tmp_path, row, "mine" if row.answered.settings["kind"] == "linear" else "")
    return tmp_path


def test_a_stored_row_is_the_row_that_was_written(tmp_path):
    row = make_row("finetune", mode="lora", training_seed=2)
    path = write_row(tmp_path, row)
    found = from_json(read_row(path))
    assert found.digest == row.digest
    assert format_rows([found]) == format_rows([row])


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
    assert len(rows_printed(said.out)) == n
    assert ("no such row in" in said.err) == (n == 0)


@pytest.mark.parametrize("earlier", [False, True], ids=["checksum", "version 1"])
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_scores_that_are_lost_are_named_and_the_row_is_printed(tmp_path, capsys, harm, earlier):
    scores = {"test_scores": np.arange(99.0)}
    rows = [dataclasses.replace(make_row(seed=seed), scores=scores) for seed in range(2)]
    path, _ = [write_row(tmp_path, row) for row in rows]
    if earlier:
        make_earlier(path)
    place = scores_file(path)
    if harm == "missing":
        place.unlink()
    else:
        content = bytearray(place.read_bytes())
        content[len(content) // 2] ^= 1
        place.write_bytes(content)
    assert main(["table", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err == f"probe table: {path}: its scores are {harm}: ask again\n"
    assert [row.get("note") for row in printed(said.out)] == ["[1]", None]
    assert said.out.count(f"[1] scores are {harm}: ask again") == 1
    path.unlink()
    assert main(["table", "--results", str(tmp_path)]) == 0


def test_a_file_that_is_no_row_is_named_and_the_others_are_printed(stored, capsys):
    (stored / "toys" / "a.json").write_text('{"rows": 1}')
    (stored / "toys" / "b.json").write_text('{"cut')
    (stored / "toys" / "c.json").write_text("[]")
    assert main(["table", "--results", str(stored)]) == 1
    said = capsys.readouterr()
    assert len(rows_printed(said.out)) == 4
    for name in "abc":
        assert f"{name}.json: no row of probe or finetune" in said.err
    assert said.err.count(CURE) == 3


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("features", {"dataset": "x", "model": "y", "size": "large"}),
        ("features", []),
        ("probe", {"kind": "linear", "few_shot": []}),
        ("probe", {"kind": "linear", "training_seed": [1]}),
        ("metrics", {"acc": {"value": "high", "low": 0, "high": 1}}),
        ("metrics", {"acc": {"value": math.inf, "low": 0, "high": 1}}),
        ("metrics", {"acc": {"value": 10**400, "low": 0, "high": 1}}),
        ("metrics", {"acc": 0.5}),
        ("val_metrics", {"acc": True}),
        ("marks", [["a", "list"]]),
        ("leaks", {"n": 1}),
        ("episodes", {"acc": "many"}),
        ("split", "80/10/10"),
        ("chosen", ["strength", "large"]),
        ("row_version", 4),
        ("seed", math.nan),
        ("marks", [-1]),
        ("marks", [{}]),
        ("marks", ["\ud800"]),
        ("n", {"test": {}}),
        ("target", []),
        ("probe_protocol", 0),
        ("score_type", ["margin"]),
        ("score_type", "logit"),
        ("probe", {"kind": "knn", "k": 10**400}),
        ("probe", {"kind": "knn", "k_among": []}),
        ("probe", {"kind": "knn", "place_chosen": {"by": "val", "among": [1.5]}}),
        ("trained_on", {"dataset": "x"}),
        ("names", [["a"]]),
        ("id", None),
        ("probe", {"kind": "linear", "layer": ""}),
        ("cost", None),
        ("cost", {"parameters": 1.5}),
        ("cost", {"training_seconds": "long"}),
        ("cost", {"device": 1}),
    ],
)
@pytest.mark.parametrize("has_checksum", [False, True], ids=["version 1", "checksum"])
def test_a_row_of_another_program_takes_no_other_down(stored, capsys, entry, value, has_checksum):
    """Whatever stands there is one line."""
    path = next((stored / "toys").glob("*.json"))
    if has_checksum:
        rewrite(path, **{entry: value})
    else:
        path.write_text(json.dumps({**make_earlier(path), entry: value}))
    assert main(["table", "--results", str(stored)]) == 1
    said = capsys.readouterr()
    assert len(rows_printed(said.out)) >= 3
    (line,) = said.err.splitlines()
    assert line.startswith(f"probe table: {path}: ")


@pytest.mark.parametrize("seconds", [-(10**12), 10**12])
def test_a_file_of_any_time_has_one(stored, seconds):
    """Not each file system keeps such a time."""
    path = next((stored / "toys").glob("*.json"))
    os.utime(path, (seconds, seconds))
    (of,) = [of for of in read_stored(stored, stored_files(stored))[0] if of.path == path]
    assert len(utc(of.written)) == len("2026-01-31T12:00:00Z")
    assert len(make_frame([of])) == 1
    assert find_field("written").of(of) is None or seconds > 0


def test_rows_without_checksum_are_read_as_they_were(stored):
    def read():
        rows, problems = read_stored(stored, stored_files(stored))
        return format_rows([of.row for of in rows]), problems

    before = read()
    for path in stored.glob("*/*.json"):
        make_earlier(path)
        assert read_scores(path, read_row(path)) == {}
    assert read() == (before[0], [])


def test_every_changed_digit_is_found(tmp_path):
    """Of a row's numbers, and of its scores' bytes, each by each."""
    row = dataclasses.replace(make_row(), scores={"test_scores": np.linspace(0, 1, 5)})
    path = write_row(tmp_path, row)
    text = path.read_text()
    # A version of other than 1 or 2 says so; its own digits and the checksum's are digits too.
    places = [m.start() for m in re.finditer(r"\d", text)]
    assert len(places) > 150
    for place in places:
        other = str((int(text[place]) + 1) % 10)
        path.write_text(text[:place] + other + text[place + 1 :])
        with pytest.raises(BrokenRow, match="changed since it was written"):
            read_row(path)
    path.write_text(text)
    scores = scores_file(path)
    content = scores.read_bytes()
    for place in range(0, len(content), 7):
        scores.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(BrokenRow, match="other scores than the row was written with"):
            read_scores(path, read_row(path))
    scores.write_bytes(content)
    assert read_scores(path, read_row(path))["test_scores"][-1] == 1


def test_a_changed_row_is_named_and_the_others_are_printed(stored, capsys):
    path = next((stored / "others").glob("*.json"))
    path.write_text(path.read_text().replace('"value": 0.8', '"value": 0.9'))
    assert main(["table", "--results", str(stored)]) == 1
    said = capsys.readouterr()
    assert (
        said.err == f"probe table: {path}: changed since it was written: {ITS_CHECKSUM}; {CURE}\n"
    )
    assert [row["data"] for row in printed(said.out)] == ["toys"] * 4  # a mean is one


def test_a_row_that_names_scores_elsewhere_reads_none(tmp_path):
    path = write_row(tmp_path, make_row())
    with pytest.raises(BrokenRow, match="64 hex digits"):
        read_scores(path, {**read_row(path), "scores_sha256": "../" * 21 + "x"})


def in_zip(header):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("test_scores.npy", header)
    return content.getvalue()


HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }".ljust(117) + b"\n"
NPY = b"\x93NUMPY\x01\x00" + len(HUGE).to_bytes(2, "little") + HUGE
# Set in a member's flags: encrypted; and a method of compression that there isn't.
LOCKED, METHOD = (6, 1), (8, 99)


@pytest.mark.parametrize("how", ["array", "huge", LOCKED, METHOD])
def test_scores_of_an_early_row_that_no_reader_takes_are_damaged(tmp_path, how):
    content = NPY if how == "array" else in_zip(NPY)
    if isinstance(how, tuple):
        (at, value), content = how, bytearray(content)
        content[at] = content[content.find(b"PK\x01\x02") + at + 2] = value
    (tmp_path / "row.npz").write_bytes(content)
    with pytest.raises(BrokenRow, match="row.npz is damaged"):
        read_scores(tmp_path / "row.json", {})


def write_often(root, which, n):
    row = dataclasses.replace(
        make_row(),
        scores={"test_scores": np.full((400, 3), which)},
        answered=Answered({"kind": "linear"}, {"who": which}),
    )
    for _ in range(n):
        write_row(root, row, f"by {which}")


def test_two_writers_of_one_row_leave_a_row_and_its_scores(tmp_path):
    """At any moment, not only at the end; and both their tags."""
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write_often, args=(tmp_path, i, 40)) for i in range(2)]
    for writer in writers:
        writer.start()
    n_seen = 0
    while any(writer.is_alive() for writer in writers) or not n_seen:
        for path in tmp_path.glob("*/*.json"):
            row = read_row(path)
            with contextlib.suppress(FileNotFoundError):  # replaced since the row was read
                assert (read_scores(path, row)["test_scores"] == row["chosen"]["who"]).all()
                n_seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    (path,) = tmp_path.glob("*/*.json")
    row = read_row(path)
    assert (read_scores(path, row)["test_scores"] == row["chosen"]["who"]).all()
    assert row["names"] == ["by 0", "by 1"]
    assert sorted(path.parent.iterdir()) == sorted([path, scores_file(path)])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--data scnas,toyz", "--data scnas,toyz fits none; near names: toys"),
        ("--kind LINEAR", "--kind LINEAR fits none; near names: linear"),
        ("--model dino --where layer=77", "none; there are toy; --where layer=77 fits none"),
        ("--data others --kind finetune --name mine", "fits some, but none fits all"),
    ],
)
def test_the_flag_that_no_row_fits_is_named(stored, capsys, words, why):
    assert main(["table", "--results", str(stored), *words.split()]) == 1
    err = capsys.readouterr().err
    assert why in err
    assert "makes some" not in err


def test_without_rows_the_way_to_make_some_is_named(tmp_path, capsys):
    assert main(["table", "--results", str(tmp_path)]) == 1
    assert "no row in" in (err := capsys.readouterr().err)
    assert "`probe --kind linear` makes some" in err
    assert main(["table", "--results", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["results", "scans.csv", "notes.json"])
def test_nobody_is_told_to_delete_what_is_not_ours(stored, capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if path.suffix:
        path.write_text("id,label")
    else:
        path.mkdir(exist_ok=True)
    assert main(["table", name]) == 1
    err = capsys.readouterr().err
    assert "no row of probe or finetune" in err
    assert "delete" not in err
    assert ("--results DIR" if name == "results" else "expected DATA_SET/NAME.json") in err


def test_a_page_that_cannot_be_written_is_named(stored, capsys, tmp_path):
    path = tmp_path / "none" / "x.md"
    assert report(["table", "--results", str(stored), "-o", str(path)]) == 1
    err = capsys.readouterr().err
    assert f"can't write {path}: there is no folder {path.parent}; make it" in err


def test_rows_by_file(stored):
    paths = sorted(stored.glob("others/*.json"))
    rows, problems = read_stored(stored, paths)
    assert [of.row.encoded.dataset for of in rows] == ["others"]
    assert not problems
    with pytest.raises(SystemExit) as end:
        main(["table", str(paths[0]), "--results", str(stored)])
    assert end.value.code == 2


def test_a_split_that_a_rule_made_and_a_file_keeps_is_one(places, capsys, tmp_path):
    make_features(places[0], n=(60, 30, 40))
    kept = f"--split-file {tmp_path / 'kept.csv'}"
    answered(capsys, f"--kind ridge --split 60/20/20 {kept}")  # says the rule
    answered(capsys, f"--kind knn --k 5 {kept}")  # says the file
    answered(capsys, "--kind knn --k 3 --split 60/20/20 --split-seed 1")  # is another split
    found, _ = read_stored(places[1], stored_files(places[1]))
    said = {(of.row.answered.kind, of.row.answered.settings.get("k")): of.row.posed for of in found}
    assert said["ridge", None].split == said["knn", 5].split
    assert said["knn", 5].split["file"] == "kept.csv"
    assert said["knn", 3].split["rule"] == "60/20/20"
