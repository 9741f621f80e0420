"""Samples as points of a plane."""

from collections.abc import Sequence
from typing import Any

from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    Look,
    Panel,
    Picture,
    first,
    hover,
    looks,
    named,
    points,
)
from probe.report.figures.scatter import Spot

LARGE, SMALL = 6.0, 3.0  # px of a marker: of few samples, of thousands
HEIGHT = 320  # px


def plot(frame: Frame[Spot]) -> Picture:
    """A panel for each layer, classes by colour and marker, the smallest on top."""
    panels, said = first(spot.panel for spot in frame.points)
    shown = {name: [spot for spot in frame.points if spot.panel == name] for name in panels}
    look = looks(spot.label for of in shown.values() for spot in of)
    found = []
    for panel, spots in shown.items():
        size = max(SMALL, min(LARGE, 2000 / len(spots)))
        of_label = {label: [s for s in spots if s.label == label] for label in look}
        order = sorted(of_label.items(), key=lambda item: -len(item[1]))
        traces = [_trace(of, look[label], size) for label, of in order if of]
        bare = {} if spots[0].share_x >= 0 else {"showticklabels": False, "ticks": ""}
        layout = {
            "xaxis": {"title": named(frame.x), **bare},
            "yaxis": {"title": named(frame.y), "scaleanchor": "x", **bare},
        }
        found.append(Panel(panel, tuple(traces), layout, HEIGHT))
    counts = [{label: sum(s.label == label for s in of) for label in look} for of in shown.values()]
    keys = []
    for label, each in look.items():
        n = {of[label] for of in counts if of[label]}
        words = f"{label}, n {n.pop()}" if len(n) == 1 else label
        keys.append(Look(words, each.colour, each.marker))
    return Picture(tuple(found), tuple(keys), said=said)


def _trace(spots: Sequence[Spot], look: Look, size: float) -> Any:
    marker = {"color": look.colour, "symbol": look.marker, "size": size, "opacity": 0.65}
    x, y = [round(spot.x, 4) for spot in spots], [round(spot.y, 4) for spot in spots]
    text = [hover(spot.label, spot.id) for spot in spots]
    return points(look, x, y, text, mode="markers", marker=marker)
