"""What this benchmark can decide."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from probe.report.figures.apart import moved_apart
from probe.report.figures.deciding import (
    ASSUMED,
    LOWEST,
    NOT_SEPARATED,
    OURS,
    PUBLISHED,
    SEPARATED,
    SMALLEST,
    UNTESTED,
    Mark,
)
from probe.report.figures.drawn.style import BESIDE, SMALL, Look, Sheet
from probe.report.figures.frame import Frame
from probe.report.figures.palette import BLACK, BLUE, GREY, RED
from probe.report.formats.cells import spaced
from probe.report.statistics.claims import HOLDS, UNTOLD

COLOURS = {SEPARATED: BLUE, HOLDS: BLUE, NOT_SEPARATED: RED, UNTOLD: RED, UNTESTED: GREY}
MARKERS = {SEPARATED: "o", HOLDS: "o", NOT_SEPARATED: "D", UNTOLD: "D", UNTESTED: "s"}
SHADE = "#E4E4E4"
WIDE, NARROW = 0.032, 0.008  # of the axis, half a test set's shade at most and at least


def draw(sheet: Sheet, frame: Frame[Mark]) -> None:
    """One panel: a column for each test set, by its units."""
    (axis,) = sheet.panels([""], height=3.0)
    marks = frame.points
    floors = [mark for mark in marks if mark.what in (SMALLEST, ASSUMED)]
    x = np.log10([mark.n_units for mark in floors])
    pad = max(0.12, 0.06 * float(np.ptp(x)), 0.4 - float(np.ptp(x)) / 2)  # decades
    left, right = float(x.min()) - pad, float(x.max()) + pad
    apart = moved_apart((x - left) / (right - left), 2.2 * NARROW)  # sets may have as many units
    at = {mark.data: float(place) for mark, place in zip(floors, apart, strict=True)}
    places = sorted(at.values())
    near = min(np.diff(places), default=1.0)
    half = max(NARROW, min(WIDE, 0.45 * float(near)))
    highest = max((mark.value for mark in marks if mark.value == mark.value), default=0.1)
    axis.set_xlim(10**left, 10**right)
    axis.set_ylim(0.85 * LOWEST, max(1.6 * highest, 0.1))
    axis.set_xscale("log")
    axis.set_yscale("log")

    def along(place: float) -> float:
        return float(10 ** (left + place * (right - left)))

    for mark in floors:
        ends = along(at[mark.data] - half), along(at[mark.data] + half)
        top = mark.value if mark.value == mark.value else 1.0
        axis.fill_between(ends, 0.1 * LOWEST, top, color=SHADE, lw=0)
        axis.hlines(top, *ends, color=BLACK, lw=1.2, ls=":" if mark.what == ASSUMED else "-")
    of_set: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        if mark.what in (OURS, PUBLISHED):
            of_set[mark.data].append(mark)
    for data, leads in of_set.items():
        spread = np.linspace(-0.7, 0.7, len(leads)) * half if len(leads) > 1 else [0.0]
        for mark, off in zip(leads, spread, strict=True):
            colour = COLOURS[mark.verdict]
            axis.plot(
                *(along(at[data] + float(off)), max(mark.value, LOWEST)),
                marker="v" if mark.value < LOWEST else MARKERS[mark.verdict],
                color=colour, mfc=colour if mark.what == OURS else "none",
                ms=4 if mark.what == OURS else 2.6, mew=0.6, ls="", zorder=4 if mark.what == OURS else 3,
            )  # fmt: skip
    _label_sets(sheet, axis, floors, at)
    _label_axes(axis, frame, (sheet.width - BESIDE) / (right - left))
    sheet.legend(_handles(marks))


def _label_sets(sheet: Sheet, axis: Axes, floors: Sequence[Mark], at: dict[str, float]) -> None:
    """Names above the panel, far enough from each other, each with a line to its column."""
    room = 1.5 * SMALL / 72 / (sheet.width - BESIDE)
    order = sorted(floors, key=lambda mark: at[mark.data])
    middle = moved_apart(np.array([at[mark.data] for mark in order]), room)
    for mark, place in zip(order, middle, strict=True):
        axis.annotate(
            f"{mark.data}, n {spaced(f'{mark.n_units:_}')}",
            xy=(at[mark.data], 1.0), xytext=(float(place), 1.06),
            xycoords="axes fraction", textcoords="axes fraction",
            rotation=90, ha="center", va="bottom", fontsize=SMALL,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    longest = max(sheet.measure(f"{mark.data}, n 00 000", SMALL) for mark in floors)
    sheet.add_height(longest + 0.2)


def _label_axes(axis: Axes, frame: Frame[Mark], decade: float) -> None:
    """A decade of units is so many inches long."""
    axis.set_xlabel(frame.x)
    axis.set_ylabel(frame.y)
    steps = (1.0, 2.0, 5.0)
    for each, subs in ((axis.xaxis, steps if decade > 1.3 else (1.0, 3.0)), (axis.yaxis, steps)):
        each.set_major_locator(LogLocator(subs=subs))
        each.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        each.set_minor_formatter(NullFormatter())
    axis.minorticks_off()


def _handles(marks: Sequence[Mark]) -> list[Any]:
    """A legend of what is there."""
    found: list[Any] = []
    for what, verdict in dict.fromkeys((mark.what, mark.verdict) for mark in marks):
        if what in (SMALLEST, ASSUMED):
            label = "smallest difference shown" + (", assumed" if what == ASSUMED else "")
            found.append(
                Line2D([], [], color=BLACK, lw=1.2, ls=":" if what == ASSUMED else "-", label=label)
            )
            continue
        handle = Look(COLOURS[verdict], MARKERS[verdict], "").handle(f"{what}, {verdict}")
        handle.set(markerfacecolor=COLOURS[verdict] if what == OURS else "none")
        found.append(handle)
    return sorted(found, key=lambda handle: handle.get_label())
