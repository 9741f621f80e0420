"""Size curves: a metric by the side of the encoder's input."""

from probe.report.figures.curves import Curves, Mark, frame_of_curves
from probe.report.figures.drawn import draw_curves
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.figures.style import Sheet

CURVES = Curves("size", panels=(), lines=("model",))


def make(asked: Asked) -> Frame[Mark]:
    """Of the last layer, and of the chosen one.

    Raises:
        RequestError: no encoder was asked at two sizes.
    """
    frame = frame_of_curves(asked, CURVES, asked.contenders)
    if frame is None:
        raise nothing(
            "two sizes of one encoder", "extract --size 112,224` and `probe --kind linear"
        )
    return frame


def draw(sheet: Sheet, frame: Frame[Mark]) -> None:
    """A panel for each data set and kind."""
    draw_curves(sheet, frame, "side of the input, pixels", is_log=True)
