"""Recall of each class, with intervals."""

import numpy as np

from cache.task import MULTI_LABEL, NEVER_WRONG
from probe.metrics.classification import predict
from probe.report.figures.dots import Dot, n_said, unit_of, units_said
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.names import answers_of
from probe.report.findings.standing import cluster_of
from probe.report.rows.contenders import Contender
from probe.report.statistics.thresholds import share

CAPTION = (
    "Recall: the share of a class's test samples, or of a label's ones, that are answered so. "
    "Bars: 95 % interval over {units}. {n}"
)


def make(asked: Asked) -> Frame[Dot]:
    """Each answer's recalls; their intervals are those of shares of samples, or of patients.

    Raises:
        RequestError: no row of classes read test.
    """
    drawn, notes = answers_of(asked, _why_not, "rows of classes", "probe --kind linear")
    dots = []
    for of in drawn:
        test, answers, cluster = of.test, of.test.answers[0], cluster_of(of.test)
        unit = unit_of(of.contender, cluster)
        said = predict(answers.runs[0], test.samples.task, answers.score_type)
        for c, word in enumerate(test.samples.class_names):
            is_several = test.samples.task == MULTI_LABEL
            labels = test.samples.labels[:, c] == 1 if is_several else test.samples.labels == c
            hits = said[:, c] == 1 if is_several else said == c
            found = share(hits[labels], cluster[labels])
            n_units = len(np.unique(cluster[labels]))
            dots.append(
                Dot(
                    *(of.panel, str(word), of.short, "recall"),
                    *(found.value, found.low, found.high, found.n, n_units, unit),
                )
            )
    caption = CAPTION.format(units=units_said(dots), n=n_said(dots))
    return Frame("dots", tuple(dots), caption, notes, "recall")


def _why_not(of: Contender) -> str:
    return "numbers and masks have no recall" if of.first.row.encoded.task in NEVER_WRONG else ""
