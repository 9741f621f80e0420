"""Tables on a terminal: aligned, never wider than it, and whole lines anywhere else."""

import re
from dataclasses import replace

import pytest
from tabling import hostile_page, usual_page

from probe.report.formats import terminal
from probe.report.formats.cells import Cell, Column, Page, Table, spread
from probe.report.formats.write import write


def widths(text):
    return [terminal._columns(row) for row in text.splitlines()]


def test_a_pipe_gets_whole_lines():
    text = terminal.write(hostile_page(), 0)
    assert max(widths(text)) > 150
    assert sum(row.startswith("lacking") for row in text.splitlines()) == 1
    assert "…" not in text


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(widths(terminal.write(usual_page(), width))) <= width


@pytest.mark.parametrize(("width", "n_with_feet"), [(60, 2), (80, 2), (100, 2)])
def test_parts_repeat_the_leading_columns_and_hold_each_number_once(width, n_with_feet):
    page = usual_page()
    text = terminal.write(page, width)
    n_parts = text.count("dinov2-b14")
    assert n_parts > 1
    for row in page.tables[0].rows:
        is_foot = row is page.tables[0].rows[-1]  # says nothing of a part with other columns
        assert text.count(row[0].text) == (n_with_feet if is_foot else n_parts)
        for cell in row[1:]:
            assert re.search(rf"{re.escape(cell.shown)}\*? *{re.escape(spread(cell))}", text)
    assert text.count("Family") == text.count("[1] few") == 1


def test_names_are_cut_where_that_is_enough_and_never_to_the_same():
    name = "vit_base_patch16_224.augreg2_in21k_ft_in1k_and_more"
    columns = (Column("model"), Column("auc"))
    alike = [f"{name[:20]}{letter}{name[21:]}" for letter in "ab"]

    def page(names):
        return Page((Table(columns, tuple((Cell(n), Cell(value=0.5)) for n in names)),))

    short = terminal.write(page([name, f"{name}_x"]), 40)
    assert max(widths(short)) <= 40
    assert short.count("…") == 2
    assert len({*short.splitlines()}) == len(short.splitlines())
    assert all(n in terminal.write(page(alike), 40) for n in alike)


def test_names_are_cut_before_a_table_is_broken():
    cells = *(Cell(value=0.5, low=0.4, high=0.6) for _ in range(3)), Cell("text")
    names = [f"{letter}-{'x' * 40}" for letter in "ab"]
    table = Table(
        tuple(map(Column, ["model", *"abcd"])), tuple((Cell(name), *cells) for name in names)
    )
    text = terminal.write(Page((table,)), 90)
    assert len(text.splitlines()) == 4
    assert "…" in text
    narrow = terminal.write(Page((table,)), 70)  # where cutting isn't enough, names stay whole
    assert "…" not in narrow
    assert narrow.count(names[0]) > 1


def test_feet_stand_below_a_rule():
    rows = terminal.write(usual_page(), 0).splitlines()
    at = next(i for i, row in enumerate(rows) if row.startswith("test images"))
    assert rows[at - 1] == rows[at - 14]
    assert set(rows[at - 1]) == {"-", " "}


def test_shared_headings_stand_above_their_columns():
    rows = terminal.write(usual_page(), 0).splitlines()
    at = next(i for i, row in enumerate(rows) if row.lstrip().startswith("breastmnist"))
    for name in ("breastmnist", "organamnist"):
        place = rows[at].index(name)
        assert rows[at + 1][place - 1 : place + 2] == " --"
        assert rows[at + 2][place:].startswith("AUC")
        assert re.match(r"0\.\d{3}.? \[", rows[at + 4][place:].replace("*", " "))


def test_a_heading_longer_than_its_columns_is_whole():
    table = Table((Column("m"), Column("a", "a-long-data-set")), ((Cell("x"), Cell(value=1)),))
    text = terminal.write(Page((table,)), 0)
    assert "   a-long-data-set\n   ---------------\nm  a\n-  ---------------\nx  1.000\n" in text


def test_brackets_and_notes_stand_below_each_other():
    cells = (
        Cell(value=0.5, low=0.1, high=0.9, is_marked=True, notes=("n",)),
        Cell(value=12.25, low=0.1, high=10.5),
        Cell("none here"),
    )
    table = Table((Column("auc"),), tuple((cell,) for cell in cells))
    shown = terminal.write(Page((table,)), 0).splitlines()[2:5]
    assert shown == [" 0.500* [0.100 0.900]  [1]", "12.250  [0.100 10.500]", "none here"]
    right = replace(table, columns=(Column("auc", is_right=True),))
    shown = terminal.write(Page((right,)), 0).splitlines()[2:5]
    assert shown[1] == "12.250  [0.100 10.500]"
    assert shown[2].endswith("none here")


def test_east_asian_letters_take_two_columns():
    table = Table(
        (Column("m"), Column("n")), ((Cell("中文"), Cell("x")), (Cell("abcde"), Cell("y")))
    )
    shown = terminal.write(Page((table,)), 0).splitlines()[2:]
    assert shown == ["中文   x", "abcde  y"]


def test_a_terminal_is_asked_for_its_width(monkeypatch):
    monkeypatch.setattr(terminal, "terminal_width", lambda: 80)
    assert write(usual_page(), "terminal") == terminal.write(usual_page(), 80)
