"""Numbers of classes or subgroups as dots with intervals.

Dots and no bars: bars must begin at 0, where shares near 1 all look the same.
"""

import math

from probe.report.figures.dots import Dot, room_of
from probe.report.figures.drawn.style import SMALL, Sheet, hollow, looks
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
        if room := room_of(dots):
            axis.set_xlim(*room)
        for dot in dots:
            y = names.index(dot.name)
            y += (each.index(dot.of) - (len(each) - 1) / 2) * APART / len(each)
            style = look[dot.of]
            look_of = {"mfc": "white", "mew": 0.7} if dot.is_published else {}
            axis.plot(dot.value, y, color=style.colour, marker=style.marker, ls="", **look_of)
            if not math.isnan(dot.low):
                width = 0.5 if dot.is_published else 0.9
                axis.hlines(
                    y, dot.low, dot.high, color=style.colour, ls=style.dash, lw=width, zorder=1
                )
                for end, mark, is_out in _beyond(dot, room):
                    if is_out:
                        axis.plot(end, y, color=style.colour, marker=mark, ms=4, clip_on=False)
        sizes = {dot.name: dot for dot in sorted(dots, key=lambda dot: dot.n)}
        axis.set_yticks(
            range(len(names)),
            [
                "\n".join(filter(None, [sheet.wrap(name, 0.9, SMALL), sizes[name].size]))
                for name in names
            ],
        )
        axis.set_ylim(len(names) - 0.5, -0.5)
        for place in range(1, len(names)):
            axis.axhline(place - 0.5, color=GREY, lw=0.3)
        axis.tick_params(axis="y", length=0)
        if not math.isnan(perfect := dots[0].perfect):
            axis.axvline(perfect, color=GREY, lw=0.7, ls="--", zorder=0)
    sheet.label(axes, frame.x, frame.y)
    handles = [style.handle(name) for name, style in look.items()]
    printed = [hollow()] if any(dot.is_published for of in shown.values() for dot in of) else []
    sheet.legend([*handles, *printed])


def _beyond(dot: Dot, room: tuple[float, float] | None) -> list[tuple[float, str, bool]]:
    """Ends of an axis, the arrow there, and whether the dot or its interval is beyond."""
    if room is None:
        return []
    low, high = room
    is_out = (dot.low < low or dot.value < low, dot.high > high or dot.value > high)
    return [(low, "<", is_out[0]), (high, ">", is_out[1])]
