"""Who is in which split: samples, images and patients, classes, and what columns of metadata say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.format.sample_tables import SPLITS
from cache.task import MULTI_LABEL, REGRESSION
from probe.arrays import Array, Bools, Doubles
from probe.report.findings.reported import Reported
from probe.report.rows.people import count_patients
from probe.report.statistics.bands import missing_of, numbers_of

if TYPE_CHECKING:
    from cache.features import Features

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
    """The splits of a report, train first.

    Of a split or of labels that were laid over the stored ones, and of external data, there are the
    counts of the row, and classes of those whose scores are stored.
    """
    row = of.contender.first.row
    if of.features is not None and of.has_stored_split:
        return _of_file(of.features)
    if len(of.folds) > 1:  # whose trains overlap
        n = sum(each.n.get("test", 0) for each in of.folds)
        return [Counted(f"test, {len(of.folds)} folds or sites", n, None, None, (), None)]
    names = of.test.samples.class_names if of.test else ()
    found = []
    for split in SPLITS:
        n = row.n.get(split)
        if not n:
            continue
        labels = patients = None
        if split == "test" and of.test:
            labels, groups = of.test.samples.labels, of.test.samples.groups
            patients = None if groups is None else count_patients(groups)
        elif split == "val" and of.val and not of.by_folds:
            labels = of.val.labels
        classes = () if labels is None else _classes(labels, row.encoded.task, names)
        train = row.posed.trained_on
        name = f"{split} of {train.dataset}" if train and split != "test" else split
        found.append(Counted(name, n, None, patients, classes, None))
    return found


def _of_file(features: Features) -> list[Counted]:
    labels, found = features.labels, []
    images = np.bincount(features.row_sample, minlength=len(labels))
    for split in SPLITS:
        here = features.split == split
        if not here.any():
            continue
        known = here & known_labels(labels)
        groups = None if features.groups is None else features.groups[known]
        found.append(
            Counted(
                split,
                int(known.sum()),
                int(images[known].sum()),
                None if groups is None else count_patients(groups),
                _classes(labels[known], features.task, features.class_names),
                int((here & ~known).sum()),
            )
        )
    return found


def known_labels(labels: Array) -> Bools:
    """(S,) whether anything is known of a sample."""
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    return np.asarray((labels >= 0) if labels.ndim == 1 else (labels >= 0).any(axis=1), bool)


def _classes(labels: Array, task: str, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    if task == REGRESSION:
        return ()
    counts = (labels == 1).sum(axis=0) if task == MULTI_LABEL else None
    if counts is None:
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return tuple((str(name), int(n)) for name, n in zip(names, counts, strict=True))


def characterise(of: Reported) -> list[Characteristic]:
    """What each column says of each split, of patients where they are known.

    A patient counts once in a split, with what his first sample there says. Where the file's split isn't
    the row's there is test alone.
    """
    features = of.features
    if features is None or not features.meta:
        return []
    units = {}
    for split, here in _members(of, features):
        if len(here):
            units[split] = (
                here if features.groups is None else _first_of_each(features.groups, here)
            )
    found = []
    for column, values in features.meta.items():
        found += _characteristics(column, values, units) if units else []
    return found


def _members(of: Reported, features: Features) -> Iterator[tuple[str, Array]]:
    if of.has_stored_split:
        known = known_labels(features.labels)
        for split in SPLITS:
            yield split, np.flatnonzero(known & (features.split == split))
    elif of.test is not None:
        yield "test", np.flatnonzero(np.isin(features.ids, of.test.ids))


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
