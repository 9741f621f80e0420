"""A page and a checklist report one answer, and say of how many that were looked at it is one."""

import re

import pytest
from golden import make_toy
from probing import answered

from probe.report.findings.headline import headline, read_record
from probe.report.findings.reported import ALONE, ONE_OF, Reports, report_on
from probe.report.pages.checklist import page_of_checklist
from probe.report.pages.statements import STATEMENTS
from probe.report.published.checklists import find_checklist
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.report.study.make import Studied, make_study

FACTS = {"patients": True, "n": (80, 60, 120)}


@pytest.fixture
def study(places, capsys):
    """A function that asks two encoders, and gives a page's study and a checklist's reports."""

    def ask(*lines):
        for encoder in ("toy.full", "wide.full"):
            make_toy(places[0], "toys", "binary-class", seed=1, encoder=encoder, **FACTS)
        for line in lines:
            answered(capsys, f"--data toys {line}")
        rows, _ = read_stored(places[1], stored_files(places[1]))
        people, record, contenders = People(places[0]), read_record(places[1]), contenders_of(rows)
        page = make_study(Studied(rows, contenders, people, record, "auc"))
        reported = report_on(contenders, "auc", record, people)
        return page, Reports(tuple(reported), record, people, "auc"), contenders

    return ask


LINES = [
    "--kind linear",
    "--kind linear --layer auto",
    "--kind linear --aggregate patient",
    "--kind knn --k 5",
    "--kind linear --shots 5 --episodes 2",
]


@pytest.mark.parametrize("lines", [LINES, LINES[::-1], LINES[:1], LINES[2:]])
def test_a_page_and_a_checklist_report_one_answer(study, lines):
    page, reports, _ = study(*lines)
    assert page.lead == STATEMENTS["question"].of(reports)
    (of,) = reports.reported
    assert page.lead[0].startswith(f"toys: {of.contender.model} - ")
    assert of.contender.first.row.answered.shots is None


def test_numbers_stand_beside_how_many_were_looked_at(study):
    _, reports, contenders = study(*LINES)
    (of,) = reports.reported
    (said,) = STATEMENTS["internal"].of(reports)
    assert re.fullmatch(r"auc \d.\d+ \[.*\] on test \(.*(best|one) of 10 looked at.*\)", said)
    page = page_of_checklist(find_checklist("claim2024"), reports)
    performance = next(t for t in page.tables if t.title == "Performance")
    assert performance.below == (f"toys: {of.standing}",)
    assert "by these rows: 10 answers, 2 encoders" in " ".join(STATEMENTS["robustness"].of(reports))
    assert STATEMENTS["ledger"].of(reports) == (
        "test was asked 10 questions: its best is a best of 10",
    )
    some = report_on(contenders[:3], "auc", reports.record, reports.people)
    few = Reports(tuple(some), reports.record, reports.people, "auc")
    assert "10 questions, 3 of them by the rows" in STATEMENTS["ledger"].of(few)[0]


def test_one_answer_alone_says_how_many_were_looked_at(study):
    _, reports, contenders = study("--kind linear", "--kind knn --k 5")
    asked = contenders[:1], "auc", reports.record, reports.people
    assert report_on(*asked)[0].why == ONE_OF.format(4)
    assert report_on(*asked)[0].why != ALONE


def test_means_say_of_what(study):
    _, reports, _ = study("--kind linear --shots 5 --episodes 2")
    (said,) = STATEMENTS["internal"].of(reports)
    assert "on test, mean of 2 episodes of 5 shots (" in said
    _, reports, contenders = study("--kind linear --split kfold:3")
    folds = [c for c in contenders if c.is_of_folds]
    found = report_on(folds, "auc", reports.record, reports.people)
    (said,) = STATEMENTS["internal"].of(
        Reports(tuple(found), reports.record, reports.people, "auc")
    )
    assert re.search(r" ± \d.\d+ on test, mean ± standard deviation of 3 folds or sites \(", said)


def test_patients_are_no_rivals_of_images(study):
    _, reports, contenders = study("--kind linear", "--kind linear --aggregate patient")
    images = [c for c in contenders if not c.field("measured")]
    head = headline(images, ("auc",), reports.record)
    assert head.standing == "chosen on val"
    assert {c.field("measured") for c in (head.a, head.b)} == {None}
