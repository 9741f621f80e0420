"""Confusion matrices: what the samples of each class were answered to be."""

import math
from dataclasses import dataclass

import numpy as np

from cache.task import MULTI_LABEL, NEVER_WRONG
from probe.metrics.classification import predict
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.heat import Scale, Tile
from probe.report.figures.names import answers_of
from probe.report.rows.contenders import Contender

CAPTION = (
    "Samples of test, in % of the true class, and below that, where there is room, their number."
)
SCALE = Scale(0, 1, "share of the true class")


@dataclass(frozen=True)
class Answered(Tile):
    """Samples of one class that were answered to be of one; the value is their share of it."""

    true: str
    answered: str
    n: int
    n_true: int


def make(asked: Asked) -> Frame[Answered]:
    """A matrix of each answer, by the class with the largest score.

    Raises:
        RequestError: no row of classes read test.
    """
    drawn, notes = answers_of(asked, _why_not, "rows of classes", "probe --kind linear")
    tiles = []
    for of in drawn:
        test, answers = of.test, of.test.answers[0]
        n = len(test.samples.class_names)
        said = predict(answers.runs[0], test.samples.task, answers.score_type)
        counts = np.zeros((n, n), np.int64)
        np.add.at(counts, (test.samples.labels, said), 1)
        for t, true in enumerate(test.samples.class_names):
            n_true = int(counts[t].sum())
            for s, answered in enumerate(test.samples.class_names):
                count = int(counts[t, s])
                share = count / n_true if n_true else math.nan
                text, more = (f"{100 * share:.0f}", f"n {count}") if n_true else ("", "")
                row, column = f"{true}, n {n_true}", str(answered)
                words = of.name, row, column, share, text, more, False
                tiles.append(Answered(*words, str(true), column, count, n_true))
    return Frame("heat", tuple(tiles), CAPTION, notes, "answered", "true", scale=SCALE)


def _why_not(of: Contender) -> str:
    if of.first.row.encoded.task in (MULTI_LABEL, *NEVER_WRONG):
        return "several labels at once, numbers and masks have no confusion matrix"
    return ""
