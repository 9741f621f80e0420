"""`report ledger`: what it says of rows that are there, that are gone, and of named questions."""

import json

import pytest
from answering import make_row
from reporting import answered, refused

from probe.report.rows.ledger import record_question
from probe.results import write_row


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def first_row(out):
    heading, _, row = out.splitlines()[:3]
    return heading, row.split()


def test_counts(results, capsys):
    rows = [make_row(seed=0), make_row(seed=0), make_row(seed=1), make_row("knn")]
    paths = [write_row(results, row) for row in rows]
    paths[-1].unlink()
    heading, row = first_row(answered(capsys, "ledger"))
    for name in ("readings", "rows", "gone", "replaced", "questions", "encoders x kinds"):
        assert name in heading
    assert "target" not in heading  # nobody laid labels over
    # Readings, rows, gone, replaced, questions.
    assert row[:7] == ["toys", rows[0].test_set[:8], "4", "2", "1", "1", "3"]
    assert row[7:10] == ["1", "x", "2"]


def test_questions_stand_below(results, capsys):
    record_question(results, "a > b on toys")
    write_row(results, make_row())
    record_question(results, "a > c on toys")
    out = answered(capsys, "ledger", "--data", "toys")
    (first,) = [line for line in out.splitlines() if line.startswith("a > b on toys")]
    (second,) = [line for line in out.splitlines() if line.startswith("a > c on toys")]
    assert first.endswith("none")
    assert second.endswith("1 of toys")


def test_data_sets_are_chosen(results, capsys):
    for dataset in ("toys", "others"):
        write_row(results, make_row(dataset=dataset))
    assert "others" not in answered(capsys, "ledger", "--data", "toys")
    assert "no row" in refused(capsys, "ledger", "--data", "nothing")
    assert json.loads(answered(capsys, "ledger", "--format", "json"))


def test_nothing_was_read(results, capsys):
    assert "no row" in refused(capsys, "ledger")
