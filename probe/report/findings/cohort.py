"""Who is in which split: samples, images and patients, classes, and what columns of metadata say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.format.sample_tables import SPLITS
from cache.task import MULTI_LABEL, REGRESSION, SEGMENTATION
from probe.arrays import Array, Doubles
from probe.report.findings.division import Division, known_labels
from probe.report.findings.reported import Reported
from probe.report.rows.people import count_patients
from probe.report.statistics.bands import missing_of, numbers_of

MOST_VALUES = 8  # of a column of texts; the others are counted together
OTHERS = "others"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Counted:
    """One split."""

    split: str
    n: int  # samples with a label
    n_images: int | None  # rows of them, as the encoder saw them; None: nobody counted
    n_patients: int | None  # None: nobody knows them
    by_class: tuple[tuple[str, int], ...]  # class or label, samples that have it; empty: unknown
    n_unlabelled: int | None  # samples without any label


@dataclass(frozen=True)
class Value:
    """What one column says of one split: a share of units, or a mean."""

    n: int  # units that have the value, or whose number is known
    of: int  # units of the split
    mean: float | None = None  # of numbers
    sd: float | None = None
    low: float | None = None  # the smallest
    high: float | None = None


@dataclass(frozen=True)
class Characteristic:
    """A line of the table of characteristics: a column of numbers, or one value of texts."""

    column: str
    value: str  # "": of numbers
    by_split: tuple[tuple[str, Value], ...]


def count_splits(of: Reported) -> list[Counted]:
    """The splits of a report as it was asked, train first.

    Of those whose samples nobody knows there are the counts of the row, and classes of those whose
    scores are stored.
    """
    found, row = [], of.row
    n_folds, train = len(of.folds), row.posed.trained_on
    for split in SPLITS:
        name = f"{split} of {train.dataset}" if train and split != "test" else split
        if n_folds > 1:  # whose trains overlap
            name = f"test, {n_folds} folds or sites" if split == "test" else ""
        if not name:
            continue
        if of.division and split in of.division.known:
            found.append(count_split(of.division, split, name))
        elif n := sum(each.n.get(split, 0) for each in of.folds):
            found.append(_by_scores(of, split, name, n))
    return found


def count_split(of: Division, split: str, name: str = "") -> Counted:
    """A split whose samples are known.

    Args:
        of: the samples.
        split: one of ``of.known``.
        name: what it is called.
    """
    features, labels = of.features, of.features.labels
    is_known = known_labels(labels)
    images = np.bincount(features.row_sample, minlength=len(labels))
    here = features.split == split
    known = here & is_known
    n_unlabelled = int((here & ~is_known).sum())
    return Counted(
        name or split,
        int(known.sum()),
        int(images[known].sum()),
        None if features.groups is None else count_patients(features.groups[known]),
        _classes(labels[known], features.task, features.class_names),
        # Samples without a label are in no split but the stored one.
        n_unlabelled if of.is_stored or is_known.all() else None,
    )


def _by_scores(of: Reported, split: str, name: str, n: int) -> Counted:
    labels = patients = None
    if split == "test" and of.test:
        groups = of.test.samples.groups
        patients = None if groups is None else count_patients(groups)
        labels = of.test.samples.labels
        if of.row.answered.settings.get("scores_of") == "patients":  # no samples' labels
            labels, patients = None, len(of.test.ids)
    elif split == "val" and of.val and not of.by_folds and n == len(of.val.labels):
        labels = of.val.labels
    names = of.test.samples.class_names if of.test else ()
    classes = () if labels is None else _classes(labels, of.row.encoded.task, names)
    return Counted(name, n, None, patients, classes, None)


def _classes(labels: Array, task: str, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    if task == REGRESSION:
        return ()
    counts = (labels == 1).sum(axis=0) if task == MULTI_LABEL else None
    counts = (labels > 0).sum(axis=0) if task == SEGMENTATION else counts
    if counts is None:
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return tuple((str(name), int(n)) for name, n in zip(names, counts, strict=True))


def characterise(of: Reported) -> list[Characteristic]:
    """What each column says of each split whose samples are known, of patients where they are.

    A patient counts once in a split, with what his first sample there says.
    """
    division = of.division
    if division is None or not division.features.meta:
        return []
    features, units = division.features, {}
    for split in division.known:
        here = np.flatnonzero(known_labels(features.labels) & (features.split == split))
        if len(here):
            groups = features.groups
            units[split] = here if groups is None else _first_of_each(groups, here)
    found = []
    for column, values in features.meta.items():
        found += _characteristics(column, values, units) if units else []
    return found


def _first_of_each(groups: Array, here: Array) -> Array:
    named = here[groups[here] != ""]
    _, first = np.unique(groups[named], return_index=True)
    return np.sort(np.r_[named[first], here[groups[here] == ""]])


def _characteristics(column: str, values: Array, units: dict[str, Array]) -> list[Characteristic]:
    numbers = numbers_of(values)
    if numbers is not None and len(np.unique(numbers[~np.isnan(numbers)])) > MOST_VALUES:
        return [Characteristic(column, "", tuple((s, _mean(numbers[u])) for s, u in units.items()))]
    words = np.where(missing_of(values), UNKNOWN, values.astype(str))
    every = np.concatenate([words[u] for u in units.values()])
    distinct, counts = np.unique(every, return_counts=True)
    order = [str(w) for w in distinct[np.argsort(-counts, kind="stable")]]
    if len(order) > MOST_VALUES:
        words = np.where(np.isin(words, order[: MOST_VALUES - 1]), words, OTHERS)
        order = [*order[: MOST_VALUES - 1], OTHERS]
    return [
        Characteristic(
            column,
            word,
            tuple((s, Value(int((words[u] == word).sum()), len(u))) for s, u in units.items()),
        )
        for word in order
    ]


def _mean(numbers: Doubles) -> Value:
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return Value(0, len(numbers))
    sd = float(known.std(ddof=1)) if len(known) > 1 else None
    return Value(
        len(known), len(numbers), float(known.mean()), sd, float(known.min()), float(known.max())
    )
