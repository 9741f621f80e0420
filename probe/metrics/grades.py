"""Metrics of ordered classes (grades): how far off an answer is, and the expected grade.

Grades are the class numbers 0..C-1, one apart. Everything is a function of sums over samples, which
take leading axes, so that ``probe.metrics.jackknife`` evaluates each test set less a patient with the code
that evaluates one.
"""

import numpy as np
from numpy.typing import NDArray

from probe.arrays import Doubles, Floats, Ints

DIGITS = 9  # of an expected grade that are looked at: 1.4999999999999998 is a half


def expected_grades(scores: Floats) -> NDArray[np.int64]:
    """Decide for the grade nearest to the expected one: round(sum of p_c * c).

    Where argmax gives the most likely grade, this gives the one that is least far off on average
    (in squares). A half is rounded up, as a threshold at 0.5, 1.5 ... does.

    Args:
        scores: (N, C) probabilities; rows need not sum to exactly 1.

    Returns:
        (N,) grades; of a row without any probability, 0.
    """
    grades = np.arange(scores.shape[1])
    total = scores.sum(axis=1, dtype=np.float64)
    expected = (scores @ grades.astype(np.float64)) / np.where(total > 0, total, 1)
    nearest = np.floor(expected.round(DIGITS) + 0.5)
    return np.clip(nearest, 0, grades[-1]).astype(np.int64)


def sample_moments(grades: Ints, labels: Ints) -> Doubles:
    """Each sample's contribution, (N, 7): any weighted sum over N gives moments.

    Args:
        grades: (N,) answers.
        labels: (N,) the truth.

    Returns:
        One; whether the answer is right; the label and its square; the answer and its square; and
        the square of how far it is off.
    """
    g, y = grades.astype(np.float64), labels.astype(np.float64)
    return np.stack([np.ones(len(y)), g == y, y, y**2, g, g**2, (g - y) ** 2], axis=1)


def accuracy_of(moments: Doubles) -> Doubles:
    """(...,) share of right answers, from (..., 7) moments."""
    return moments[..., 1] / moments[..., 0]


def kappa_of(moments: Doubles) -> Doubles:
    """Cohen's kappa with quadratic weights (Cohen 1968), as in scikit-learn with labels=range(C).

    Without that argument scikit-learn leaves out grades that nobody has or is given, and takes
    those on either side for neighbours.

    One less the mean squared error over what it would be if the same answers were dealt out by
    chance. 1 is perfect, 0 is chance, and below is worse than chance.

    Returns:
        (...,) from (..., 7) moments; nan where all labels and all answers are one grade.
    """
    n, _, y, yy, g, gg, squared = np.moveaxis(moments, -1, 0)
    by_chance = yy + gg - 2 * y * g / n
    # Whole numbers over n: less than 1/n is rounding.
    is_defined = by_chance * n > 0.5
    off = np.divide(squared, by_chance, out=np.full(n.shape, np.nan), where=is_defined)
    return 1 - off
