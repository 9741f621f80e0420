"""ML-kNN for several labels at once: Zhang and Zhou 2007, "ML-KNN: A lazy learning approach to
multi-label learning", Pattern Recognition 40(7), section 3.

Of each label by itself: how many of a query's k neighbours have it, and how often images of the
bank that have the label, or lack it, count as many among theirs. Bayes' rule makes a probability.

Zhang and Zhou count the neighbours of a bank's row among the others. Baharoon et al. 2023
(DINOv2ForRadiology, ``dinov2/eval/utils.py``, MLkNN with ``ignore_first_neighbours=0``) let each row
be its own neighbour, so that a label's counts in the bank hold the label itself: with few positives
that one vote makes up most of the evidence, which no query has.

A neighbour of which a label isn't known counts as one without it, in the bank as among a query's
neighbours; a row of which it isn't known tells nothing of that label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import MISSING
from probe.arrays import Bools, Doubles, Ints
from probe.solvers.standardise import chunks

SMOOTHING = 1.0  # s, of priors and of counts: Laplace's; Zhang and Zhou's, and Baharoon et al.'s
CHUNK_LABELS = 2**22  # neighbour labels that are in work at one time


@dataclass(frozen=True)
class Counted:
    """What a bank says of C labels at one k."""

    prior: Doubles  # (C,) of having the label
    given_one: Doubles  # (C, k + 1) of n neighbours with it, for those that have it
    given_zero: Doubles  # (C, k + 1) the same for those that lack it

    def predict(self, ones: Ints) -> Doubles:
        """(Q, C) probabilities, from (Q, C) neighbours with each label."""
        labels = np.arange(len(self.prior))
        has = self.prior * self.given_one[labels, ones]
        lacks = (1 - self.prior) * self.given_zero[labels, ones]
        return has / (has + lacks)


def fit(ones: Ints, labels: Ints, k: int) -> Counted:
    """Count how many neighbours with a label the rows with it have, and those without.

    Args:
        ones: (N, C) neighbours with each label, 0..k, of each row of the bank.
        labels: (N, C) zeros, ones and MISSING.
        k: neighbours of each row.
    """
    has, lacks = labels == 1, labels == 0
    n_known = (labels != MISSING).sum(axis=0)
    prior = (SMOOTHING + has.sum(axis=0)) / (2 * SMOOTHING + n_known)
    return Counted(prior, _shares(ones, has, k), _shares(ones, lacks, k))


def _shares(ones: Ints, which: Bools, k: int) -> Doubles:
    """(C, k + 1) smoothed shares of each count among some rows, (N, C), of each label."""
    counts = np.stack(
        [np.bincount(ones[rows, label], minlength=k + 1) for label, rows in enumerate(which.T)]
    )
    return (SMOOTHING + counts) / (SMOOTHING * (k + 1) + counts.sum(axis=1, keepdims=True))


def count_ones(indices: Ints, labels: Ints, ks: Sequence[int]) -> dict[int, NDArray[np.int64]]:
    """How many of the first k neighbours have each label, for several k.

    Args:
        indices: (Q, K) rows of the bank, the nearest first.
        labels: (N, C) zeros, ones and MISSING of the bank.
        ks: each at most K.

    Returns:
        k -> (Q, C).
    """
    is_one = labels == 1
    found = {k: np.empty((len(indices), labels.shape[1]), np.int64) for k in ks}
    size = max(1, CHUNK_LABELS // (indices.shape[1] * labels.shape[1]))
    for rows in chunks(len(indices), size):
        of_neighbours = is_one[indices[rows]]  # (q, K, C)
        ones, before = np.zeros((len(of_neighbours), labels.shape[1]), np.int64), 0
        for k in sorted(ks):
            ones = ones + of_neighbours[:, before:k].sum(axis=1)
            found[k][rows], before = ones, k
    return found


def leave_out_self(indices: Ints) -> Ints:
    """Take each row of the bank out of its own neighbours.

    Not simply the first: an exact copy may stand before it, and a row of zeros, which resembles
    nothing, may not be among them at all. Then the last one goes.

    Args:
        indices: (N, K) of the bank's N rows, in their order, K from 2 up.

    Returns:
        (N, K - 1) the others, in their order.

    Raises:
        RequestError: there is no other.
    """
    if indices.shape[1] < 2:
        raise RequestError("ML-kNN needs a bank of 2 rows or more, found one neighbour: itself")
    goes = indices == np.arange(len(indices))[:, None]
    goes[~goes.any(axis=1), -1] = True
    return indices[~goes].reshape(len(indices), -1)
