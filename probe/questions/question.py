"""What is asked of a feature file: its own labels and splits, or others laid over them by id.

Neither is part of a feature file's key, so that another target, a corrected label or a new split
costs no forward pass. What was laid over stands in the row, by digest. ``Split`` has a question's samples by split: features,
labels, ids, patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.task import Task
from probe.arrays import Array, Bools, Floats, Indices, Texts
from probe.metrics.classification import label_shares

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it
    from cache.leaks import Leaks
    from cache.masks import Masks


@dataclass(frozen=True)
class Question:
    """One question's labels and split of one feature file. S samples."""

    features: Features
    task: Task
    # As cache.labels.target.Target has them; in no split UNCERTAIN, or all MISSING.
    labels: Array
    split: NDArray[np.uint8]  # (S,) index into SPLITS, or LEFT_OUT
    name: str = ""  # of the split, where a rule makes several: "fold 2/5"
    # What makes labels and split another question: the stored tables' checksums, or a digest.
    samples: Mapping[str, int | str] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)  # for the row; empty: as stored
    division: Mapping[str, Any] = field(default_factory=dict)  # for the row; empty: as stored
    marks: tuple[str, ...] = ()
    trained_on: Question | None = None  # external validation: whose train and val are used
    leaks: Leaks | None = None  # None: not counted yet, or nobody knows; see twins.py
    # As Leaks.summary() has them; also of a file that holds the counts and no images to search.
    n_leaks: Mapping[str, int | None] | None = None
    # Of further encoders side by side, samples in the same order; see ``probe.questions.joining``.
    beside: tuple[Features, ...] = ()
    masks: Masks | None = None  # of segmentation: labels are then (S, C) true pixels by class

    @property
    def files(self) -> tuple[Features, ...]:
        """All feature files, in the order that ``Place.file`` counts."""
        return self.features, *self.beside

    @property
    def rows_are_samples(self) -> bool:
        """Whether every file that is read has one row a sample: then nothing is aggregated."""
        of_training = self.trained_on.files if self.trained_on else ()
        return all(features.rows_are_samples for features in (*self.files, *of_training))

    @property
    def dataset(self) -> str:
        return self.features.dataset

    def is_in(self, split: str) -> Bools:
        """(S,) the samples of a split, by its word."""
        return self.split == SPLITS.index(split)

    @property
    def title(self) -> str:
        """The data set, and which of several splits."""
        return f"{self.dataset}, {self.name}" if self.name else self.dataset


@dataclass(frozen=True)
class Split:
    """One split of one layer and pool. n samples."""

    x: Floats  # (n, D)
    y: Array  # int64 (n,) or (n, C), of regression float64 (n,)
    ids: Texts  # (n,)
    groups: Texts | None = None  # (n,) patients, where known; an empty text is nobody

    def __len__(self) -> int:
        return len(self.y)


def n_to_fit(question: Question) -> int:
    """Samples of train and val that something may be fitted to."""
    fitted_on = question.trained_on or question
    return int(sum(fitted_on.is_in(name).sum() for name in ("train", "val")))


def divide_samples(x: Floats, question: Question) -> dict[str, Split]:
    """Train, val and test; what is in no split is left out.

    Args:
        x: (S, D) features of the samples.
        question: their labels and split.
    """
    splits, ids, groups = {}, question.features.ids, question.features.groups
    for name in SPLITS:
        rows = _as_slice(np.flatnonzero(question.is_in(name)))
        patients = None if groups is None else groups[rows]
        splits[name] = Split(x[rows], question.labels[rows], ids[rows], patients)
    return splits


def divide(question: Question, read: Callable[[Question], Floats]) -> dict[str, Split]:
    """Train and val of what is fitted on, test of what is asked; ``read`` gives the features of one."""
    splits = divide_samples(read(question), question)
    if train := question.trained_on:
        splits = {**divide_samples(read(train), train), "test": splits["test"]}
    return splits


def _as_slice(rows: Indices) -> slice | Indices:
    """Rows that follow one another as a slice: no copy is made of a split that is one piece."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def has_groups(split: Split) -> bool:
    """Whether the patient of any sample is known."""
    return split.groups is not None and bool((split.groups != "").any())


def join(train: Split, val: Split) -> Split:
    """Two splits of one data set as one, in their order."""
    groups = None
    if train.groups is not None and val.groups is not None:
        groups = np.concatenate([train.groups, val.groups])
    x, y = np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y])
    return Split(x, y, np.concatenate([train.ids, val.ids]), groups)


def pick(split: Split, which: Bools | Indices) -> Split:
    """Some samples of a split, by a mask or by their places."""
    groups = None if split.groups is None else split.groups[which]
    return Split(split.x[which], split.y[which], split.ids[which], groups)


def check_known(question: Question, train: Split) -> None:
    """Refuse to train on several labels of which one is never known.

    Raises:
        RequestError: one isn't.
    """
    if not question.task.has_several_labels:
        return
    shares = label_shares(train.y)
    unknown = [n for n, s in zip(question.task.class_names, shares, strict=True) if np.isnan(s)]
    if unknown:
        raise RequestError(
            f"{question.dataset} has no training image of which {', '.join(unknown[:3])} is known; "
            "ask for another label by itself with --target NAME"
        )
