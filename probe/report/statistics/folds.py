"""The difference of two models over folds, whose training images overlap.

Folds share most of their training images, so their differences scatter less than those of
independent trainings would, and a plain t-test of folds finds differences that aren't there. The
corrected resampled t-test (Nadeau and Bengio 2003, Mach Learn 52:239, eq. 5; of cross-validation
Bouckaert and Frank 2004) adds what they share:

    t = mean(d) / sqrt((1 / F + n_test / n_train) s^2)        F - 1 degrees of freedom

Scores of folds are of different models and are never pooled for an AUC (LeDell et al. 2015).
"""

import math
from dataclasses import dataclass

import numpy as np

from probe.arrays import Array, Doubles
from probe.metrics.jackknife import student
from probe.report.statistics.resampled import Crossed, student_p


@dataclass(frozen=True)
class OverFolds:
    """The mean difference of F folds."""

    value: float
    low: float  # both nan where it has no interval
    high: float
    p: float  # two-sided; nan where folds don't scatter
    n_folds: int


def corrected_t(
    differences: Doubles, n_test: Array, n_train: Array, level: float = 0.95
) -> OverFolds:
    """The corrected resampled t-test.

    Args:
        differences: (F,) of a metric, one a fold.
        n_test: (F,) samples, or patients, of each test set.
        n_train: (F,) of each training set.
        level: of the interval.
    """
    n, value = len(differences), float(np.mean(differences))
    if n < 2 or math.isnan(value):
        return OverFolds(value, math.nan, math.nan, math.nan, n)
    share = 1 / n + float(np.mean(n_test)) / float(np.mean(n_train))
    se = math.sqrt(share * float(np.var(differences, ddof=1)))
    if not se > 0:
        return OverFolds(value, math.nan, math.nan, 1.0 if value == 0 else math.nan, n)
    half = student(level, n - 1) * se
    p = student_p(value, Crossed(se, n - 1))
    return OverFolds(value, value - half, value + half, p, n)
