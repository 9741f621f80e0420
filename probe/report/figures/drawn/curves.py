"""Curves of a metric."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from probe.report.figures.curves import PUBLISHED, Mark
from probe.report.figures.drawn.style import Look, Sheet, hollow, looks
from probe.report.figures.frame import Frame
from probe.report.figures.palette import BLACK

DODGE = 0.012  # of an axis' length, so that bars of two lines don't cover each other
MOST_DODGED = 0.06  # of all lines together


def draw(sheet: Sheet, frame: Frame[Mark]) -> None:
    """A panel for each, lines with bars; on a logarithmic axis with a tick at each number."""
    panels = sheet.first(mark.panel for mark in frame.points)
    marks = [mark for mark in frame.points if mark.panel in panels]
    of = {panel: [mark for mark in marks if mark.panel == panel] for panel in panels}
    is_shared = len({mark.metric for mark in marks}) == 1
    axes = sheet.panels(panels, sharey=is_shared)
    look = looks(mark.line for mark in marks)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, of[panel], look, frame.is_log)
    sheet.label(axes, frame.x, frame.y)
    handles = [each.handle(name) for name, each in look.items()]
    if any(mark.of == PUBLISHED for mark in marks):
        handles.append(hollow())
    if any(mark.chosen for mark in marks):
        ring = Look(BLACK, "o", "").handle("chosen without test")
        ring.set(markerfacecolor="none", markersize=8)
        handles.append(ring)
    sheet.legend(handles)


def _draw_panel(axis: Axes, marks: Sequence[Mark], look: dict[str, Look], is_log: bool) -> None:
    spots = _spots(sorted({mark.x for mark in marks}), is_log)
    places = sorted(spots.values())
    names = list(dict.fromkeys(mark.line for mark in marks))
    step = min(DODGE, MOST_DODGED / len(names)) * (places[-1] - places[0])
    for place, name in enumerate(names):
        off = (place - (len(names) - 1) / 2) * step
        at = {tick: _unscaled(spot + off, is_log) for tick, spot in spots.items()}
        for is_printed in (True, False):
            line = {
                mark.x: mark
                for mark in marks
                if mark.line == name and (mark.of == PUBLISHED) == is_printed
            }
            _draw_line(axis, line, at, look[name], is_printed)
    if is_log:
        axis.set_xscale("log")
    shown = list(spots.items())[:: math.ceil(len(spots) / 12)]
    words = ["all" if math.isinf(tick) else f"{tick:g}" for tick, _ in shown]
    axis.set_xticks([_unscaled(spot, is_log) for _, spot in shown], words)
    axis.minorticks_off()


def _draw_line(
    axis: Axes, line: Mapping[float, Mark], at: Mapping[float, float], style: Look, is_printed: bool
) -> None:
    """Ours filled, printed ones hollow."""
    values = [line[tick].value if tick in line else math.nan for tick in at]  # nan: a gap
    filled = {"mfc": "white", "mew": 0.7, "lw": 0.5} if is_printed else {}
    colour = style.colour
    axis.plot(list(at.values()), values, color=colour, marker=style.marker, ls=style.dash, **filled)
    for mark in line.values():
        if not math.isnan(mark.low):
            width = 0.4 if is_printed else 0.7
            axis.vlines(
                at[mark.x], mark.low, mark.high, color=colour, lw=width, alpha=0.7, zorder=1
            )
        if mark.chosen:
            axis.plot(at[mark.x], mark.value, marker="o", ms=8, mfc="none", mec=BLACK, ls="")


def _spots(ticks: Sequence[float], is_log: bool) -> dict[float, float]:
    """Tick -> where it stands on the scaled axis; "all" one step behind the last."""
    found = {tick: _scaled(tick, is_log) for tick in ticks if not math.isinf(tick)}
    places = list(found.values()) or [0.0]
    step = places[-1] - places[-2] if len(places) > 1 else 1.0
    return found | {tick: places[-1] + step for tick in ticks if math.isinf(tick)}


def _scaled(x: float, is_log: bool) -> float:
    return math.log(x) if is_log else x


def _unscaled(x: float, is_log: bool) -> float:
    return math.exp(x) if is_log else x
