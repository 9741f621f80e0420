"""Reliability before and after temperature."""

import math

from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    SOFT,
    Panel,
    Picture,
    bars,
    ends,
    first,
    hover,
    looks,
    named,
    points,
)
from probe.report.figures.reliability import AFTER, BEFORE, Bin


def plot(frame: Frame[Bin]) -> Picture:
    """A panel for each answer; on the diagonal confidence is right."""
    panels, said = first(of.panel for of in frame.points)
    shown = {name: [of for of in frame.points if of.panel == name] for name in panels}
    low = min(b.above for of in shown.values() for b in of)
    look = looks((BEFORE, AFTER))
    right = {
        **{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "layer": "below"},
        "line": {"color": SOFT, "width": 1, "dash": "dot"},
    }
    found = []
    for panel, every in shown.items():
        traces = []
        for of, style in look.items():
            bins = [b for b in every if b.of == of and (of == BEFORE or b.temperature != 1)]
            if not bins:
                continue
            y = [b.right for b in bins]
            size = [5 + 12 * math.sqrt(b.n / b.n_all) for b in bins]
            marker = {"color": style.colour, "symbol": style.marker, "size": size}
            error = bars(y, [b.low for b in bins], [b.high for b in bins], style.colour)
            text = [_text(b) for b in bins]
            x = [b.confidence for b in bins]
            traces.append(points(style, x, y, text, marker=marker, error_y=error))
        x_axis = {"title": named(frame.x), "range": [low - 0.03, 1.03]}
        y_axis = {"title": named(frame.y), "range": [-0.03, 1.03]}
        layout = {"xaxis": x_axis, "yaxis": y_axis, "shapes": [right]}
        found.append(Panel(f"{panel}: {_errors(every)}", tuple(traces), layout))
    has_after = any(b.of == AFTER and b.temperature != 1 for of in shown.values() for b in of)
    return Picture(tuple(found), tuple(look.values()) if has_after else (), said=said)


def _errors(bins: list[Bin]) -> str:
    """ "ECE 0.045; 0.033 at T = 1.09"."""
    each = {b.of: b for b in bins}
    after = each.get(AFTER)
    more = ""
    if after:
        more = (
            "; T = 1"
            if after.temperature == 1
            else f"; {after.error:.3f} at T = {after.temperature:.2f}"
        )
    return f"ECE {each[BEFORE].error:.3f}{more}; n {each[BEFORE].n_all}"


def _text(b: Bin) -> str:
    return hover(
        *(b.of, f"{b.n} answers, confidence {b.above:.2f} to {b.to:.2f}"),
        f"right: {b.right:.3f}{ends(b.low, b.high)}",
    )
