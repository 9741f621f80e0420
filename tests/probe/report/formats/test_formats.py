"""Every format says the same: each is read back, and compared with the page cell by cell."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from tabling import ALONE, HOSTILE, SHARED, hostile_page, usual_page

from probe.report.formats import latex
from probe.report.formats.cells import (
    COUNT,
    P_VALUE,
    PLAIN,
    SHARE,
    SIGNED,
    UNIT,
    Cell,
    Column,
    Page,
    Span,
    Table,
    line,
    number,
    places,
    spaced,
    spread,
)
from probe.report.formats.write import FORMATS, write

NAN = math.nan


class Visible(HTMLParser):
    """What a browser shows, a line a table row or paragraph."""

    def __init__(self):
        super().__init__()
        self.text, self.tags, self.is_style = "", [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.is_style = tag == "style"
        self.text += {"sup": "[", "td": " ", "th": " "}.get(tag, "")

    def handle_endtag(self, tag):
        self.is_style = False
        self.text += {"sup": "]", "tr": "\n", "p": "\n", "li": "\n", "h1": "\n"}.get(tag, "")

    def handle_data(self, data):
        self.text += "" if self.is_style else data


def read_html(text):
    reader = Visible()
    reader.feed(text)
    return reader.text


def read_markdown(text):
    hidden = re.sub(r"\\(.)", lambda found: chr(0xE000 + ord(found[1])), text)
    hidden = re.sub(r"\*\*(.+?)\*\*", r"\1§", hidden)
    hidden = re.sub(r"(?<=\| )\*(.+?)\*(?= \|)", r"\1", hidden).replace("§", "*")
    hidden = re.sub(r"<sup>(.+?)</sup>", r"[\1]", hidden)
    assert not re.search("[<>`]", hidden)  # nothing is left that could be a tag or code
    return re.sub("[\ue000-\ue07f]", lambda found: chr(ord(found[0]) - 0xE000), hidden)


def read_rendered(text):
    """Markdown as a renderer of its own has it: rich's, without GitHub's autolinks."""
    markdown_it = pytest.importorskip("markdown_it")
    html = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    tags = {
        "h2",
        "h3",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "strong",
        "sup",
        "ol",
        "li",
    }
    reader = Visible()
    reader.feed(re.sub(">\n(?=<t[dh])", ">", html).replace("</strong>", "*</strong>"))
    assert {tag for tag, _ in reader.tags} <= tags | {"em"}
    return reader.text


def read_latex(text):
    """The text that TeX would set, by replacing what the writer may have written."""
    for command, shown in [
        (r"\\reportmarked\{((?:[^{}]|\{\})*)\}", r"\1*"),
        (r"\\reportinterval\{(.*?)\}\{(.*?)\}", r" [\1 \2]"),
        (r"\\,\{\\scriptsize\[--\]\}", " [-]"),
        (r"\\reportdeviation\{(.*?)\}", r" ± \1"),
        (r"\\textsuperscript\{(.*?)\}", r"[\1]"),
    ]:
        text = re.sub(command, shown, text)
    text = re.sub(r"\[U\+(\w+)\]", lambda found: chr(int(found[1], 16)), text)
    known = {*latex.SPECIAL, *latex.LETTERS, *"üóźÅé"} - {*"‘’“”—–"}  # noqa: RUF001
    letters = {latex._letter(x, " "): x for x in known}
    letters |= {"-{}": "-", "'{}": "'", "$-$": "-", "--": "-", "{}*": "*", "{}[": "["}
    longest_first = sorted(letters, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda m: letters[m[0]], text)


READERS = {
    "terminal": lambda text: text,
    "rendered": read_rendered,
    "html": read_html,
    "markdown": read_markdown,
    "latex": read_latex,
}


def pieces(cell, numbers):
    yield cell.shown + "*" * cell.is_marked
    if cell.is_number:
        yield spread(cell)
    yield from map(str, places(cell, numbers))


def stands_in_order(wanted, text):
    place = 0
    for piece in wanted:
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("page", [usual_page(), hostile_page()], ids=["usual", "hostile"])
def test_a_format_shows_every_number_note_and_mark(page, name):
    written = write(page, "markdown" if name == "rendered" else name)
    lines = READERS[name](written).splitlines()
    numbers, whole = page.numbered(), "\n".join(lines)
    for table in page.tables:
        for row in table.rows:
            wanted = [piece for cell in row for piece in pieces(cell, numbers)]
            assert any(stands_in_order(wanted, text) for text in lines), wanted
        for text in (table.title, *table.below, *(v for fact in table.above for v in fact)):
            assert line(text) in whole
        for column in table.columns:
            assert line(column.name) in whole
            assert line(column.over) in whole
    for text in (page.title, *page.lead, *page.notes, page.marked):
        assert line(text) in whole
    for note, n in numbers.items():
        found = [text for text in lines if text.rstrip("\\ ").endswith(line(note))]
        assert len(found) == 1 or name == "latex"  # there each table has its own
        assert found
        assert all(str(n) in text for text in found) or name in ("html", "rendered")
    assert sum(text.count("*") for text in lines) >= sum(
        cell.is_marked for table in page.tables for cell in table.cells()
    )


def test_html_is_ascii_whatever_it_says():
    text = write(Page((), title="\u4e2d é"), "html")
    assert text.isascii()
    assert "\u4e2d é" in read_html(text)


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_writes_moves_no_cursor_and_is_utf8(name):
    text = write(hostile_page(), name)
    assert text == text.encode("utf-8").decode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "page",
    [Page(()), Page((Table((), ()),)), Page((Table((Column("a"),), ()),)), Page((), title="alone")],
    ids=["nothing", "no columns", "no rows", "no tables"],
)
def test_pages_may_be_empty(page, name):
    assert write(page, name).endswith("\n")


def test_json_has_all_of_a_page_as_it_is():
    page = hostile_page()
    found = json.loads(write(page, "json"))
    assert (found["title"], found["lead"]) == (page.title, list(page.lead))
    assert found["notes"] == [ALONE, SHARED]
    assert found["remarks"] == list(page.notes)
    for table, data in zip(page.tables, found["tables"], strict=True):
        assert (data["title"], data["feet"]) == (table.title, table.feet)
        assert [(c["name"], c["over"]) for c in data["columns"]] == [
            (c.name, c.over) for c in table.columns
        ]
        for row, cells in zip(table.rows, data["rows"], strict=True):
            for cell, it in zip(row, cells, strict=True):
                for what in ("value", "low", "high", "sd"):
                    known = getattr(cell, what)
                    assert (what in it) == (known is not None)
                    if known is not None:
                        assert it[what] is None if math.isnan(known) else it[what] == known
                assert it.get("marked", False) == cell.is_marked
                assert [found["notes"][n - 1] for n in it.get("notes", [])] == sorted(
                    cell.notes, key=found["notes"].index
                )
                assert it["text"] == (cell.shown if cell.is_number else cell.text)


def read_csv(page):
    return list(csv.DictReader(io.StringIO(write(page, "csv"))))


def test_csv_is_a_line_a_row_with_numbers_unrounded():
    page = hostile_page()
    records = read_csv(page)
    assert len(records) == sum(len(table.rows) for table in page.tables)
    first, over = page.tables[0], line(HOSTILE[2])
    for row, record in zip(first.rows, records, strict=False):
        assert record["table"] == first.title
        assert record["size_px"] == "224 | 518 & more"
        auc, p = f"{over} auc [95 %]", row[3]
        for column, known in [
            (auc, row[1].value),
            (f"{auc} low", row[1].low),
            (f"{auc} high", row[1].high),
            (f"{over} auc sd", row[2].sd),
            ("p", p.value),
        ]:
            # As text, for nan is no other nan.
            written = record[column]
            assert written == "" if known is None else str(float(written)) == str(known)
        assert record[f"{auc} marked"] == str(row[1].is_marked).lower()
        assert record["p text"] == p.text
        assert record["summary"] == ("true" if row is first.rows[-1] else "")
        for cell in row:
            for note in cell.notes:
                assert line(note) in record["notes"]
        for text in (page.title, *page.lead, *first.below, *page.notes):
            assert line(text) in record["about"]
    last = records[-1]
    assert (last["n"], last["age"], last["age high"]) == ("1234567", "63.218", "99.123")
    assert (last["[who]"], last["[who] marked"]) == ("*starred", "true")


def test_csv_joins_what_tables_share_and_keeps_apart_what_one_has_twice():
    tables = (
        Table(
            (Column("model"), Column("auc")), ((Cell("a"), Cell(value=0.5)),), above=(("k", "5"),)
        ),
        Table(
            (Column("model"), Column("k"), Column("auc"), Column("auc"), Column("notes")),
            ((Cell("b"), Cell("7"), Cell(value=0.6), Cell(value=-0.0), Cell("x", notes=("n",))),),
        ),
    )
    first, second = read_csv(Page(tables))
    assert (first["k"], second["k"]) == ("5", "7")
    assert (first["auc"], second["auc"], second["auc 2"]) == ("0.5", "0.6", "0")
    assert (second["notes 2"], second["notes"]) == ("x", "notes 2: n")


def test_html_stands_alone_and_its_notes_are_linked():
    text = write(hostile_page(), "html")
    reader = Visible()
    reader.feed(text)
    tags = [tag for tag, _ in reader.tags]
    assert not {"script", "link", "img", "iframe", "i", "b", "u"} & {*tags} - {"b"}
    assert not re.search(r"https?:|url\(|@import|javascript:", re.sub(r">[^<]*<", "><", text))
    links = {a["href"].removeprefix("#") for tag, a in reader.tags if tag == "a"}
    ids = [a["id"] for tag, a in reader.tags if tag == "li"]
    assert links == {*ids}
    assert len(ids) == len({*ids}) == 2


@pytest.mark.parametrize("page", [usual_page(), hostile_page()], ids=["usual", "hostile"])
def test_html_tables_are_rectangular(page):
    parts = re.findall("<table>.*?</table>", write(page, "html"), re.DOTALL)
    for part, table in zip(parts, page.tables, strict=True):
        rows = re.findall("<tr>.*?</tr>", part)
        assert len(rows) == len(table.rows) + 1 + bool(table.spans())
        for row in rows:
            spans = [int(n) for n in re.findall('colspan="(\\d+)"', row)]
            alone = re.findall("<t[hd](?![^>]*colspan)", row)
            assert sum(spans) + len(alone) == len(table.columns)


def test_markdown_tables_are_rectangular():
    for block in write(hostile_page(), "markdown").split("\n\n"):
        rows = [row for row in block.splitlines() if row.startswith("|")]
        bars = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}
        assert len(bars) < 2


def test_markdown_paragraphs_begin_no_list():
    text = write(hostile_page(), "markdown")
    assert "\n\\- Exploratory" in text
    assert "\n1\\. not a list" in text
    assert text.startswith("## \\# Page")


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.93749, SHARE, "0.937"),
        (-0.0004, SHARE, "0.000"),
        (0.0412, SIGNED, "+0.041"),
        (-0.0412, SIGNED, "-0.041"),
        (0.0004, SIGNED, "0.000"),
        (1234567.0, COUNT, "1234567"),
        (63.218, UNIT, "63.22"),
        (0.00049, P_VALUE, "<0.001"),
        (0.0005, P_VALUE, "0.001"),
        (1.0, P_VALUE, "1.000"),
        (0.0, P_VALUE, "<0.001"),
        (0.25, PLAIN, "0.25"),
        (math.inf, PLAIN, "inf"),
        *((NAN, form, "-") for form in (SHARE, SIGNED, UNIT, COUNT, P_VALUE, PLAIN)),
    ],
)
def test_numbers_as_text(value, form, text):
    assert number(value, form) == text


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(value=0.9), ""),
        (Cell(value=0.9, low=0.8, high=0.95), "[0.800 0.950]"),
        (Cell(value=0.9, low=NAN, high=NAN), "[-]"),
        (Cell(value=0.9, low=NAN, high=0.95), "[- 0.950]"),
        (Cell(value=NAN, low=NAN, high=NAN), ""),
        (Cell(value=0.9, sd=0.01, low=0.8, high=0.95), "± 0.010 [0.800 0.950]"),
        (Cell(value=0.9, sd=NAN), "± -"),
        (Cell(value=-0.1, sd=0.01, form=SIGNED), "± 0.010"),
        (Cell(value=12, sd=1.25, form=COUNT), "± 1.25"),
    ],
)
def test_spreads_as_text(cell, text):
    assert spread(cell) == text


def test_a_text_stands_in_its_numbers_place():
    cell = Cell("refused", value=0.5)
    assert cell.shown == "refused"
    assert Cell(value=0.5).shown == "0.500"


def test_tables_are_rectangular():
    with pytest.raises(ValueError, match="1 cells in a row, 2 columns"):
        Table((Column("a"), Column("b")), ((Cell(),),))
    with pytest.raises(ValueError, match="2 feet, 1 rows"):
        Table((Column("a"),), ((Cell(),),), feet=2)


def test_neighbours_share_a_heading():
    columns = [Column("m"), Column("a", "x"), Column("b", "x"), Column("c", "y"), Column("d", "x")]
    table = Table(tuple(columns), ())
    assert table.spans() == [
        Span("", 0, 1),
        Span("x", 1, 2),
        Span("y", 3, 1),
        Span("x", 4, 1),
    ]
    assert Table(tuple(columns[:1]), ()).spans() == []


def test_notes_are_numbered_as_they_are_met():
    assert hostile_page().numbered() == {ALONE: 1, SHARED: 2}


def test_no_format_is_loaded_before_it_writes():
    code = (
        "import sys\nfrom probe.report.formats.write import FORMATS\n"
        "print(*[n for n in sys.modules if n.startswith('probe.report.formats.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ["probe.report.formats.cells", "probe.report.formats.write"]
    assert sorted(found.stdout.split()) == loaded


def test_prose_wraps_where_lines_can_be_broken():
    text = "a sentence that is far too long for one line of any table that people read on a screen"
    columns = (Column("item"), Column("said"), Column("n", is_right=True))
    page = Page((Table(columns, ((Cell("1"), Cell(text), Cell(value=0.5)),)),))
    assert f'<td class="prose">{text}</td>' in write(page, "html")
    assert "{@{}lp{0.70\\linewidth}r@{}}" in write(page, "latex")
    assert (
        "prose"
        not in write(Page((Table(columns[:1], ((Cell("short"),),)),)), "html").split("<body>")[1]
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("8 of 1_214", "8 of 1\u202f214"),
        ("n 1_234_567.", "n 1\u202f234\u202f567."),
        ("scan_1_214, v1_214, 1_214.png, 1_21", "scan_1_214, v1_214, 1_214.png, 1_21"),
    ],
)
def test_thousands_have_a_narrow_space_and_names_stay(text, shown):
    assert spaced(text) == shown
