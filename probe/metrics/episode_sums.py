"""Weighted sums over the test samples of many episodes at once: what a resample asks of each.

Every metric but those of ranks is a function of such sums, and a thousand resamples of a hundred
episodes are one matrix product over all samples. Most of it can be spared: hits and predictions are
whole numbers, whose sums float32 holds exactly, in half the time; what is labelled is the same in
every episode; and of two values that exclude one another the counts of one give the other's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 2**24  # up to here every whole number is a float32


class EpisodeSums:
    """What the samples of e episodes contribute to their metrics. N samples."""

    def __init__(self, each: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Lay the episodes side by side.

        Args:
            each: for each episode name -> (N, ...) contributions, see
                ``probe.metrics.classification.sample_parts``; others than "counts" are summed as they are.
        """
        self._labelled: NDArray[np.bool_] | None = None  # (N, V), of several labels (N, C, 2)
        is_whole = True  # every label is known of every sample
        if "counts" in each[0]:
            self._labelled = each[0]["counts"][:, 1]
            self._answers = np.stack([self._own(parts["counts"]) for parts in each], axis=1)
            is_whole = bool(self._labelled.any(axis=-1).all())
        self._real = {
            name: np.stack([_column(name, parts[name], is_whole) for parts in each], axis=1)
            for name in each[0]
            if name != "counts"
        }

    def _own(self, counts: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(N, 2, ...) hits and predictions, of two values those of the second."""
        first = int(self._of_two)
        return np.stack([counts[:, 0, ..., first:], counts[:, 2, ..., first:]], 1).astype(
            np.float32
        )

    @property
    def _of_two(self) -> bool:
        return self._labelled is not None and self._labelled.shape[-1] == 2

    def of(self, drawn: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
        """name -> (R, e, ...) sums over samples, each as often as it was drawn.

        Args:
            drawn: (R, N) multiplicities.

        Returns:
            Equal, but for rounding, to ``probe.metrics.intervals.weighted_sums`` of each episode.
        """
        weights = drawn.astype(np.float64)
        sums = {name: _product(weights, part) for name, part in self._real.items()}
        if self._labelled is None:
            return sums
        if drawn.sum(axis=1, dtype=np.int64).max(initial=0) < EXACT:
            weights = drawn.astype(np.float32)
        answers = _product(weights, self._answers)
        labelled = _product(weights, self._labelled)[:, None]  # (R, 1, ...)
        hits, predicted = answers[:, :, 0], answers[:, :, 1]
        known = labelled.sum(axis=-1)
        if self._of_two:
            hits, predicted = hits[..., 0], predicted[..., 0]
            wrong = predicted - hits
            hits = np.stack([labelled[..., 0] - wrong, hits], axis=-1)
            predicted = np.stack([known - predicted, predicted], axis=-1)
        sums["counts"] = np.stack(np.broadcast_arrays(hits, labelled, predicted), axis=2)
        if "brier" in sums:
            problems = known.reshape(len(drawn), 1, -1)[..., : sums["brier"].shape[-1]]
            sums["brier"] = np.stack(np.broadcast_arrays(problems, sums["brier"]), axis=-1)
        return sums


def _column(name: str, part: NDArray[Any], is_whole: bool) -> NDArray[Any]:
    """(N, ...) what is summed of a contribution; of Brier's (N, P, 2) squares (N, P), or (N, 1).

    The first of its columns is what is known, as the labels say. Where that is everything, the mean
    over labels may be taken before the sum.
    """
    if name != "brier":
        return part
    return part[..., 1].mean(axis=1, keepdims=True) if is_whole else part[..., 1]


def _product(weights: NDArray[np.floating], part: NDArray[Any]) -> NDArray[np.float64]:
    """(R, ...) sums of (N, ...) contributions, in the weights' precision."""
    flat = part.reshape(len(part), -1).astype(weights.dtype, copy=False)
    return (weights @ flat).astype(np.float64).reshape(-1, *part.shape[1:])
