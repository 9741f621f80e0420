"""Samples as points of a plane."""

from probe.report.figures.drawn.style import Sheet, looks
from probe.report.figures.frame import Frame
from probe.report.figures.scatter import Spot

LARGE, SMALL = 12.0, 2.0  # square points of a marker: of few samples, of thousands
MOST_OUTLINED = 2000  # samples that are drawn as outlines in svg and pdf; of more, as pixels


def draw(sheet: Sheet, frame: Frame[Spot]) -> None:
    """A panel for each layer, classes by colour and marker, the smallest on top."""
    panels = sheet.first(spot.panel for spot in frame.points)
    shown = {name: [spot for spot in frame.points if spot.panel == name] for name in panels}
    look = looks(spot.label for of in shown.values() for spot in of)
    axes = sheet.panels(panels, width=2.3, height=2.1)
    for axis, name in zip(axes, panels, strict=True):
        spots = shown[name]
        size = max(SMALL, min(LARGE, 2000 / len(spots)))
        of_label = {label: [s for s in spots if s.label == label] for label in look}
        for label, of in sorted(of_label.items(), key=lambda item: -len(item[1])):
            axis.scatter(
                [spot.x for spot in of], [spot.y for spot in of],
                s=size, c=look[label].colour, marker=look[label].marker, alpha=0.6, lw=0,
                rasterized=len(spots) > MOST_OUTLINED,
            )  # fmt: skip
        axis.set_aspect("equal", adjustable="datalim")
        if not spots[0].share_x >= 0:  # their numbers mean nothing
            axis.set_xticks([])
            axis.set_yticks([])
    sheet.label(axes, frame.x, frame.y)
    counts = [{label: sum(s.label == label for s in of) for label in look} for of in shown.values()]
    handles = []
    for label, each in look.items():
        n = {of[label] for of in counts if of[label]}
        handle = each.handle(f"{label}, n {n.pop()}" if len(n) == 1 else label)
        handle.set_linestyle("")
        handles.append(handle)
    sheet.legend(handles)
