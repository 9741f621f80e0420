"""Metrics of a classification probe, equal to MedMNIST's own evaluator.

Follows ``medmnist/evaluator.py`` (3.0.2) for ``acc`` and ``auc``, and scikit-learn for
``balanced_accuracy`` and ``f1_macro``, without importing either.

Conventions:
    - ``scores`` are probabilities, (N, C) for every task. A binary task has two columns, class 0
      and class 1; a multi-label task has one column for each label.
    - ``labels`` are (N,) class numbers, or (N, C) zeros and ones for the multi-label task. There an
      entry may be ``MISSING``: nobody knows it, and each label is measured on the samples of which
      it is known, as if it stood alone.
    - Everything but the AUC is a function of counts, and the AUC a function of ranks. Both take
      leading axes, so that ``probe.intervals`` evaluates a thousand resamples with the code that
      evaluates one test set.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.errors import RequestError
from cache.labels import MISSING, UNCERTAIN

MULTI_CLASS = "multi-class"
BINARY = "binary-class"
MULTI_LABEL = "multi-label, binary-class"
ORDINAL = "ordinal-regression"
TASKS = (MULTI_CLASS, BINARY, MULTI_LABEL, ORDINAL)  # MedMNIST's four words

METRICS = ("acc", "auc", "balanced_accuracy", "f1_macro")  # the order of every table

THRESHOLD = 0.5  # MedMNIST's: a score of exactly 0.5 is not a positive
ROUNDING = 1e-3  # how far outside 0..1 a probability in float16 may fall


class Counts(NamedTuple):
    """What accuracy, recall and F1 need to know, each (..., C) in float64.

    For the multi-label task each is (..., C, 2): every label is a problem of two classes.
    """

    hits: NDArray[np.float64]  # labelled c and predicted c
    labelled: NDArray[np.float64]
    predicted: NDArray[np.float64]


def check_task(task: str) -> None:
    """Refuse a word that isn't one of MedMNIST's four.

    Raises:
        RequestError: ``task`` is none of ``TASKS``.
    """
    if task not in TASKS:
        choices = ", ".join(f'"{name}"' for name in TASKS)
        raise RequestError(f'unknown task "{task}": expected one of {choices}')


def check_labels(labels: ArrayLike, task: str, n_classes: int) -> None:
    """Refuse labels of another shape or range than the task's.

    Args:
        labels: (N,) class numbers, or (N, C) zeros, ones and MISSING for the multi-label task.
        task: one of ``TASKS``.
        n_classes: C; 2 for a binary task, the number of labels for the multi-label task.

    Raises:
        RequestError: the shape, the type or a value doesn't fit the task; a label is UNCERTAIN.
    """
    check_task(task)
    labels = np.asarray(labels)
    if task == BINARY and n_classes != 2:
        raise RequestError(
            f"a binary task has 2 classes, found {n_classes}: give the scores of class 0 and "
            "class 1 as two columns"
        )
    if task == MULTI_LABEL and labels.shape != (len(labels), n_classes):
        raise RequestError(
            f"multi-label labels have shape (N, {n_classes}), one column for each label, "
            f"found {labels.shape}"
        )
    if task != MULTI_LABEL and labels.ndim != 1:
        raise RequestError(
            f"{task} labels have shape (N,), found {labels.shape}: squeeze them, or name the task "
            f'"{MULTI_LABEL}"'
        )
    if labels.dtype.kind not in "iub":
        raise RequestError(f"labels are whole numbers, found {labels.dtype}: cast them to int")
    top = 1 if task == MULTI_LABEL else n_classes - 1
    bottom = MISSING if task == MULTI_LABEL else 0
    if labels.size and task == MULTI_LABEL and labels.min() == UNCERTAIN:
        raise RequestError(
            f"{(labels == UNCERTAIN).sum()} labels are uncertain: say what they count as, with "
            "--uncertain ignore, zeros or ones"
        )
    if labels.size and (labels.min() < bottom or labels.max() > top):
        unless = f", or are {MISSING} where unknown" if bottom else ""
        raise RequestError(f"labels lie in 0..{top}{unless}, found {labels.min()}..{labels.max()}")


def label_shares(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of ones among the samples of which a label is known.

    Args:
        labels: (N, C) zeros, ones and MISSING.

    Returns:
        (C,) shares, nan where a label is known of no sample.
    """
    return _divided((labels == 1).sum(axis=0), (labels != MISSING).sum(axis=0))


