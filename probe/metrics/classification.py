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

Long because the table of metrics stands with what prepares scores for them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.errors import RequestError
from cache.task import BINARY, CLASSIFICATION, MISSING, MULTI_LABEL, ORDINAL, UNCERTAIN
from probe.arrays import Array, Bools, Doubles, Floats, Ints
from probe.metrics import calibration, counts, grades
from probe.metrics.metric import (
    ARGMAX,
    BRIER,
    CALIBRATION,
    COUNTS,
    EXPECTED,
    F1,
    INTERVAL,
    LOSSES,
    OF_PROBABILITIES,
    PAIRS,
    POSITIVES,
    RANKS,
    RECALLS,
    REST,
    SD,
    TEMPERED,
    VAL,
    Metric,
    Prepared,
)
from probe.metrics.ranking import Ranking

PROBABILITY, MARGIN, UNNORMALISED = "probability", "margin", "unnormalised"
# A score above it is a positive; one that equals it (MedMNIST's rule) is not.
THRESHOLD = {PROBABILITY: 0.5, MARGIN: 0.0, UNNORMALISED: 0.5}
# What a reader of such scores must know.
SCORE_MARKS = {
    PROBABILITY: [],
    MARGIN: ["scores are margins, no probabilities"],
    UNNORMALISED: ["scores of a sample don't sum to 1, so there is no figure of calibration"],
}


def _of_all(of: Callable[[NDArray], NDArray]) -> Callable[[NDArray, str], NDArray]:
    """A function of sums that is one for every task."""
    return lambda sums, task: of(sums)


def _of_each(of: Callable[[NDArray], NDArray]) -> Callable[[NDArray, str], NDArray]:
    """The mean of a function over problems: one, or one for each of several labels."""
    return lambda sums, task: of(sums).mean(axis=-1)


MAIN = (INTERVAL, VAL, SD, REST)
METRICS = (
    Metric(
        "acc", counts.accuracy_of, COUNTS, CLASSIFICATION, is_share=True, column="acc", also=MAIN
    ),
    Metric(
        "auc",
        Ranking.auc,
        RANKS,
        CLASSIFICATION,
        PAIRS,
        without=Ranking.auc_without,
        column="auc",
        also=MAIN,
    ),
    Metric(
        "balanced_accuracy",
        counts.balanced_accuracy_of,
        COUNTS,
        CLASSIFICATION,
        RECALLS,
        column="bal. acc",
    ),
    Metric("f1_macro", counts.f1_macro_of, COUNTS, CLASSIFICATION, F1, column="f1"),
    Metric("kappa", _of_all(grades.kappa_of), ARGMAX, (ORDINAL,), RECALLS, (-1, 1), column="kappa"),
    Metric(
        "average_precision",
        Ranking.average_precision,
        RANKS,
        (MULTI_LABEL,),
        POSITIVES,
        without=Ranking.average_precision_without,
        column="mAP",
    ),
    Metric(
        *("brier", _of_each(calibration.brier_of), BRIER, CLASSIFICATION, LOSSES, (0, 2)),
        is_loss=True,
    ),
    Metric(
        *("ece", _of_each(calibration.calibration_error_of), CALIBRATION, CLASSIFICATION, None),
        is_loss=True,
    ),
    Metric(
        *("ece_tempered", _of_each(calibration.calibration_error_of), TEMPERED, CLASSIFICATION),
        stands_on=None,
        is_loss=True,
    ),
    Metric("acc_expected", _of_all(grades.accuracy_of), EXPECTED, (ORDINAL,), is_share=True),
    Metric("kappa_expected", _of_all(grades.kappa_of), EXPECTED, (ORDINAL,), RECALLS, (-1, 1)),
)  # in the order of every row

ROUNDING = 1e-3  # how far outside 0..1 a probability in float16 may fall


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


def label_shares(labels: Ints) -> Doubles:
    """Share of ones among the samples of which a label is known.

    Args:
        labels: (N, C) zeros, ones and MISSING.

    Returns:
        (C,) shares, nan where a label is known of no sample.
    """
    return counts.divided((labels == 1).sum(axis=0), (labels != MISSING).sum(axis=0))


def known_shares(labels: Ints) -> Doubles:
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


def predict(scores: Floats, task: str, score_type: str = PROBABILITY) -> NDArray[np.int64]:
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


def accuracy(scores: Floats, labels: Ints, task: str) -> float:
    """Share of right answers; the mean over labels for the multi-label task.

    Where positives are rare, the multi-label value rewards predicting nothing (ChestMNIST: 94.7 %
    for an empty answer); ``larger_class_rate`` says how much.
    """
    validate(scores, labels, task)
    return float(counts.accuracy_of(indicators(scores, labels, task).sum(axis=0), task))


