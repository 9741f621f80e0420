"""Matrices of coloured tiles."""

import math
from collections.abc import Sequence
from html import unescape
from typing import Any

import numpy as np

from probe.report.figures.frame import Frame
from probe.report.figures.heat import Group, Scale, Tile, groups_of, short_names
from probe.report.figures.palette import UNKNOWN
from probe.report.figures.plotted.picture import (
    PAPER,
    Panel,
    Picture,
    first,
    hover,
    named,
    words,
    wrapped,
)

SIDE, LEAST, MOST = 56, 18, 420  # px: of a tile, usual and least, and of a matrix
LETTER, LINE = 6.8, 14  # px of a letter and of a line of text in a tile
CROWDED, MOST_CROWDED = 12, 3  # columns of a matrix that fills the page's width, and how many such
CROWDED_MOST = 790  # px of such a matrix
LONG_BELOW = 24  # letters of names below a matrix; longer ones are numbered, if beside it, too
NAMES = (22, 32, 48, 64)  # letters of a line of a name, in as few lines as a tile is high
BESIDE, BELOW = 46, 60  # px of titles, and of those and names below
BAR = 46  # px of the bar of colours
CORNER = 0.3  # of a tile
GAP = 5  # px between groups of columns
MOST_LINES, NARROW = (
    2,
    6,
)  # lines of a group's name, and letters of a line, at least; else it is upright
STRIP, STRIP_WIDTH, STEPS = 50, 340, 100  # px of a bar of colours with marks, and its steps


