"""From neighbours' labels to scores: each one's say, and the vote."""

import numpy as np

from cache.errors import RequestError
from cache.task import MISSING
from probe.arrays import Doubles, Floats, Ints

MLKNN = "mlknn"
MEANS = ("weighted", "majority")  # votes that are a mean of what the neighbours are
VOTES = (*MEANS, MLKNN)


def weigh(similarities: Floats, rule: str, temperature: float = 0.07) -> Doubles:
    """Each neighbour's say.

    Args:
        similarities: (Q, K), highest first; the majority rule doesn't look at them.
        rule: "weighted" by exp(similarity / temperature), or "majority": one vote each.
        temperature: divides the similarities; the smaller it is, the more the nearest neighbour
            decides.

    Returns:
        (Q, K) above 0, of the weighted rule relative to the nearest neighbour's; rows don't sum to 1.

    Raises:
        RequestError: another rule.
    """
    check_word("vote", rule, MEANS)
    if rule == "majority":
        return np.ones(similarities.shape)
    # Taking off the largest keeps exp() finite when a sweep tries temperatures below 0.01.
    similarities = similarities.astype(np.float64)
    return np.exp((similarities - similarities[:, :1]) / temperature)


def vote(weights: Doubles, neighbour_labels: Ints, n_classes: int) -> Doubles:
    """Turn each query's neighbours into class scores.

    Args:
        weights: (Q, K) each neighbour's say.
        neighbour_labels: (Q, K) labels, each in [0, n_classes).
        n_classes: C, the number of classes to score.

    Returns:
        (Q, C) scores; each row sums to 1. Equal counts under the majority rule are exactly equal
        scores, so that argmax gives a tie to the smallest label, as ``scipy.stats.mode`` does.

    Raises:
        RequestError: a label lies outside [0, n_classes).
    """
    _check_neighbour_labels(neighbour_labels, n_classes)
    cells = np.arange(len(weights))[:, None] * n_classes + neighbour_labels  # (Q, K)
    # bincount, not fancy +=: a class named twice among the neighbours must count twice.
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(weights) * n_classes)
    votes = votes.reshape(-1, n_classes)  # (Q, C)
    return votes / votes.sum(axis=1, keepdims=True)


def average(weights: Doubles, neighbour_labels: Floats, n_outputs: int) -> Doubles:
    """Turn each query's neighbours into predictions: the mean of their (Q, K, O) numbers, (Q, O)."""
    sums = np.einsum("qk,qko->qo", weights, neighbour_labels)
    return sums / weights.sum(axis=1, keepdims=True)


def vote_multilabel(weights: Doubles, neighbour_labels: Ints, n_classes: int) -> Doubles:
    """Turn each query's neighbours into a score for each label: a mean of their label vectors.

    Args:
        weights: (Q, K) each neighbour's say.
        neighbour_labels: (Q, K, C) zeros and ones; MISSING has no vote.
        n_classes: C, the number of labels.

    Returns:
        (Q, C) scores, each in 0..1; rows don't sum to 1. nan where no neighbour has a vote, or one
        so far away that its weight is 0.

    Raises:
        RequestError: labels that are not zeros and ones for C labels.
    """
    if neighbour_labels.shape[2:] != (n_classes,):
        raise RequestError(
            f"neighbour labels have shape (Q, K, {n_classes}), found {neighbour_labels.shape}"
        )
    _check_neighbour_labels(neighbour_labels, 2, MISSING)
    votes = np.einsum("qk,qkc->qc", weights, neighbour_labels == 1, dtype=np.float64)
    is_known = neighbour_labels != MISSING
    if is_known.all():
        return votes / weights.sum(axis=1, keepdims=True)
    held = np.einsum("qk,qkc->qc", weights, is_known, dtype=np.float64)
    return np.divide(votes, held, out=np.full_like(votes, np.nan), where=held > 0)


def _check_neighbour_labels(neighbour_labels: Ints, n_values: int, lowest: int = 0) -> None:
    if neighbour_labels.size == 0:
        return
    low, high = neighbour_labels.min(), neighbour_labels.max()
    if low < lowest or high >= n_values:
        raise RequestError(f"neighbour labels lie in 0..{n_values - 1}, found {low}..{high}")


def check_word(setting: str, word: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that isn't one of the choices.

    Raises:
        RequestError: it isn't.
    """
    if word not in choices:
        expected = " or ".join(f'"{choice}"' for choice in choices)
        raise RequestError(f'unknown {setting} "{word}": expected {expected}')
