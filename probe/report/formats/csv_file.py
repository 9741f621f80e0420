"""A page as CSV in long form: all its tables below each other, one line a table row.

Columns, in this order; those in which no line has anything are left out:

- ``table``: the table's title;
- what stands above a table, a column each (``kind``, ``size``);
- the table's columns by both their headings ("dermamnist auc"), numbers unrounded ("nan": undefined;
  empty: there is none), and behind them with the same name ``... low``, ``... high``, ``... sd``,
  ``... text`` (what stands in a number's place) and ``... marked`` (true or false);
- ``summary``: true in the rows that sum up the others;
- ``notes``: each note of the row, behind its column's name;
- ``about``: what the page says above and below the row's table, the same in all its lines.
"""

import csv
import io
from collections.abc import Iterator

from probe.report.formats.cells import Cell, Page, Table, line

TRUE, FALSE = "true", "false"


def write(page: Page) -> str:
    """A page as CSV; a table without rows is lines of nothing."""
    records = [record for table in page.tables for record in _records(page, table)]
    names = _in_order([list(record) for record in records])
    names = [name for name in names if any(record.get(name) for record in records)]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _in_order(lists: list[list[str]]) -> list[str]:
    """Names of all lists; a new one stands behind the name that it follows in its own list."""
    names: list[str] = []
    for found in lists:
        place = 0
        for name in found:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names


def _records(page: Page, table: Table) -> Iterator[dict[str, str]]:
    names = _names(table)
    # Numbers alone, where a column has any: a text among them would make all of it text.
    numeric = [any(row[i].is_number for row in table.rows) for i in range(len(names))]
    with_marks = [any(row[i].is_marked for row in table.rows) for i in range(len(names))]
    about = " / ".join(line(t) for t in (page.title, *page.lead, *table.below, *page.notes) if t)
    if page.has_marks:
        about += f" / marked: {line(page.marked)}"
    for place, row in enumerate(table.rows):
        record = {"table": line(table.title)}
        record |= {line(name): line(value) for name, value in table.above}
        for i, cell in enumerate(row):
            record |= _fields(names[i], cell, numeric[i])
            if with_marks[i]:
                record[f"{names[i]} marked"] = TRUE if cell.is_marked else FALSE
        record["summary"] = TRUE if place >= table.n_body else ""
        notes = [(name, note) for name, cell in zip(names, row, strict=True) for note in cell.notes]
        record["notes"] = "; ".join(f"{name}: {line(note)}" for name, note in notes)
        record["about"] = about
        yield record


def _names(table: Table) -> list[str]:
    """The columns' names, no two the same."""
    taken = {"table", "summary", "notes", "about"}
    names = []
    for column in table.columns:
        name, n = column.whole, 1
        while name in taken:
            n += 1
            name = f"{column.whole} {n}"
        taken.add(name)
        names.append(name)
    return names


def _fields(name: str, cell: Cell, is_numeric: bool) -> dict[str, str]:
    if not is_numeric:
        return {name: line(cell.text)}
    numbers = {"": cell.value, " low": cell.low, " high": cell.high, " sd": cell.sd}
    return {
        **{name + what: "" if v is None else _unrounded(v) for what, v in numbers.items()},
        f"{name} text": line(cell.text),
    }


def _unrounded(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
