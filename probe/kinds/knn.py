"""k-nearest-neighbour probe: exact search, then a vote among the neighbours' labels.

The default follows Wu et al. 2018 (https://arxiv.org/abs/1805.01978): cosine similarity and a
vote weighted by exp(similarity / temperature). DINOv2 keeps its temperature, 0.07, and reports
k = 10, 20, 100 and 200. Doerrich et al. 2024 (https://arxiv.org/abs/2404.15786) is
``KnnConfig(k=(11,), metric="euclidean")``: raw features and one vote for each neighbour. Huix et al.
2024 (``defaults/trainer.py`` of their release) is ``KnnConfig(k=(200,), temperature=0.1)``: their
exp(similarity / temperature), divided by its sum, is the same softmax by another name.

Of several labels at once the weighted vote is a weighted mean of the neighbours' labels, and
``vote="mlknn"`` Zhang and Zhou's ML-kNN, see ``probe.solvers.mlknn``.

One search, at the largest k, serves every k.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import MULTI_LABEL
from probe.metrics.classification import UNNORMALISED, check_labels, check_task, known_shares
from probe.metrics.regression import check_targets
from probe.solvers import mlknn
from probe.solvers.neighbours import CHUNK_VOTES, METRICS, Found, neighbours
from probe.solvers.standardise import chunks
from probe.solvers.votes import MLKNN, VOTES, check_word, vote, vote_multilabel, weigh

K_OF_EPISODES = (1, 3, 5, 11, 21)  # one of which a few-shot episode may choose


@dataclass(frozen=True)
class KnnConfig:
    """Everything that changes the scores of a kNN probe.

    Raises:
        RequestError: k is empty, below 1 or named twice; an unknown metric or vote; a weighted
            vote on Euclidean distances; a temperature that isn't positive and finite; a published
            fault of a vote that has none.
    """

    k: tuple[int, ...] = (10, 20, 100, 200)  # numbers of neighbours, DINOv2's
    metric: str = "cosine"  # "cosine" or "euclidean" (raw features)
    vote: str | None = None  # one of VOTES; None: weighted where cosine, else majority
    temperature: float = 0.07  # of the weighted vote, Wu et al.'s
    one_k: bool = False  # answer for one of k alone, the best without test; else for each
    self_counts: bool = False  # of mlknn: count a bank row among its own neighbours, as published
    # Of the weighted vote: shares of the largest k's weights, cut off at each smaller one, as
    # DINOv2 publishes it (eval/knn.py); see ``scores``.
    cut_off: bool = False

    def __post_init__(self) -> None:
        check_word("metric", self.metric, METRICS)
        if self.vote is not None:
            check_word("vote", self.vote, VOTES)
        listed = ", ".join(map(str, self.k))
        if not self.k or min(self.k) < 1:
            raise RequestError(f"k is one or more numbers from 1 up, found {listed or 'none'}")
        if len(set(self.k)) < len(self.k):
            raise RequestError(f"each k may be named once, found {listed}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise RequestError(f"temperature is positive and finite, found {self.temperature}")
        if self.metric == "euclidean" and self.vote == "weighted":
            raise RequestError(
                "the weighted vote needs cosine similarities, found euclidean: distances have no "
                "common scale for a temperature; use the majority vote or the cosine metric"
            )
        if self.self_counts and self.vote != MLKNN:
            raise RequestError(f"only --vote {MLKNN} counts neighbours of the bank's own rows")
        if self.cut_off and (self.rule != "weighted" or self.one_k):
            raise RequestError(
                "only the weighted vote is cut off at each k, and none of k is chosen then; leave out "
                "--as-published"
            )

    @property
    def rule(self) -> str:
        """The vote that will be held, one of VOTES."""
        return self.vote or ("weighted" if self.metric == "cosine" else "majority")

    @property
    def settings(self) -> dict[str, Any]:
        """What a row's question holds, beside k."""
        return {
            "metric": self.metric,
            "vote": self.rule,
            **({"temperature": self.temperature} if self.rule == "weighted" else {}),
            **({"self_counts": True} if self.self_counts else {}),
            # The other numbers of neighbours change nothing, else.
            **({"cut_off_from": max(self.k), "score_type": UNNORMALISED} if self.cut_off else {}),
        }

    @property
    def n_needed(self) -> int:
        """Rows of a bank beyond k that the vote needs: ML-kNN leaves each out of its own."""
        return int(self.rule == MLKNN and not self.self_counts)


