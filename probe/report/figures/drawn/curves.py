"""Curves of a metric."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from probe.report.figures.curves import Mark
from probe.report.figures.drawn.style import Look, Sheet, looks
from probe.report.figures.frame import Frame
from probe.report.figures.palette import BLACK

DODGE = 0.012  # of an axis' length, so that bars of two lines don't cover each other
MOST_DODGED = 0.06  # of all lines together


def draw(sheet: Sheet, frame: Frame[Mark]) -> None:
    """A panel for each, lines with bars; on a logarithmic axis with a tick at each number."""
    panels = sheet.first(mark.panel for mark in frame.points)
    marks = [mark for mark in frame.points if mark.panel in panels]
    of = {panel: [mark for mark in marks if mark.panel == panel] for panel in panels}
    axes = sheet.panels(panels, sharey=True)
    look = looks(mark.line for mark in marks)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, of[panel], look, frame.is_log)
    sheet.label(axes, frame.x, frame.y)
    handles = [each.handle(name) for name, each in look.items()]
    if any(mark.chosen for mark in marks):
        ring = Look(BLACK, "o", "").handle("chosen without test")
        ring.set(markerfacecolor="none", markersize=8)
        handles.append(ring)
    sheet.legend(handles)


def _draw_panel(axis: Axes, marks: Sequence[Mark], look: dict[str, Look], is_log: bool) -> None:
    ticks = sorted({mark.x for mark in marks})
    start, stop = _scaled(ticks[0], is_log), _scaled(ticks[-1], is_log)
    names = list(dict.fromkeys(mark.line for mark in marks))
    for place, name in enumerate(names):
        step = min(DODGE, MOST_DODGED / len(names)) * (stop - start)
        off = (place - (len(names) - 1) / 2) * step
        at = {tick: _unscaled(_scaled(tick, is_log) + off, is_log) for tick in ticks}
        line = {mark.x: mark for mark in marks if mark.line == name}
        values = [line[tick].value if tick in line else math.nan for tick in ticks]  # nan: a gap
        style = look[name]
        axis.plot(list(at.values()), values, color=style.colour, marker=style.marker, ls=style.dash)
        for mark in line.values():
            x = at[mark.x]
            if not math.isnan(mark.low):
                axis.vlines(x, mark.low, mark.high, color=style.colour, lw=0.7, alpha=0.7)
            if mark.chosen:
                axis.plot(x, mark.value, marker="o", ms=8, mfc="none", mec=BLACK, ls="")
    if is_log:
        axis.set_xscale("log")
    shown = ticks[:: math.ceil(len(ticks) / 12)]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.minorticks_off()


def _scaled(x: float, is_log: bool) -> float:
    return math.log(x) if is_log else x


def _unscaled(x: float, is_log: bool) -> float:
    return math.exp(x) if is_log else x