def plot(frame: Frame[Tile]) -> Picture:
    """A panel for each matrix; a bar of colours where tiles are too small for their numbers."""
    panels, said = first(tile.panel for tile in frame.points)
    shown = [[tile for tile in frame.points if tile.panel == name] for name in panels]
    most = max(len({tile.column for tile in of}) for of in shown)
    if most >= CROWDED and len(shown) > MOST_CROWDED:
        n = len({tile.panel for tile in frame.points})
        said = f"The first {MOST_CROWDED} of {n} panels; narrow the rows to see others."
        shown = shown[:MOST_CROWDED]
    side = max(LEAST, min(SIDE, (CROWDED_MOST if most >= CROWDED else MOST) // most))
    scale = frame.scale or Scale(0, 1, "")
    found = tuple(_panel(tiles, side, scale, frame) for tiles in shown)
    if scale.marks:
        found = (_strip(scale), *found)
    return Picture(found, width=max(panel.width for panel in found), said=said)


def _panel(tiles: Sequence[Tile], side: int, scale: Scale, frame: Frame[Tile]) -> Panel:
    rows = list(dict.fromkeys(tile.row for tile in tiles))
    columns = list(dict.fromkeys(tile.column for tile in tiles))
    at = {(tile.row, tile.column): tile for tile in tiles}
    grid = [[at.get((row, column)) for column in columns] for row in rows]
    y_names = _names(rows, side)
    high = side
    groups = groups_of(tiles)
    if _are_numbered(rows, columns, side):
        rows = [f"{i}:\N{NO-BREAK SPACE}{name}" for i, name in enumerate(rows, 1)]
        columns = [str(i) for i, _ in enumerate(columns, 1)]
        y_names = [wrapped(name, NAMES[1]) for name in rows]
        high = max(side, 6 + LINE * max(name.count("<br>") + 1 for name in y_names))
    if groups:
        columns = short_names(tiles)
    known = [[tile if tile and not math.isnan(tile.value) else None for tile in of] for of in grid]
    colours = scale.colours
    has_text = all(_fits(tile.text, side) for tile in tiles)
    has_bar = not (has_text or scale.marks)
    trace = {
        "type": "heatmap",
        "z": [[tile.value if tile else None for tile in of] for of in known],
        "hovertext": [[_text(tile, scale) if tile else "" for tile in of] for of in grid],
        "hoverinfo": "text",
        "colorscale": [[n / (len(colours) - 1), colour] for n, colour in enumerate(colours)],
        **{"zmin": scale.low, "zmax": scale.high, "xgap": 1, "ygap": 1, "showscale": False},
    }
    if has_bar:
        ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
        bar = {"orientation": "h", "y": 1, "yanchor": "bottom", "thickness": 8, "outlinewidth": 0}
        of_bar = {
            "tickvals": ticks,
            "tickformat": ".3~g",
            "title": {**named(scale.label), "side": "top"},
            "len": 0.6,
        }
        trace |= {"showscale": True, "colorbar": {**bar, **of_bar}}
    traces = [*_empty(grid), trace, *([_inside(known, side, scale)] if has_text else [])]
    corners = [
        {"type": "path", "line": {"width": 0}, "fillcolor": _on(tile, scale),
         "path": f"M{x + 0.5} {y - 0.5}H{x + 0.5 - CORNER}L{x + 0.5} {y - 0.5 + CORNER}Z"}
        for y, of in enumerate(known) for x, tile in enumerate(of) if tile and tile.is_marked
    ]  # fmt: skip
    flat = max(3, int(side / LETTER))
    x_names = [wrapped(name, flat) for name in columns]
    if any(len(word) >= flat for name in columns for word in name.split()):  # words would break
        x_names = _names(columns, side)
    is_flat = all(
        len(unescape(line)) * LETTER <= side for name in x_names for line in name.split("<br>")
    )
    step = 1 if is_flat else _step(x_names, side)
    x = {
        "tickvals": list(range(len(columns)))[::step],
        "ticktext": x_names[::step],
        "tickangle": 0 if is_flat else -90,
        **{"title": named(frame.x), "range": [-0.5, len(columns) - 0.5], "showgrid": False},
    }
    step = _step(y_names, high)
    y = {
        "tickvals": list(range(len(rows)))[::step],
        "ticktext": y_names[::step],
        **{"title": named(frame.y), "range": [len(rows) - 0.5, -0.5], "showgrid": False},
    }
    longest = max(len(unescape(line)) for name in x_names for line in name.split("<br>"))
    below = BELOW + (0 if is_flat else int(LETTER * longest))
    height = len(rows) * high + below + (BAR if has_bar else 0)
    names, over = _above(groups, side)
    flat_too = {"minreducedheight": high}  # plotly's own least is that of three lines
    above = {"annotations": names, "margin": {"t": over}, **flat_too} if groups else {}
    layout = {"xaxis": x, "yaxis": y, "shapes": [*corners, *_gaps(groups, len(rows))], **above}
    beside = max(len(unescape(line)) for name in y_names for line in name.split("<br>"))
    width = len(columns) * side + int(LETTER * beside) + BESIDE
    least = width if groups else 0
    return Panel(tiles[0].panel, tuple(traces), layout, height + over, width, least)


def _strip(scale: Scale) -> Panel:
    """A bar of colours, with a line at each mark."""
    steps = np.linspace(scale.low, scale.high, STEPS + 1)
    colours = scale.colours
    trace = {
        **{"type": "heatmap", "z": [(steps[1:] + steps[:-1]).tolist()], "x": steps.tolist()},
        "colorscale": [[n / (len(colours) - 1), colour] for n, colour in enumerate(colours)],
        **{"showscale": False, "hoverinfo": "skip"},
    }
    lines = [
        {"type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"width": 2, "color": "#fff" if scale.is_dark(value) else "#000"}}
        for value in scale.marks
    ]  # fmt: skip
    ends = [scale.low, scale.high]
    x = {
        "tickvals": ends,
        "ticktext": [words(scale.say(end, ".3g")) for end in ends],
        "range": ends,
    }
    layout = {
        **{"xaxis": x, "yaxis": {"visible": False}, "shapes": lines},
        **{"margin": {"t": 2, "l": 12, "r": 24}, "minreducedheight": BAR // 2},
    }
    return Panel(scale.label, (trace,), layout, STRIP, STRIP_WIDTH)


def _above(groups: Sequence[Group], side: int) -> tuple[list[Any], int]:
    """Names above groups of columns, upright where they have no room, and the px that they take."""
    found, over = [], 0
    for group in groups:
        room = int((group.last - group.first + 1) * side / LETTER)
        lines = wrapped(group.name, max(room, 4)).split("<br>")
        is_upright = len(lines) > MOST_LINES or room < min(NARROW, len(group.name))
        if is_upright:
            lines = wrapped(group.name, NAMES[0]).split("<br>")
        letters = max(len(unescape(line)) for line in lines)
        over = max(over, int(LETTER * letters) if is_upright else LINE * len(lines))
        found.append(
            {"text": "<br>".join(lines), "x": group.middle, "y": 1, "yref": "paper",
             "yanchor": "bottom", "showarrow": False, "textangle": -90 if is_upright else 0}
        )  # fmt: skip
    return found, over + 6 if groups else 0


def _gaps(groups: Sequence[Group], n_rows: int) -> list[Any]:
    """Between groups of columns."""
    return [
        {"type": "line", "x0": group.first - 0.5, "x1": group.first - 0.5, "y0": -0.5,
         "y1": n_rows - 0.5, "line": {"color": PAPER, "width": GAP}}
        for group in groups[1:]
    ]  # fmt: skip


def _are_numbered(rows: Sequence[str], columns: Sequence[str], side: int) -> bool:
    """Whether rows and columns are the same things, of names too long to stand below as well."""
    is_same = len(rows) == len(columns) and all(map(str.startswith, rows, columns))
    longest = max(len(name) for name in columns)
    return is_same and longest > max(side / LETTER, LONG_BELOW if len(columns) < CROWDED else 0)


def _step(names: Sequence[str], side: int) -> int:
    """Of how many names one is shown, so that none stands over another."""
    return math.ceil(max(name.count("<br>") + 1 for name in names) * LINE / side)


def _names(names: Sequence[str], side: int) -> list[str]:
    found: list[str] = []
    for width in NAMES:
        found = [wrapped(name, width) for name in names]
        if max(name.count("<br>") + 1 for name in found) * LINE <= max(side, LINE):
            break
    return found


def _fits(text: str, side: int) -> bool:
    return all(len(line) * LETTER <= side for line in text.splitlines())


def _empty(grid: Sequence[Sequence[Tile | None]]) -> list[Any]:
    """Tiles without a number, of a colour of their own."""
    z = [[1 if tile and math.isnan(tile.value) else None for tile in of] for of in grid]
    if not any(any(of) for of in z):
        return []
    facts = {"showscale": False, "hoverinfo": "skip", "xgap": 1, "ygap": 1}
    return [{"type": "heatmap", "z": z, "colorscale": [[0, UNKNOWN], [1, UNKNOWN]], **facts}]


def _on(tile: Tile, scale: Scale) -> str:
    return "#fff" if scale.is_dark(tile.value) else "#000"


def _inside(known: Sequence[Sequence[Tile | None]], side: int, scale: Scale) -> Any:
    """The texts of tiles, in a colour that can be read on theirs."""
    placed = [(x, y, tile) for y, of in enumerate(known) for x, tile in enumerate(of) if tile]
    has_more = side >= 2 * LINE + 4 and all(_fits(tile.more, side) for *_, tile in placed)
    texts = [
        "<br>".join(words(text) for text in (t.text, t.more if has_more else "") if text)
        for *_, t in placed
    ]
    return {
        **{"type": "scatter", "mode": "text", "hoverinfo": "skip", "text": texts},
        **{"x": [x for x, *_ in placed], "y": [y for _, y, _ in placed]},
        "textfont": {"size": 11, "color": [_on(tile, scale) for *_, tile in placed]},
    }


def _text(tile: Tile, scale: Scale) -> str:
    value = "unknown" if math.isnan(tile.value) else scale.say(tile.value, ".3f")
    return hover(f"{tile.row}, {tile.column}", value, *tile.more.splitlines())
