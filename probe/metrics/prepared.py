"""Answers to any task, looked at once; then every metric, and every resample, costs sums."""

from cache.task import REGRESSION, SEGMENTATION
from probe.arrays import Array
from probe.metrics import classification, overlap, regression
from probe.metrics.calibration import Votes
from probe.metrics.metric import Metric, Prepared

METRICS: tuple[Metric, ...] = (
    *classification.METRICS,
    *regression.METRICS,
    *overlap.METRICS,
)


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
        scores: (N, C) probabilities or margins, of regression (N, 1) predictions, of segmentation
            (N, 6 C), see ``probe.metrics.overlap``.
        labels: (N,), or (N, C) for the multi-label task and segmentation.
        task: one of ``cache.task.TASKS``, or SEGMENTATION.
        score_type: of classes, see ``probe.metrics.classification``.
        temperature: see ``probe.metrics.classification.evaluate``.
        votes: see ``probe.metrics.classification.evaluate``.

    Raises:
        RequestError: what ``validate`` of ``classification``, ``regression`` or ``overlap`` refuses.
    """
    if task == REGRESSION:
        return regression.prepare(scores, labels)
    if task == SEGMENTATION:
        return overlap.prepare(scores, labels)
    return classification.prepare(scores, labels, task, score_type, temperature, votes)
