"""Metrics of a classification probe, equal to MedMNIST's own evaluator.

Follows ``medmnist/evaluator.py`` (3.0.2) for ``acc`` and ``auc``, and scikit-learn for
the others, without importing either. Those that are about probabilities are in ``calibration.py``,
those of ordered classes in ``grades.py``, those of the order of scores in ``ranking.py``.

Conventions:
    - ``scores`` are (N, C) for every task: probabilities, or margins where an estimator has no
      probabilities (``score_type``). A binary task has two columns, class 0 and class 1, of margins
      -m and m; a multi-label task has one column for each label. Unnormalised scores are what some
      releases measure: in 0..1, larger for likelier classes, but a sample's don't sum to 1.
    - ``labels`` are (N,) class numbers, or (N, C) zeros and ones for the multi-label task. There an
      entry may be ``MISSING``: nobody knows it, and each label is measured on the samples of which
      it is known, as if it stood alone.
    - Several labels at once are as many problems of two classes: each metric is the mean over
      labels of what it is for a binary task. F1 alone is that of the value one.
    - Every metric is a function of sums over samples, or of ranks. Both take leading axes, so that
      ``probe.metrics.jackknife`` evaluates each test set less a patient with the code that evaluates one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.errors import RequestError
from cache.task import BINARY, CLASSIFICATION, MISSING, MULTI_LABEL, ORDINAL, UNCERTAIN
from probe.metrics import calibration, grades
from probe.metrics.ranking import Ranking

METRICS = ("acc", "auc", "balanced_accuracy", "f1_macro")  # of every task; see metric_names
ERRORS_OF_CALIBRATION = ("ece", "ece_tempered")  # no interval: see intervals.py
RANKS = ("auc", "average_precision")  # those that depend on the order of scores alone

PROBABILITY, MARGIN, UNNORMALISED = "probability", "margin", "unnormalised"
# A score above it is a positive; one that equals it (MedMNIST's rule) is not.
THRESHOLD = {PROBABILITY: 0.5, MARGIN: 0.0, UNNORMALISED: 0.5}
# What a reader of such scores must know.
SCORE_MARKS = {
    PROBABILITY: [],
    MARGIN: ["scores are margins, no probabilities"],
    UNNORMALISED: ["scores of a sample don't sum to 1, so there is no figure of calibration"],
}
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
        RequestError: ``task`` is none of ``CLASSIFICATION``.
    """
    if task not in CLASSIFICATION:
        choices = ", ".join(f'"{name}"' for name in CLASSIFICATION)
        raise RequestError(f'unknown task "{task}": expected one of {choices}')


