"""A metric against what encoders take; names stand at those that none beats, and at others on hovering."""

import math
from collections.abc import Sequence
from typing import Any

from probe.report.figures.cost import Spot
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    BLUE,
    SOFT,
    Look,
    Panel,
    Picture,
    bars,
    ends,
    first,
    hover,
    named,
    numbers,
    points,
    ranged,
    ruled,
    words,
)

BEST = Look("no other is as good and takes less", BLUE, "circle", "solid")
OTHERS = Look("others", SOFT, "circle")
ROOM = 0.25  # of the axis on both sides, for names


def plot(frame: Frame[Spot]) -> Picture:
    """A panel for each, x by logarithm."""
    panels, said = first(spot.panel for spot in frame.points)
    found = []
    for panel in panels:
        spots = sorted((s for s in frame.points if s.panel == panel), key=lambda spot: spot.x)
        x = [math.log10(spot.x) if frame.is_log else spot.x for spot in spots]
        traces = []
        for look in (OTHERS, BEST):
            mine = [spot for spot in spots if spot.is_undominated == (look is BEST)]
            if mine:
                traces.append(_trace(mine, look))
        layout = {
            "xaxis": {
                "type": "log" if frame.is_log else "linear",
                "range": ruled(min(x), max(x), ROOM),
                "title": named(frame.x),
            },
            "yaxis": {"title": named(frame.y), "range": ranged(spots)},
        }
        found.append(Panel(panel, tuple(traces), layout))
    return Picture(tuple(found), (BEST, OTHERS), width=340, said=said)


def _trace(spots: Sequence[Spot], look: Look) -> Any:
    values, low, high = ([getattr(s, name) for s in spots] for name in ("value", "low", "high"))
    error = bars(values, low, high, look.colour)
    x, text = [spot.x for spot in spots], [_text(spot) for spot in spots]
    trace = points(look, x, numbers(values), text, error_y=error)
    if look is BEST:
        sides = [("bottom right", "bottom left")[place % 2] for place in range(len(spots))]
        names = {"text": [words(spot.name) for spot in spots], "textposition": sides}
        trace |= {"mode": "lines+markers+text", **names}
    return trace


def _text(spot: Spot) -> str:
    value = f"{spot.metric} {spot.value:.3f}{ends(spot.low, spot.high)}"
    takes = f"{spot.what.replace('_', ' ')} {spot.x:,.6g}"
    return hover(spot.name, value, takes, spot.device, f"n {spot.n} of test" if spot.n else "")
