"""Names beside dots, where they lie over no other and over few lines."""

import itertools
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from probe.report.figures.drawn.style import DPI, SMALL, Sheet
from probe.report.figures.palette import GREY

PAD = 1.5  # points around a name
DOT = 2.4  # points, half a dot
NEAR = 7.0  # points; a name that stands farther away has a line to its dot
REACHES = (3.5, 6, 9, 13, 18, 24, 31, 39, 48, 60, 75, 95, 120)  # points from a dot, tried in turn
SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
CROSSING = 1.0  # points that a name goes farther for a square point less of lines behind it
N_PIECES = 20
WIDEST = 0.45  # of the panel, that a line of a name takes


def place(sheet: Sheet, axis: Axes, dots: Sequence[tuple[float, float, str]]) -> None:
    """Write the names; to be called when the panel has its place.

    Args:
        sheet: that the panel is of.
        axis: the panel, with its lines and bars drawn.
        dots: x, y and name of each.
    """
    point = DPI / 72
    whole: Bbox = axis.get_window_extent()
    at = axis.transData.transform([(x, y) for x, y, _ in dots])
    half = DOT * point
    hard = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in at]
    soft = list(_lines(axis))
    for i in sorted(range(len(dots)), key=lambda i: (at[i][0], at[i][1])):
        x, y = (float(v) for v in at[i])
        words = sheet.wrap(dots[i][2], WIDEST * whole.width / DPI, SMALL)
        lines = words.split("\n")
        width = DPI * max(sheet.measure(line, SMALL) for line in lines) + 2 * PAD * point
        height = (1.25 * SMALL * len(lines) + 2 * PAD) * point
        tried = [
            (reach, _box(x, y, width, height, reach * point, side))
            for reach, side in itertools.product(REACHES, SIDES)
        ]
        inside = [(r, b) for r, b in tried if _is_in(b, whole)] or tried

        prices = [
            (_covered(b, hard), r + CROSSING * _covered(b, soft) / point**2) for r, b in inside
        ]
        reach, box = inside[prices.index(min(prices))]
        hard.append(box)
        middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        left, up = axis.transAxes.inverted().transform(middle)
        line = {"arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 2}
        note = axis.annotate(
            words, xy=(dots[i][0], dots[i][1]), xytext=(float(left), float(up)),
            textcoords="axes fraction", ha="center", va="center", fontsize=SMALL, linespacing=1.0,
            arrowprops=line if reach > NEAR else None, zorder=4,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
        note.set_in_layout(False)
        if reach > NEAR:
            soft += _pieces((x, y), middle)


def _box(
    x: float, y: float, width: float, height: float, reach: float, side: tuple[int, int]
) -> Bbox:
    """Where a name's box lies on one side of a dot."""
    right, up = side
    left = x + reach if right > 0 else x - reach - width if right < 0 else x - width / 2
    bottom = y + reach if up > 0 else y - reach - height if up < 0 else y - height / 2
    return Bbox.from_bounds(left, bottom, width, height)


def _is_in(box: Bbox, whole: Bbox) -> bool:
    return box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1


def _covered(box: Bbox, taken: Sequence[Bbox]) -> float:
    """Pixels of others that it would lie over."""
    found = 0.0
    for other in taken:
        wide = min(box.x1, other.x1) - max(box.x0, other.x0)
        high = min(box.y1, other.y1) - max(box.y0, other.y0)
        found += wide * high if wide > 0 and high > 0 else 0.0
    return found


def _lines(axis: Axes) -> Iterator[Bbox]:
    """What is drawn, in short pieces: joins and bars."""
    paths = [axis.transData.transform(line.get_xydata()) for line in axis.lines]
    for bars in axis.collections:
        paths += [axis.transData.transform(s) for s in bars.get_segments()]  # type: ignore[attr-defined]
    for path in paths:
        for start, stop in itertools.pairwise(path):
            yield from _pieces(start, stop)


def _pieces(start: Sequence[float], stop: Sequence[float]) -> Iterator[Bbox]:
    """A line as small boxes."""
    (x0, y0), (x1, y1) = start, stop
    for k in range(N_PIECES):
        a, b = k / N_PIECES, (k + 1) / N_PIECES
        x, y = (x0 + (x1 - x0) * a, x0 + (x1 - x0) * b), (y0 + (y1 - y0) * a, y0 + (y1 - y0) * b)
        yield Bbox.from_extents(min(x) - 2, min(y) - 2, max(x) + 2, max(y) + 2)
