"""Checklists: the items that the papers number, and a page in which every one of them stands."""

import re

import pytest
from golden import make_toy
from probing import answered, rows
from reporting import answered as reported
from reporting import refused, run

from cache.errors import RequestError
from probe.report.pages.checklist import AUTHOR, UNKNOWN
from probe.report.pages.statements import STATEMENTS
from probe.report.published.checklists import CHECKLISTS, find_checklist

NAMES = [checklist.name for checklist in CHECKLISTS]
# The main items, and how many lines their parts make.
SIZES = {"claim2024": (44, 44), "tripod-ai": (27, 52), "stard-ai": (40, 48)}


@pytest.fixture
def words(places, capsys):
    """What names the folders of rows of two data sets, one of them external."""
    for seed, dataset in enumerate(("toys", "others"), start=1):
        make_toy(*(places[0], dataset, "binary-class"), seed=seed, n=(80, 40, 80), patients=True)
    answered(capsys, "--kind linear --data toys")
    answered(capsys, "--kind linear --train-data toys --test-data others --test-split test")
    return ["--results", places[1], "--features", places[0]]


def items_of(text):
    """Each item's number -> the cells of its line."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): cells[1:] for cells in lines if re.fullmatch(r"\d+[a-g]?", cells[0])}


@pytest.mark.parametrize("name", NAMES)
def test_items_are_numbered_as_in_the_paper(name):
    items = find_checklist(name).items
    main = list(dict.fromkeys(int(re.sub(r"\D", "", item.number)) for item in items))
    assert main == list(range(1, SIZES[name][0] + 1))
    assert len({item.number for item in items}) == len(items) == SIZES[name][1]
    for item in items:
        assert item.author or item.findings
        assert set(item.findings) <= set(STATEMENTS)
        assert item.topic
        assert item.section


def test_parts_of_items_are_those_of_the_papers():
    tripod = {item.number for item in find_checklist("tripod-ai").items}
    assert {"3c", "9c", "12g", "18f", "20c", "23b", "27c"} <= tripod
    assert not tripod & {"3d", "12h", "18g", "23c", "22a"}
    stard = {item.number for item in find_checklist("stard-ai").items}
    assert {"15d", "16c", "17b", "26b", "40b"} <= stard
    assert not stard & {"15e", "16d", "17c", "40c"}


def test_an_unknown_checklist_is_refused_by_name():
    with pytest.raises(RequestError, match="no checklist 'x'; there are claim2024, tripod-ai"):
        find_checklist("x")


@pytest.mark.parametrize("name", NAMES)
def test_every_item_stands_in_the_page(words, capsys, name):
    text = reported(capsys, "checklist", name, *words, "--prevalence", "0.1")
    found = items_of(text)
    assert list(found) == [item.number for item in find_checklist(name).items]
    for item in find_checklist(name).items:
        topic, said, people = found[item.number]
        assert topic == item.topic
        assert bool(said.strip()) == bool(item.findings)
        assert (AUTHOR in people) == bool(item.author or said == UNKNOWN)
    # What items point to is there.
    titles = set(re.findall(r"^### (.*)$", text, re.M))
    pointed = {t for cells in found.values() for t in re.findall(r'"([A-Z][^"]*)"', cells[1])}
    assert pointed
    assert {t for t in pointed if " > " not in t} <= titles


def test_the_page_tells_what_rows_and_files_know(words, capsys):
    text = reported(capsys, "checklist", "stard-ai", *words, "--prevalence", "0.1")
    for title in (
        *("Model", "Flow", "Characteristics", "Leaks", "Performance"),
        *("Thresholds and 2 x 2 counts", "Calibration", "Calibration curve"),
        *("Confusion matrix of toys", "Wrong answers by stratum"),
        *("External test: performance", "External test: thresholds and 2 x 2 counts"),
        *("External test: calibration", "Smallest differences", "Ledger", "Software"),
    ):
        assert f"\n### {title}\n" in text
    found = items_of(text)
    assert "40 patients with 80 samples; intervals are over patients" in found["18"][1]
    assert "at prevalence 0.1 PPV" in text
    assert "threshold: largest Youden's J on val" in text
    assert "no external" not in text
    assert "| toys | train | 80 | 80 | 40 | 0 |" in text


def test_the_numbers_are_those_of_the_other_commands(words, capsys):
    """What `decide`, `ledger` and a table of rows say of the same rows."""
    text = reported(capsys, "checklist", "claim2024", *words)
    ledger = reported(capsys, "ledger", "--results", words[1], "--format", "markdown")
    for line in ledger.splitlines():
        if line.startswith(("| toys", "| others")):
            assert line in text
    decided = reported(capsys, "decide", "--data", "toys", *words, "--format", "markdown")
    (auc,) = (line for line in decided.splitlines() if line.startswith("| toys | auc"))
    assert re.sub("<sup>.*?</sup>", "", auc) in re.sub("<sup>.*?</sup>", "", text)
    for row in rows(words[1]):
        for name, of in row["metrics"].items():
            assert f"| {name} |" in text
            if of["low"] is not None:
                assert f"| {of['value']:.3f} [{of['low']:.3f} {of['high']:.3f}] |" in text


def test_without_external_rows_that_is_said(words, capsys):
    text = reported(capsys, "checklist", "claim2024", *words, "--data", "toys")
    assert "no external test set among these rows" in items_of(text)["33"][1]
    assert "External test:" not in text


def test_what_a_checklist_cannot_be_of_is_refused(words, capsys):
    assert "between 0 and 1" in refused(
        capsys, "checklist", "claim2024", *words, "--prevalence", "2"
    )
    assert "two classes" in refused(capsys, "checklist", "claim2024", *words, "--positive", "x")
    assert "no such row" in refused(capsys, "checklist", "claim2024", *words, "--data", "x")


def test_margins_have_thresholds_and_no_calibration(words, capsys):
    answered(capsys, "--kind ridge --data toys")
    text = reported(capsys, "checklist", "claim2024", *words, "--data", "toys", "--kind", "ridge")
    assert "### Thresholds and 2 x 2 counts" in text
    assert "### Calibration" not in text
    assert "no calibration: scores are margin, no probabilities" in items_of(text)["38"][1]


def test_numbers_have_no_classes_and_no_threshold(places, capsys):
    make_toy(places[0], "ages", "regression", seed=1, n=(60, 30, 60))
    answered(capsys, "--kind ridge --data ages")
    status, text, _ = run(
        capsys, "checklist", "tripod-ai", "--results", places[1], "--features", places[0]
    )
    assert status == 0
    assert "Thresholds" not in text
    assert "### Performance" in text


def test_a_file_is_written_whole_and_in_other_formats(words, capsys, tmp_path):
    path = tmp_path / "claim.md"
    assert reported(capsys, "checklist", "claim2024", *words, "-o", path) == ""
    assert path.read_text().startswith("## CLAIM, 2024 update: ")
    for form in ("html", "latex", "csv", "json"):
        assert AUTHOR in reported(capsys, "checklist", "claim2024", *words, "--format", form)
