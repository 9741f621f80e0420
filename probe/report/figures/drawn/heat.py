"""Matrices of coloured tiles."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage

from probe.report.figures.drawn.style import SMALL, Sheet
from probe.report.figures.frame import Frame
from probe.report.figures.heat import Scale, Tile
from probe.report.figures.palette import UNKNOWN

FEW = 6  # rows and columns, whose tiles are larger
SMALL_FEW, LARGE_FEW = 0.34, 0.42  # inches of a tile of these, at least and at most
SMALL_TILE, LARGE, SMALLEST = 0.2, 0.3, 0.06  # of others; the last where no texts fit
PAD = 0.06  # inches around a tile's text
LINE = 1.25 * SMALL / 72  # inches of a line of text
ROOMS = (0.8, 1.2, 1.8, 2.6)  # inches that names may take, in as few lines as a tile is high
AXIS = 0.3  # inches of an axis' label with its pads
CORNER = 0.35  # of a tile
LEAST = 1.5  # inches of a panel, for its title


def draw(sheet: Sheet, frame: Frame[Tile]) -> None:
    """A panel for each matrix; all tiles are of one size, and hold the texts that fit."""
    panels = sheet.first(tile.panel for tile in frame.points)
    shown = [[tile for tile in frame.points if tile.panel == name] for name in panels]
    rows = [list(dict.fromkeys(tile.row for tile in of)) for of in shown]
    columns = [list(dict.fromkeys(tile.column for tile in of)) for of in shown]
    n_rows, n_columns = max(map(len, rows)), max(map(len, columns))
    text, full = (_room(sheet, frame.points, with_more=more) for more in (False, True))
    few = max(n_rows, n_columns) <= FEW
    size = max(full, SMALL_FEW) if few else max(text, SMALL_TILE)
    for _ in range(2):  # names' lines depend on the size, and the room that they leave on names
        left = [_names(sheet, names, size) for names in rows]
        below = [_names(sheet, names, size) for names in columns]
        beside = AXIS + max(_longest(sheet, names) for names in left)
        fits = min(len(panels), int((sheet.width + 0.05) / (beside + n_columns * size)))
        size = (sheet.width / max(1, fits) - beside - 0.1) / n_columns
        size = max(SMALLEST, min(size, max(full, LARGE_FEW if few else LARGE)))
    is_rotated = max(_longest(sheet, names) for names in below) > size - 0.02
    under = max(_longest(sheet, names) for names in below) if is_rotated else 2 * LINE
    axes = sheet.panels(
        panels,
        width=max(LEAST + beside, n_columns * size + beside),
        height=n_rows * size + under + AXIS,
        beside=beside,
    )
    scale = frame.scale or Scale(0, 1, "")
    for axis, tiles, ys, xs in zip(axes, shown, left, below, strict=True):
        image = _draw_matrix(axis, tiles, ys, xs, scale)
        axis.tick_params(axis="x", rotation=90 if is_rotated else 0)
        for y, x, tile in _placed(tiles):
            words = "\n".join(filter(None, [tile.text, tile.more if size >= full else ""]))
            colour = "white" if scale.is_dark(tile.value) else "black"
            if size >= text and words:
                axis.text(x, y, words, ha="center", va="center", color=colour, fontsize=SMALL)
            if tile.is_marked:
                right, top = x + 0.5, y - 0.5
                axis.fill([right - CORNER, right, right], [top, top, top + CORNER], colour, lw=0)
    sheet.label(axes, frame.x, frame.y)
    if size < text:
        sheet.colour_bar(image, axes, scale)


def _room(sheet: Sheet, tiles: Sequence[Tile], with_more: bool) -> float:
    """Inches of the smallest tile that holds every text."""
    found = 0.0
    for words in {(tile.text, tile.more if with_more else "") for tile in tiles}:
        lines = [line for text in words for line in text.splitlines()]
        widths = [sheet.measure(line, SMALL) for line in lines]
        found = max([found, len(lines) * LINE + PAD, *(width + PAD for width in widths)])
    return found


def _names(sheet: Sheet, names: Sequence[str], size: float) -> list[str]:
    """Names in lines of which a tile holds all; of small tiles some are left out."""
    step = math.ceil(LINE / size)
    for room in ROOMS:
        wrapped = [sheet.wrap(name, room, SMALL) for name in names]
        if max(name.count("\n") + 1 for name in wrapped) * LINE <= max(size, LINE):
            break
    return [name if place % step == 0 else "" for place, name in enumerate(wrapped)]


def _longest(sheet: Sheet, names: Sequence[str]) -> float:
    return max(sheet.measure(line, SMALL) for name in names for line in (name or " ").split("\n"))


def _placed(tiles: Sequence[Tile]) -> list[tuple[int, int, Tile]]:
    """Row, column and tile."""
    rows = {name: i for i, name in enumerate(dict.fromkeys(tile.row for tile in tiles))}
    columns = {name: i for i, name in enumerate(dict.fromkeys(tile.column for tile in tiles))}
    return [(rows[tile.row], columns[tile.column], tile) for tile in tiles]


def _draw_matrix(
    axis: Axes, tiles: Sequence[Tile], left: Sequence[str], below: Sequence[str], scale: Scale
) -> AxesImage:
    values = np.full((len(left), len(below)), np.nan)
    for y, x, tile in _placed(tiles):
        values[y, x] = tile.value
    colours = LinearSegmentedColormap.from_list("", scale.colours).with_extremes(bad=UNKNOWN)
    image = axis.imshow(
        np.ma.masked_invalid(values), vmin=scale.low, vmax=scale.high, cmap=colours, aspect="equal"
    )
    for ticks, names in ((axis.set_yticks, left), (axis.set_xticks, below)):
        shown = [place for place, name in enumerate(names) if name]
        ticks(shown, [names[place] for place in shown])
    axis.set_anchor("NW")  # where the layout that measures labels has it
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return image
