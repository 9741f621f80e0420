"""A page as plain text for a terminal, a pipe or a log: aligned, one line a table row.

A terminal gets lines that fit it. Prose is wrapped. In a table that is too wide, long texts are cut
in the middle, to SHORTEST letters at least and never so that two become one. Where that isn't
enough the table stands in parts, each of which repeats the leading text columns (whole, where a
part has room). What goes elsewhere gets whole lines, as `grep` wants them.
"""

import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from cache.commands.terminal import terminal_width
from probe.report.formats.cells import Cell, Page, Table, line, places, spread

MARK = "*"  # behind a marked number
GAP = "  "
SHORTEST = 16  # letters that a text is cut to at most: two ends that still tell most names apart


def write(page: Page, width: int | None = None) -> str:
    """A page as lines.

    Args:
        page: what is printed.
        width: columns of the terminal; 0 where lines may have any length; None: found out.
    """
    width = terminal_width() if width is None else width
    numbers = page.numbered()
    head = [_wrap(text, width) for text in (page.title, *page.lead) if text]
    tables = ["\n".join(_table(table, numbers, width)) for table in page.tables]
    below = [_wrap(f"{MARK} {page.marked}", width, "  ")] if page.has_marks else []
    for note, number in numbers.items():
        label = f"[{number}] "
        below.append(_wrap(label + line(note), width, " " * len(label)))
    below += [_wrap(note, width) for note in page.notes]
    return "\n\n".join(part for part in ["\n".join(head), *tables, "\n".join(below)] if part) + "\n"


def _table(table: Table, numbers: dict[str, int], width: int) -> Iterator[str]:
    for text in (table.title, table.facts):
        if text:
            yield _wrap(text, width)
    if table.columns:
        shapes = [_shape(table, place, numbers) for place in range(len(table.columns))]
        for span in table.spans():
            under = shapes[span.start : span.start + span.n]
            lacks = _columns(span.over) - _wide(under)
            if lacks > 0:
                under[-1].width += lacks
        for i, part in enumerate(_parts(table, shapes, width)):
            yield from [""] if i else []
            yield from _grid(table, shapes, part)
    for text in table.below:
        yield _wrap(text, width)


class _Shape:
    """A column's texts, those of numbers padded so that points, brackets and notes align.

    Args:
        heading: its own.
        is_right: whether it is flush right.
        is_text: no row above the feet has a number here.
        texts: one a row.
    """

    def __init__(self, heading: str, is_right: bool, is_text: bool, texts: Sequence[str]) -> None:
        self.heading, self.is_right, self.is_text = heading, is_right, is_text
        self.fill(texts)

    def fill(self, texts: Sequence[str]) -> None:
        """Have other texts, and be as wide as they are."""
        self.texts = texts
        self.width = max(map(_columns, [self.heading, *texts]))

    def padded(self, text: str) -> str:
        blank = " " * (self.width - _columns(text))
        return blank + text if self.is_right else text + blank


def _shape(table: Table, place: int, numbers: dict[str, int]) -> _Shape:
    column, cells = table.columns[place], [row[place] for row in table.rows]
    pieces = [_pieces(cell, numbers) for cell in cells]
    of_numbers = [p for p, cell in zip(pieces, cells, strict=True) if cell.is_number]
    widths = [max(map(len, piece)) for piece in zip(*of_numbers, strict=True)]
    texts = []
    for (shown, *rest), cell in zip(pieces, cells, strict=True):
        if cell.is_number:
            padded = [f"{piece:<{n}}" for piece, n in zip(rest, widths[1:], strict=True)]
            texts.append("".join([shown.rjust(widths[0]), *padded]))
        else:
            texts.append("".join([shown, *rest]))
    return _Shape(
        heading=line(column.name),
        is_right=column.is_right,
        is_text=not any(cell.is_number for cell in cells[: table.n_body]),
        texts=texts if column.is_right else [text.rstrip() for text in texts],
    )