def scores(
    config: KnnConfig,
    bank_features: NDArray[np.floating],
    bank_labels: NDArray[np.integer],
    query_features: NDArray[np.floating],
    task: str,
    n_classes: int,
) -> dict[int, NDArray[np.float64]]:
    """Score every query at every k, from one search.

    DINOv2's own code takes the softmax over its largest k and then cuts it off at each smaller
    one, so those scores sum to less than 1, by an amount that differs from query to query. The
    largest class stays the largest, but AUC compares queries with each other and changes. Here
    each k is normalised by itself: k = 10 gives the same numbers alone as beside k = 200. With
    ``cut_off`` it is as there.

    Args:
        config: the numbers of neighbours, the metric and the vote.
        bank_features: (N, D), usually the training split; may be a float16 memmap.
        bank_labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task.
        query_features: (Q, D).
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C; 2 for a binary task, the number of labels for the multi-label task.

    Returns:
        k -> (Q, C) probabilities, in the order of ``config.k``. Rows sum to 1, except where they
        are cut off, and for the multi-label task, where each column is one label's share of the
        vote. There a neighbour whose label is missing has no vote on it; where none of the k has
        one, the score is the label's share of ones in the bank.

    Raises:
        RequestError: labels that don't fit the task or the bank, or one of several labels that is
            known of no row of it; ML-kNN of another task; several labels that are to be cut off;
            see also ``neighbours``.
    """
    check_task(task)
    bank_labels = np.asarray(bank_labels)
    check_labels(bank_labels, task, n_classes)
    if config.rule == MLKNN:
        return _mlknn_scores(config, bank_features, bank_labels, query_features, task)
    found = _nearest(config, bank_features, bank_labels, query_features)
    return scores_of(config, found, bank_labels, task, n_classes)


def scores_of(
    config: KnnConfig, found: Found, bank_labels: NDArray[np.integer], task: str, n_classes: int
) -> dict[int, NDArray[np.float64]]:
    """``scores`` of neighbours that are found already, by a vote that is a mean.

    Args:
        config: as of ``scores``.
        found: the neighbours of Q queries, as many as the largest k and more.
        bank_labels: as of ``scores``.
        task: as of ``scores``.
        n_classes: as of ``scores``.

    Raises:
        RequestError: several labels that are to be cut off.
    """
    if config.cut_off and task == MULTI_LABEL:
        raise RequestError(
            "DINOv2's release asks kNN for single labels only; leave out --as-published"
        )
    hold, shares = vote, np.zeros(n_classes)  # a vote on classes leaves no score open
    if task == MULTI_LABEL:
        hold, shares = vote_multilabel, known_shares(bank_labels)
    results = {k: np.empty((len(found[0]), n_classes)) for k in config.k}
    for k, rows, weights, labels in _heard(config, found, bank_labels):
        said = hold(weights, labels, n_classes)
        if config.cut_off:
            said *= weights.sum(axis=1, keepdims=True)
        results[k][rows] = np.where(np.isnan(said), shares, said)
    return results


