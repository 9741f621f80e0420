"""Hints of wrong labels: samples whose out-of-sample scores say another class; no more than hints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from cache.task import MISSING, MULTI_LABEL
from probe.arrays import Doubles, Ints
from probe.metrics.classification import PROBABILITY
from probe.report.findings.wrong import (
    MOST,
    NEAREST,
    TEST,
    TRAIN,
    VAL,
    Answered,
    Looks,
    Sample,
    answers_of,
    said_of,
)
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.statistics.confident import NONE, likely_classes, margins

STORES = (
    "no scores of train: hints are of {} alone. `probe --choose cv` stores train's, out of fold; so "
    "do knn, linear and ridge where val decides"
)


@dataclass(frozen=True)
class Hint:
    """A label that may be wrong."""

    sample: Sample
    given: str  # the class as it is labelled; of several labels "no edema"
    likely: str  # the class that the sample counts as
    p_given: float
    p_likely: float
    margin: float  # p of the given class less the largest other, -1 to 1; the smallest first


@dataclass(frozen=True)
class PairOfClasses:
    """How many samples of one class count as another."""

    given: str
    likely: str
    n: int
    n_given: int  # samples that are labelled so


@dataclass(frozen=True)
class Hints:
    """Labels of one data set that one contender doubts."""

    contender: Contender
    splits: tuple[str, ...]  # whose labels were looked at, in words
    n: int  # labels: one a sample, of several labels the known ones
    pairs: tuple[PairOfClasses, ...]  # the most frequent first
    shown: tuple[Hint, ...]
    k: int
    learnt: str  # where neighbours were looked for
    notes: tuple[str, ...]

    @property
    def n_hints(self) -> int:
        return sum(pair.n for pair in self.pairs)


@dataclass(frozen=True)
class _Labels:
    """One problem of single labels: all, or one of several labels."""

    names: tuple[str, ...]
    scores: Doubles  # (n, C)
    labels: Ints  # (n,)
    where: list[tuple[int, int]]  # of each its part and place there


def label_hints(
    contender: Contender, people: People, *, most: int = MOST, k: int = NEAREST
) -> Hints:
    """Labels that scores of models which weren't fitted to them contradict.

    Of folds the test of each; else test, val and train, as far as they are stored.

    Args:
        contender: one row, or those of its folds or trainings.
        people: that knows the feature files.
        most: that are shown.
        k: nearest training images of each.

    Raises:
        RequestError: rows of numbers, of patients or of scores that are no probabilities.
    """
    row = contender.first.row
    if row.answered.score_type != PROBABILITY:
        raise RequestError(
            f"{contender.first.path or row.encoded.label} has no probabilities, and hints compare "
            "them with their class's mean; name a row of knn or linear"
        )
    parts, notes = _parts(contender)
    looks, found, pairs, n = Looks(people, k), [], [], 0
    for problem in _problems(parts, row.encoded.task):
        likely, margin = (
            likely_classes(problem.scores, problem.labels),
            margins(problem.scores, problem.labels),
        )
        n += len(likely)
        is_hint = (likely != NONE) & (likely != problem.labels)
        for i in np.flatnonzero(is_hint).tolist():
            given, other = int(problem.labels[i]), int(likely[i])
            found.append((float(margin[i]), problem, i, given, other))
        both, counts = np.unique(
            np.column_stack([problem.labels, likely])[is_hint], axis=0, return_counts=True
        )
        for (given, other), count in zip(both.tolist(), counts.tolist(), strict=True):
            names = problem.names[given], problem.names[other]
            n_given = int((problem.labels == given).sum())
            pairs.append(PairOfClasses(*names, count, n_given))
    found.sort(key=lambda of: of[0])
    shown = found[:most]
    samples = looks.of(parts, [problem.where[i] for _, problem, i, *_ in shown])
    return Hints(
        contender,
        tuple(dict.fromkeys(part.split for part in parts)),
        n,
        tuple(sorted(pairs, key=lambda pair: -pair.n)),
        tuple(
            Hint(
                sample,
                problem.names[given],
                problem.names[other],
                float(problem.scores[i, given]),
                float(problem.scores[i, other]),
                margin,
            )
            for (margin, problem, i, given, other), sample in zip(shown, samples, strict=True)
        ),
        k,
        looks.learnt,
        (*looks.notes, *notes, *said_of(contender)),
    )


def _parts(contender: Contender) -> tuple[list[Answered], list[str]]:
    """What was answered out of sample, and what of it isn't stored."""
    if contender.is_of_folds or contender.first.row.posed.fold:
        return list(answers_of(contender, TEST)), []
    arrays = contender.first.scores()
    there = [s for s in (TRAIN, VAL, TEST) if len(arrays.get(f"{s}_ids", ()))]
    parts = [part for split in there for part in answers_of(contender, split)]
    if not parts:
        next(answers_of(contender, TEST))  # says why
    row, notes = contender.first.row, []
    if TRAIN not in there and not (VAL in there and "folds" in row.answered.settings):
        notes.append(STORES.format(" and ".join(there)))
    if row.posed.trained_on:
        notes.append(f"train and val are of {row.posed.trained_on.dataset}")
    return parts, notes


def _problems(parts: Sequence[Answered], task: str) -> Iterator[_Labels]:
    scores = np.concatenate([part.scores for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    where = [(number, i) for number, part in enumerate(parts) for i in range(len(part.ids))]
    names = parts[0].class_names
    if task != MULTI_LABEL:
        yield _Labels(names, scores, labels, where)
        return
    for c, name in enumerate(names):
        known = np.flatnonzero(labels[:, c] != MISSING)
        two = np.column_stack([1 - scores[known, c], scores[known, c]])
        yield _Labels((f"no {name}", name), two, labels[known, c], [where[i] for i in known])
