"""Few-shot curves."""

from probe.report.figures.curves import Mark
from probe.report.figures.drawn.curves import draw_curves
from probe.report.figures.drawn.style import Sheet
from probe.report.figures.frame import Frame


def draw(sheet: Sheet, frame: Frame[Mark]) -> None:
    """A panel for each data set and kind."""
    draw_curves(sheet, frame, "labelled images of each class", is_log=True)
