"""Confusion matrices."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from probe.report.figures.confusion import Cell
from probe.report.figures.drawn.style import SMALL, Sheet
from probe.report.figures.frame import Frame

MOST_COUNTED = 6  # classes whose cells are wide enough for counts
CELL = {True: 0.42, False: 0.26}  # inches
COUNTED, NUMBERED, NAMED = 0.4, 0.2, 0.1  # inches of a cell: for two numbers, for one, for a name
BESIDE = 1.2  # inches beside a matrix


def draw(sheet: Sheet, frame: Frame[Cell]) -> None:
    """A panel for each answer: rows are true classes."""
    panels = sheet.first(cell.panel for cell in frame.points)
    of = {name: [cell for cell in frame.points if cell.panel == name] for name in panels}
    most = max(math.isqrt(len(cells)) for cells in of.values())
    cell = min(CELL[most <= MOST_COUNTED], (sheet.width - BESIDE) / most)  # inches
    side = most * cell
    axes = sheet.panels(
        panels, width=max(2.25, side + BESIDE), height=max(1.3, side + 0.75), beside=BESIDE
    )
    images = [
        _draw_matrix(sheet, axis, of[name], cell) for axis, name in zip(axes, panels, strict=True)
    ]
    sheet.label(axes, frame.x, frame.y)
    if cell < NUMBERED:
        sheet.colour_bar(images[0], axes)


def _draw_matrix(sheet: Sheet, axis: Axes, cells: Sequence[Cell], size: float) -> AxesImage:
    """A cell is ``size`` inches wide, or more."""
    names = list(dict.fromkeys(cell.true for cell in cells))
    n = len(names)
    shares = np.array([cell.share for cell in cells]).reshape(n, n)
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="equal")
    wrapped = [sheet.wrap(name, 0.8, SMALL) for name in names]
    if size >= COUNTED:
        left = [f"{name}\nn {cells[t * n].n_true}" for t, name in enumerate(wrapped)]
    else:
        left = names
    shown = range(0, n, math.ceil(NAMED / size))
    axis.set_yticks(shown, [left[c] for c in shown])
    widest = max(sheet.measure(line, SMALL) for name in wrapped for line in name.split("\n"))
    axis.set_xticks(shown, [wrapped[c] for c in shown], rotation=90 if widest > size else 0)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for place, cell in enumerate(cells if size >= NUMBERED else ()):
        if math.isnan(cell.share):
            continue
        percent = f"{100 * cell.share:.0f}"
        words = f"{cell.n}\n{percent}\N{NO-BREAK SPACE}%" if size >= COUNTED else percent
        colour = "white" if cell.share > 0.55 else "black"
        axis.text(
            *(place % n, place // n, words), ha="center", va="center", color=colour, fontsize=SMALL
        )
    return image
