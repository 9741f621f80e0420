"""Sheets of maps of patch tokens: a row each image, a column each map."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cache.errors import RequestError
from probe.report.figures.drawn import style
from probe.report.figures.drawn.style import LINE_HEIGHT, METADATA, POINTS, SMALL, styled
from probe.report.formats.cells import line, spaced
from probe.report.maps.sheet import Cell, Key, Maps, Sheet, scaled_layer

# Inches.
LEAST, LARGEST = 0.5, 1.5  # a cell's side
NAMES = 1.05  # the words beside a row take so much at most
GAP, GROUP_GAP, MARGIN = 0.05, 0.16, 0.04
BAR = 0.06  # of colours, below a column
FINE = 1.3 * SMALL / 72  # a line of small text
SWATCH = 0.11
DARK = "#333333"


@dataclass
class _Drawn:
    """A picture in the making; places are inches from its top left corner."""

    width: float
    height: float
    figure: Figure

    def text(
        self, x: float, y: float, words: str, size: float = SMALL, color: str = DARK, **how: Any
    ) -> None:
        """Words whose first line's top is at y; all lines of a size have their baselines alike."""
        for number, text in enumerate(words.split("\n")):
            baseline = y + (0.95 + 1.3 * number) * size / 72
            self.figure.text(
                *(x / self.width, 1 - baseline / self.height, text),
                fontsize=size, va="baseline", color=color, **how,
            )  # fmt: skip

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Bare axes whose top left corner is there."""
        place = (x / self.width, 1 - (y + height) / self.height)
        axis = self.figure.add_axes((*place, width / self.width, height / self.height))
        axis.set_axis_off()
        return axis


@dataclass(frozen=True)
class _Placed:
    """A word of the legend."""

    x: float
    colour: str  # of its swatch; "": it has none
    label: str


def write(sheet: Sheet, file: IO[bytes], form: str, width: float, *, smooth: bool = False) -> None:
    """Draw a sheet into a file.

    Args:
        sheet: what is shown.
        file: that is written.
        form: png, svg or pdf.
        width: inches.
        smooth: interpolate between patches.

    Raises:
        RequestError: so many columns don't fit.
    """
    with styled():
        draw(sheet, width, smooth=smooth).savefig(file, format=form, metadata=METADATA[form])


def draw(sheet: Sheet, width: float, *, smooth: bool = False) -> Figure:
    """A sheet as a figure of matplotlib's; to be called in ``styled()``.

    Raises:
        RequestError: so many columns don't fit.
    """
    pen = style.Sheet(width)  # measures text
    pen.figure.set_layout_engine("none")
    names = [
        ["\n".join(pen.wrap(_short(words), NAMES, SMALL) for words in lines)]
        for lines in sheet.names
    ]
    left = max(pen.measure(words, SMALL) for [name] in names for words in name.split("\n")) + 0.08
    groups = [(name, list(of)) for name, of in groupby(sheet.columns, lambda column: column.group)]
    n = len(sheet.columns)
    room = width - 2 * MARGIN - left - (n - len(groups)) * GAP - (len(groups) - 1) * GROUP_GAP
    side = min(LARGEST, room / n)
    if side < LEAST:
        fits = int((width - 2 * MARGIN - left + GAP) / (LEAST + GAP))
        raise RequestError(
            f"{n} columns don't fit {width * 25.4:.0f} mm, {fits} do; name fewer of --what or --layer, or a "
            "larger --width"
        )
    heads = [_head(pen, column, side) for column in sheet.columns]
    above = max(head.count("\n") + 1 for head in heads) * FINE + LINE_HEIGHT + 0.04
    titles = [
        pen.wrap(name, len(of) * side + (len(of) - 1) * GAP) if name else "" for name, of in groups
    ]
    top = max(title.count("\n") + 1 for title in titles) * LINE_HEIGHT + 0.1 if any(titles) else 0.0
    keys = _rows_of_keys(pen, sheet.keys, width - 2 * MARGIN)
    caption = pen.wrap(spaced(sheet.caption), 0.97 * width, SMALL)
    heights = [
        max(side, (name.count("\n") + 1) * FINE)
        + FINE * any(c.cells[i].said for c in sheet.columns)
        for i, [name] in enumerate(names)
    ]
    bars = BAR + FINE + 0.06 if any(column.scale for column in sheet.columns) else 0.0
    body = MARGIN + len(keys) * (LINE_HEIGHT + 0.02) + 0.08 * bool(keys) + top + above
    height = body + sum(heights) + GAP * len(heights) + bars
    height += (caption.count("\n") + 1) * FINE + 0.12
    pen.figure.set_size_inches(width, height)
    drawn = _Drawn(width, height, pen.figure)
    _draw_keys(drawn, keys)
    ys = [body + sum(heights[:i]) + GAP * i for i in range(len(heights))]
    for y, [name] in zip(ys, names, strict=True):
        drawn.text(MARGIN, y, name)
    x, place = MARGIN + left, 0
    for (name, of), title in zip(groups, titles, strict=True):
        start = x
        for column in of:
            drawn.text(x, body - above, column.title, POINTS, color="black")
            drawn.text(x, body - above + LINE_HEIGHT, heads[place])
            for y, cell in zip(ys, column.cells, strict=True):
                _draw_cell(drawn, cell, x, y, side, smooth)
            if column.scale:
                _draw_bar(drawn, column, x, ys[-1] + heights[-1] + GAP, side)
            x, place = x + side + GAP, place + 1
        if name:
            drawn.text(start, body - above - top, title, POINTS, color="black")
            rule = drawn.axes(start, body - above - 0.04, x - GAP - start, 0.01)
            rule.add_patch(Rectangle((0, 0), 1, 1, facecolor="black", lw=0))
        x += GROUP_GAP - GAP
    drawn.text(MARGIN, height - (caption.count("\n") + 1) * FINE - 0.06, caption)
    return pen.figure


def _short(words: str) -> str:
    """A line of a name: its end tells more than its beginning."""
    clean = line(words)
    return clean if len(clean) <= 60 else f"…{clean[-59:]}"


def _head(pen: style.Sheet, column: Maps, side: float) -> str:
    return "\n".join(pen.wrap(line(words), side, SMALL) for words in column.under)


def _draw_cell(drawn: _Drawn, cell: Cell, x: float, y: float, side: float, smooth: bool) -> None:
    axis = drawn.axes(x, y, side, side)
    axis.set(xlim=(0, 1), ylim=(1, 0))
    axis.add_patch(
        Rectangle((0, 0), 1, 1, facecolor="black" if cell.layers else "#EEEEEE", lw=0, zorder=-1)
    )
    for layer in cell.layers:
        how = "bilinear" if smooth and layer.is_grid else "nearest"
        axis.imshow(layer.rgba, extent=(0, 1, 1, 0), interpolation=how, aspect="auto")
    if cell.mark:
        left, top, right, bottom = cell.mark
        for colour, width in (("black", 1.8), ("white", 0.8)):  # seen on dark and on bright
            axis.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=width)
            )
    if cell.said:
        drawn.text(x, y + side + 0.015, cell.said)


def _draw_bar(drawn: _Drawn, column: Maps, x: float, y: float, side: float) -> None:
    """The colours of a column's numbers, and its ends."""
    assert column.scale
    axis = drawn.axes(x, y, side, BAR)
    steps = np.linspace(column.scale.low, column.scale.high, 128)[None]
    axis.imshow(scaled_layer(steps, column.scale).rgba, aspect="auto", interpolation="nearest")
    below = y + BAR + 0.02
    drawn.text(x, below, column.scale.say(column.scale.low, ".3g"))
    drawn.text(x + side, below, column.scale.say(column.scale.high, ".3g"), ha="right")