def known_shares(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """``label_shares`` of a training set: what is known of no sample can't be learnt.

    Raises:
        RequestError: a label is known of no sample.
    """
    shares = label_shares(labels)
    if np.isnan(shares).any():
        raise RequestError(
            f"label {int(np.argmax(np.isnan(shares)))} (counted from 0) is known of none of the "
            f"{len(labels)} training images: train on more of them, or leave the label out"
        )
    return shares


def validate(scores: ArrayLike, labels: ArrayLike, task: str) -> None:
    """Refuse scores and labels that no metric below can answer for.

    Args:
        scores: (N, C) probabilities.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``TASKS``.

    Raises:
        RequestError: no samples, shapes that don't match each other or the task, labels out of
            range, or scores that are not finite or not probabilities.
    """
    check_task(task)
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2:
        raise RequestError(f"scores have shape (N, C), found {scores.shape}")
    if len(scores) == 0 or len(scores) != len(labels):
        raise RequestError(
            f"scores and labels need one row for each sample, found {len(scores)} rows of scores "
            f"and {len(labels)} of labels"
        )
    check_labels(labels, task, scores.shape[1])
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise RequestError(
            f"scores are finite, found {scores[row, column]} in row {row}, column {column}"
        )
    if scores.min() < -ROUNDING or scores.max() > 1 + ROUNDING:
        raise RequestError(
            f"scores are probabilities in 0..1, found {scores.min():.4g}..{scores.max():.4g}: "
            "put logits through a softmax or a sigmoid first"
        )


def predict(scores: NDArray[np.floating], task: str) -> NDArray[np.int64]:
    """Decide: what MedMNIST's accuracy counts as the answer.

    Args:
        scores: (N, C) probabilities.
        task: one of ``TASKS``.

    Returns:
        (N,) class numbers; the smallest class wins a tie, as in ``np.argmax``. A binary task is
        class 1 where the last column is above 0.5. (N, C) zeros and ones for the multi-label
        task, one where a score is above 0.5.
    """
    check_task(task)
    if task == MULTI_LABEL:
        return (scores > THRESHOLD).astype(np.int64)
    if task == BINARY:
        return (scores[:, -1] > THRESHOLD).astype(np.int64)
    return scores.argmax(axis=1).astype(np.int64)


def accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer], task: str) -> float:
    """Share of right answers; the mean over labels for the multi-label task.

    Where positives are rare, the multi-label value rewards predicting nothing (ChestMNIST: 94.7 %
    for an empty answer); ``larger_class_rate`` says how much.
    """
    validate(scores, labels, task)
    return float(accuracy_of(count(scores, labels, task), task))


