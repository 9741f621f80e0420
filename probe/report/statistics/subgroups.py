"""One model's answers, subgroup by subgroup: metrics, rates at a threshold of val, and the gap.

A subgroup's metrics and intervals are those of a test set that is just it. Where a class has fewer than
``FEWEST_UNITS`` patients in a subgroup (samples, where patients are unknown), there are counts alone:
of so few a metric says next to nothing, and its gap to others is mostly chance. Of several labels one
that has few takes the means over labels away, and the others keep their rates. Samples of which
nobody knows the subgroup are counted as ``bands.UNKNOWN``, and are no part of any gap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from cache.errors import RequestError
from cache.task import MULTI_LABEL, NEVER_WRONG, REGRESSION, SEGMENTATION
from probe.arrays import Array, Bools, Floats, Indices, Texts
from probe.metrics.intervals import Interval, clusters, estimate, unit_of
from probe.metrics.prepared import prepare
from probe.report.statistics.bands import UNKNOWN
from probe.report.statistics.gaps import (
    N_PERMUTATIONS,
    Gap,
    find_gap,
    members,
    sampling_variance,
)
from probe.report.statistics.paired import Answers, Samples
from probe.report.statistics.thresholds import Rates, Threshold, fix_thresholds, rates

NOWHERE = "nobody knows their subgroup, and they are in no gap"
FEWEST_UNITS = 10  # of each class, for anything but counts


class Val(NamedTuple):
    """The same model's answers to val, which it wasn't fitted to, out of fold where folds decided."""

    scores: Floats  # (M, C)
    labels: Array  # (M,) or (M, C)


class Count(NamedTuple):
    """How many are of one class, or have one label."""

    n: int  # samples
    n_units: int  # patients, or samples where they are unknown
    n_fewer: int  # units of the label's smaller side; of classes the same as n_units


@dataclass(frozen=True)
class Subgroup:
    """What is known of one subgroup."""

    name: str
    n: int  # samples
    n_units: int
    by_class: tuple[Count, ...]  # of each class or label; of regression empty
    metrics: Mapping[str, Interval] = field(default_factory=dict)  # empty: see why
    methods: Mapping[str, str] = field(default_factory=dict)  # see probe.metrics.intervals
    rates: tuple[Rates, ...] = ()  # one for each threshold; of labels with few units none
    why: str = ""  # there are no metrics

    @property
    def has_metrics(self) -> bool:
        return bool(self.metrics)


@dataclass(frozen=True)
class Subgroups:
    """All subgroups of a test set, and what lies between them."""

    groups: tuple[Subgroup, ...]  # in the order asked for
    unknown: Subgroup | None  # counts; None: every sample's subgroup is known
    gaps: Mapping[str, Gap]  # metric -> over the subgroups that have metrics; empty: see notes
    thresholds: tuple[Threshold, ...]
    unit: str  # "patient" where one has several samples, else "sample"
    notes: tuple[str, ...]  # what a reader must know


def subgroups(
    answers: Answers,
    test: Samples,
    names: Texts,
    order: Sequence[str],
    val: Val | None = None,
    metrics: Sequence[str] = ("auc", "acc"),
    *,
    sensitivity: float | None = None,
    level: float = 0.95,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> Subgroups:
    """Measure each subgroup, and the gap.

    Args:
        answers: of one training, to N samples.
        test: the samples, and whose they are.
        names: (N,) each sample's subgroup; ``bands.UNKNOWN``, or what isn't in the order, of none.
        order: which subgroups there are.
        val: what thresholds are fixed on; None: there are no rates.
        metrics: whose gap is asked for, by the names of rows; what the task or the scores don't
            have, and errors of calibration, are left out.
        sensitivity: that the threshold reaches on val; None: the largest Youden's J.
        level: of the intervals.
        n_permutations: of the null.
        seed: of these.

    Raises:
        RequestError: answers of several trainings, a sensitivity or level out of range, or what
            ``probe.metrics.prepared.prepare`` refuses.
    """
    if answers.scores.ndim == 3:
        raise RequestError(
            f"subgroups are of one training's answers; found those of {len(answers.scores)}"
        )
    n = len(test.labels)
    cluster = np.arange(n) if test.groups is None else clusters(test.groups)
    unit = "sample" if test.groups is None else unit_of(int(cluster.max()) + 1 < n)
    notes: list[str] = []
    thresholds: tuple[Threshold, ...] = ()
    if test.task not in NEVER_WRONG:
        thresholds, why = _thresholds(val, answers, test, sensitivity)
        notes += why
    of = _Measuring(answers, test, cluster, unit, thresholds, level)
    groups = tuple(of.subgroup(name, names == name) for name in order)
    is_known = np.isin(names, order)
    unknown = None
    if not is_known.all():
        unknown = replace(of.counted(UNKNOWN, ~is_known), why=f"counts only: {NOWHERE}")
    shown = tuple(group.name for group in groups if group.has_metrics)
    notes += _of_several(names, order, cluster, unit)
    gaps: dict[str, Gap] = {}
    if len(shown) < 2:
        notes.append(f"no gap: {len(shown)} of {len(groups)} subgroups have metrics")
    else:
        gaps = of.gaps(names, shown, metrics, n_permutations, seed)
    if gaps and test.task == MULTI_LABEL:
        notes.append(f"names are permuted over {unit}s with the same number of labels")
    elif gaps and test.task == SEGMENTATION:
        notes.append(f"names are permuted over {unit}s with the same number of structures")
    elif gaps and test.task == REGRESSION:
        notes.append(f"names are permuted over all {unit}s, whatever their value")
    return Subgroups(groups, unknown, gaps, thresholds, unit, tuple(notes))


def _thresholds(
    val: Val | None, answers: Answers, test: Samples, sensitivity: float | None
) -> tuple[tuple[Threshold, ...], tuple[str, ...]]:
    if val is None or not len(val.labels):
        nobody = np.empty((0, answers.scores.shape[1])), test.labels[:0]
        found, why = fix_thresholds(*nobody, test.task, sensitivity)
        return found, (
            "no rates: there are no answers to val to fix a threshold on",
        ) if why else ()
    return fix_thresholds(val.scores, val.labels, test.task, sensitivity)


def _of_several(names: Texts, order: Sequence[str], cluster: Indices, unit: str) -> tuple[str, ...]:
    """What is said of patients with samples in several subgroups."""
    known = np.isin(names, order)
    pairs = np.unique(np.stack([cluster[known], _numbers(names[known], order)], axis=1), axis=0)
    several = int((np.bincount(pairs[:, 0]) > 1).sum()) if len(pairs) else 0
    if not several:
        return ()
    are = f"{several} {unit}s are" if several > 1 else f"1 {unit} is"
    return (
        f"{are} in several subgroups, with the samples of each; a gap's null takes the parts for "
        f"{unit}s of their own",
    )


def _numbers(names: Texts, order: Sequence[str]) -> Indices:
    place = {name: number for number, name in enumerate(order)}
    return np.array([place[str(name)] for name in names], np.intp)


class _Measuring:
    """One model on one test set."""

    def __init__(
        self,
        answers: Answers,
        test: Samples,
        cluster: Indices,
        unit: str,
        thresholds: tuple[Threshold, ...],
        level: float,
    ) -> None:
        self.answers, self.test, self.cluster = answers, test, cluster
        self.unit, self.thresholds, self.level = unit, thresholds, level
        by_class = test.labels if test.task == SEGMENTATION else answers.scores
        self.n_classes = by_class.shape[1]

    def subgroup(self, name: str, who: Bools) -> Subgroup:
        """One with metrics, if its classes have enough units; of labels with rates of those that do."""
        found = self.counted(name, who)
        test, of = self.test, (self.answers.scores[who], self.test.labels[who], self.test.task)
        if found.why and test.task != MULTI_LABEL:
            return found
        each = tuple(
            rates(*of, threshold, self.cluster[who], self.answers.score_type, self.level)
            for threshold in self.thresholds
            if found.by_class[threshold.number].n_fewer >= FEWEST_UNITS
        )
        if found.why:
            return replace(found, rates=each)
        groups = None if test.groups is None else test.groups[who]
        how = {"level": self.level, "score_type": self.answers.score_type, "groups": groups}
        estimates = estimate(*of, **how)
        return replace(found, metrics=estimates.metrics, methods=estimates.methods, rates=each)

    def counted(self, name: str, who: Bools) -> Subgroup:
        """One with counts, and why there may be no more."""
        cluster = self.cluster[who]
        n_units = len(np.unique(cluster))
        if self.test.task == REGRESSION:
            why = self._too_few(n_units, "there") if n_units < FEWEST_UNITS else ""
            return Subgroup(name, int(who.sum()), n_units, (), why=why)
        several = self.test.task == MULTI_LABEL
        counts, few = [], []
        for c in range(self.n_classes):
            column = self._has(c)
            ones = cluster[column[who] == 1]
            with_class = without = len(np.unique(ones))
            if several:
                without = len(np.unique(cluster[column[who] == 0]))
            counts.append(Count(len(ones), with_class, min(with_class, without)))
            # A class that test doesn't have is lacking everywhere, and no metric of counts needs it.
            if counts[-1].n_fewer < FEWEST_UNITS and (column == 1).any():
                few.append(c)
        why = ""
        if few:
            c = min(few, key=lambda number: counts[number].n_fewer)
            label = str(self.test.class_names[c]) if len(self.test.class_names) else str(c)
            side = " on its smaller side" if several else ""
            what = f"{'label' if several else 'class'} {label}"
            why = self._too_few(counts[c].n_fewer, what) + side
            why += f", as {len(few) - 1} more" if len(few) > 1 else ""
        return Subgroup(name, int(who.sum()), n_units, tuple(counts), why=why)

    def _has(self, c: int) -> Array:
        """(N,) 1 where a sample has the class, the label or the structure."""
        labels, task = self.test.labels, self.test.task
        if task == SEGMENTATION:
            return (labels[:, c] > 0).astype(np.int64)
        return labels[:, c] if task == MULTI_LABEL else (labels == c).astype(np.int64)

    def _too_few(self, n: int, what: str) -> str:
        units = f"{n} {self.unit}{'' if n == 1 else 's'}"
        verb = f"{what} {'is' if n == 1 else 'are'}" if what == "there" else f"{what} has"
        lacking = "no means over labels" if self.test.task == MULTI_LABEL else "counts only"
        return f"{lacking}: {verb} {units}, under {FEWEST_UNITS}"

    def gaps(
        self,
        names: Texts,
        shown: tuple[str, ...],
        metrics: Sequence[str],
        n_permutations: int,
        seed: int,
    ) -> dict[str, Gap]:
        """Of each metric that has one."""
        who = np.isin(names, shown)
        number, cluster = _numbers(names[who], shown), self.cluster[who]
        scores, labels = self.answers.scores[who], self.test.labels[who]
        task, score_type = self.test.task, self.answers.score_type
        every = prepare(scores, labels, task, score_type)
        of = members(number, cluster, labels, task)
        parts = []
        for k in range(len(shown)):
            mine = number == k
            one = prepare(scores[mine], labels[mine], task, score_type)
            parts.append((one, np.unique(cluster[mine], return_inverse=True)[1]))
        found = {}
        known = {m.name: m for m in every.metrics if m.has_interval}
        for metric in (known[name] for name in metrics if name in known):
            variances = np.array([sampling_variance(metric, *part) for part in parts])
            draw = {"n_permutations": n_permutations, "seed": seed}
            found[metric.name] = find_gap(metric, every, of, shown, variances, **draw)
        return found
