"""A page as plain data in JSON.

    {
      "title": text, "lead": [text],
      "marked": what a marked cell is,
      "tables": [{
        "title": text, "above": {name: value},
        "columns": [{"name": text, "over": shared heading, or ""}],
        "rows": [[cell]], one cell a column,
        "feet": how many of the last rows sum up the others,
        "below": [text]
      }],
      "notes": [text], that cells name by their place, from 1,
      "remarks": [text], notes that belong to no cell
    }

A cell has ``text``, as a terminal shows it, and, where they are known: ``value``, ``low``,
``high``, ``sd`` (numbers, unrounded; null: undefined, or no interval covers), ``form``, how its
number is written; ``marked``: true; ``notes``: [place].
"""

import json
import math
from typing import Any

from probe.report.formats.cells import Cell, Page, Table, places


def write(page: Page) -> str:
    """A page as JSON in ASCII, which no terminal, pipe or encoding changes."""
    numbers = page.numbered()
    return json.dumps(
        {
            "title": page.title,
            "lead": list(page.lead),
            "marked": page.marked,
            "tables": [_table(table, numbers) for table in page.tables],
            "notes": list(numbers),
            "remarks": list(page.notes),
        },
        indent=1,
        allow_nan=False,
    )


def _table(table: Table, numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "title": table.title,
        "above": dict(table.above),
        "columns": [{"name": column.name, "over": column.over} for column in table.columns],
        "rows": [[_cell(cell, numbers) for cell in row] for row in table.rows],
        "feet": table.feet,
        "below": list(table.below),
    }


def _cell(cell: Cell, numbers: dict[str, int]) -> dict[str, Any]:
    known = {"value": cell.value, "low": cell.low, "high": cell.high, "sd": cell.sd}
    found: dict[str, Any] = {"text": cell.shown if cell.is_number else cell.text}
    # JSON has no other word for what isn't finite.
    found |= {k: float(v) if math.isfinite(v) else None for k, v in known.items() if v is not None}
    if cell.is_number:
        found["form"] = cell.form
    if cell.is_marked:
        found["marked"] = True
    if cell.notes:
        found["notes"] = places(cell, numbers)
    return found
