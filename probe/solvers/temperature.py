"""One number by which logits are divided, so that they are as sure as they are right.

A small set is learnt by heart long before its order of samples stops improving: log-loss then
judges how sure answers are, and hardly what they are. At the temperature that makes it smallest it
judges the answers (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
"""

from __future__ import annotations

import numpy as np

from probe.arrays import Doubles, Floats
from probe.solvers.logistic import sigmoid, softmax

LOGARITHMS = (-7.0, 7.0)  # of what logits are multiplied by
N_HALVINGS = 50


def log_loss(logits: Floats, targets: Floats, weights: Floats, is_independent: bool) -> float:
    """The weighted mean, in nats.

    Args:
        logits: (n, O).
        targets: (n, O) zeros and ones.
        weights: (n, 1), or (n, O) of logits that are independent; not all 0.
        is_independent: a sigmoid each.
    """
    if is_independent:
        nats = np.logaddexp(0, logits) - targets * logits
    else:
        top = logits.max(axis=1, keepdims=True)
        sums = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        nats = sums - (targets * logits).sum(axis=1, keepdims=True)
    return float((weights * nats).sum() / weights.sum())


def fit_temperature(
    logits: Doubles, targets: Floats, weights: Floats, is_independent: bool
) -> float:
    """The temperature of the smallest ``log_loss``, by halving: the loss is convex in its inverse.

    Between exp(-7) and exp(7); logits that answer everything right are best without bound.
    """
    low, high = LOGARITHMS
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        scaled = np.exp(middle) * logits
        scores = sigmoid(scaled) if is_independent else softmax(scaled, 1)
        rises = (weights * (scores - targets) * logits).sum() > 0
        low, high = (low, middle) if rises else (middle, high)
    return float(np.exp(-(low + high) / 2))
