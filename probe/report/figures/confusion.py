"""Confusion matrices: what the samples of each class were answered to be."""

import math
from dataclasses import dataclass

import numpy as np

from cache.task import MULTI_LABEL, REGRESSION
from probe.metrics.classification import predict
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.names import answers_of
from probe.report.rows.contenders import Contender

CAPTION = "Samples of test, in % of the true class; n: samples of a class."


@dataclass(frozen=True)
class Cell:
    """Samples of one class that were answered to be of one."""

    panel: str
    true: str
    answered: str
    n: int
    share: float  # of the samples of the true class; nan: there are none
    n_true: int


def make(asked: Asked) -> Frame[Cell]:
    """A matrix of each answer, by the class with the largest score.

    Raises:
        RequestError: no row of classes read test.
    """
    drawn, notes = answers_of(asked, _why_not, "rows of classes", "probe --kind linear")
    cells = []
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
                cells.append(Cell(of.name, str(true), str(answered), count, share, n_true))
    return Frame("confusion", tuple(cells), CAPTION, notes, "answered", "true")


def _why_not(of: Contender) -> str:
    if of.first.row.encoded.task in (MULTI_LABEL, REGRESSION):
        return "several labels at once, and numbers, have no confusion matrix"
    return ""
