"""A page as Markdown of GitHub (GFM): a table each, marked numbers bold, notes a numbered list.

GFM has no shared headings and no rules between rows: a column has both its headings, and rows that
sum up the others begin with a text in italics.
"""

import re

from probe.report.formats.cells import Cell, Page, Table, line, places, spread

# What could begin emphasis, code, a link, a tag, an entity, a formula or a new column; CommonMark 2.4
# lets each stand behind a backslash. "_" within a word does nothing (6.2), and names are full of it.
SPECIAL = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# What makes a list or a rule of a paragraph that begins with it.
LEADING = re.compile(r"^\d*(?=[.)+-])")


def write(page: Page) -> str:
    """A page as Markdown."""
    numbers = page.numbered()
    parts = [f"## {escape(page.title)}"] if page.title else []
    parts += [paragraph(text) for text in page.lead]
    for table in page.tables:
        parts += _table(table, numbers)
    if page.has_marks:
        parts.append(f"**Bold**: {escape(page.marked)}.")
    if numbers:
        parts.append("\n".join(f"{n}. {paragraph(note)}" for note, n in numbers.items()))
    parts += [paragraph(note) for note in page.notes]
    return "\n\n".join(parts) + "\n"


def _table(table: Table, numbers: dict[str, int]) -> list[str]:
    parts = [f"### {escape(table.title)}"] if table.title else []
    parts += [paragraph(table.facts)] if table.above else []
    if table.columns:
        lines = [[escape(column.whole) for column in table.columns]]
        lines.append(["---:" if column.is_right else ":---" for column in table.columns])
        for i, row in enumerate(table.rows):
            lines.append([_cell(cell, numbers, i >= table.n_body) for cell in row])
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return parts + [paragraph(text) for text in table.below]


def _cell(cell: Cell, numbers: dict[str, int], is_foot: bool) -> str:
    text = escape(cell.shown).strip()
    if text and cell.is_marked:
        text = f"**{text}**"
    elif text and is_foot and not cell.is_number:
        text = f"*{text}*"
    if cell.is_number and (behind := spread(cell)):
        text += f" {behind}"
    if cell.notes:
        text += f"<sup>{', '.join(map(str, places(cell, numbers)))}</sup>"
    return text


def escape(text: str) -> str:
    """A text in a line, without any meaning to Markdown or HTML."""
    return SPECIAL.sub(r"\\\g<0>", line(text))


def paragraph(text: str) -> str:
    """A text that is a paragraph, whatever it begins with."""
    return LEADING.sub(r"\g<0>\\", escape(text).strip())
