"""A metric against what encoders take; a marker each, those that another beats in grey."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from probe.report.figures.cost import Spot
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    BLUE,
    MARKERS,
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
)

BEST = Look("no other is as good and takes less", BLUE, dash="solid")
OTHERS = Look("grey: another is as good and takes less", SOFT)
ROOM = 0.08  # of the axis on both sides
DECADE, THIRD = 0.9, 0.3  # of so much and more, ticks are STEPS, or FINE
STEPS, FINE = (1, 2, 5), (1, 1.5, 2, 3, 5, 7)


def plot(frame: Frame[Spot]) -> Picture:
    """A panel for each, x by logarithm."""
    panels, said = first(spot.panel for spot in frame.points)
    shown = {name: [spot for spot in frame.points if spot.panel == name] for name in panels}
    drawn = [spot for of in shown.values() for spot in of]
    of_best = {spot.name for spot in drawn if spot.is_undominated}
    look = {
        name: Look(name, BLUE if name in of_best else SOFT, MARKERS[i % len(MARKERS)])
        for i, name in enumerate(dict.fromkeys(spot.name for spot in drawn))
    }
    found = []
    for panel, every in shown.items():
        spots = sorted(every, key=lambda spot: spot.x)
        x = [math.log10(spot.x) for spot in spots]
        best = [spot for spot in spots if spot.is_undominated]
        bare = {"hoverinfo": "skip", "hovertext": [""] * len(best), "error_y": {}}
        traces = [{**_trace(best, BEST), **bare}]
        for spot in sorted(spots, key=lambda spot: spot.is_undominated):
            colour = BLUE if spot.is_undominated else SOFT
            traces.append(_trace([spot], replace(look[spot.name], colour=colour)))
        low, high = ruled(min(x), max(x), ROOM)
        steps = STEPS if high - low > DECADE else FINE
        ticks = [s * 10.0**d for d in range(int(low) - 1, int(high) + 1) for s in steps]
        own = {"tickvals": ticks} if high - low > THIRD else {"nticks": 4}
        layout = {
            "xaxis": {
                "type": "log",
                "range": [low, high],
                "title": named(frame.x),
                "tickangle": 0,
                **own,
            },
            "yaxis": {"title": named(frame.y), "range": ranged(spots)},
        }
        found.append(Panel(panel, tuple(trace for trace in traces if trace["x"]), layout))
    others = [] if all(spot.is_undominated for spot in drawn) else [OTHERS]
    return Picture(tuple(found), (*look.values(), BEST, *others), said=said)


def _trace(spots: Sequence[Spot], look: Look) -> Any:
    values, low, high = ([getattr(s, name) for s in spots] for name in ("value", "low", "high"))
    error = bars(values, low, high, look.colour)
    x, text = [spot.x for spot in spots], [_text(spot) for spot in spots]
    return points(look, x, numbers(values), text, error_y=error)


def _text(spot: Spot) -> str:
    value = f"{spot.metric} {spot.value:.3f}{ends(spot.low, spot.high)}"
    takes = f"{spot.what.replace('_', ' ')} {spot.x:,.6g}"
    return hover(spot.name, value, takes, spot.device, f"n {spot.n} of test" if spot.n else "")
