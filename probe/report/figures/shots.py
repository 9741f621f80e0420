"""Few-shot curves: a metric by the number of labelled images of each class."""

from dataclasses import replace

from probe.report.figures.curves import Curves, Mark, frame_of_curves
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.rows.fields import written

CURVES = Curves(
    *("shots", "labelled images of each class"),
    panels=(),
    lines=("model", "size"),
    over="over episodes and test",
    is_log=True,
)


def make(asked: Asked) -> Frame[Mark]:
    """Means over episodes.

    Raises:
        RequestError: no encoder was asked with two numbers of shots.
    """
    few = [c for c in asked.contenders if c.first.row.answered.shots is not None]
    frame = frame_of_curves(asked, CURVES, few)
    if frame is None:
        raise nothing(
            "two numbers of shots of one encoder", "probe --kind linear --shots 1,5,10,25"
        )
    n = sorted({int(word) for c in few if (word := written(c.field("episodes")))})
    over = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return replace(frame, caption=f"Means over {over} episodes. {frame.caption}")
