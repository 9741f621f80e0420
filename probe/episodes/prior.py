"""Class shares: episodes are drawn evenly, and images don't come evenly.

A probe that learnt from as many images of each class believes that classes are equally frequent.
By Bayes' rule its probabilities become those of another population by multiplying each class by
the ratio of the shares, and dividing by the sum (Saerens, Latinne, Decaestecker 2002, eq. 2.4,
https://doi.org/10.1162/089976602753284446). Ranks within a class, and so a binary AUC, stay.
"""

import numpy as np

from cache.errors import RequestError
from cache.task import MISSING, MULTI_LABEL, Task
from probe.arrays import Bools, Doubles, Floats, Ints

# train: to the shares in the whole of train · uniform: to equal ones · em: to those that make the
# scores of the test images likeliest · none: as the episode has them
PRIORS = ("train", "uniform", "em", "none")

EM_STEPS = 1000  # a hundred are usual; where classes overlap much, it creeps
EM_STILL = 1e-6  # the largest move of a share, at which it stands


def check_prior(word: str) -> None:
    """Refuse a word that isn't one of ``PRIORS``.

    Raises:
        RequestError: it isn't.
    """
    if word not in PRIORS:
        raise RequestError(f"--prior takes {', '.join(PRIORS)}, not {word!r}")


def class_shares(labels: Ints, task: Task) -> Doubles:
    """(C,) share of each class; of several labels each one's share of ones among what is known.

    A label that is known of no sample has the share 0: of such a label nothing is learnt.
    """
    if task.has_several_labels:
        n_known = (labels != MISSING).sum(axis=0)
        return (labels == 1).sum(axis=0) / np.maximum(n_known, 1)
    return np.bincount(labels, minlength=task.n_classes) / len(labels)


def correct(scores: Floats, learnt: Doubles, wanted: Doubles, task: str) -> Floats:
    """Probabilities under other class shares.

    Args:
        scores: (..., N, C) probabilities.
        learnt: (..., 1, C) shares that the probe learnt from. A class that it has not seen, or a
            label that it has seen one value of, is left as it is.
        wanted: (..., 1, C) shares to correct to, or any that match.
        task: one of ``cache.task.CLASSIFICATION``.

    Returns:
        (..., N, C), rows sum to 1 again except for the multi-label task. A row whose classes are
        all ruled out stays as it was.
    """
    if task == MULTI_LABEL:
        seen = (learnt > 0) & (learnt < 1)
        ones = scores * _ratio(wanted, learnt, seen)
        rest = (1 - scores) * _ratio(1 - wanted, 1 - learnt, seen)
        return _parts(ones, ones + rest, scores)
    weighted = scores * _ratio(wanted, learnt, learnt > 0)
    return _parts(weighted, weighted.sum(axis=-1, keepdims=True), scores)


def likeliest_shares(scores: Floats, learnt: Doubles, task: str) -> Doubles:
    """The class shares of the images that are scored, from their scores alone.

    Expectation maximisation of Saerens et al. 2002, eq. 2.9, from the learnt shares on. It looks
    at all test images together, without their labels: transductive, and to be called so.

    Args:
        scores: (..., N, C) probabilities.
        learnt: (..., 1, C) shares that the probe learnt from.
        task: one of ``cache.task.CLASSIFICATION``.

    Returns:
        (..., 1, C) shares.
    """
    shares = np.broadcast_to(learnt, (*scores.shape[:-2], 1, scores.shape[-1]))
    for _ in range(EM_STEPS):
        found = correct(scores, learnt, shares, task).mean(axis=-2, keepdims=True, dtype=np.float64)
        still = np.abs(found - shares).max(initial=0) < EM_STILL
        shares = found
        if still:
            break
    return shares


def to_prior(scores: Floats, learnt: Doubles, natural: Doubles, task: str, word: str) -> Floats:
    """``correct`` to what a word means.

    Args:
        scores: (..., N, C) probabilities of the test images.
        learnt: (..., 1, C) shares in the episode.
        natural: (C,) shares in train.
        task: one of ``cache.task.CLASSIFICATION``.
        word: one of ``PRIORS``.

    Raises:
        RequestError: no such word.
    """
    check_prior(word)
    if word == "none" or not scores.size:
        return scores
    if word == "em":
        return correct(scores, learnt, likeliest_shares(scores, learnt, task), task)
    if word == "uniform":
        natural = np.full(len(natural), 1 / 2 if task == MULTI_LABEL else 1 / len(natural))
    return correct(scores, learnt, natural, task)


def _ratio(a: Doubles, b: Doubles, where: Bools) -> Doubles:
    """a / b, and 1 elsewhere."""
    return np.divide(a, b, out=np.ones(np.broadcast_shapes(a.shape, b.shape)), where=where)


def _parts(parts: Floats, wholes: Floats, otherwise: Floats) -> Floats:
    """parts / wholes; what it was before where the whole is 0."""
    wholes = np.broadcast_to(wholes, parts.shape)
    return np.divide(parts, wholes, out=np.array(otherwise, parts.dtype), where=wholes > 0)
