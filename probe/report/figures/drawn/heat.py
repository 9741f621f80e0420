"""Matrices of coloured tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage

from probe.report.figures.drawn.style import LINE_HEIGHT, SMALL, Sheet
from probe.report.figures.frame import Frame
from probe.report.figures.heat import Group, Scale, Tile, groups_of, short_names
from probe.report.figures.palette import UNKNOWN

FEW = 6  # rows and columns, whose tiles are larger
SMALL_FEW, LARGE_FEW = 0.34, 0.42  # inches of a tile of these, at least and at most
SMALL_TILE, LARGE, SMALLEST = 0.2, 0.3, 0.06  # of others; the last where no texts fit
PAD = 0.06  # inches around a tile's text
LINE = 1.25 * SMALL / 72  # inches of a line of text
ROOMS = (0.8, 1.2, 1.8, 2.6)  # inches that names may take, in as few lines as a tile has room
SHORT = 0.4  # inches of names of which some may be left out: numbers
BELOW = (
    1.8  # inches of names below a matrix; longer ones are numbered, if they stand beside it, too
)
BESIDE = 0.42  # of a picture's width that names may take
AXIS = 0.3  # inches of an axis' label with its pads
CORNER = 0.35  # of a tile
MOST_LINES = 3  # of a group's name
GAP = 2.0  # points between groups
LEAST = 1.5  # inches of a panel, for its title


def draw(sheet: Sheet, frame: Frame[Tile]) -> None:
    """A panel for each matrix; all tiles are of one size, and hold the texts that fit."""
    panels = sheet.first(tile.panel for tile in frame.points)
    shown = [[tile for tile in frame.points if tile.panel == name] for name in panels]
    rows = [list(dict.fromkeys(tile.row for tile in of)) for of in shown]
    columns = [short_names(of) for of in shown]
    n_rows, n_columns = max(map(len, rows)), max(map(len, columns))
    text, full = (_room(sheet, frame.points, with_more=more) for more in (False, True))
    few = max(n_rows, n_columns) <= FEW
    are_same = all(map(_are_same, rows, columns))
    size = max(full, SMALL_FEW) if few else max(text, SMALL_TILE)
    for _ in range(2):  # names' lines depend on the size, and the room that they leave on names
        below = [_names(sheet, names, size, BELOW) for names in columns]
        if are_same and max(map(_lines, below)) * LINE > max(size, LINE):
            rows = [
                [f"{i}:\N{NO-BREAK SPACE}{name}" for i, name in enumerate(names, 1)]
                for names in rows
            ]
            columns = [[str(i) for i, _ in enumerate(names, 1)] for names in columns]
            below, are_same = columns, False
        below = [_thinned(names, size) for names in below]
        left = [_names(sheet, names, size, BESIDE * sheet.width) for names in rows]
        beside = AXIS + max(_longest(sheet, names) for names in left)
        fits = min(len(panels), int((sheet.width + 0.05) / (beside + n_columns * size)))
        size = (sheet.width / max(1, fits) - beside - 0.1) / n_columns
        size = max(SMALLEST, min(size, max(full, LARGE_FEW if few else LARGE)))
    high = size
    if beside - AXIS <= SHORT:
        left = [_thinned(names, size) for names in left]
    else:
        high = max(size, max(map(_lines, left)) * LINE)
    room = size * (1 if all(map(all, below)) else 2) - 0.02  # some names may be left out
    is_rotated = max(_longest(sheet, names) for names in below) > room
    under = max(_longest(sheet, names) for names in below) if is_rotated else 2 * LINE
    above = [[_above(sheet, group, size) for group in groups_of(of)] for of in shown]
    over = max((of.height for each in above for of in each), default=0.0)
    label = sheet.wrap(frame.x, max(LEAST, n_columns * size))
    axes = sheet.panels(
        panels,
        width=max(LEAST + beside, n_columns * size + beside),
        height=n_rows * high + under + over,
        beside=beside,
    )
    sheet.add_height(AXIS + label.count("\n") * LINE_HEIGHT)  # below the last alone
    scale = frame.scale or Scale(0, 1, "")
    for axis, tiles, ys, xs, of in zip(axes, shown, left, below, above, strict=True):
        image = _draw_matrix(axis, tiles, ys, xs, scale, high / size)
        axis.tick_params(axis="x", rotation=90 if is_rotated else 0)
        _draw_groups(axis, of)
        axis.set_xlim(-0.5, n_columns - 0.5)  # so that tiles of all matrices are of one size
        for y, x, tile in _placed(tiles):
            words = "\n".join(filter(None, [tile.text, tile.more if size >= full else ""]))
            colour = "white" if scale.is_dark(tile.value) else "black"
            if size >= text and words:
                axis.text(x, y, words, ha="center", va="center", color=colour, fontsize=SMALL)
            if tile.is_marked:
                right, top = x + 0.5, y - 0.5
                axis.fill([right - CORNER, right, right], [top, top, top + CORNER], colour, lw=0)
    sheet.label(axes, label, sheet.wrap(frame.y, max(LEAST, n_rows * high)))
    if size < text or scale.marks:
        sheet.colour_bar(image, axes, scale)


@dataclass(frozen=True)
class Above:
    """What stands above a group of columns."""

    group: Group
    lines: str
    is_upright: bool  # where columns have no room for it
    height: float  # inches


def _above(sheet: Sheet, group: Group, size: float) -> Above:
    """A group's name above columns of a size."""
    room = (group.last - group.first + 1) * size - 0.02
    lines = sheet.wrap(group.name, room, SMALL)
    is_whole = max(sheet.measure(word, SMALL) for word in group.name.split()) <= room
    if _lines([lines]) <= MOST_LINES and (is_whole or room > SHORT):
        return Above(group, lines, False, _lines([lines]) * LINE)
    lines = sheet.wrap(group.name, ROOMS[0], SMALL)
    return Above(group, lines, True, _longest(sheet, [lines]))


