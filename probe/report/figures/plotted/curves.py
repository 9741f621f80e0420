"""Curves of a metric."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probe.report.figures.curves import PUBLISHED, Mark
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    INK,
    PRINTED,
    Look,
    Panel,
    Picture,
    bars,
    ends,
    first,
    hollow,
    hover,
    looks,
    named,
    numbers,
    points,
    ranged,
    ruled,
)

DODGE = 0.012  # of an axis' length, so that bars of two lines don't cover each other
MOST_DODGED = 0.06  # of all lines together
MOST_TICKS = 8
CHOSEN = Look("chosen without test", INK, "circle-open")


def plot(frame: Frame[Mark]) -> Picture:
    """A panel for each, of one range where all are of one metric; a gap where a number is undefined."""
    panels, said = first(mark.panel for mark in frame.points)
    marks = [mark for mark in frame.points if mark.panel in panels]
    look = looks(mark.line for mark in marks)
    shown = [[mark for mark in marks if mark.panel == panel] for panel in panels]
    is_shared = len({mark.metric for mark in marks}) == 1
    keys = list(look.values())
    keys += [PRINTED] if any(mark.of == PUBLISHED for mark in marks) else []
    keys += [CHOSEN] if any(mark.chosen for mark in marks) else []
    found = []
    for of in shown:
        y = {"title": named(frame.y), "range": ranged(marks if is_shared else of)}
        found.append(_panel(of, look, frame, y))
    return Picture(tuple(found), tuple(keys) if len(keys) > 1 else (), said=said)


def _panel(
    marks: Sequence[Mark], look: dict[str, Look], frame: Frame[Mark], y: dict[str, Any]
) -> Panel:
    spots = _spots(sorted({mark.x for mark in marks}), frame.is_log)
    places = sorted(spots.values())
    names = list(dict.fromkeys(mark.line for mark in marks))
    step = min(DODGE, MOST_DODGED / len(names)) * (places[-1] - places[0])
    traces: list[Any] = []
    for place, name in enumerate(names):
        off = (place - (len(names) - 1) / 2) * step
        for is_printed in (True, False):
            line = {
                mark.x: mark
                for mark in marks
                if mark.line == name and (mark.of == PUBLISHED) == is_printed
            }
            if line:
                at = {tick: spot + off for tick, spot in spots.items()}
                traces += _line(line, at, look[name], is_printed)
    shown = list(spots.items())[:: math.ceil(len(spots) / MOST_TICKS)]
    axis = {
        "title": named(frame.x),
        "tickvals": [spot for _, spot in shown],
        "ticktext": ["all" if math.isinf(tick) else f"{tick:g}" for tick, _ in shown],
        "range": ruled(places[0], places[-1]),
    }
    return Panel(marks[0].panel, tuple(traces), {"xaxis": axis, "yaxis": y})


def _spots(ticks: Sequence[float], is_log: bool) -> dict[float, float]:
    """Tick -> where it stands: its logarithm, where the axis has them; "all" one step behind the last."""
    found = {t: math.log10(t) if is_log else t for t in ticks if not math.isinf(t)}
    places = list(found.values()) or [0.0]
    step = places[-1] - places[-2] if len(places) > 1 else 1.0
    return found | {tick: places[-1] + step for tick in ticks if math.isinf(tick)}


def _line(
    line: Mapping[float, Mark], at: Mapping[float, float], style: Look, is_printed: bool
) -> Iterator[Any]:
    """Ours filled, printed ones hollow."""
    each = [line.get(tick) for tick in at]
    values, low, high = (
        [getattr(of, name) if of else math.nan for of in each] for name in ("value", "low", "high")
    )
    text = [_text(of) if of else "" for of in each]
    error = bars(values, low, high, style.colour)
    facts = hollow(style) if is_printed else {}
    yield points(style, list(at.values()), numbers(values), text, error_y=error, **facts)
    if ring := [mark for mark in line.values() if mark.chosen and math.isfinite(mark.value)]:
        x, y = [at[mark.x] for mark in ring], [mark.value for mark in ring]
        marker = {"color": INK, "symbol": CHOSEN.marker, "size": 13, "line": {"width": 1.2}}
        yield points(CHOSEN, x, y, [""] * len(x), marker=marker, hoverinfo="skip")


def _text(mark: Mark) -> str:
    value = "undefined" if math.isnan(mark.value) else f"{mark.value:.3f}"
    x = "all" if math.isinf(mark.x) else f"{mark.x:g}"
    return hover(
        *(mark.line, f"{mark.along} {x}", f"{mark.metric} {value}{ends(mark.low, mark.high)}"),
        f"n {mark.n} of {mark.of}{_patients(mark)}" if mark.n else mark.of,
        "chosen without test" if mark.chosen else "",
    )


def _patients(mark: Mark) -> str:
    if mark.n == mark.n_patients:
        return ", patients"
    return f", {mark.n_patients} patients" if mark.n_patients else ""
