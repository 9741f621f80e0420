"""Bags: the rows of each sample, for kinds that don't take their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.aggregate import RowsOfSamples
from probe.arrays import Floats, Indices
from probe.places import Place
from probe.questions.question import Question, Split, divide

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it


@dataclass(frozen=True)
class Bags:
    """The rows of every sample of a file, sample by sample. S samples, R rows."""

    x: Floats  # (R, D) as they are stored
    starts: Indices  # (S + 1,) where each sample's rows begin, and R
    rows: Indices  # (R,) the place of each in its file

    @property
    def counts(self) -> Indices:
        """(S,) rows of each sample."""
        return np.diff(self.starts)

    def rows_of(self, samples: Indices) -> Indices:
        """Places in ``x`` of the rows of some samples, one sample after the other."""
        counts = self.counts[samples]
        ends = np.cumsum(counts)
        return np.repeat(self.starts[samples] - (ends - counts), counts) + np.arange(counts.sum())

    def parts(self, samples: Indices, n_rows: int) -> Iterator[slice]:
        """Samples that follow one another, as many as have so many rows, or one that has more."""
        ends = np.cumsum(self.counts[samples])
        start = 0
        while start < len(samples):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + n_rows, side="right")))
            yield slice(start, stop)
            start = stop


def has_bags(features: Features) -> bool:
    """Whether any sample has several rows."""
    return len(features.row_sample) > len(features.ids)


def read_bags(features: Features, places: Sequence[Place]) -> Bags:
    """The rows at one place, or several side by side, compared with their checksums.

    Raises:
        RequestError: no such layer or pool.
        BrokenCache: the stored rows don't match their checksums, or a sample has none.
    """
    own = RowsOfSamples(features.row_sample, len(features.ids))
    parts = [features.array(layer, pool) for place in places for layer, pool in place.arrays]
    x = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    if not np.array_equal(own.order, np.arange(len(x))):
        x = x[own.order]
    return Bags(x, np.append(own.starts, len(x)), own.order)


def number_samples(question: Question) -> dict[str, Split]:
    """Train, val and test, whose x (n, 1) are the samples' numbers in their file."""
    return divide(question, lambda one: np.arange(len(one.features.ids), dtype=float)[:, None])


def numbers_of(split: Split) -> Indices:
    """(n,) the samples' numbers in their file, of such a split."""
    return split.x[:, 0].astype(np.intp)
