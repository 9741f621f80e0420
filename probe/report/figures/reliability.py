"""Reliability: how often answers are right that are given with so much confidence.

The bins are those of the calibration error (Guo et al. 2017): 15 of equal width, by the largest
probability. So the errors here are those of rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cache.task import MULTI_LABEL, NEVER_WRONG
from probe.arrays import Doubles, Floats, Ints
from probe.metrics.calibration import N_BINS, calibration_error_of, gap_sums, temper
from probe.metrics.classification import PROBABILITY
from probe.metrics.jackknife import wilson
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.names import Drawn, answers_of
from probe.report.findings.standing import cluster_of
from probe.report.rows.contenders import Contender

BEFORE, AFTER = "as answered", "after temperature"
CAPTION = (
    "Answers in {n} bins of confidence, the largest probability; larger dots are of more answers. "
    "{bars} ECE: expected "
    "calibration error, too large of few samples. T: the temperature, fitted on val; 1 where none helped. n: answers to test."
)
BARS = "Bars: 95 % interval of a bin's share (Wilson){where}."
SOME, NO_BARS = (
    ", where no patient has several samples",
    "No bars: patients have several samples, so answers of a bin aren't independent.",
)
OF_VOTES = (
    "tempered neighbours' votes are smoothed by shares of train, which no row holds: not drawn"
)


@dataclass(frozen=True)
class Bin:
    """Answers of about one confidence."""

    panel: str
    of: str  # BEFORE or AFTER
    temperature: float  # 1 of BEFORE
    above: float  # confidence, the bin's ends; that of the lower isn't in it
    to: float
    n: int  # answers
    confidence: float  # their mean
    right: float  # share that are right
    low: float  # ends of its interval; nan: it has none
    high: float
    error: float  # ECE of all bins
    n_all: int


def make(asked: Asked) -> Frame[Bin]:
    """Each answer's bins that aren't empty.

    Raises:
        RequestError: no row has probabilities.
    """
    drawn, notes = answers_of(
        asked, _why_not, "rows whose scores are probabilities", "probe --kind linear"
    )
    of_votes = any(of.contender.field("kind") == "knn" for of in drawn)
    bins = tuple(found for of in drawn for found in _bins(of))
    notes = (*notes, *([OF_VOTES] if of_votes else []))
    has_bar = {not math.isnan(found.low) for found in bins}
    said = NO_BARS if True not in has_bar else BARS.format(where=SOME if False in has_bar else "")
    caption = CAPTION.format(n=N_BINS, bars=said)
    return Frame("reliability", bins, caption, notes, "confidence", "share that are right")


def _why_not(of: Contender) -> str:
    row = of.first.row
    if row.encoded.task in (MULTI_LABEL, *NEVER_WRONG):
        return "several labels at once, numbers and masks have no single confidence"
    return "" if row.answered.score_type == PROBABILITY else "its scores are no probabilities"


def _bins(of: Drawn) -> Iterator[Bin]:
    test, row = of.test, of.contender.first.row
    cluster = cluster_of(test)
    is_single = int(cluster.max()) + 1 == len(cluster)
    scores, labels = test.answers[0].runs[0], test.samples.labels
    yield from _binned(of.name, BEFORE, 1.0, scores, labels, is_single)
    heat = row.measured.temperature
    if heat is not None and "ece_tempered" in row.measured.test and row.answered.kind != "knn":
        yield from _binned(of.name, AFTER, heat, temper(scores, heat), labels, is_single)


def _binned(
    panel: str, of: str, heat: float, scores: Floats | Doubles, labels: Ints, is_single: bool
) -> Iterator[Bin]:
    confidence = np.clip(scores.max(axis=1).astype(np.float64), 0, 1)
    is_right = scores.argmax(axis=1) == labels
    place = np.ceil((confidence * N_BINS).round(5)).astype(int).clip(1)  # as in gap_sums
    error = float(calibration_error_of(gap_sums(scores, labels)))
    for b in np.unique(place):
        here = place == b
        n, right = int(here.sum()), float(is_right[here].mean())
        low, high = wilson(right, n, 0.95) if is_single else (math.nan, math.nan)
        yield Bin(
            *(panel, of, heat, float(b - 1) / N_BINS, float(b) / N_BINS, n),
            *(float(confidence[here].mean()), right, low, high, error, len(labels)),
        )