def balanced_accuracy(
    scores: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> float:
    """Mean recall over the classes that occur in ``labels``, as in scikit-learn.

    For the multi-label task, the mean over labels of each label's balanced accuracy.
    """
    validate(scores, labels, task)
    return float(balanced_accuracy_of(count(scores, labels, task), task))


def f1_macro(scores: NDArray[np.floating], labels: NDArray[np.integer], task: str) -> float:
    """Mean F1 over the classes that occur in labels or predictions, as in scikit-learn.

    For the multi-label task, the mean over labels of the F1 of the value one; a label that neither
    occurs nor is predicted counts 0 (scikit-learn's ``average="macro", zero_division=0``).
    """
    validate(scores, labels, task)
    return float(f1_macro_of(count(scores, labels, task), task))


def auc(scores: NDArray[np.floating], labels: NDArray[np.integer], task: str) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    A tie counts half. A binary task uses the last column; the others the plain mean over columns,
    one class against the rest, or one label after the other.

    Returns:
        The AUC in 0..1, or nan where a column has positives only or negatives only: there the
        curve doesn't exist. (MedMNIST's evaluator raises or returns nan there, depending on the
        version of scikit-learn.)
    """
    validate(scores, labels, task)
    columns = auc_columns(scores, labels, task)
    return float(np.mean([_auc(*column) for column in columns]))


def evaluate(
    scores: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> dict[str, float]:
    """Every metric of one set of answers.

    Args:
        scores: (N, C) probabilities.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``TASKS``.

    Returns:
        name -> value, in the order of ``METRICS``. ``auc`` may be nan, and every metric is where
        one of several labels is known of no sample.

    Raises:
        RequestError: see ``validate``.
    """
    validate(scores, labels, task)
    counts = count(scores, labels, task)
    columns = auc_columns(scores, labels, task)
    return {
        "acc": float(accuracy_of(counts, task)),
        "auc": float(np.mean([_auc(*column) for column in columns])),
        "balanced_accuracy": float(balanced_accuracy_of(counts, task)),
        "f1_macro": float(f1_macro_of(counts, task)),
    }


def larger_class_rate(labels: NDArray[np.integer], task: str) -> float:
    """Accuracy of always giving the most common answer: the floor under every ``acc``.

    Args:
        labels: (N,), or (N, C) for the multi-label task: then the more common value of each
            label is the answer, and the rate the mean over labels; nan where one is known nowhere.
        task: one of ``TASKS``.

    Raises:
        RequestError: no labels, or a shape or range that doesn't fit the task.
    """
    labels = np.asarray(labels)
    n_classes = labels.shape[-1] if task == MULTI_LABEL else 2 if task == BINARY else None
    check_labels(labels, task, int(labels.max(initial=0)) + 1 if n_classes is None else n_classes)
    if len(labels) == 0:
        raise RequestError("the larger class needs at least one label, found none")
    if task == MULTI_LABEL:
        share = label_shares(labels)
        return float(np.maximum(share, 1 - share).mean())
    return float(np.bincount(labels).max() / len(labels))


# The kernels: counts and ranks, with leading axes.


def indicators(
    scores: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> NDArray[np.bool_]:
    """Each sample's contribution to the counts.

    Returns:
        (N, 3, C) hits, labelled, predicted; (N, 3, C, 2) for the multi-label task. Any weighted
        sum over N gives ``Counts``.
    """
    n_values = 2 if task == MULTI_LABEL else scores.shape[1]
    values = np.arange(n_values)  # MISSING is none of them
    labelled = labels[..., None] == values
    predicted = predict(scores, task)[..., None] == values
    if task == MULTI_LABEL:
        predicted &= labels[..., None] != MISSING
    return np.stack([labelled & predicted, labelled, predicted], axis=1)


def count(scores: NDArray[np.floating], labels: NDArray[np.integer], task: str) -> Counts:
    """Counts of one set of answers, every sample once."""
    return Counts(*indicators(scores, labels, task).sum(axis=0, dtype=np.float64))


def accuracy_of(counts: Counts, task: str) -> NDArray[np.float64]:
    """Accuracy from counts; their leading axes stay."""
    return _over_labels(_divided(counts.hits.sum(axis=-1), counts.labelled.sum(axis=-1)), task)


def balanced_accuracy_of(counts: Counts, task: str) -> NDArray[np.float64]:
    """Balanced accuracy from counts; their leading axes stay."""
    recall = counts.hits / np.maximum(counts.labelled, 1)
    return _over_labels(_mean_where(recall, counts.labelled > 0), task)


def f1_macro_of(counts: Counts, task: str) -> NDArray[np.float64]:
    """Macro F1 from counts; their leading axes stay."""
    occurrences = counts.labelled + counts.predicted
    f1 = 2 * counts.hits / np.maximum(occurrences, 1)
    if task == MULTI_LABEL:
        is_known = counts.labelled.sum(axis=-1) > 0
        return np.where(is_known, f1[..., 1], np.nan).mean(axis=-1)
    return _mean_where(f1, occurrences > 0)


def auc_columns(
    scores: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> list[tuple[NDArray[np.floating], NDArray[np.bool_], NDArray[np.bool_]]]:
    """The two-class problems whose mean is the AUC.

    Returns:
        For each column that counts, its (N,) scores, which of the N samples are positive, and which
        are negative; a sample whose label is missing is neither.
    """
    if task == MULTI_LABEL:
        columns = range(scores.shape[1])
        return [(scores[:, c], labels[:, c] == 1, labels[:, c] == 0) for c in columns]
    classes = [1] if task == BINARY else range(scores.shape[1])
    return [(scores[:, c], labels == c, labels != c) for c in classes]


def negatives_below(
    positives: NDArray[np.floating], negatives: NDArray[np.floating]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each positive stands among the negatives.

    Args:
        positives: (P,) scores, in any order.
        negatives: (M,) scores in ascending order.

    Returns:
        (P,) how many negatives score less, and (P,) how many score less or the same. Their mean
        is the number of negatives beaten, ties counted half.
    """
    return (
        np.searchsorted(negatives, positives, side="left"),
        np.searchsorted(negatives, positives, side="right"),
    )


def _auc(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], negative: NDArray[np.bool_]
) -> float:
    positives, negatives = scores[positive], np.sort(scores[negative])
    if len(positives) == 0 or len(negatives) == 0:
        return float("nan")
    less, less_or_same = negatives_below(positives, negatives)
    return float((less + less_or_same).sum() / (2 * len(positives) * len(negatives)))


def _over_labels(values: NDArray[np.float64], task: str) -> NDArray[np.float64]:
    """Mean over the last axis where that axis is the labels of the multi-label task."""
    return values.mean(axis=-1) if task == MULTI_LABEL else values


def _mean_where(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the last axis of what is counted; nan where nothing is."""
    return _divided((values * counted).sum(axis=-1), counted.sum(axis=-1))


def _divided(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """a / b, nan where b is 0: a label that is known of no sample."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0)