def check_labels(labels: ArrayLike, task: str, n_classes: int) -> None:
    """Refuse labels of another shape or range than the task's.

    Args:
        labels: (N,) class numbers, or (N, C) zeros, ones and MISSING for the multi-label task.
        task: one of ``CLASSIFICATION``.
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


def validate(
    scores: ArrayLike, labels: ArrayLike, task: str, score_type: str = PROBABILITY
) -> None:
    """Refuse scores and labels that no metric below can answer for.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``CLASSIFICATION``.
        score_type: PROBABILITY, MARGIN or UNNORMALISED.

    Raises:
        RequestError: no samples, shapes that don't match each other or the task, labels out of
            range, an unknown score type, or scores that are not finite or not probabilities.
    """
    check_task(task)
    if score_type not in THRESHOLD:
        raise RequestError(
            f'unknown score type "{score_type}": expected one of {", ".join(THRESHOLD)}'
        )
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
    if score_type == PROBABILITY and (scores.min() < -ROUNDING or scores.max() > 1 + ROUNDING):
        raise RequestError(
            f"scores are probabilities in 0..1, found {scores.min():.4g}..{scores.max():.4g}: "
            f'put logits through a softmax or a sigmoid first, or name the score type "{MARGIN}"'
        )


def predict(
    scores: NDArray[np.floating], task: str, score_type: str = PROBABILITY
) -> NDArray[np.int64]:
    """Decide: what MedMNIST's accuracy counts as the answer.

    Args:
        scores: (N, C) probabilities or margins.
        task: one of ``CLASSIFICATION``.
        score_type: PROBABILITY, MARGIN or UNNORMALISED.

    Returns:
        (N,) class numbers; the smallest class wins a tie, as in ``np.argmax``. A binary task is
        class 1 where the last column is above 0.5, of margins above 0, of unnormalised scores above
        the first. (N, C) zeros and ones for the multi-label task, one where a score is above that.
    """
    check_task(task)
    threshold = THRESHOLD[score_type]
    if task == MULTI_LABEL:
        return (scores > threshold).astype(np.int64)
    if task == BINARY and score_type != UNNORMALISED:
        return (scores[:, -1] > threshold).astype(np.int64)
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

    Others call it macro recall, or mean per-class recall (Huix et al. 2024 on ISIC 2019). For the
    multi-label task, the mean over labels of each label's balanced accuracy.
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
    return float(column_aucs(scores, labels, task).mean())


def column_aucs(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
) -> NDArray[np.float64]:
    """What ``auc`` is the mean of: one for each class or label, of two classes one; nan as there."""
    validate(scores, labels, task, score_type)
    return np.array([_auc(*column) for column in auc_columns(scores, labels, task)])


def metric_names(
    task: str, score_type: str = PROBABILITY, tempered: bool = False
) -> tuple[str, ...]:
    """The metrics of a task, in the order of every row.

    Args:
        task: one of ``CLASSIFICATION``.
        score_type: of margins there is nothing that takes probabilities.
        tempered: whether there is a temperature.
    """
    has_probabilities = score_type == PROBABILITY
    return (
        *METRICS,
        *(["kappa"] if task == ORDINAL else []),
        *(["average_precision"] if task == MULTI_LABEL else []),
        *(["brier", "ece"] if has_probabilities else []),
        *(["ece_tempered"] if has_probabilities and tempered else []),
        *(["acc_expected", "kappa_expected"] if task == ORDINAL and has_probabilities else []),
    )


def evaluate(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
    temperature: float | None = None,
    votes: calibration.Votes | None = None,
) -> dict[str, float]:
    """Every metric of one set of answers.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``CLASSIFICATION``.
        score_type: PROBABILITY, MARGIN or UNNORMALISED.
        temperature: from ``fit_temperature``; None: no ``ece_tempered``.
        votes: what smooths the scores before they are tempered, where they are shares of votes.

    Returns:
        name -> value, as ``metric_names`` lists them: of every task ``METRICS``; of ordered classes
        ``kappa`` (quadratic weights), and accuracy and kappa of the expected grade; of several
        labels ``average_precision``, the mean over labels; of probabilities ``brier`` and ``ece``.
        ``auc`` and ``average_precision`` may be nan, and every metric is where one of several
        labels is known of no sample.

    Raises:
        RequestError: see ``validate``.
    """
    return prepare(scores, labels, task, score_type, temperature, votes).evaluate()


def fit_temperature(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    *,
    votes: calibration.Votes | None = None,
    fold: NDArray[np.integer] | None = None,
) -> float | None:
    """The temperature of ``calibration.fit_temperature``; one for all of several labels.

    Args:
        scores: (N, C) probabilities, of samples that the probe was not fitted to.
        labels: (N,), or (N, C) for the multi-label task; something is known.
        task: one of ``CLASSIFICATION``.
        votes: what smooths the scores first, where they are shares of votes.
        fold: (N,) of each sample; None: each ``calibration.N_FOLDS``-th.

    Raises:
        RequestError: see ``validate``.
    """
    validate(scores, labels, task)
    smooth = votes.smooth(scores) if votes else scores
    probabilities, truth = zip(*class_problems(smooth, labels, task), strict=True)
    fold = np.arange(len(scores)) % calibration.N_FOLDS if fold is None else fold
    return calibration.fit_temperature(
        np.concatenate(probabilities), np.concatenate(truth), np.tile(fold, len(truth))
    )


def larger_class_rate(labels: NDArray[np.integer], task: str) -> float:
    """Accuracy of always giving the most common answer: the floor under every ``acc``.

    Args:
        labels: (N,), or (N, C) for the multi-label task: then the more common value of each
            label is the answer, and the rate the mean over labels; nan where one is known nowhere.
        task: one of ``CLASSIFICATION``.

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


