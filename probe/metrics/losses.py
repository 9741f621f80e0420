"""What choices make small: log-loss, 1 - AUC, squared error."""

import numpy as np

from cache.errors import RequestError
from cache.task import MISSING, MULTI_LABEL, REGRESSION
from probe.arrays import Array, Floats, Ints
from probe.metrics.calibration import Votes
from probe.metrics.classification import PROBABILITY, column_aucs, validate

RANKS = "1 - AUC"  # the loss of scores that are no probabilities


def loss_of(
    scores: Floats,
    labels: Array,
    task: str,
    *,
    votes: Votes | None = None,
    score_type: str = PROBABILITY,
) -> float:
    """What a choice makes small: log-loss, or 1 - AUC where scores are no probabilities, over the
    classes, or labels, that there are; of regression the squared error.

    Args:
        scores: (n, C) probabilities or margins, of regression (n, 1) predictions.
        labels: (n,), or (n, C) for the multi-label task.
        task: one of ``cache.task.TASKS``.
        votes: what the probabilities are shares of, where they are. They are smoothed: without
            that a single sample whose neighbours all err, at 36 nats, would decide among layers.
        score_type: ``probe.metrics.classification.PROBABILITY``, ``MARGIN`` or ``UNNORMALISED``.

    Raises:
        RequestError: no samples, or no probabilities where all labels are the same.
    """
    if task == REGRESSION:
        return float(np.square(scores[:, 0] - labels).mean())
    if score_type != PROBABILITY:
        values = column_aucs(scores, labels, task, score_type)
        if np.isnan(values).all():
            raise RequestError(
                f"{score_type} scores are compared by AUC, and there is none where all labels are "
                "the same"
            )
        return 1 - float(np.nanmean(values))
    if votes:
        scores = votes.smooth(scores)
    return log_loss(scores, labels, task)


def loss_name(task: str, score_type: str = PROBABILITY) -> str:
    """What ``loss_of`` computes, in words."""
    if task == REGRESSION:
        return "squared error"
    return "log-loss" if score_type == PROBABILITY else RANKS


def is_of_ranks(loss: str) -> bool:
    """Whether a loss, by its name, is one of ranks, and not a mean over samples.

    Of a class that a fold lacks it has no value there, so all folds' answers are judged together.
    """
    return loss == RANKS


def judged_by(loss: str) -> str:
    """By what of the folds, for rows."""
    return "pooled out-of-fold" if is_of_ranks(loss) else "out-of-fold"


def log_loss(scores: Floats, labels: Ints, task: str) -> float:
    """Mean negative log-probability of the truth, in nats.

    For the multi-label task, the mean over labels of each label's mean over the images of which it
    is known; a label that is known of none has no say.

    Probabilities are kept a float64 epsilon (2.2e-16) away from 0 and 1, as in scikit-learn, so
    one sure and wrong answer costs 36 nats and not infinity.

    Raises:
        RequestError: nothing is known; see also ``probe.metrics.classification.validate``.
    """
    validate(scores, labels, task)
    if task != MULTI_LABEL:
        return float(_nats(scores[np.arange(len(labels)), labels]).mean())
    is_known = labels != MISSING
    n_known = is_known.sum(axis=0)
    if not n_known.any():
        raise RequestError(f"a log-loss needs known labels, found none of {labels.size}")
    nats = _nats(np.where(labels == 1, scores, 1 - scores))
    sums = np.where(is_known, nats, 0).sum(axis=0)
    return float((sums[n_known > 0] / n_known[n_known > 0]).mean())


def _nats(probabilities: Floats) -> Floats:
    return -np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1))
