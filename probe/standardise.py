"""Standardising features: each by its mean and standard deviation over the training images.

Features are read in blocks, so that a float16 matrix of any length never becomes a float64 one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError

CHUNK_ROWS = 4096  # rows of features that are in work at one time


def mean_and_scale(
    features: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What to take off each feature, and what to divide it by.

    Args:
        features: (N, D); may be a float16 memmap, which is read twice.

    Returns:
        (D,) means, and (D,) standard deviations; 1 where a feature is constant.

    Raises:
        RequestError: features that are not finite.
    """
    mean = np.zeros(features.shape[1])
    for rows in chunks(len(features)):
        mean += np.sum(features[rows], axis=0, dtype=np.float64) / len(features)
    if not np.isfinite(mean).all():
        column = int(np.argmin(np.isfinite(mean)))
        raise RequestError(f"features are finite, found inf or nan in column {column}")
    squares = np.zeros(len(mean))
    varies = np.zeros(len(mean), dtype=bool)
    for rows in chunks(len(features)):
        block = np.asarray(features[rows])
        squares += np.square(block - mean).sum(axis=0)
        # By comparison, not by variance: the rounded mean of a constant leaves a variance of
        # 1e-32, and dividing by its root would blow rounding up to a feature.
        varies |= (block != features[0]).any(axis=0)
    return mean, np.where(varies, np.sqrt(squares / len(features)), 1.0)


def chunks(n_rows: int) -> Iterator[slice]:
    """Consecutive slices of at most ``CHUNK_ROWS`` rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, n_rows, CHUNK_ROWS))
