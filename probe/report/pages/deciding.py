"""The page of ``report decide``: the smallest difference that each test set can show."""

import math
from collections.abc import Sequence

from probe.report.findings.deciding import Asked, Shown
from probe.report.formats.cells import COUNT, Cell, Column, Page, Table


def make_page(shown: Sequence[Shown], asked: Asked, notes: Sequence[str]) -> Page:
    """The page."""
    units = sorted({of.decision.unit for of in shown}, reverse=True)  # samples, patients
    rows = []
    for of in shown:
        d = of.decision
        basis = [of.of, d.basis, f"nothing is shown: {d.why_not}" if d.why_not else ""]
        note = "; ".join(filter(None, basis))
        row = [Cell(of.dataset), Cell(d.metric), Cell(value=d.smallest, notes=(note,))]
        row.append(Cell(value=of.n, form=COUNT))
        if "patient" in units:
            row.append(Cell(value=d.n_units, form=COUNT) if d.unit == "patient" else Cell())
        needed = [d.needed.get(wanted, math.nan) for wanted in asked.differences]
        row += [Cell(value=n, form=COUNT) for n in needed]
        rows.append(tuple(row))
    columns = [Column("data"), Column("metric"), Column("smallest", is_right=True)]
    columns.append(Column("samples", is_right=True))
    columns += [Column("patients", is_right=True)] if "patient" in units else []
    over = f"{units[0] if len(units) == 1 else 'unit'}s needed for"
    columns += [Column(f"{d:g}", over=over, is_right=True) for d in asked.differences]
    power = asked.power
    lead = (
        f"The smallest difference of two models that is shown {power.power:.0%} of the time, where a "
        f"false one is shown {power.level:.0%} of the time",
    )
    below = (
        ()
        if units == ["sample"]
        else ("units are patients where one has several samples, or where they are measured",)
    )
    tables = (Table(tuple(columns), tuple(rows), below=below),) if rows else ()
    return Page(tables, lead=lead, notes=tuple(notes))
