"""Curves of a metric."""

import math
from collections.abc import Sequence

from probe.report.figures.curves import Mark
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    INK,
    Look,
    Panel,
    Picture,
    bars,
    ends,
    first,
    hover,
    looks,
    named,
    numbers,
    points,
    ruled,
)

DODGE = 0.012  # of an axis' length, so that bars of two lines don't cover each other
MOST_DODGED = 0.06  # of all lines together
MOST_TICKS = 8
CHOSEN = Look("chosen without test", INK, "circle-open")


def plot(frame: Frame[Mark]) -> Picture:
    """A panel for each, all of one range; a gap where a number is undefined."""
    panels, said = first(mark.panel for mark in frame.points)
    marks = [mark for mark in frame.points if mark.panel in panels]
    look = looks(mark.line for mark in marks)
    ends_of = [e for m in marks for e in (m.value, m.low, m.high) if not math.isnan(e)]
    y = {"title": named(frame.y), "range": ruled(min(ends_of, default=0), max(ends_of, default=1))}
    shown = [[mark for mark in marks if mark.panel == panel] for panel in panels]
    keys = (*look.values(), *([CHOSEN] if any(mark.chosen for mark in marks) else []))
    return Picture(
        tuple(_panel(of, look, frame, y) for of in shown), keys if len(keys) > 1 else (), said=said
    )


def _panel(marks: Sequence[Mark], look: dict[str, Look], frame: Frame[Mark], y: dict) -> Panel:
    ticks = sorted({mark.x for mark in marks})
    scaled = {tick: math.log10(tick) if frame.is_log else tick for tick in ticks}
    low, high = scaled[ticks[0]], scaled[ticks[-1]]
    names = list(dict.fromkeys(mark.line for mark in marks))
    step = min(DODGE, MOST_DODGED / len(names)) * (high - low)
    traces = []
    for place, name in enumerate(names):
        off = (place - (len(names) - 1) / 2) * step
        at = {t: 10 ** (s + off) if frame.is_log else s + off for t, s in scaled.items()}
        line = {mark.x: mark for mark in marks if mark.line == name}
        each = [line[tick] for tick in ticks if tick in line]
        text = [_text(mark) if mark else "" for mark in map(line.get, ticks)]
        values = [line[tick].value if tick in line else math.nan for tick in ticks]
        found = [
            (of.low, of.high) if (of := line.get(tick)) else (math.nan, math.nan) for tick in ticks
        ]
        error = bars(values, [l for l, _ in found], [h for _, h in found], look[name].colour)
        traces.append(
            points(look[name], list(at.values()), numbers(values), text, error_y=error)
        )  # fmt: skip
        if ring := [mark for mark in each if mark.chosen]:
            x, y_of = [at[mark.x] for mark in ring], [mark.value for mark in ring]
            marker = {"color": INK, "symbol": CHOSEN.marker, "size": 13, "line": {"width": 1.2}}
            traces.append(
                points(CHOSEN, x, y_of, [""] * len(x), marker=marker, hoverinfo="skip")
            )  # fmt: skip
    shown = ticks[:: math.ceil(len(ticks) / MOST_TICKS)]
    axis = {
        "title": named(frame.x),
        "type": "log" if frame.is_log else "linear",
        "tickvals": shown,
        "ticktext": [f"{tick:g}" for tick in shown],
        "range": ruled(low, high),
    }
    return Panel(marks[0].panel, tuple(traces), {"xaxis": axis, "yaxis": y})


def _text(mark: Mark) -> str:
    value = "undefined" if math.isnan(mark.value) else f"{mark.value:.3f}"
    return hover(
        *(mark.line, f"{mark.along} {mark.x:g}"),
        *(f"{mark.metric} {value}{ends(mark.low, mark.high)}", f"n {mark.n} of {mark.of}"),
        "chosen without test" if mark.chosen else "",
    )
