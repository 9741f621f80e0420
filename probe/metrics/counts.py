"""Metrics of right and wrong answers, from counts: accuracy, recall and F1.

``sums`` are (..., 3, C): for each class c how many samples are labelled c and predicted c, are
labelled c, and are predicted c. For the multi-label task they are (..., 3, C, 2): every label is a
problem of two classes. Leading axes stay.
"""

import numpy as np

from cache.task import MULTI_LABEL
from probe.arrays import Array, Bools, Doubles


def accuracy_of(sums: Array, task: str) -> Doubles:
    """(...,) share of right answers; the mean over labels for the multi-label task."""
    hits, labelled, _ = _counts(sums, task)
    return _over_labels(divided(hits.sum(axis=-1), labelled.sum(axis=-1)), task)


def balanced_accuracy_of(sums: Array, task: str) -> Doubles:
    """(...,) mean recall over the classes that occur in labels, as in scikit-learn.

    Others call it macro recall, or mean per-class recall (Huix et al. 2024 on ISIC 2019). For the
    multi-label task, the mean over labels of each label's balanced accuracy.
    """
    hits, labelled, _ = _counts(sums, task)
    return _over_labels(_mean_where(hits / np.maximum(labelled, 1), labelled > 0), task)


def f1_macro_of(sums: Array, task: str) -> Doubles:
    """(...,) mean F1 over the classes that occur in labels or predictions, as in scikit-learn.

    For the multi-label task, the mean over labels of the F1 of the value one; a label that neither
    occurs nor is predicted counts 0 (scikit-learn's ``average="macro", zero_division=0``).
    """
    hits, labelled, predicted = _counts(sums, task)
    occurrences = labelled + predicted
    f1 = 2 * hits / np.maximum(occurrences, 1)
    if task == MULTI_LABEL:
        is_known = labelled.sum(axis=-1) > 0
        return np.where(is_known, f1[..., 1], np.nan).mean(axis=-1)
    return _mean_where(f1, occurrences > 0)


def _counts(sums: Array, task: str) -> Doubles:
    """(3, ..., C) hits, labelled, predicted; the last axes as in ``sums``."""
    return np.moveaxis(np.asarray(sums, np.float64), -3 if task == MULTI_LABEL else -2, 0)


def _over_labels(values: Doubles, task: str) -> Doubles:
    """Mean over the last axis where that axis is the labels of the multi-label task."""
    return values.mean(axis=-1) if task == MULTI_LABEL else values


def _mean_where(values: Doubles, counted: Bools) -> Doubles:
    """Mean over the last axis of what is counted; nan where nothing is."""
    return divided((values * counted).sum(axis=-1), counted.sum(axis=-1))


def divided(a: Array, b: Array) -> Doubles:
    """a / b, nan where b is 0: a label that is known of no sample."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0)
