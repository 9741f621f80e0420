"""LaTeX: what it looks like without TeX, and that it compiles where one is there."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from tabling import hostile_page, usual_page

from probe.report.formats import latex
from probe.report.formats.cells import Cell, Column, Page, Table
from probe.report.formats.write import write

PAGES = pytest.mark.parametrize("page", [usual_page(), hostile_page()], ids=["usual", "hostile"])


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50 % & #1_{x}", r"50 \% \& \#1\_\{x\}"),
        (r"\input{a}", r"\textbackslash{}input\{a\}"),
        ("a~b^c", r"a\textasciitilde{}b\textasciicircum{}c"),
        ("$x$ < y > z | w", r"\$x\$ $<$ y $>$ z $|$ w"),
        ("--by, ''x''", "-{}-by, '{}'x'{}'"),
        ("?`", "?{}`{}"),
        ('"x"', r"{\char34}x{\char34}"),
        ("Müller, Łódź, ç", r"M\"{u}ller, \L{}\'{o}d\'{z}, \c{c}"),
        ("e\u0301 \u1ec7", r"\'{e} \^{\d{e}}"),
        ("± ≥ µ", r"$\pm$ $\geq$ $\mu$"),
        ("中", "[U+4E2D]"),
        ("a\nb\x1b", r"a\textbackslash{}nb\textbackslash{}x1b"),
    ],
)
def test_texts_are_printed_as_they_are(text, written):
    assert latex.escape(text) == written


@PAGES
def test_it_is_ascii_with_balanced_braces_and_environments(page):
    text = write(page, "latex")
    assert text.isascii()
    bare = re.sub(r"\\[\\{}%]", "", re.sub(r"(?m)^%.*$", "", text))
    assert "%" not in bare
    assert bare.count("{") == bare.count("}")
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert len(re.findall(r"(?<!\\)\$", bare)) % 2 == 0
    for name in ("table", "tabular", "minipage"):
        n = text.count(f"\\begin{{{name}}}")
        assert n == text.count(f"\\end{{{name}}}") > 0


@PAGES
def test_tabulars_are_rectangular(page):
    found = re.findall(
        r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}(.*?)\\end", write(page, "latex"), re.S
    )
    assert len(found) == len(page.tables)
    for (shape, body), table in zip(found, page.tables, strict=True):
        assert len(shape) == len(table.columns)
        rows = [row for row in body.splitlines() if row.endswith(r" \\")]
        assert len(rows) == len(table.rows) + 1 + bool(table.spans())
        for row in rows:
            spans = re.findall(r"\\multicolumn\{(\d+)\}", row)
            n = len(re.findall(r"(?<!\\)&", row)) + 1 - len(spans) + sum(map(int, spans))
            assert n == len(shape)
            assert row.count(r"\\") == 1
            assert row[0] not in "*["  # which the row before would take for its own


@pytest.mark.parametrize("text", ["*", "[1pt]"])
def test_a_row_isnt_read_as_of_the_one_before(text):
    table = Table((Column("a"),), ((Cell(text),),))
    assert f"\n{{}}{text} \\\\\n" in write(Page((table,)), "latex")
    below = Table((), (), below=("first", text))
    assert f"first \\\\\n{{}}{text}\n" in write(Page((below,)), "latex")


def test_rules_are_those_of_booktabs():
    text = write(usual_page(), "latex")
    assert text.startswith("% The preamble needs: \\usepackage{booktabs}\n")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"\cmidrule(lr){2-2}\cmidrule(lr){3-3}" in text


def test_each_table_has_the_notes_of_its_own_cells():
    tables = [
        Table((Column("a"),), ((Cell("x", notes=notes),),), title=str(notes))
        for notes in (("first",), ("first", "second"), ())
    ]
    parts = write(Page(tuple(tables)), "latex").split(r"\begin{table}")[1:]
    numbers = [re.findall(r"\\textsuperscript\{(\d)\}(\w+)", part) for part in parts]
    assert numbers == [[("1", "first")], [("1", "first"), ("2", "second")], []]


def pdflatex(folder, text, encoding):
    """Its log; asserts that it came to an end."""
    (folder / "page.tex").write_text(text, encoding="ascii")
    (folder / "paper.tex").write_text(
        f"\\documentclass{{article}}{encoding}\\usepackage{{booktabs}}\n"
        "\\begin{document}\\input{page}\\end{document}\n",
        encoding="ascii",
    )
    command = [
        "pdflatex",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-no-shell-escape",
        "paper",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    log = (folder / "paper.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    return log


WITH_TEX = pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
ENCODINGS = pytest.mark.parametrize(
    "encoding", ["", r"\usepackage[T1]{fontenc}"], ids=["OT1", "T1"]
)


@WITH_TEX
@ENCODINGS
def test_letters_compile(tmp_path, encoding):
    letters = "".join([*latex.LETTERS, *latex.SPECIAL, "äéîõūŏőåřçạḇė?`!`<<>>,,--''中"])
    table = Table((Column(letters),), ((Cell(letters),), (Cell(letters, is_marked=True),)))
    page = hostile_page()
    page = replace(page, tables=(*page.tables, table))
    log = pdflatex(tmp_path, write(page, "latex"), encoding)
    assert "unavailable" not in log
    assert "Missing character" not in log


@WITH_TEX
@ENCODINGS
def test_twelve_models_and_four_sets_fit_a_page(tmp_path, encoding):
    assert "Overfull" not in pdflatex(tmp_path, write(usual_page(), "latex"), encoding)