# The kernels: sums and ranks, with leading axes.


class Prepared(NamedTuple):
    """Answers, looked at once: what every metric and every resample of them is computed of."""

    task: str
    names: tuple[str, ...]  # of their metrics
    parts: dict[str, NDArray[Any]]  # see ``sample_parts``
    calibration: dict[str, NDArray[np.float64]]  # see ``calibration_sums``
    problems: list[Ranking]  # see ``rankings``

    def evaluate(self) -> dict[str, float]:
        """See ``evaluate``, which this is."""
        sums = {name: part.sum(axis=0)[None] for name, part in self.parts.items()}
        whole = np.ones((1, len(self.parts["counts"])), np.int32)
        found = {
            **metrics_of({**sums, **{n: s[None] for n, s in self.calibration.items()}}, self.task),
            **rank_metrics_of(self.problems, whole, self.names),
        }
        return {name: float(found[name][0]) for name in self.names}


def prepare(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
    temperature: float | None = None,
    votes: calibration.Votes | None = None,
) -> Prepared:
    """Look at answers once; arguments and errors are those of ``evaluate``."""
    validate(scores, labels, task, score_type)
    return Prepared(
        task,
        metric_names(task, score_type, temperature is not None),
        sample_parts(scores, labels, task, score_type),
        calibration_sums(scores, labels, task, score_type, temperature, votes),
        rankings(scores, labels, task),
    )


def sample_parts(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
) -> dict[str, NDArray[Any]]:
    """Each sample's contributions: any weighted sum over N is what ``metrics_of`` takes.

    Returns:
        "counts": see ``indicators``. Of ordered classes "argmax" and, of probabilities, "expected":
        (N, 7), see ``grades.sample_moments``. Of probabilities "brier": (N, P, 2), see
        ``calibration.squares``; P is 1, of several labels C.
    """
    parts: dict[str, NDArray[Any]] = {"counts": indicators(scores, labels, task, score_type)}
    if task == ORDINAL:
        parts["argmax"] = grades.sample_moments(predict(scores, task, score_type), labels)
    if score_type != PROBABILITY:
        return parts
    if task == ORDINAL:
        parts["expected"] = grades.sample_moments(grades.expected_grades(scores), labels)
    problems = class_problems(scores, labels, task)
    parts["brier"] = np.stack([calibration.squares(p, y) for p, y in problems], axis=1)
    return parts


def calibration_sums(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
    temperature: float | None = None,
    votes: calibration.Votes | None = None,
) -> dict[str, NDArray[np.float64]]:
    """What the errors of calibration are functions of, for ``metrics_of``.

    Returns:
        Of probabilities "calibration" and, with a temperature, "tempered": (P, ...), see
        ``calibration.gap_sums``; P as in ``sample_parts``.
    """
    if score_type != PROBABILITY:
        return {}
    problems = class_problems(scores, labels, task)
    found = {"calibration": np.stack([calibration.gap_sums(p, y) for p, y in problems])}
    if temperature is not None:
        smooth = class_problems(votes.smooth(scores), labels, task) if votes else problems
        tempered = [(calibration.temper(p, temperature), y) for p, y in smooth]
        found["tempered"] = np.stack([calibration.gap_sums(p, y) for p, y in tempered])
    return found


