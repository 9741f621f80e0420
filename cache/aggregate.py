"""From rows to samples: a volume's slices, or a patient's views, become one vector."""

import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache, RequestError

AGGREGATES = ("mean", "max")


class RowsOfSamples:
    """Which rows each sample has, in their order.

    Args:
        row_sample: (N,) index of each row's sample, 0 to S - 1, in any order.
        n_samples: S.

    Raises:
        BrokenCache: a sample has no rows.
    """

    def __init__(self, row_sample: NDArray[np.integer], n_samples: int) -> None:
        self.counts = np.bincount(row_sample, minlength=n_samples)  # (S,) rows of each
        if len(self.counts) > n_samples or not self.counts.all():
            n_empty = int((self.counts == 0).sum())
            raise BrokenCache(f"{n_empty} of {n_samples} samples have no rows")
        self.order = np.argsort(row_sample, kind="stable")  # (N,) the rows, sample by sample
        self.starts = np.cumsum(self.counts) - self.counts  # (S,) where each sample's begin there
        self.most = int(self.counts.max(initial=1))  # of one sample

    def of(self, sample: int) -> NDArray[np.intp]:
        """One sample's rows."""
        return self.order[self.starts[sample] :][: self.counts[sample]]


def aggregate_rows(
    x: NDArray[np.floating], row_sample: NDArray[np.integer], n_samples: int, how: str
) -> NDArray[np.float32]:
    """One vector for each sample.

    Args:
        x: (N, D) features of rows.
        row_sample: (N,) index of each row's sample, 0 to S - 1, in any order.
        n_samples: S.
        how: "mean" (Baharoon et al. 2023 average slices) or "max", of each component.

    Returns:
        (S, D) float32, in the order of the samples. Means are summed in float64: a float16 sum over
        some hundred slices would lose half its digits.

    Raises:
        RequestError: unknown ``how``.
        BrokenCache: a sample has no rows.
    """
    if how not in AGGREGATES:
        raise RequestError(f"--aggregate takes {', '.join(AGGREGATES)}, not {how!r}")
    rows = RowsOfSamples(row_sample, n_samples)
    pooled = np.empty((n_samples, x.shape[1]), np.float32)
    # Sample by sample: a float64 copy of all rows would be four times the stored array.
    for sample in range(n_samples):
        own = x[rows.of(sample)]
        if how == "mean":
            pooled[sample] = own.mean(axis=0, dtype=np.float64)
        else:
            pooled[sample] = own.max(axis=0)
    return pooled
