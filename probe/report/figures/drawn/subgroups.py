"""A metric in each subgroup."""

from probe.report.figures.dots import Dot
from probe.report.figures.drawn.dots import draw_dots
from probe.report.figures.drawn.style import Sheet
from probe.report.figures.frame import Frame


def draw(sheet: Sheet, frame: Frame[Dot]) -> None:
    """A panel for each data set."""
    draw_dots(sheet, frame)
