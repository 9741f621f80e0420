"""Layer curves: a metric at each layer, a line each pool, and what was chosen without test."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from probe.report.figures.curves import Curves, Mark, frame_of_curves, place_of
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.rows.contenders import Contender

CURVES = Curves(
    "layer",
    "layer, from 0",
    panels=("model", "size"),
    lines=("pool",),
    least=3,
    is_whole=True,  # the last layer of a CNN has a pool of its own
    over="over {units}",
)
MOST_SAID = 6
NO_CHOICE = "No row chose a layer: `probe --layer auto` does."


def make(asked: Asked) -> Frame[Mark]:
    """Test numbers where each layer's was read (`--layer all --all-test`), else val's.

    Raises:
        RequestError: no encoder has three layers that were asked alike.
    """
    of_all = [c for c in asked.contenders if c.first.row.answered.shots is None]
    named = [c for c in of_all if c.field("place") == "named"]
    beside = [c for c in of_all if c.field("place") == "joined"]  # which stand at no layer
    chosen = frozenset(place_of(c) for c in of_all if c.field("place") == "chosen")
    frame = frame_of_curves(asked, CURVES, named, chosen)
    if frame is None:
        raise nothing("three layers of one encoder", "probe --kind linear --layer all")
    frame = replace(frame, notes=(*frame.notes, *_beside(asked, beside)))
    if not any(mark.chosen for mark in frame.points):
        return replace(frame, caption=f"{frame.caption} {NO_CHOICE}")
    return frame


def _beside(asked: Asked, contenders: Sequence[Contender]) -> Iterator[str]:
    """What layers side by side come to, which are no point of a line."""
    said = []
    for c in contenders:
        if value := c.value(asked.metric):
            words = c.dataset, c.model, c.field("kind"), f"{c.field('layer')} {c.field('pool')}"
            said.append(f"{', '.join(words)} {value.value:.3f}")
    if said:
        more = f"; and {len(said) - MOST_SAID} more" if len(said) > MOST_SAID else ""
        yield f"Side by side, so at no one layer ({asked.metric}): {'; '.join(said[:MOST_SAID])}{more}"