def _rows_of_keys(pen: style.Sheet, keys: Sequence[Key], room: float) -> list[list[_Placed]]:
    """Keys in lines, each with its place; those of one thing begin a line, behind its name."""
    rows: list[list[_Placed]] = []
    left = max((pen.measure(key.of) for key in keys), default=0.0) + 0.14
    for name, of in groupby(keys, lambda key: key.of):
        rows.append([_Placed(0.0, "", name)])
        x = left
        for key in of:
            label = pen.wrap(line(key.label), room / 2).split("\n")[0]
            needs = SWATCH + 0.06 + pen.measure(label) + 0.18
            if x > left and x + needs > room:
                rows.append([])
                x = left
            rows[-1].append(_Placed(x, key.colour, label))
            x += needs
    return rows


def _draw_keys(drawn: _Drawn, rows: Sequence[Sequence[_Placed]]) -> None:
    for number, row in enumerate(rows):
        y = MARGIN + number * (LINE_HEIGHT + 0.02)
        for of in row:
            x = MARGIN + of.x
            if of.colour:
                axis = drawn.axes(x, y, SWATCH, SWATCH)
                axis.add_patch(Rectangle((0, 0), 1, 1, facecolor=of.colour, lw=0))
                x += SWATCH + 0.06
            drawn.text(x, y - 0.005, of.label, POINTS, color="black" if of.colour else DARK)