def _pieces(cell: Cell, numbers: dict[str, int]) -> tuple[str, str, str, str]:
    """Number or text, mark, spread and notes."""
    behind = spread(cell) if cell.is_number else ""
    notes = "".join(f"[{n}]" for n in places(cell, numbers))
    return (
        cell.shown,
        MARK * cell.is_marked,
        behind and f" {behind}",
        notes and f" {notes}",
    )


def _wide(shapes: Sequence[_Shape]) -> int:
    """Columns that neighbours take."""
    return sum(shape.width for shape in shapes) + len(GAP) * (len(shapes) - 1)


def _shorten(shapes: Sequence[_Shape], fits: Callable[[], bool]) -> bool:
    """Cut long texts, a letter at a time, until the table fits. Say whether it does."""
    able = [shape for shape in shapes if shape.is_text]
    wholes = [shape.texts for shape in able]
    limit = max((shape.width for shape in able), default=0)
    while not fits() and limit > SHORTEST:
        limit -= 1
        for shape, whole in zip(able, wholes, strict=True):
            cut = [_cut(text, limit) for text in whole]
            if len(set(cut)) == len(set(whole)):
                shape.fill(cut)
    if fits():
        return True
    for shape, whole in zip(able, wholes, strict=True):
        shape.fill(whole)
    return False


def _cut(text: str, width: int) -> str:
    """A text of at most ``width`` columns without its middle: names differ at their ends."""
    if _columns(text) <= width:
        return text
    behind = (width - 1) // 2
    return f"{text[: width - 1 - behind]}…{text[len(text) - behind :]}"


def _parts(table: Table, shapes: Sequence[_Shape], width: int) -> list[list[int]]:
    """Places of the columns of each part: one part, or as many as fit each into the width.

    Each part begins with the leading text columns. Columns under one shared heading stay together
    where a part has room for all of them.
    """
    places = list(range(len(shapes)))

    def fits(part: Sequence[int]) -> bool:
        return _wide([shapes[i] for i in part]) <= width

    if not width or _shorten(shapes, lambda: fits(places)):
        return [places]
    lead = places[: next((i for i in places if not shapes[i].is_text), 1)]
    _shorten(shapes, lambda: all(fits([*lead, i]) for i in places[len(lead) :]))
    spans = [places[max(span.start, len(lead)) : span.start + span.n] for span in table.spans()]
    parts = [lead]
    for group in spans or [[i] for i in places[len(lead) :]]:
        for piece in [group] if fits(lead + group) else [[i] for i in group]:
            if parts[-1] != lead and not fits(parts[-1] + piece):
                parts.append(lead)
            parts[-1] = parts[-1] + piece
    return parts


def _grid(table: Table, shapes: Sequence[_Shape], part: Sequence[int]) -> Iterator[str]:
    shown = [shapes[i] for i in part]
    rule = GAP.join("-" * shape.width for shape in shown)
    if any(table.columns[i].over for i in part):
        yield from _over(table, shapes, part)
    yield GAP.join(shape.padded(shape.heading) for shape in shown).rstrip()
    yield rule
    feet = range(table.n_body, len(table.rows))
    if len(part) < len(shapes):  # what sums up columns of another part says nothing here
        feet = [i for i in feet if any(shape.texts[i].strip() for shape in shown[1:])]
    for i in (*range(table.n_body), *feet):
        if i in feet[:1]:
            yield rule
        yield GAP.join(shape.padded(shape.texts[i]) for shape in shown).rstrip()


def _over(table: Table, shapes: Sequence[_Shape], part: Sequence[int]) -> Iterator[str]:
    """Shared headings, each above a rule as wide as its columns."""
    above, rules = [], []
    for over, run in groupby(part, lambda i: line(table.columns[i].over)):
        neighbours = list(run)
        width = _wide([shapes[i] for i in neighbours])
        above.append(_cut(over, width).ljust(width))
        rules.append(("-" if over else " ") * width)
    yield GAP.join(above).rstrip()
    yield GAP.join(rules).rstrip()


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes: accents none, East Asian letters two."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def _wrap(text: str, width: int, indent: str = "") -> str:
    text = line(text)
    return textwrap.fill(text, max(width, 20), subsequent_indent=indent) if width else text
