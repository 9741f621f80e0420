"""Numbers of classes or subgroups as dots with intervals.

Dots and no bars: bars must begin at 0, where shares near 1 all look the same.
"""

import math

from probe.report.figures.dots import Dot
from probe.report.figures.drawn.style import SMALL, Sheet, looks
from probe.report.figures.frame import Frame
from probe.report.figures.palette import GREY

BAR = 0.13  # inches between dots of one name
APART = 0.8  # of the room of a name that its dots fill


def draw(sheet: Sheet, frame: Frame[Dot]) -> None:
    """A panel for each, its names below each other."""
    panels = sheet.first(dot.panel for dot in frame.points)
    look = looks(dot.of for dot in frame.points if dot.panel in panels)
    shown = {panel: [dot for dot in frame.points if dot.panel == panel] for panel in panels}
    rows = max(
        len({d.name for d in of}) * max(1.6, len({d.of for d in of})) for of in shown.values()
    )
    is_shared = len({dot.metric for of in shown.values() for dot in of}) == 1
    axes = sheet.panels(panels, width=2.7, height=0.55 + BAR * rows, beside=1.1, sharex=is_shared)
    for axis, panel in zip(axes, panels, strict=True):
        dots = shown[panel]
        names = list(dict.fromkeys(dot.name for dot in dots))
        each = list(dict.fromkeys(dot.of for dot in dots))
        for dot in dots:
            y = names.index(dot.name)
            y += (each.index(dot.of) - (len(each) - 1) / 2) * APART / len(each)
            style = look[dot.of]
            axis.plot(dot.value, y, color=style.colour, marker=style.marker, ls="")
            if not math.isnan(dot.low):
                axis.hlines(y, dot.low, dot.high, color=style.colour, ls=style.dash, lw=0.9)
        sizes = {dot.name: dot for dot in dots}
        axis.set_yticks(
            range(len(names)),
            [f"{sheet.wrap(name, 0.9, SMALL)}\n{_size(sizes[name])}" for name in names],
        )
        axis.set_ylim(len(names) - 0.5, -0.5)
        for place in range(1, len(names)):
            axis.axhline(place - 0.5, color=GREY, lw=0.3)
        axis.tick_params(axis="y", length=0)
        if not math.isnan(perfect := dots[0].perfect):
            axis.axvline(perfect, color=GREY, lw=0.7, ls="--", zorder=0)
    sheet.label(axes, frame.x, frame.y)
    sheet.legend([style.handle(name) for name, style in look.items()])


def _size(dot: Dot) -> str:
    return f"n {dot.n}" if dot.unit == "sample" else f"n {dot.n}, {dot.n_units} patients"
