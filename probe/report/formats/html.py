"""A page as one HTML document that stands alone: to send, to open from a disk, to print.

It has no scripts and asks nothing of any network, and says so to the browser. Every text is escaped.
Light or dark is the reader's setting; on paper it is dark on white. Marked numbers are bold with a
"*", so that neither colour nor a printer decides who is the best.
"""

from collections.abc import Iterator, Sequence
from html import escape

from probe.report.formats.cells import Cell, Page, Span, Table, line, places, spread

MARK = "*"
TABLES = """
.facts { display: inline-block; background: var(--fact); margin: 0 0 .75rem; padding: .3rem .6rem; border-radius: 4px; font-size: .9rem; }
.facts b { font-weight: normal; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
th, td { padding: .25rem .7rem; text-align: left; vertical-align: baseline; font-weight: normal; }
th[scope=row] { max-width: 22rem; min-width: 7rem; }
td { white-space: nowrap; }
td.prose { white-space: normal; min-width: 18rem; }
thead th { color: var(--soft); vertical-align: bottom; }
thead tr:last-child th { border-bottom: 1px solid var(--ink); }
th[scope=colgroup] { text-align: center; color: var(--ink); font-weight: 600; }
th.over { border-bottom: 1px solid var(--line); }
tbody tr:nth-child(even) { background: var(--fact); }
tfoot tr:first-child > * { border-top: 1px solid var(--ink); }
.right { text-align: right; }
.number { display: inline-block; min-width: 3.75em; }
sup { line-height: 0; }
.spread { color: var(--soft); font-size: .85em; }
"""  # of whatever page they stand on
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --line: #d1d9e0;
  --fact: #f6f8fa; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117;
  --line: #3d444d; --fact: #151b23; --link: #79c0ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
p, li, h1, h2, th[scope=row] { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; }
.lead { max-width: 46rem; margin: 0 0 .5rem; }
section { margin: 2rem 0; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
.below, footer { color: var(--soft); font-size: .875rem; max-width: 46rem; }
.below { margin: .5rem 0; }
footer { border-top: 1px solid var(--line); }
a { color: var(--link); text-decoration: none; }
li:target { background: var(--fact); outline: 2px solid var(--line); }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --line: #999; --fact: #fff;
  --link: #000; }
  body { margin: 0; max-width: none; font-size: 10pt; } table { font-size: 8pt; }
  th, td { padding: .15rem .25rem; } .wide { overflow: visible; } tr { break-inside: avoid; }
  h2, .facts { break-after: avoid; } @page { margin: 15mm; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(page: Page) -> str:
    """A page as a whole HTML document."""
    return "\n".join(_document(page))


def _document(page: Page) -> Iterator[str]:
    numbers = page.numbered()
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escaped(page.title or 'report')}</title>"
    yield f"<style>{TABLES}{STYLE}</style>\n</head>\n<body>"
    if page.title:
        yield f"<h1>{escaped(page.title)}</h1>"
    for text in page.lead:
        yield f'<p class="lead">{escaped(text)}</p>'
    for table in page.tables:
        yield "<section>"
        yield from section(table, numbers)
        yield "</section>"
    yield from footer(page, numbers)
    yield "</body>\n</html>"


def section(
    table: Table, numbers: dict[str, int], heading: str = "h2", prefix: str = "note"
) -> Iterator[str]:
    """A table with its title, and what stands above and below it.

    Args:
        table: to write.
        numbers: of the page's notes.
        heading: element of the title.
        prefix: of the ids of notes, as ``footer`` has it.
    """
    if table.title:
        yield f"<{heading}>{escaped(table.title)}</{heading}>"
    if table.above:
        facts = (f"<b>{escaped(name)}</b> {escaped(value)}" for name, value in table.above)
        yield f'<p class="facts">{", ".join(facts)}</p>'
    if table.columns:
        yield '<div class="wide"><table>\n<thead>'
        yield from _head(table)
        yield "</thead>"
        for tag, rows in [
            ("tbody", table.rows[: table.n_body]),
            ("tfoot", table.rows[table.n_body :]),
        ]:
            if rows:
                yield f"<{tag}>"
                yield from (_row(table, row, numbers, prefix) for row in rows)
                yield f"</{tag}>"
        yield "</table></div>"
    for text in table.below:
        yield f'<p class="below">{escaped(text)}</p>'


def _head(table: Table) -> Iterator[str]:
    if spans := table.spans():
        yield f"<tr>{''.join(map(_over, spans))}</tr>"
    names = (
        f'<th scope="col"{_right(column.is_right)}>{escaped(column.name)}</th>'
        for column in table.columns
    )
    yield f"<tr>{''.join(names)}</tr>"


def _over(span: Span) -> str:
    if not span.over:
        return f'<td colspan="{span.n}"></td>'
    return f'<th scope="colgroup" class="over" colspan="{span.n}">{escaped(span.over)}</th>'


def _row(table: Table, row: Sequence[Cell], numbers: dict[str, int], prefix: str) -> str:
    cells = []
    for place, (cell, column) in enumerate(zip(row, table.columns, strict=True)):
        is_heading = place == 0 and not cell.is_number
        tag, scope = ("th", ' scope="row"') if is_heading else ("td", "")
        shape = ' class="prose"' if cell.is_prose else _right(column.is_right)
        cells.append(f"<{tag}{scope}{shape}>{_cell(cell, numbers, prefix)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _cell(cell: Cell, numbers: dict[str, int], prefix: str) -> str:
    text = escaped(cell.shown)
    if cell.is_marked:
        text = f"<strong>{text}{MARK}</strong>"
    if cell.is_number and (behind := spread(cell)):
        # As wide with a mark as without, so that brackets stand below each other.
        text = f'<span class="number">{text}</span> <span class="spread">{escaped(behind)}</span>'
    links = [f'<a href="#{prefix}-{n}">{n}</a>' for n in places(cell, numbers)]
    return text + (f"<sup>{', '.join(links)}</sup>" if links else "")


def footer(page: Page, numbers: dict[str, int], prefix: str = "note") -> Iterator[str]:
    """What a page's marks mean, and its notes."""
    if not (page.has_marks or numbers or page.notes):
        return
    yield "<footer>"
    if page.has_marks:
        yield f"<p><strong>{MARK}</strong> {escaped(page.marked)}</p>"
    if numbers:
        yield "<ol>"
        yield from (f'<li id="{prefix}-{n}">{escaped(note)}</li>' for note, n in numbers.items())
        yield "</ol>"
    for note in page.notes:
        yield f"<p>{escaped(note)}</p>"
    yield "</footer>"


def _right(is_right: bool) -> str:
    return ' class="right"' if is_right else ""


def escaped(text: str) -> str:
    """A text as HTML."""
    # In ASCII: whatever encoding a stream has, it breaks no letter.
    return escape(line(text)).encode("ascii", "xmlcharrefreplace").decode()
