"""Names beside dots, where they lie over no other and over few lines."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from probe.arrays import Doubles
from probe.report.figures.drawn.style import DPI, SMALL, Sheet
from probe.report.figures.palette import GREY

PAD = 1.5  # points around a name
DOT = 2.4  # points, half a dot
NEAR = 7.0  # points; a name that stands farther away has a line to its dot
REACHES = (3.5, 6, 9, 13, 18, 24, 31, 39, 48, 60, 75, 95, 120)  # points from a dot, tried in turn
SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
CROSSING = 1.0  # points that a name goes farther for a square point less of lines behind it
THROUGH = 30.0  # and for a piece less of its line through another name
N_PIECES, N_OF_LINE = 20, 8
WIDEST = 0.45  # of the panel, that a line of a name takes


def place(sheet: Sheet, axis: Axes, dots: Sequence[tuple[float, float, str]]) -> None:
    """Write the names; to be called when the panel has its place.

    Args:
        sheet: that the panel is of.
        axis: the panel, with its lines and bars drawn.
        dots: x, y and name of each.
    """
    point = DPI / 72
    whole = np.array(axis.get_window_extent().extents)
    at = np.array(axis.transData.transform(np.array([(x, y) for x, y, _ in dots])), float)
    half = DOT * point
    hard = np.concatenate([at - half, at + half], axis=1)  # (n, 4): left, bottom, right, top
    soft = np.array(list(_lines(axis))).reshape(-1, 4)
    for i in sorted(range(len(dots)), key=lambda i: (at[i, 0], at[i, 1])):
        words = sheet.wrap(dots[i][2], WIDEST * (whole[2] - whole[0]) / DPI, SMALL)
        lines = words.split("\n")
        width = DPI * max(sheet.measure(line, SMALL) for line in lines) + 2 * PAD * point
        height = (1.25 * SMALL * len(lines) + 2 * PAD) * point
        reach, boxes = _tried(at[i], width, height, point)
        is_in = (boxes[:, :2] >= whole[:2]).all(axis=1) & (boxes[:, 2:] <= whole[2:]).all(axis=1)
        if is_in.any():
            reach, boxes = reach[is_in], boxes[is_in]
        others = np.delete(hard, i, axis=0)
        price = reach + CROSSING * _shared(boxes, soft).sum(axis=1) / point**2
        price += THROUGH * _crossed(at[i], boxes, others) * (reach > NEAR)
        best = int(np.lexsort((price, _shared(boxes, hard).sum(axis=1)))[0])
        box = boxes[best]
        hard = np.vstack([hard, box])
        middle = (box[:2] + box[2:]) / 2
        left, up = axis.transAxes.inverted().transform(middle)
        line = {"arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 2}
        is_far = bool(reach[best] > NEAR)
        note = axis.annotate(
            words, xy=(dots[i][0], dots[i][1]), xytext=(float(left), float(up)),
            textcoords="axes fraction", ha="center", va="center", fontsize=SMALL, linespacing=1.0,
            arrowprops=line if is_far else None, zorder=4,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
        note.set_in_layout(False)
        if is_far:
            soft = np.vstack([soft, np.array(list(_pieces(at[i], middle, N_PIECES)))])


def _tried(at: Doubles, width: float, height: float, point: float) -> tuple[Doubles, Doubles]:
    """(K,) points from a dot, and (K, 4) where a name's box lies on its sides."""
    reaches, boxes = [], []
    for reach, (right, up) in itertools.product(REACHES, SIDES):
        far, x, y = reach * point, float(at[0]), float(at[1])
        left = x + far if right > 0 else x - far - width if right < 0 else x - width / 2
        bottom = y + far if up > 0 else y - far - height if up < 0 else y - height / 2
        reaches.append(reach)
        boxes.append((left, bottom, left + width, bottom + height))
    return np.array(reaches, float), np.array(boxes)


def _shared(a: Doubles, b: Doubles) -> Doubles:
    """(K, n) square pixels that boxes share."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _crossed(at: Doubles, boxes: Doubles, others: Doubles) -> Doubles:
    """(K,) pieces of the line from a dot to a name that lie over other dots and names."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    pieces = np.array([list(_pieces(at, middle, N_OF_LINE)) for middle in middles])
    shared = _shared(pieces.reshape(-1, 4), others) > 0
    return shared.reshape(len(boxes), -1).sum(axis=1).astype(float)


def _lines(axis: Axes) -> Iterator[tuple[float, ...]]:
    """What is drawn, in short pieces: joins and bars."""
    paths = [line.get_xydata() for line in axis.lines]
    for bars in axis.collections:
        paths += list(bars.get_segments())  # type: ignore[attr-defined]
    for path in paths:
        for start, stop in itertools.pairwise(axis.transData.transform(path)):
            yield from _pieces(start, stop, N_PIECES)


def _pieces(start: Doubles, stop: Doubles, n: int) -> Iterator[tuple[float, ...]]:
    """A line as small boxes."""
    (x0, y0), (x1, y1) = start, stop
    for k in range(n):
        a, b = k / n, (k + 1) / n
        x, y = (x0 + (x1 - x0) * a, x0 + (x1 - x0) * b), (y0 + (y1 - y0) * a, y0 + (y1 - y0) * b)
        yield min(x) - 2, min(y) - 2, max(x) + 2, max(y) + 2
