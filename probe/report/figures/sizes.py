"""Size curves: a metric by the side of the encoder's input."""

from probe.report.figures.curves import Curves, Mark, frame_of_curves
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.pages.sensitivity import BEST, LAST, word_of
from probe.report.rows.contenders import Contender

CURVES = Curves(*("size", "side of the input, pixels"), panels=(), lines=("model",), is_log=True)


def make(asked: Asked) -> Frame[Mark]:
    """Of the last layer and of the chosen one, learnt from all of train.

    Raises:
        RequestError: no encoder was asked at two sizes.
    """
    frame = frame_of_curves(asked, CURVES, [c for c in asked.contenders if _is_usual(c)])
    if frame is None:
        raise nothing(
            "one encoder at two sizes, asked alike",
            "extract --size 112,224` and then `probe --kind linear",
        )
    return frame


def _is_usual(of: Contender) -> bool:
    row = of.first.row
    is_usual = row.answered.shots is None and word_of(of, "place") in (LAST, BEST)
    return is_usual and bool(row.measured.test)
