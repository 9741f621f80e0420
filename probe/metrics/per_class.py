"""What an average hides: recall, AUC and average precision of each class, or of each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.task import Task
from probe.metrics.classification import PROBABILITY, indicators
from probe.metrics.ranking import Ranking


def per_class(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: Task,
    score_type: str = PROBABILITY,
) -> dict[str, list[Any]]:
    """The metrics of each class against the rest, or of each label by itself.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) for the multi-label task.
        task: its word, and the names of C classes.
        score_type: see ``probe.metrics.classification``.

    Returns:
        Lists of C: "class", its name; "n", how many samples are of it; "recall", the share of those
        that are answered so; "auc"; and for the multi-label task "average_precision". nan where
        there is nothing to measure on: no sample is of the class, or, for the AUC, every one is.
    """
    sums = indicators(scores, labels, task.word, score_type).sum(axis=0)
    several = task.has_several_labels
    # Of one of several labels the class is its value one.
    hits, n = (a[:, 1] if several else a for a in sums[:2].astype(np.float64))
    recall = np.divide(hits, n, out=np.full(len(n), np.nan), where=n > 0)
    whole = np.ones((1, len(scores)), np.int32)
    truths = [labels[:, c] if several else labels == c for c in range(task.n_classes)]
    problems = [
        Ranking(scores[:, c], truth == 1, truth == 0)  # a missing label is neither
        for c, truth in enumerate(truths)
    ]
    found: dict[str, list[Any]] = {
        "class": [str(name) for name in task.class_names],
        "n": n.astype(int).tolist(),
        "recall": recall.tolist(),
        "auc": [float(problem.auc(whole)[0]) for problem in problems],
    }
    if several:
        precision = [float(problem.average_precision(whole)[0]) for problem in problems]
        found["average_precision"] = precision
    return found
