"""Answers to any task, looked at once; then every metric, and every resample, costs sums."""

from cache.task import REGRESSION
from probe.arrays import Array
from probe.metrics import classification, regression
from probe.metrics.calibration import Votes
from probe.metrics.metric import Metric, Prepared

METRICS: tuple[Metric, ...] = (*classification.METRICS, *regression.METRICS)


def prepare(
    scores: Array,
    labels: Array,
    task: str,
    score_type: str = classification.PROBABILITY,
    temperature: float | None = None,
    votes: Votes | None = None,
) -> Prepared:
    """Look at answers once.

    Args:
        scores: (N, C) probabilities or margins, of regression (N, 1) predictions.
        labels: (N,), or (N, C) for the multi-label task.
        task: one of ``cache.task.TASKS``.
        score_type: of classes, see ``probe.metrics.classification``.
        temperature: see ``probe.metrics.classification.evaluate``.
        votes: see ``probe.metrics.classification.evaluate``.

    Raises:
        RequestError: what ``classification.validate`` or ``regression.validate`` refuses.
    """
    if task == REGRESSION:
        return regression.prepare(scores, labels)
    return classification.prepare(scores, labels, task, score_type, temperature, votes)
