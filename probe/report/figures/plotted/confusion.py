"""Confusion matrices."""

import math

from probe.report.figures.confusion import Cell
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    BLUE,
    PAPER,
    Panel,
    Picture,
    first,
    hover,
    named,
    wrapped,
)

SIDE, LEAST, BESIDE = 54, 24, 90  # px of a cell, usual and least, and of names beside the matrix
MOST, WIDEST = 330, 6  # px of a matrix, and classes whose cells hold counts


def plot(frame: Frame[Cell]) -> Picture:
    """A panel for each answer: rows are true classes."""
    panels, said = first(cell.panel for cell in frame.points)
    found = []
    for panel in panels:
        cells = [cell for cell in frame.points if cell.panel == panel]
        n = math.isqrt(len(cells))
        names = [cell.answered for cell in cells[:n]]
        side = max(LEAST, min(SIDE, MOST // n))
        rows = [cells[place * n : place * n + n] for place in range(n)]
        short = WIDEST * 2 if n <= WIDEST else 14
        trace = {
            "type": "heatmap",
            "z": [[None if math.isnan(c.share) else 100 * c.share for c in row] for row in rows],
            "text": [[_inside(cell, n) for cell in row] for row in rows],
            "texttemplate": "%{text}" if side > LEAST else "",
            "hovertext": [[_text(cell) for cell in row] for row in rows],
            "hoverinfo": "text",
            "colorscale": [[0, PAPER], [1, BLUE]],
            **{"zmin": 0, "zmax": 100, "showscale": False, "xgap": 1, "ygap": 1},
        }
        x = {
            **{"tickvals": list(range(n)), "ticktext": [wrapped(name, short) for name in names]},
            **{"title": named(frame.x), "showgrid": False, "range": [-0.5, n - 0.5]},
        }
        each = [f"{wrapped(row[0].true, 16)}<br>n {row[0].n_true}" for row in rows]
        y = {
            "tickvals": list(range(n)),
            "ticktext": each if side > 30 else [wrapped(row[0].true, 16) for row in rows],
            "title": named(frame.y),
            **{"range": [n - 0.5, -0.5], "showgrid": False},
        }
        height = n * side + BESIDE + (30 if n > WIDEST else 0)
        found.append(Panel(panel, (trace,), {"xaxis": x, "yaxis": y}, height))
    return Picture(tuple(found), width=300, said=said)


def _inside(cell: Cell, n: int) -> str:
    if math.isnan(cell.share):
        return ""
    percent = f"{100 * cell.share:.0f}"
    return f"{cell.n}<br>{percent} %" if n <= WIDEST else percent


def _text(cell: Cell) -> str:
    share = "" if math.isnan(cell.share) else f", {100 * cell.share:.1f} %"
    return hover(
        f"{cell.n} of {cell.n_true}{share}", f"true: {cell.true}", f"answered: {cell.answered}"
    )