def auc(scores: Floats, labels: Ints, task: str) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    A tie counts half. A binary task uses the last column; the others the plain mean over columns,
    one class against the rest, or one label after the other.

    Returns:
        The AUC in 0..1, or nan where a column has positives only or negatives only: there the
        curve doesn't exist. (MedMNIST's evaluator raises or returns nan there, depending on the
        version of scikit-learn.)
    """
    return float(column_aucs(scores, labels, task).mean())


def column_aucs(scores: Floats, labels: Ints, task: str, score_type: str = PROBABILITY) -> Doubles:
    """What ``auc`` is the mean of: one for each class or label, of two classes one; nan as there."""
    validate(scores, labels, task, score_type)
    whole = np.ones((1, len(scores)), np.int32)
    return np.array([problem.auc(whole)[0] for problem in rankings(scores, labels, task)])


def metrics_for(
    task: str, score_type: str = PROBABILITY, tempered: bool = False
) -> tuple[Metric, ...]:
    """The metrics of a task, in the order of every row.

    Args:
        task: one of ``CLASSIFICATION``.
        score_type: of margins there is nothing that takes probabilities.
        tempered: whether there is a temperature.
    """
    lacking = () if score_type == PROBABILITY else OF_PROBABILITIES
    lacking = lacking if tempered else (*lacking, TEMPERED)
    return tuple(m for m in METRICS if task in m.tasks and m.needs not in lacking)


def evaluate(
    scores: Floats,
    labels: Ints,
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
        name -> value, as ``metrics_for`` lists them: of ordered classes also ``kappa`` (quadratic
        weights), and accuracy and kappa of the expected grade; of several labels
        ``average_precision``, the mean over labels; of probabilities ``brier`` and ``ece``.
        ``auc`` and ``average_precision`` may be nan, and every metric is where one of several
        labels is known of no sample.

    Raises:
        RequestError: see ``validate``.
    """
    return prepare(scores, labels, task, score_type, temperature, votes).evaluate()


def fit_temperature(
    scores: Floats,
    labels: Ints,
    task: str,
    *,
    votes: calibration.Votes | None = None,
    fold: Ints | None = None,
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


def larger_class_rate(labels: Ints, task: str) -> float:
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


# What metrics are functions of.


def prepare(
    scores: Floats,
    labels: Ints,
    task: str,
    score_type: str = PROBABILITY,
    temperature: float | None = None,
    votes: calibration.Votes | None = None,
) -> Prepared:
    """Look at answers once; arguments and errors are those of ``evaluate``."""
    validate(scores, labels, task, score_type)
    return Prepared(
        task,
        metrics_for(task, score_type, temperature is not None),
        sample_parts(scores, labels, task, score_type),
        calibration_sums(scores, labels, task, score_type, temperature, votes),
        rankings(scores, labels, task),
    )


def sample_parts(
    scores: Floats, labels: Ints, task: str, score_type: str = PROBABILITY
) -> dict[str, Array]:
    """Each sample's contributions: any weighted sum over N is what metrics take.

    Returns:
        "counts": see ``indicators``. Of ordered classes "argmax" and, of probabilities, "expected":
        (N, 7), see ``grades.sample_moments``. Of probabilities "brier": (N, P, 2), see
        ``calibration.squares``; P is 1, of several labels C.
    """
    parts: dict[str, Array] = {COUNTS: indicators(scores, labels, task, score_type)}
    if task == ORDINAL:
        parts[ARGMAX] = grades.sample_moments(predict(scores, task, score_type), labels)
    if score_type != PROBABILITY:
        return parts
    if task == ORDINAL:
        parts[EXPECTED] = grades.sample_moments(grades.expected_grades(scores), labels)
    problems = class_problems(scores, labels, task)
    parts[BRIER] = np.stack([calibration.squares(p, y) for p, y in problems], axis=1)
    return parts


def calibration_sums(
    scores: Floats,
    labels: Ints,
    task: str,
    score_type: str = PROBABILITY,
    temperature: float | None = None,
    votes: calibration.Votes | None = None,
) -> dict[str, Doubles]:
    """What the errors of calibration are functions of.

    Returns:
        Of probabilities "calibration" and, with a temperature, "tempered": (P, ...), see
        ``calibration.gap_sums``; P as in ``sample_parts``.
    """
    if score_type != PROBABILITY:
        return {}
    problems = class_problems(scores, labels, task)
    found = {CALIBRATION: np.stack([calibration.gap_sums(p, y) for p, y in problems])}
    if temperature is not None:
        smooth = class_problems(votes.smooth(scores), labels, task) if votes else problems
        tempered = [(calibration.temper(p, temperature), y) for p, y in smooth]
        found[TEMPERED] = np.stack([calibration.gap_sums(p, y) for p, y in tempered])
    return found


def rankings(scores: Floats, labels: Ints, task: str) -> list[Ranking]:
    """The problems of ``auc_columns``, sorted."""
    return [Ranking(*column) for column in auc_columns(scores, labels, task)]


def class_problems(scores: Floats, labels: Ints, task: str) -> list[tuple[Floats, Ints]]:
    """Probabilities (N, V) and class numbers (N,) of classes that exclude one another.

    One problem; of several labels one of two classes for each.
    """
    if task != MULTI_LABEL:
        return [(scores, labels)]
    columns = range(scores.shape[1])
    return [(np.stack([1 - scores[:, c], scores[:, c]], axis=1), labels[:, c]) for c in columns]


def indicators(scores: Floats, labels: Ints, task: str, score_type: str = PROBABILITY) -> Bools:
    """Each sample's contribution to the counts.

    Returns:
        (N, 3, C) hits, labelled, predicted; (N, 3, C, 2) for the multi-label task. Any weighted
        sum over N gives counts, see ``counts.py``.
    """
    n_values = 2 if task == MULTI_LABEL else scores.shape[1]
    values = np.arange(n_values)  # MISSING is none of them
    labelled = labels[..., None] == values
    predicted = predict(scores, task, score_type)[..., None] == values
    if task == MULTI_LABEL:
        predicted &= labels[..., None] != MISSING
    return np.stack([labelled & predicted, labelled, predicted], axis=1)


def auc_columns(scores: Floats, labels: Ints, task: str) -> list[tuple[Floats, Bools, Bools]]:
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
