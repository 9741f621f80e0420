"""Calibration slope and intercept of each answer, with intervals, beside what perfect ones have."""

import math
from collections import defaultdict

from cache.errors import RequestError
from cache.task import NEVER_WRONG
from probe.metrics.classification import PROBABILITY
from probe.metrics.intervals import Interval
from probe.report.figures.dots import Dot, n_said, room_of, unit_of, units_said
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.names import answers_of
from probe.report.findings.standing import cluster_of
from probe.report.rows.contenders import Contender
from probe.report.statistics.calibration import calibrate

CAPTION = (
    "Dashed: perfect. A slope below 1: answers are too extreme, above: too timid; an intercept "
    "below 0: too high in the mean, above: too low. Each class against the rest, of two the one that "
    "is named. Bars: 95 % interval over {units}. {n}"
)
PERFECT = {"slope": 1.0, "intercept": 0.0}


def make(asked: Asked) -> Frame[Dot]:
    """Of each class, or of the second of two; what lacks a number is named.

    Raises:
        RequestError: no row has probabilities whose logits are finite.
    """
    drawn, notes = answers_of(asked, _why_not, "rows of probabilities", "probe --kind linear")
    dots: list[Dot] = []
    said = list(notes)
    for of in drawn:
        samples, answers = of.test.samples, of.test.answers[0]
        found = calibrate(answers.runs[0], samples.labels, samples.task, answers.score_type, samples.groups)  # fmt: skip
        unit = unit_of(of.contender, cluster_of(of.test))
        words = samples.class_names or [f"class {c.number}" for c in found]
        for each in found:
            word = str(words[each.number])
            said += [f"{of.name}, {word}: {note}" for note in each.notes]
            for metric, perfect in PERFECT.items():
                value: Interval = getattr(each, metric)
                if not math.isnan(value.value):
                    panel = f"{of.panel}: {metric}"
                    ends = value.value, value.low, value.high
                    n = each.n, each.n_units
                    dots.append(Dot(panel, word, of.short, metric, *ends, *n, unit, perfect))
    if not dots:
        raise RequestError("; ".join(["nothing to draw: no answer has a slope", *said]))
    dots.sort(key=lambda dot: dot.metric, reverse=True)  # slopes beside each other
    caption = CAPTION.format(units=units_said(dots), n=n_said(dots))
    panels: dict[str, list[Dot]] = defaultdict(list)
    for dot in dots:
        panels[dot.panel].append(dot)
    rooms = {panel: room for panel, of in panels.items() if (room := room_of(of))}
    caption += " What goes on beyond a panel ends at its end." if rooms else ""
    for dot in dots:
        low, high = rooms.get(dot.panel, (-math.inf, math.inf))
        if not low <= dot.value <= high:
            said.append(f"{dot.of}, {dot.panel}: {dot.value:.3g} of {dot.name} is beyond the panel")
    return Frame("dots", tuple(dots), caption, tuple(said))


def _why_not(of: Contender) -> str:
    row = of.first.row
    if row.encoded.task in NEVER_WRONG:
        return "numbers and masks are given without confidence"
    return "" if row.answered.score_type == PROBABILITY else "its scores are no probabilities"
