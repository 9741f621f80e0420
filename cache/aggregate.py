"""From rows to samples: a volume's slices, or a patient's views, become one vector."""

import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache, RequestError

AGGREGATES = ("mean", "max")


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
    counts = np.bincount(row_sample, minlength=n_samples)
    if len(counts) > n_samples or not counts.all():
        raise BrokenCache(f"{int((counts == 0).sum())} of {n_samples} samples have no rows")
    order = np.argsort(row_sample, kind="stable")
    ends = np.cumsum(counts)
    pooled = np.empty((n_samples, x.shape[1]), np.float32)
    # Sample by sample: a float64 copy of all rows would be four times the stored array.
    for sample, (start, stop) in enumerate(zip(ends - counts, ends, strict=True)):
        rows = x[order[start:stop]]
        if how == "mean":
            pooled[sample] = rows.mean(axis=0, dtype=np.float64)
        else:
            pooled[sample] = rows.max(axis=0)
    return pooled