def _draw_groups(axis: Axes, above: Sequence[Above]) -> None:
    """Names of groups, and gaps between them."""
    for of in above[1:]:
        axis.axvline(of.group.first - 0.5, color="white", lw=GAP)
    if above:
        top = axis.secondary_xaxis("top")
        top.set_xticks([of.group.middle for of in above], [of.lines for of in above])
        for of, label in zip(above, top.get_xticklabels(), strict=True):
            label.set_rotation(90 if of.is_upright else 0)
        top.tick_params(length=0)
        top.spines[:].set_visible(False)


def _room(sheet: Sheet, tiles: Sequence[Tile], with_more: bool) -> float:
    """Inches of the smallest tile that holds every text."""
    found = 0.0
    for words in {(tile.text, tile.more if with_more else "") for tile in tiles}:
        lines = [line for text in words for line in text.splitlines()]
        widths = [sheet.measure(line, SMALL) for line in lines]
        found = max([found, len(lines) * LINE + PAD, *(width + PAD for width in widths)])
    return found


def _names(sheet: Sheet, names: Sequence[str], size: float, most: float) -> list[str]:
    """Names in lines of which a tile has room for all, no wider than ``most``, if that can be."""
    wrapped = [sheet.wrap(name, ROOMS[0], SMALL) for name in names]
    for room in ROOMS[1:]:
        if _lines(wrapped) * LINE <= max(size, LINE) or room > most:
            break
        wrapped = [sheet.wrap(name, room, SMALL) for name in names]
    return wrapped


def _are_same(rows: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether rows and columns are the same things; a row may say more of it."""
    return len(rows) == len(columns) and all(map(str.startswith, rows, columns))


def _lines(names: Sequence[str]) -> int:
    return max(name.count("\n") + 1 for name in names)


def _thinned(names: Sequence[str], size: float) -> list[str]:
    """As many names as small tiles have room for."""
    step = math.ceil(_lines(names) * LINE / size)
    return [name if place % step == 0 else "" for place, name in enumerate(names)]


def _longest(sheet: Sheet, names: Sequence[str]) -> float:
    return max(sheet.measure(line, SMALL) for name in names for line in (name or " ").split("\n"))


def _placed(tiles: Sequence[Tile]) -> list[tuple[int, int, Tile]]:
    """Row, column and tile."""
    rows = {name: i for i, name in enumerate(dict.fromkeys(tile.row for tile in tiles))}
    columns = {name: i for i, name in enumerate(dict.fromkeys(tile.column for tile in tiles))}
    return [(rows[tile.row], columns[tile.column], tile) for tile in tiles]


def _draw_matrix(
    axis: Axes,
    tiles: Sequence[Tile],
    left: Sequence[str],
    below: Sequence[str],
    scale: Scale,
    aspect: float,
) -> AxesImage:
    values = np.full((len(left), len(below)), np.nan)
    for y, x, tile in _placed(tiles):
        values[y, x] = tile.value
    colours = LinearSegmentedColormap.from_list("", scale.colours).with_extremes(bad=UNKNOWN)
    image = axis.imshow(
        np.ma.masked_invalid(values), vmin=scale.low, vmax=scale.high, cmap=colours, aspect=aspect
    )
    for ticks, names in ((axis.set_yticks, left), (axis.set_xticks, below)):
        shown = [place for place, name in enumerate(names) if name]
        ticks(shown, [names[place] for place in shown])
    axis.set_anchor("NW")  # where the layout that measures labels has it
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return image
