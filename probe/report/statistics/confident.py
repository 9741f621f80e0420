"""Which labels may be wrong, by confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70:1373).

A sample counts as one of class c where its score for c reaches what samples labelled c have on
average; of several such classes as the one of the largest score. Where that isn't its label, the
label is suspect. Scores are of models that weren't fitted to the sample: fitted ones repeat labels.
"""

import numpy as np

from probe.arrays import Doubles, Floats, Indices, Ints

NONE = -1  # no class is likely enough


def thresholds(scores: Floats, labels: Ints) -> Doubles:
    """(C,) the mean score for its own class of the samples of each; inf where there are none."""
    found = np.full(scores.shape[1], np.inf)
    for c in np.unique(labels):
        found[c] = scores[labels == c, c].mean(dtype=np.float64)
    return found


def likely_classes(scores: Floats, labels: Ints) -> Indices:
    """(n,) the class that each sample counts as, or NONE: the confident joint's column.

    Args:
        scores: (n, C) probabilities.
        labels: (n,) class numbers, as they were given.
    """
    likely = np.where(scores >= thresholds(scores, labels), scores, -np.inf)
    best = likely.argmax(axis=1)
    return np.where(np.isfinite(likely.max(axis=1)), best, NONE)


def margins(scores: Floats, labels: Ints) -> Doubles:
    """(n,) the score of the given class less the largest of the others: -1 is the most suspect."""
    rows = np.arange(len(labels))
    others = np.array(scores, np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    return own - others.max(axis=1)
