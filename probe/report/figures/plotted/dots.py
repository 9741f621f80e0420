"""Numbers of classes or subgroups as dots with intervals."""

import math

from probe.report.figures.dots import Dot
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    LINE,
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
    wrapped,
)

APART = 0.8  # of the room of a name that its dots fill
BAR, NAME, BESIDE = 13, 40, 70  # px: of a dot, of a name at least, of the axis below


def plot(frame: Frame[Dot]) -> Picture:
    """A panel for each, its names below each other."""
    panels, said = first(dot.panel for dot in frame.points)
    shown = {panel: [dot for dot in frame.points if dot.panel == panel] for panel in panels}
    look = looks(dot.of for of in shown.values() for dot in of)
    known = [e for of in shown.values() for d in of for e in (d.value, d.low, d.high) if e == e]
    x = {"title": named(frame.x), "range": ruled(min(known, default=0), max(known, default=1))}
    found = []
    for panel, dots in shown.items():
        names = list(dict.fromkeys(dot.name for dot in dots))
        each = list(dict.fromkeys(dot.of for dot in dots))
        traces = []
        for place, of in enumerate(each):
            mine = [dot for dot in dots if dot.of == of]
            off = (place - (len(each) - 1) / 2) * APART / len(each)
            values, low, high = (
                [getattr(d, name) for d in mine] for name in ("value", "low", "high")
            )
            error = bars(values, low, high, look[of].colour)
            y = [names.index(dot.name) + off for dot in mine]
            text = [_text(dot) for dot in mine]
            traces.append(
                points(look[of], numbers(values), y, text, mode="markers", error_x=error)
            )  # fmt: skip
        sizes = {dot.name: dot for dot in dots}
        y_axis = {
            "tickvals": list(range(len(names))),
            "ticktext": [f"{wrapped(name)}<br>{_size(sizes[name])}" for name in names],
            "range": [len(names) - 0.5, -0.5],
            "showgrid": False,
        }
        between = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": n - 0.5, "y1": n - 0.5,
             "layer": "below", "line": {"color": LINE, "width": 1}}
            for n in range(1, len(names))
        ]  # fmt: skip
        height = BESIDE + len(names) * max(NAME, BAR * len(each) + 8)
        layout = {"xaxis": x, "yaxis": y_axis, "shapes": between}
        found.append(Panel(panel, tuple(traces), layout, height))
    return Picture(tuple(found), tuple(look.values()), width=340, said=said)


def _size(dot: Dot) -> str:
    return f"n {dot.n}" if dot.unit == "sample" else f"n {dot.n}, {dot.n_units} patients"


def _text(dot: Dot) -> str:
    value = "undefined" if math.isnan(dot.value) else f"{dot.value:.3f}"
    return hover(
        dot.of, dot.name, f"{dot.metric} {value}{ends(dot.low, dot.high)}", _size(dot)
    )  # fmt: skip
