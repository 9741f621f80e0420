"""Few-shot curves: a metric by the number of labelled images of each class."""

from dataclasses import replace

from probe.report.figures.curves import Curves, Mark, frame_of_curves
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import written
from probe.results import SHOTS_ARE_PATIENTS

CURVES = Curves(
    *("shots", "labelled images of each class"),
    panels=(),
    lines=("model", "size"),
    over="over episodes and {units} of test",
    is_log=True,
)
OF_PATIENTS = "labelled patients of each class, with all their images"
MIXED = "labelled images, or patients, of each class"


def make(asked: Asked) -> Frame[Mark]:
    """Means over episodes.

    Raises:
        RequestError: no encoder was asked with two numbers of shots.
    """
    few = [c for c in asked.contenders if c.first.row.answered.shots is not None]
    are_patients = {_draws_patients(c) for c in few}
    curves = CURVES
    if True in are_patients:
        curves = replace(CURVES, label=OF_PATIENTS)
    if len(are_patients) > 1:
        curves = replace(CURVES, label=MIXED, told_of=_drawn)
    frame = frame_of_curves(asked, curves, few)
    if frame is None:
        raise nothing(
            "two numbers of shots of one encoder", "probe --kind linear --shots 1,5,10,25"
        )
    n = sorted({int(word) for c in few if (word := written(c.field("episodes")))})
    over = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return replace(frame, caption=f"Means over {over} episodes. {frame.caption}")


def _draws_patients(of: Contender) -> bool:
    return SHOTS_ARE_PATIENTS in of.marks


def _drawn(of: Contender) -> str:
    return "shots are patients" if _draws_patients(of) else "shots are images"
