"""Weights of an average of probabilities: stacking by log-loss (Wolpert 1992; Breiman 1996).

The log-loss of a weighted average is convex in its weights. Newton's method with a barrier against
the edges of the simplex finds the smallest: where the barrier is b, the loss is at most T b above it.
"""

from __future__ import annotations

import numpy as np

from cache.task import MISSING, MULTI_LABEL
from probe.arrays import Doubles, Floats, Ints

GAP = 1e-10  # nats above the smallest loss, at most
FALL = 0.1  # of the barrier, from round to round
MAX_STEPS = 100  # of Newton in a round; 1 to 6 are usual
NONE = 1e-6  # a weight below this is 0: what it adds is the barrier's


def stacking_weights(scores: Floats, labels: Ints, task: str) -> Doubles:
    """The weights of an average of smallest log-loss.

    Args:
        scores: (T, n, C) probabilities of T models.
        labels: (n,), or (n, C) for the multi-label task, where some may be MISSING.
        task: one of ``cache.task.CLASSIFICATION``.

    Returns:
        (T,) from 0, with sum 1.
    """
    if task == MULTI_LABEL:
        known = labels != MISSING
        of_label = known.sum(axis=0)
        share = known / np.maximum(of_label, 1) / max(int((of_label > 0).sum()), 1)
        found, shares = np.where(labels == 1, scores, 1 - scores)[:, known], share[known]
    else:
        found = scores[:, np.arange(len(labels)), labels]
        shares = np.full(len(labels), 1 / len(labels))
    return mixture_weights(np.clip(found, np.finfo(np.float64).eps, 1), shares)


def mixture_weights(likelihoods: Floats, shares: Doubles) -> Doubles:
    """w (T,) from 0, with sum 1, that makes -sum_j shares_j log(w likelihoods_j) smallest.

    Args:
        likelihoods: (T, J), positive.
        shares: (J,) from 0, with sum 1.
    """
    found = likelihoods.astype(np.float64)
    n = len(found)
    weights: Doubles = np.full(n, 1 / n)

    def loss(at: Floats, barrier: float) -> float:
        return float(-shares @ np.log(at @ found) - barrier * np.log(at).sum())

    barrier = FALL / n
    while True:
        for _ in range(MAX_STEPS):
            # In u = dw / w, where the Hessian's diagonal is the barrier, however small a weight is.
            pulled = weights[:, None] * found / (weights @ found)
            gradient = -pulled @ shares - barrier
            system = np.zeros((n + 1, n + 1))
            system[:n, :n] = (pulled * shares) @ pulled.T + barrier * np.eye(n)
            system[n, :n] = system[:n, n] = weights  # the sum stays 1
            step = np.linalg.solve(system, np.append(-gradient, 0))[:n]
            fall = -gradient @ step
            if fall <= FALL * n * barrier:
                break
            length, start = min(1.0, 0.99 / max(-step.min(), 1e-300)), loss(weights, barrier)
            while loss(weights * (1 + length * step), barrier) > start - 1e-4 * length * fall:
                length /= 2
                if length < 1e-12:  # rounding decides
                    break
            weights = weights * (1 + length * step)
            weights /= weights.sum()
        if n * barrier <= GAP:
            break
        barrier *= FALL
    weights[weights < NONE] = 0
    return weights / weights.sum()
