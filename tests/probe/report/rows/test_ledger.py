"""How often test sets were read: what is written with each row, and what is counted of it."""

import dataclasses
import json
import os
import threading

import pytest
from answering import make_row

import probe.results
from probe.ledger import Named, Reading, add_line, ledger_path, read_lines
from probe.report.rows.comparable import make_blocks
from probe.report.rows.contenders import contenders_of
from probe.report.rows.ledger import read_ledger, record_question
from probe.report.rows.stored import StoredRow
from probe.results import write_row


def with_samples(row, tables=None, dataset="", **samples):
    encoded = row.encoded
    encoded = dataclasses.replace(
        encoded,
        samples={**encoded.samples, **samples},
        tables=encoded.tables if tables is None else tables,
        dataset=dataset or encoded.dataset,
    )
    return dataclasses.replace(row, encoded=encoded)


def of_fold(row, number, digest):
    split = {"rule": "kfold:2", "seed": 0, "name": f"fold {number}/2", "of": 2, "digest": digest}
    posed = dataclasses.replace(row.posed, split=split)
    return with_samples(dataclasses.replace(row, posed=posed), split=digest)


def without_test(row):
    return dataclasses.replace(row, measured=dataclasses.replace(row.measured, test={}))


def test_a_row_that_read_test_adds_a_line(tmp_path):
    row = make_row()
    path = write_row(tmp_path, row)
    (line,) = read_lines(tmp_path)
    assert isinstance(line, Reading)
    assert (line.row, line.question, line.test_set) == (row.digest, row.question, row.test_set)
    assert (line.dataset, line.model, line.kind) == ("toys", "toy", "linear")
    content = json.loads(path.read_text())
    assert line.row == content["id"]
    assert line.time.endswith("Z")
    assert len(line.time) == 20


def test_a_row_that_did_not_read_test_adds_none(tmp_path):
    write_row(tmp_path, without_test(make_row()))
    assert read_lines(tmp_path) == []
    assert read_ledger(tmp_path).histories == ()


def test_what_is_replaced_and_what_is_deleted_stays_known(tmp_path):
    first, second, third = (make_row(seed=seed) for seed in range(3))
    for row in (first, second, second, third):
        path = write_row(tmp_path, row)
    path.unlink()  # of the third
    (history,) = read_ledger(tmp_path).histories
    assert len(history.readings) == 4
    assert (history.n_stored, history.n_gone, history.n_replaced) == (2, 1, 1)
    assert history.n_questions == read_ledger(tmp_path).looked_at(first.test_set) == 3
    assert (history.models, history.kinds) == (("toy",), ("linear",))


def test_rows_without_lines_are_counted_while_they_are_there(tmp_path):
    paths = [write_row(tmp_path, make_row(seed=seed)) for seed in range(3)]
    lines = ledger_path(tmp_path).read_text().strip().splitlines()
    ledger_path(tmp_path).write_text(lines[0])
    test_set = make_row().test_set
    assert read_ledger(tmp_path).looked_at(test_set) == 3
    paths[2].unlink()
    assert read_ledger(tmp_path).looked_at(test_set) == 2
    paths[0].unlink()
    assert read_ledger(tmp_path).looked_at(test_set) == 2
    ledger_path(tmp_path).unlink()
    assert read_ledger(tmp_path).looked_at(test_set) == 1


def test_folds_are_one_test_set_and_one_question(tmp_path):
    folds = [of_fold(make_row(), number, f"digest {number}") for number in (1, 2)]
    assert folds[0].test_set == folds[1].test_set != make_row().test_set
    for row in folds:
        write_row(tmp_path, row)
    (history,) = read_ledger(tmp_path).histories
    assert len(history.readings) == 2
    assert history.n_questions == 1
    assert history.readings[0].split == "kfold:2"


