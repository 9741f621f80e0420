"""kNN's leave-one-out: what the other samples of a small set say of each.

For choosing k where there is nothing else to choose it on: inside a few-shot episode. What is left
out is a unit, a patient with all samples or a sample by itself: neighbours of one's own patient
would tell more than any stranger's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.task import REGRESSION
from probe.kinds import knn


def left_out_scores(
    config: knn.KnnConfig,
    features: NDArray[np.floating],
    labels: NDArray[Any],
    units: NDArray[np.intp],
    task: str,
    n_classes: int,
) -> dict[int, NDArray[np.float64]]:
    """Score every sample by those of other units, at every k.

    One search among all samples serves: who is of one's own unit is passed over. ML-kNN learns from
    the whole bank what its neighbours mean, so there each unit left out is a bank of its own.

    Args:
        config: the numbers of neighbours, the metric and the vote.
        features: (n, D).
        labels: as of ``probe.kinds.knn.scores``, or (n,) continuous ones.
        units: (n,) number of each sample's unit, from 0.
        task: one of ``cache.task.TASKS``.
        n_classes: C.

    Returns:
        k -> (n, C), of regression (n, 1). A label that no neighbour knows scores as its share of
        ones in the whole set.

    Raises:
        RequestError: see ``probe.kinds.knn.scores``. No k may exceed ``largest_k``.
    """
    if config.rule == knn.MLKNN:
        found = {k: np.empty((len(labels), n_classes)) for k in config.k}
        for unit in range(int(units.max()) + 1):
            own = units == unit
            bank = features[~own], labels[~own]
            for k, scores in knn.scores(config, *bank, features[own], task, n_classes).items():
                found[k][own] = scores
        return found
    # As many more as a unit may have samples: that many neighbours at most are passed over.
    n = min(len(labels), max(config.k) + int(np.bincount(units).max()))
    similarities, indices = knn.neighbours(features, features, n, config.metric)
    is_own = units[indices] == units[:, None]
    order = np.argsort(is_own, axis=1, kind="stable")[:, : max(config.k)]
    others = (
        np.take_along_axis(similarities, order, axis=1),
        np.take_along_axis(indices, order, axis=1),
    )
    if task == REGRESSION:
        return knn.predictions_of(config, others, labels[:, None])
    return knn.scores_of(config, others, labels, task, n_classes)


def largest_k(config: knn.KnnConfig, units: NDArray[np.intp]) -> int:
    """The most neighbours that every sample has in other units; 0 or less where there are none."""
    return len(units) - int(np.bincount(units).max()) - config.n_needed
