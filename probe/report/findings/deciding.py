"""What each test set can show: from stored rows that read it, else from its labels alone."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cache.commands.names import counted
from cache.errors import RequestError
from cache.format.key import canonical_json
from cache.task import MISSING, MULTI_LABEL, NEVER_WRONG, REGRESSION, SEGMENTATION
from probe.arrays import Array, Bools, Doubles, Indices, Ints
from probe.metrics.classification import predict, rankings
from probe.metrics.intervals import clusters
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.comparable import make_blocks
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.rows.sides import describe
from probe.report.statistics.decide import (
    ACCURACY,
    AUC,
    DIFFERENCES,
    USUAL,
    Decision,
    Power,
    assume_accuracy,
    assume_auc,
    auc_deviations,
    least_of_auc,
    observe,
    observe_accuracy,
    scatter,
)

if TYPE_CHECKING:  # h5py takes a while, and tables of one metric ask for no feature file
    from cache.features import Features

MOST = 60  # contenders whose pairs are looked at: 1770 pairs
UNREAD = "test wasn't read"
NO_SHARES = "numbers and masks have neither accuracy nor AUC"


@dataclass(frozen=True)
class Assumed:
    """What is assumed where no scores are."""

    auc: float = 0.9
    correlation: float = 0.5
    disagreement: float = 0.1


@dataclass(frozen=True)
class Asked:
    """What is wanted."""

    differences: tuple[float, ...] = DIFFERENCES
    power: Power = USUAL
    assumed: Assumed = Assumed()


@dataclass(frozen=True)
class Shown:
    """What one test set can show by one metric."""

    dataset: str
    decision: Decision
    n: int  # samples
    of: str  # in words: the pair whose scores it is from, or what is assumed


@dataclass(frozen=True)
class Chosen:
    """Contenders that answered the same test samples, and what is to be said of the others."""

    contenders: tuple[Contender, ...]
    notes: tuple[str, ...] = ()


def choose(dataset: str, contenders: Sequence[Contender]) -> Chosen:
    """The most contenders that one test set decides by: of one split, target, and one thing measured.

    Args:
        dataset: its name.
        contenders: of that data set.
    """
    read = [c for c in contenders if c.first.row.measured.test]
    folds = [c for c in read if c.first.row.posed.fold]
    whole = [c for c in read if not c.first.row.posed.fold]
    shots = [c for c in whole if c.first.row.answered.shots is not None]
    full = [c for c in whole if c.first.row.answered.shots is None]
    lost = [c for c in full if any(of.lacking for of in c.rows)]
    groups: dict[str, list[Contender]] = defaultdict(list)
    for c in full:
        if not any(of.lacking for of in c.rows):
            groups[_test_samples(c)].append(c)
    blocks = [b.contenders for of in groups.values() for b in make_blocks(of)]
    most = max(blocks, key=len, default=[])
    n_others = sum(map(len, blocks)) - len(most)
    said = {
        "of folds or sites, each of which has a test set of its own": len(folds),
        "of few shots, whose episodes scatter too": len(shots),
        "whose scores are missing or damaged": len(lost),
        "of other splits, labels, targets or patients than most": n_others,
        f"beyond the first {MOST}": max(0, len(most) - MOST),
    }
    notes = [
        f"Left out of {dataset}: {counted(n, 'answer')} {what}" for what, n in said.items() if n
    ]
    return Chosen(tuple(most[:MOST]), tuple(notes))


def _test_samples(of: Contender) -> str:
    """What is the same for those that were asked about the same test samples."""
    condition = of.condition()
    return canonical_json([condition.get(name) for name in ("split", "target", "probe.scores_of")])


def from_rows(dataset: str, chosen: Chosen, people: People, asked: Asked) -> list[Shown]:
    """From the median pair of the contenders that read one test set.

    Args:
        dataset: its name.
        chosen: of that data set.
        people: that knows patients.
        asked: what is wanted.

    Returns:
        Nothing where fewer than two contenders read one test set, each one set.

    Raises:
        RequestError: as ``rows.answers.test_sets``.
    """
    block = chosen.contenders
    if len(block) < 2 or block[0].first.row.encoded.task in NEVER_WRONG:
        return []
    (test,) = test_sets(block, people)
    groups = test.samples.groups
    cluster = None if groups is None else clusters(groups)
    n = len(test.ids)
    if test.samples.are_patients:
        n = block[0].first.row.n["test"]
    return [
        Shown(dataset, replace(found, unit=test.samples.unit(found.n_units)), n, words)
        for found, words in (
            _auc(test, block, cluster, asked),
            _accuracy(test, block, cluster, asked),
        )
    ]


def _auc(
    test: TestSet, block: Sequence[Contender], cluster: Indices | None, asked: Asked
) -> tuple[Decision, str]:
    labels, task = test.samples.labels, test.samples.task
    moved = [auc_deviations(a.runs[0], labels, task) for a in test.answers]
    sides = [
        (len(p.positives), len(p.negatives))
        for p in rankings(test.answers[0].runs[0], labels, task)
    ]
    share = min((min(side) / sum(side) for side in sides), default=0)
    least = least_of_auc(share)
    return _by_variance(AUC, moved, block, cluster, asked, least)


def _accuracy(
    test: TestSet, block: Sequence[Contender], cluster: Indices | None, asked: Asked
) -> tuple[Decision, str]:
    labels, task = test.samples.labels, test.samples.task
    found = [predict(a.runs[0], task, a.score_type) == labels for a in test.answers]
    if task == MULTI_LABEL:
        known = labels != MISSING
        shares = known.sum(axis=0).astype(np.float64)
        each = [np.where(known, right, 0) / shares for right in found]
        moved = [np.mean(e - np.where(known, e.sum(axis=0) / shares, 0), axis=1) for e in each]
        return _by_variance(ACCURACY, moved, block, cluster, asked)
    right: list[Bools] = [np.asarray(r, bool) for r in found]
    pairs = _pairs(block)
    apart = [float((right[i] != right[j]).mean()) for i, j in pairs]
    i, j = pairs[_median(apart)]
    decision = observe_accuracy(
        right[i], right[j], cluster, differences=asked.differences, power=asked.power
    )
    return decision, _pair(block[i], block[j], len(pairs))


def _by_variance(
    metric: str,
    moved: Sequence[Doubles],
    block: Sequence[Contender],
    cluster: Indices | None,
    asked: Asked,
    least: int = 0,
) -> tuple[Decision, str]:
    pairs = _pairs(block)
    variances = [scatter(moved[i] - moved[j], cluster) for i, j in pairs]
    place = _median(variances)
    i, j = pairs[place]
    n = len(moved[0])
    n_units = n if cluster is None else int(cluster.max()) + 1
    decision = observe(
        metric,
        variances[place],
        n_units,
        is_grouped=n_units < n,
        least=least,
        differences=asked.differences,
        power=asked.power,
    )
    return decision, _pair(block[i], block[j], len(pairs))


def _pairs(block: Sequence[Contender]) -> list[tuple[int, int]]:
    """Pairs of different encoders that were asked alike; without any, of encoders; then all."""
    every = list(itertools.combinations(range(len(block)), 2))
    encoders = [(i, j) for i, j in every if block[i].model != block[j].model]
    conditions = [c.condition() for c in block]
    alike = [(i, j) for i, j in encoders if conditions[i] == conditions[j]]
    return alike or encoders or every


def _median(values: Sequence[float]) -> int:
    """The place of the lower median; of undefined ones the first."""
    known = [v for v in values if not math.isnan(v)]
    return values.index(statistics.median_low(known)) if known else 0


def _pair(a: Contender, b: Contender, n: int) -> str:
    which = f"the median of {n} pairs" if n > 1 else "the only pair"
    return f"{which}: {describe(a)} and {describe(b)}"


def from_labels(features: Features, asked: Asked) -> list[Shown]:
    """From a feature file's labels of test, counted, and what is assumed; of masks nothing.

    Raises:
        RequestError: it has no test samples.
    """
    if features.task == SEGMENTATION:
        return []
    is_test = features.split == "test"
    labels = features.labels
    if features.task not in (MULTI_LABEL, REGRESSION):
        is_test = is_test & (labels != MISSING)
    labels = labels[is_test]
    groups = None if features.groups is None else features.groups[is_test]
    return from_counts(features.dataset, features.task, labels, groups, features.class_names, asked)


def from_counts(
    dataset: str,
    task: str,
    labels: Array,
    groups: Array | None,
    class_names: Sequence[str],
    asked: Asked,
) -> list[Shown]:
    """From labels alone, and what is assumed.

    Args:
        dataset: its name.
        task: of its labels.
        labels: (n,) of test, or (n, C).
        groups: (n,) patients; None: nobody knows them.
        class_names: C.
        asked: what is wanted.

    Raises:
        RequestError: there are no test samples.
    """
    n = len(labels)
    if not n:
        raise RequestError(f"{dataset} has no test samples; lay a split over it: `extract --split`")
    if task == REGRESSION:
        return []
    cluster = np.arange(n) if groups is None else clusters(groups)
    n_units = int(cluster.max()) + 1
    unit = "patient" if n_units < n else "sample"
    counts = count_units(labels, task, len(class_names), cluster)
    assumed, wanted, power = asked.assumed, asked.differences, asked.power
    of_auc = [
        assume_auc(
            each, assumed.auc, assumed.correlation, differences=wanted, unit=unit, power=power
        )
        for each in counts
    ]
    # Of several labels the median one: their mean scatters less, as far as labels don't go together.
    of_auc.sort(key=lambda found: (math.isnan(found.smallest), found.smallest))
    auc = of_auc[(len(of_auc) - 1) // 2]
    words = UNREAD + (", as if of one label, the median one" if len(of_auc) > 1 else "")
    accuracy = assume_accuracy(
        n_units, assumed.disagreement, differences=wanted, unit=unit, power=power
    )
    return [Shown(dataset, auc, n, words), Shown(dataset, accuracy, n, UNREAD)]


def count_units(labels: Ints, task: str, n_classes: int, cluster: Indices) -> list[Ints]:
    """Units of each class, of several labels of each label's zeros and ones.

    A patient is of the class that most of his samples have, and of a label that any of them has.
    """
    n_units = int(cluster.max()) + 1
    if task == MULTI_LABEL:
        found = []
        for column in labels.T:
            known = column != MISSING
            has = np.bincount(cluster[known], column[known] == 1, n_units) > 0
            seen = np.bincount(cluster[known], minlength=n_units) > 0
            found.append(np.array([int((seen & ~has).sum()), int(has.sum())]))
        return found
    votes = np.zeros((n_units, n_classes), np.int64)
    np.add.at(votes, (cluster, labels), 1)
    return [np.bincount(votes.argmax(axis=1), minlength=n_classes)]
