"""What is asked of a feature file: its own labels and splits, or others laid over them by id.

Neither is part of a feature file's key, so that another target, a corrected label or a new split
costs no forward pass. What was laid over stands in the row, by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.format.sample_tables import SPLITS

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it
    from cache.leaks import Leaks


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
    trained_on: Asked | None = None  # external validation: whose train and val are used
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