def test_seeds_of_a_training_are_one_question(tmp_path):
    for seed in range(3):
        write_row(tmp_path, make_row("finetune", training_seed=seed))
    write_row(tmp_path, make_row("knn"))
    (history,) = read_ledger(tmp_path).histories
    assert (len(history.readings), history.n_questions) == (4, 2)
    assert history.kinds == ("finetune", "knn")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": 9},
        {"split": 9},
        {"tables": {"ids": 9, "patients": None}},
        {"dataset": "others"},
    ],
)
def test_other_samples_are_another_test_set_as_they_are_another_block(tmp_path, change):
    tables = {"ids": 1, "patients": None}
    one, other = with_samples(make_row(), tables), with_samples(make_row(), tables)
    changed = with_samples(other, **{"tables": tables, **change})
    assert one.test_set == other.test_set != changed.test_set
    stored = [StoredRow(row) for row in (one, changed)]
    is_elsewhere = "dataset" in change
    assert len(make_blocks(contenders_of(stored))) == (1 if is_elsewhere else 2)


def test_what_learnt_from_other_samples_read_the_same_test_set():
    one = with_samples(make_row(), {"ids": 1, "patients": 2})
    assert with_samples(one, {"ids": 1, "patients": 3}).test_set == one.test_set


TORN = ['{"time": "2026-01-01T00:0', "null", "[]", "7", "{", '{"time": 7, "named": "x"}', "\udcff"]


@pytest.mark.parametrize("torn", TORN)
def test_torn_lines_are_skipped_and_cost_no_other(tmp_path, torn):
    write_row(tmp_path, make_row())
    with ledger_path(tmp_path).open("ab") as file:
        file.write(b"\n" + torn.encode(errors="surrogateescape"))
    write_row(tmp_path, make_row(seed=1))
    assert [line.row for line in read_lines(tmp_path)] == [
        make_row().digest,
        make_row(seed=1).digest,
    ]


def test_what_a_later_version_adds_is_left_out(tmp_path):
    write_row(tmp_path, make_row())
    text = ledger_path(tmp_path).read_text()
    ledger_path(tmp_path).write_text(text.replace('{"time"', '{"weather": [1], "time"'))
    assert len(read_lines(tmp_path)) == 1


def test_a_full_disk_loses_no_row(tmp_path, monkeypatch, capsys):
    def fail(root, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(probe.results, "add_line", fail)
    path = write_row(tmp_path, make_row())
    assert write_row(tmp_path, make_row("knn")).exists()
    assert path.exists()
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert read_lines(tmp_path) == []
    assert read_ledger(tmp_path).looked_at(make_row().test_set) == 2


@pytest.mark.posix
def test_nothing_is_written_through_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "results").mkdir()
    ledger_path(tmp_path / "results").symlink_to(elsewhere)
    assert write_row(tmp_path / "results", make_row()).exists()
    assert elsewhere.read_text() == "mine"


def test_several_writers_lose_no_line(tmp_path):
    def work(number):
        for seed in range(20):
            record_question(tmp_path, f"{number} {seed}")
            write_row(tmp_path, make_row(f"kind{number}", dataset=f"d{number}", seed=seed))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = read_lines(tmp_path)
    assert sum(isinstance(line, Reading) for line in lines) == 80
    assert sum(isinstance(line, Named) for line in lines) == 80


def test_a_question_knows_what_was_read_before(tmp_path):
    root = tmp_path / "new"
    record_question(root, "a > b")
    record_question(root, "a > b")  # says no more
    write_row(root, make_row())
    write_row(root, make_row(dataset="others"))
    record_question(root, "a > c")
    write_row(root, make_row(seed=1))
    first, second = read_ledger(root).questions
    assert (first.text, first.read_before) == ("a > b", {})
    assert (second.text, second.read_before) == ("a > c", {"others": 1, "toys": 1})
    assert first.time <= second.time


def test_rows_from_before_the_ledger_were_read_before_a_question(tmp_path):
    path = write_row(tmp_path, make_row())
    ledger_path(tmp_path).unlink()
    os.utime(path, (1e9, 1e9))
    record_question(tmp_path, "a > b")
    (asked,) = read_ledger(tmp_path).questions
    assert asked.read_before == {"toys": 1}
    (history,) = read_ledger(tmp_path).histories
    assert history.readings[0].time == "2001-09-09T01:46:40Z"


def test_a_line_can_be_added_by_hand_and_read_again(tmp_path):
    line = Reading("2026-01-01T00:00:00Z", *"tqr", "data \u2028 set", "model", "kind", "", "x")
    add_line(tmp_path, line)
    assert read_lines(tmp_path) == [line]