def _mlknn_scores(
    config: KnnConfig,
    bank_features: NDArray[np.floating],
    bank_labels: NDArray[np.integer],
    query_features: NDArray[np.floating],
    task: str,
) -> dict[int, NDArray[np.float64]]:
    """k -> (Q, C) probabilities by ML-kNN; a second search is among the bank itself."""
    if task != MULTI_LABEL:
        raise RequestError(
            f"--vote {MLKNN} is for several labels at once, found the task {task!r}; use --vote "
            "weighted or majority"
        )
    known_shares(bank_labels)  # refuses a label that is known of no row
    k, metric = max(config.k), config.metric
    _, own = neighbours(bank_features, bank_features, k + config.n_needed, metric)
    if not config.self_counts:
        own = mlknn.leave_out_self(own)
    _, indices = neighbours(bank_features, query_features, k, metric)
    own_ones = mlknn.count_ones(own, bank_labels, config.k)
    ones = mlknn.count_ones(indices, bank_labels, config.k)
    return {k: mlknn.fit(own_ones[k], bank_labels, k).predict(ones[k]) for k in config.k}


def predictions(
    config: KnnConfig,
    bank_features: NDArray[np.floating],
    bank_targets: NDArray[np.floating],
    query_features: NDArray[np.floating],
) -> dict[int, NDArray[np.float64]]:
    """Predict continuous targets at every k, from one search: the mean of the neighbours' targets.

    Args:
        config: the numbers of neighbours, the metric and the vote: "weighted" is a mean weighted by
            exp(similarity / temperature), "majority" the plain one.
        bank_features: (N, D), usually the training split; may be a float16 memmap.
        bank_targets: (N, O) finite; each output is a target of its own.
        query_features: (Q, D).

    Returns:
        k -> (Q, O), in the order of ``config.k`` and the unit of the targets.

    Raises:
        RequestError: targets that are not finite or don't fit the bank; ML-kNN, or shares that are
            to be cut off; see also ``neighbours``.
    """
    check_targets(bank_targets)
    if config.rule == MLKNN:
        raise RequestError(f"--vote {MLKNN} is for several labels, not for continuous ones")
    found = _nearest(config, bank_features, bank_targets, query_features)
    return predictions_of(config, found, bank_targets)


def predictions_of(
    config: KnnConfig, found: Found, bank_targets: NDArray[np.floating]
) -> dict[int, NDArray[np.float64]]:
    """``predictions`` of neighbours that are found already; arguments as of ``scores_of``.

    Raises:
        RequestError: shares that are to be cut off.
    """
    if config.cut_off:
        raise RequestError(
            "DINOv2's release asks kNN for classes, not for continuous labels; leave out "
            "--as-published"
        )
    results = {k: np.empty((len(found[0]), bank_targets.shape[1])) for k in config.k}
    for k, rows, weights, targets in _heard(config, found, bank_targets):
        sums = np.einsum("qk,qko->qo", weights, targets)
        results[k][rows] = sums / weights.sum(axis=1, keepdims=True)
    return results


def _nearest(
    config: KnnConfig,
    bank_features: NDArray[np.floating],
    bank_labels: NDArray[Any],
    query_features: NDArray[np.floating],
) -> Found:
    """One search, for every k."""
    if len(bank_labels) != len(bank_features):
        raise RequestError(
            f"the bank needs one label for each row of features, found {len(bank_labels)} labels "
            f"and {len(bank_features)} rows"
        )
    return neighbours(bank_features, query_features, max(config.k), config.metric)


def _heard(
    config: KnnConfig, found: Found, bank_labels: NDArray[Any]
) -> Iterator[tuple[int, slice, NDArray[np.float64], NDArray[Any]]]:
    """For each k and some queries at a time, what their neighbours say.

    Yields:
        k, the rows of the queries, their neighbours' say (q, k), see ``weigh``, and labels (q, k)
        or (q, k, C).
    """
    similarities, indices = found
    width = int(np.prod(bank_labels.shape[1:]))
    for rows in chunks(len(indices), max(1, CHUNK_VOTES // (max(config.k) * width))):
        labels = bank_labels[indices[rows]]
        # Once for every k: the say is relative to the nearest, which is the same for all.
        weights = weigh(similarities[rows], config.rule, config.temperature)
        if config.cut_off:
            weights /= weights[:, : max(config.k)].sum(axis=1, keepdims=True)
        for k in config.k:
            yield k, rows, weights[:, :k], labels[:, :k]