def metrics_of(sums: Mapping[str, NDArray[Any]], task: str) -> dict[str, NDArray[np.float64]]:
    """Every metric that is a function of sums; their leading axes stay.

    Args:
        sums: of ``sample_parts``, (..., 3, C) and so on; ``calibration_sums`` where wanted.
        task: one of ``CLASSIFICATION``.
    """
    counts = Counts(*np.moveaxis(sums["counts"], -3 if task == MULTI_LABEL else -2, 0))
    found = {
        "acc": accuracy_of(counts, task),
        "balanced_accuracy": balanced_accuracy_of(counts, task),
        "f1_macro": f1_macro_of(counts, task),
    }
    if "argmax" in sums:
        found["kappa"] = grades.kappa_of(sums["argmax"])
    if "expected" in sums:
        found["acc_expected"] = grades.accuracy_of(sums["expected"])
        found["kappa_expected"] = grades.kappa_of(sums["expected"])
    if "brier" in sums:
        found["brier"] = calibration.brier_of(sums["brier"]).mean(axis=-1)
    if "calibration" in sums:
        found["ece"] = calibration.calibration_error_of(sums["calibration"]).mean(axis=-1)
    if "tempered" in sums:
        found["ece_tempered"] = calibration.calibration_error_of(sums["tempered"]).mean(axis=-1)
    return found


def rankings(scores: NDArray[np.floating], labels: NDArray[np.integer], task: str) -> list[Ranking]:
    """The problems of ``auc_columns``, sorted."""
    return [Ranking(*column) for column in auc_columns(scores, labels, task)]


def rank_metrics_of(
    problems: Sequence[Ranking], drawn: NDArray[np.int32], names: Collection[str]
) -> dict[str, NDArray[np.float64]]:
    """Those metrics of ``RANKS`` that are named, (R,) each; nan where one of their problems is.

    Args:
        problems: from ``rankings``.
        drawn: (R, N) multiplicities, how often each sample is in each resample.
        names: others are passed over.
    """
    kernels = {"auc": Ranking.auc, "average_precision": Ranking.average_precision}
    return {
        name: np.mean([kernels[name](problem, drawn) for problem in problems], axis=0)
        for name in RANKS
        if name in names
    }


def class_problems(
    scores: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> list[tuple[NDArray[np.floating], NDArray[np.integer]]]:
    """Probabilities (N, V) and class numbers (N,) of classes that exclude one another.

    One problem; of several labels one of two classes for each.
    """
    if task != MULTI_LABEL:
        return [(scores, labels)]
    columns = range(scores.shape[1])
    return [(np.stack([1 - scores[:, c], scores[:, c]], axis=1), labels[:, c]) for c in columns]


def indicators(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
) -> NDArray[np.bool_]:
    """Each sample's contribution to the counts.

    Returns:
        (N, 3, C) hits, labelled, predicted; (N, 3, C, 2) for the multi-label task. Any weighted
        sum over N gives ``Counts``.
    """
    n_values = 2 if task == MULTI_LABEL else scores.shape[1]
    values = np.arange(n_values)  # MISSING is none of them
    labelled = labels[..., None] == values
    predicted = predict(scores, task, score_type)[..., None] == values
    if task == MULTI_LABEL:
        predicted &= labels[..., None] != MISSING
    return np.stack([labelled & predicted, labelled, predicted], axis=1)


def count(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    score_type: str = PROBABILITY,
) -> Counts:
    """Counts of one set of answers, every sample once."""
    return Counts(*indicators(scores, labels, task, score_type).sum(axis=0, dtype=np.float64))


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


def _auc(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], negative: NDArray[np.bool_]
) -> float:
    whole = np.ones((1, len(scores)), np.int32)
    return float(Ranking(scores, positive, negative).auc(whole)[0])


def _over_labels(values: NDArray[np.float64], task: str) -> NDArray[np.float64]:
    """Mean over the last axis where that axis is the labels of the multi-label task."""
    return values.mean(axis=-1) if task == MULTI_LABEL else values


def _mean_where(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the last axis of what is counted; nan where nothing is."""
    return _divided((values * counted).sum(axis=-1), counted.sum(axis=-1))


def _divided(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """a / b, nan where b is 0: a label that is known of no sample."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0)
