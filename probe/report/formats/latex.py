"""A page as LaTeX: a table of booktabs each, in ASCII, that needs no other package.

Marked numbers are bold; the ends of an interval stand behind its number, small, one above the other,
so that four data sets fit a page's column. Both are commands, which an author may define otherwise
before the file is read. Each table has the notes that its cells name, for a float may stand on a
page of its own; their numbers are the page's.
"""

import unicodedata
from collections.abc import Iterator, Sequence

from probe.report.formats.cells import Cell, Page, Table, deviation, interval, line, places

PREAMBLE = r"""% The preamble needs: \usepackage{booktabs}
% What marks, intervals and standard deviations look like; define them before to change it.
\providecommand{\reportmarked}[1]{\textbf{#1}}
\providecommand{\reportinterval}[2]{\,$^{#2}_{#1}$}
\providecommand{\reportdeviation}[1]{\,{\scriptsize$\pm$#1}}"""
INTERVALS = "Small, below and above: the ends of a number's interval"
END = r" \\"  # of a row
PROSE_SHARE = 0.7  # of a line, that columns of prose take together

# Characters that mean something to TeX, or that its oldest fonts (OT1) have elsewhere.
SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: f"${letter}$" for letter in "<>|"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    '"': r"{\char34}",
    "`": "{}`{}",  # else "?`" is a question mark upside down
}
LIGATURES = "-',"  # two of one in a row would be another letter
# Beyond ASCII: what both OT1 and T1 have, and a formula otherwise.
LETTERS = {
    **{"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}"},
    **{"ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}"},  # noqa: RUF001
    **{"±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "−": "$-$", "≤": r"$\leq$"},  # noqa: RUF001
    **{"≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$"},
    **{"°": r"$^{\circ}$", "µ": r"$\mu$", "κ": r"$\kappa$", "τ": r"$\tau$", "Δ": r"$\Delta$"},
    **{"–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}"},  # noqa: RUF001
    **{"\u00a0": "~", "\u2009": r"\,"},
}
# Combining accents (Unicode, 0300 to 036F) -> the command of both encodings.
ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u"},
    **{"\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v"},
    **{"\u0323": "d", "\u0327": "c", "\u0331": "b"},
}


def write(page: Page) -> str:
    """A page as LaTeX to be read by ``\\input``."""
    return "\n".join(_lines(page))


def _lines(page: Page) -> Iterator[str]:
    numbers = page.numbered()
    yield PREAMBLE
    for text in (page.title, *page.lead):
        if text:
            yield f"\n\\noindent {escape(text)}\\par"
    for table in page.tables:
        yield ""
        yield from _table(page, table, numbers)
    for note in page.notes:
        yield f"\n\\noindent {escape(note)}\\par"


def _table(page: Page, table: Table, numbers: dict[str, int]) -> Iterator[str]:
    yield r"\begin{table}[htbp]"
    stretch = r"\renewcommand{\arraystretch}{1.3}" if _has_intervals(table) else ""
    yield rf"\centering\footnotesize\setlength{{\tabcolsep}}{{3pt}}{stretch}"
    title, facts = escape(table.title), escape(table.facts)
    if title or facts:
        caption = f"{title} ({facts})" if title and facts else title or facts
        yield f"\\caption{{{caption}.}}\\vspace{{4pt}}"  # article has no room below it
    if table.columns:
        shape = "".join(_shapes(table))
        yield f"\\begin{{tabular}}{{@{{}}{shape}@{{}}}}\n\\toprule"
        yield from _over(table)
        yield _row([escape(column.name) for column in table.columns])
        for i, row in enumerate(table.rows):
            if i in (0, table.n_body):
                yield r"\midrule"
            yield _row([_cell(cell, numbers) for cell in row])
        yield "\\bottomrule\n\\end{tabular}"
    if below := list(_below(page, table, numbers)):
        yield r"\par\smallskip\begin{minipage}{\linewidth}\raggedright\footnotesize"
        yield " \\\\\n".join(map(_guarded, below))
        yield r"\end{minipage}"
    yield r"\end{table}"


def _shapes(table: Table) -> Iterator[str]:
    """Of each column; those of prose share what they leave of the line."""
    is_prose = [any(row[i].is_prose for row in table.rows) for i in range(len(table.columns))]
    width = PROSE_SHARE / max(1, sum(is_prose))
    for column, has_prose in zip(table.columns, is_prose, strict=True):
        prose = rf"p{{{width:.2f}\linewidth}}"
        yield prose if has_prose else "r" if column.is_right else "l"


def _over(table: Table) -> Iterator[str]:
    if spans := table.spans():
        yield _row(
            [f"\\multicolumn{{{s.n}}}{{{'lc'[s.n > 1]}}}{{{escape(s.over)}}}" for s in spans]
        )
        ends = [f"{{{s.start + 1}-{s.start + s.n}}}" for s in spans if s.over]
        yield "".join(f"\\cmidrule(lr){end}" for end in ends)


def _below(page: Page, table: Table, numbers: dict[str, int]) -> Iterator[str]:
    yield from map(escape, table.below)
    if any(cell.is_marked for cell in table.cells()):
        yield f"\\reportmarked{{Bold}}: {escape(page.marked)}"
    if _has_intervals(table):
        yield INTERVALS
    named = {note for cell in table.cells() for note in cell.notes}
    for note, n in numbers.items():
        if note in named:
            yield f"\\textsuperscript{{{n}}}{escape(note)}"


def _has_intervals(table: Table) -> bool:
    return any(" " in interval(cell) for cell in table.cells())


def _row(cells: Sequence[str]) -> str:
    return _guarded(" & ".join(cells)) + END


def _guarded(text: str) -> str:
    """TeX would read a star or a bracket behind the last line's end as belonging to that."""
    return "{}" + text if text[:1] in ("*", "[") else text


def _cell(cell: Cell, numbers: dict[str, int]) -> str:
    text = escape(cell.shown)
    if cell.is_number and text.startswith("-"):
        text = f"$-${text[1:]}" if text != "-" else "--"
    if cell.is_marked:
        text = f"\\reportmarked{{{text}}}"
    if cell.is_number:
        text += f"\\reportdeviation{{{deviation(cell)}}}" if deviation(cell) else ""
        text += _interval(cell)
    if found := places(cell, numbers):
        text += f"\\textsuperscript{{{','.join(map(str, found))}}}"
    return text


def _interval(cell: Cell) -> str:
    ends = interval(cell).split()
    if len(ends) < 2:  # none, or none that covers
        return r"\,{\scriptsize[--]}" if ends else ""
    return "\\reportinterval{{{}}}{{{}}}".format(*ends)  # in a formula: "-" is a minus


def escape(text: str) -> str:
    """A text as ASCII that TeX prints as it is.

    A letter that no usual font of TeX has stands as its code point, as "[U+4E2D]".
    """
    text = unicodedata.normalize("NFC", line(text))
    return "".join(map(_letter, text, f"{text[1:]} "))


def _letter(letter: str, following: str) -> str:
    if letter in LIGATURES and following == letter:
        return f"{letter}{{}}"
    if letter in SPECIAL or letter in LETTERS:
        return SPECIAL.get(letter) or LETTERS[letter]
    if letter.isascii():
        return letter
    base, *accents = unicodedata.normalize("NFD", letter)
    if base.isascii() and base.isalpha() and accents and all(a in ACCENTS for a in accents):
        for accent in accents:
            base = f"\\{ACCENTS[accent]}{{{base}}}"
        return base
    return f"[U+{ord(letter):04X}]"
