"""What is asked of a feature file: its own labels and splits, or others laid over them by id.

Neither is part of a feature file's key, so that another target, a corrected label or a new split
costs no forward pass. What was laid over stands in the row, by digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.features import Features
from cache.format.sample_tables import SPLITS
from cache.labels.target import Target
from cache.leaks import Leaks
from cache.task import MISSING, REGRESSION
from probe.questions.overlay import OverlayConfig
from probe.questions.splits import choose_splits
from probe.questions.targets import choose_target, labels_digest


@dataclass(frozen=True)
class Asked:
    """One question's labels and split of one feature file. S samples."""

    features: Features
    task: str
    class_names: tuple[str, ...]
    labels: NDArray[
        Any
    ]  # as cache.labels.target.Target has them; in no split UNCERTAIN, or all MISSING
    split: NDArray[np.uint8]  # (S,) index into SPLITS, or LEFT_OUT
    name: str = ""  # of the split, where a rule makes several: "fold 2/5"
    # What makes labels and split another question: the stored tables' checksums, or a digest.
    samples: Mapping[str, int | str] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)  # for the row; empty: as stored
    division: Mapping[str, Any] = field(default_factory=dict)  # for the row; empty: as stored
    marks: tuple[str, ...] = ()
    trained_on: "Asked | None" = None  # external validation: whose train and val are used
    leaks: Leaks | None = None  # None: not counted yet, or nobody knows; see twins.py
    # As Leaks.summary() has them; also of a file that holds the counts and no images to search.
    n_leaks: Mapping[str, int | None] | None = None

    @property
    def dataset(self) -> str:
        return self.features.dataset

    def is_in(self, split: str) -> NDArray[np.bool_]:
        """(S,) the samples of a split, by its word."""
        return self.split == SPLITS.index(split)

    @property
    def title(self) -> str:
        """The data set, and which of several splits."""
        return f"{self.dataset}, {self.name}" if self.name else self.dataset


def lay_over(config: OverlayConfig, features: Features) -> list[Asked]:
    """A file's samples as they are asked for, once for each split; without a wish as stored.

    Samples of which no label is known are in no split.

    Args:
        config: the wishes.
        features: the file.

    Raises:
        RequestError: a table that can't be read or fits nothing, no such target, uncertain labels
            of which nobody says what they count as, or a split that can't be made.
    """
    target, said = choose_target(config, features)
    is_known = _is_known(target)
    if not is_known.any():
        raise RequestError(f"{features.dataset} has no sample of which a label is known")
    marks = [_target_mark(said)] if said else []
    if n := int((~is_known).sum()):
        marks.append(f"{n:_} of {len(is_known):_} samples have no label: left out")
    stored = {name: features.header.tables[f"samples/{name}"] for name in ("labels", "split")}
    labels_id = labels_digest(target, features) if said else stored["labels"]
    row = {**said, "task": target.task, "labels": labels_id} if said else {}
    return [
        Asked(
            features,
            target.task,
            target.class_names,
            target.labels,
            named.split,
            named.name,
            {"labels": labels_id, "split": division.get("digest", stored["split"])},
            row,
            division,
            (*marks, *named.notes),
        )
        for named, division in choose_splits(config, features, target, is_known)
    ]


def _is_known(target: Target) -> NDArray[np.bool_]:
    """(S,) samples of which something is known."""
    if target.task == REGRESSION:
        return ~np.isnan(target.labels)
    known = target.labels != MISSING
    return known.any(axis=1) if known.ndim == 2 else known


def _target_mark(said: Mapping[str, Any]) -> str:
    words = [f"target: {said['target']}"] if "target" in said else []
    words += [f"labels: {said['file']}"] if "file" in said else []
    words += [f"uncertain labels: {said['uncertain']}"] if "uncertain" in said else []
    return ", ".join(words)
