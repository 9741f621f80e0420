"""A metric against what encoders take, with names at the dots."""

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from probe.report.figures.cost import Spot
from probe.report.figures.drawn.labels import place
from probe.report.figures.drawn.style import Sheet
from probe.report.figures.frame import Frame
from probe.report.figures.palette import BLUE, GREY

ROOM = 0.25  # of an axis' length on both sides, for names
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw(sheet: Sheet, frame: Frame[Spot]) -> None:
    """A panel for each; what is joined is dominated by none."""
    panels = sheet.first(spot.panel for spot in frame.points)
    axes = sheet.panels(panels, width=2.7, height=1.9)
    for axis, panel in zip(axes, panels, strict=True):
        spots = [spot for spot in frame.points if spot.panel == panel]
        _draw_panel(axis, spots, frame.is_log)
        sheet.later.append(partial(place, sheet, axis, [(s.x, s.value, s.name) for s in spots]))
    sheet.label(axes, frame.x, frame.y)


def _draw_panel(axis: Axes, spots: Sequence[Spot], is_log: bool) -> None:
    joined = sorted((s.x, s.value) for s in spots if s.is_undominated)
    axis.plot(*zip(*joined, strict=True), color=BLUE, lw=0.8, zorder=1)
    for spot in spots:
        colour = BLUE if spot.is_undominated else GREY
        axis.plot(spot.x, spot.value, color=colour, marker="o", ls="", zorder=3)
        if not math.isnan(spot.low):
            axis.vlines(spot.x, spot.low, spot.high, color=colour, lw=0.7, alpha=0.7, zorder=2)
    if is_log:
        axis.set_xscale("log")
        _widen(axis, [spot.x for spot in spots])
    else:  # ranks
        axis.set_xticks(sorted({spot.x for spot in spots}))
        axis.set_yticks(sorted({spot.value for spot in spots}))
        axis.margins(x=ROOM)
    axis.margins(y=0.12)


def _widen(axis: Axes, x: Sequence[float]) -> None:
    """Room for names, and ticks that read 1, 2, 5 with the unit's letter."""
    low, high = math.log10(min(x)), math.log10(max(x))
    pad = max(0.3, ROOM * (high - low))
    axis.set_xlim(10 ** (low - pad), 10 ** (high + pad))
    n_decades = high - low + 2 * pad
    subs = (1.0, 2.0, 5.0) if n_decades < 2 else (1.0, 3.0) if n_decades < 3 else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.minorticks_off()


def _short(value: float) -> str:
    """86 000 000 as "86M"."""
    for unit, letter in UNITS:
        if value >= 0.9999 * unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
