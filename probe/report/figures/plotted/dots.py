"""Numbers of classes or subgroups as dots with intervals."""

import math
from collections.abc import Sequence
from typing import Any

from probe.report.figures.dots import Dot, room_of
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    LINE,
    PRINTED,
    SOFT,
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
    wrapped,
)

APART = 0.8  # of the room of a name that its dots fill
BAR, NAME, BESIDE = 13, 40, 70  # px: of a dot, of a name at least, of the axis below


def plot(frame: Frame[Dot]) -> Picture:
    """A panel for each, its names below each other."""
    panels, said = first(dot.panel for dot in frame.points)
    shown = {panel: [dot for dot in frame.points if dot.panel == panel] for panel in panels}
    look = looks(dot.of for of in shown.values() for dot in of)
    every = [dot for of in shown.values() for dot in of]
    is_shared = len({dot.metric for dot in every}) == 1
    found = []
    for panel, dots in shown.items():
        x = {
            "title": named(frame.x or dots[0].metric),
            "range": _range(every if is_shared else dots),
        }
        names = list(dict.fromkeys(dot.name for dot in dots))
        each = list(dict.fromkeys(dot.of for dot in dots))
        traces = []
        for place, of in enumerate(each):
            off = (place - (len(each) - 1) / 2) * APART / len(each)
            for is_printed in (True, False):
                mine = [dot for dot in dots if dot.of == of and dot.is_published == is_printed]
                if mine:
                    y = [names.index(dot.name) + off for dot in mine]
                    traces.append(_trace(mine, y, look[of], is_printed))
        sizes = {dot.name: dot for dot in sorted(dots, key=lambda dot: dot.n)}
        y_axis = {
            "tickvals": list(range(len(names))),
            "ticktext": [
                "<br>".join(filter(None, [wrapped(name), sizes[name].size])) for name in names
            ],
            "range": [len(names) - 0.5, -0.5],
            "showgrid": False,
        }
        between = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": n - 0.5, "y1": n - 0.5,
             "layer": "below", "line": {"color": LINE, "width": 1}}
            for n in range(1, len(names))
        ]  # fmt: skip
        if not math.isnan(perfect := dots[0].perfect):
            line = {"color": SOFT, "width": 1, "dash": "dash"}
            ends_of = {"x0": perfect, "x1": perfect, "yref": "paper", "y0": 0, "y1": 1}
            between.append({"type": "line", **ends_of, "layer": "below", "line": line})
        height = BESIDE + len(names) * max(NAME, BAR * len(each) + 8)
        layout = {"xaxis": x, "yaxis": y_axis, "shapes": between}
        found.append(Panel(panel, tuple(traces), layout, height))
    printed = (PRINTED,) if any(dot.is_published for dot in every) else ()
    return Picture(tuple(found), (*look.values(), *printed), width=340, said=said)


def _range(dots: Sequence[Dot]) -> list[float]:
    if room := room_of(dots):
        return list(room)
    low, high = ranged(dots)
    perfect = [dot.perfect for dot in dots if not math.isnan(dot.perfect)]
    return [min([low, *perfect]), max([high, *perfect])]


def _trace(dots: Sequence[Dot], y: Sequence[float], look: Look, is_printed: bool) -> Any:
    values, low, high = ([getattr(d, name) for d in dots] for name in ("value", "low", "high"))
    facts = hollow(look) if is_printed else {}
    error = bars(values, low, high, look.colour)
    text = [_text(dot) for dot in dots]
    return points(look, numbers(values), y, text, mode="markers", error_x=error, **facts)


def _text(dot: Dot) -> str:
    value = "undefined" if math.isnan(dot.value) else f"{dot.value:.3f}"
    return hover(
        dot.of, dot.name, f"{dot.metric} {value}{ends(dot.low, dot.high)}", dot.size
    )  # fmt: skip
