"""kNN's scores: one search, and a vote among the neighbours for every k."""

from collections.abc import Iterator

import numpy as np

from cache.errors import RequestError
from cache.task import MULTI_LABEL, REGRESSION
from probe.arrays import Array, Doubles, Floats, Indices, Ints
from probe.metrics.classification import check_labels, known_shares
from probe.metrics.regression import check_targets
from probe.solvers import mlknn
from probe.solvers.neighbours import CHUNK_VOTES, Found, neighbours
from probe.solvers.standardise import chunks
from probe.solvers.votes import MLKNN, average, vote, vote_multilabel, weigh

ByK = dict[int, Doubles]  # k -> scores
# Samples of a unit. Of a larger one a search without it takes less time than to pass over its own.
LARGE_UNIT = 500


class Voting:
    """What a search and its vote need to know; ``probe.kinds.knn.Knn`` says what each is."""

    k: tuple[int, ...]
    metric: str
    vote: str | None
    temperature: float
    self_counts: bool
    cut_off: bool

    @property
    def rule(self) -> str:
        """The vote that will be held, one of VOTES."""
        return self.vote or ("weighted" if self.metric == "cosine" else "majority")

    @property
    def n_needed(self) -> int:
        """Rows of a bank beyond k that the vote needs: ML-kNN leaves each out of its own."""
        return int(self.rule == MLKNN and not self.self_counts)


def scores(
    config: Voting,
    bank_features: Floats,
    bank_labels: Ints,
    query_features: Floats,
    task: str,
    n_classes: int,
) -> dict[int, Doubles]:
    """Score every query at every k, from one search; of continuous labels the neighbours' mean.

    DINOv2's own code takes the softmax over its largest k and then cuts it off at each smaller
    one, so those scores sum to less than 1, by an amount that differs from query to query. The
    largest class stays the largest, but AUC compares queries with each other and changes. Here
    each k is normalised by itself: k = 10 gives the same numbers alone as beside k = 200. With
    ``cut_off`` it is as there.

    Args:
        config: the numbers of neighbours, the metric and the vote.
        bank_features: (N, D), usually the training split; may be a float16 memmap.
        bank_labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task; of
            regression (N, C) finite, each output a target of its own.
        query_features: (Q, D).
        task: one of ``cache.task.TASKS``.
        n_classes: C; 2 for a binary task, the number of labels for the multi-label task, of outputs
            for regression.

    Returns:
        k -> (Q, C) probabilities, in the order of ``config.k``. Rows sum to 1, except where they
        are cut off, and for the multi-label task, where each column is one label's share of the
        vote. There a neighbour whose label is missing has no vote on it; where none of the k has
        one, the score is the label's share of ones in the bank. Of regression they are in the unit
        of the labels: a mean weighted by exp(similarity / temperature), or of "majority" the plain
        one.

    Raises:
        RequestError: labels that don't fit the task or the bank, or one of several labels that is
            known of no row of it; ML-kNN of another task; several or continuous labels that are to
            be cut off; see also ``neighbours``.
    """
    bank_labels = np.asarray(bank_labels)
    if task == REGRESSION:
        check_targets(bank_labels)
    else:
        check_labels(bank_labels, task, n_classes)
    if config.rule == MLKNN:
        return _mlknn_scores(config, bank_features, bank_labels, query_features, task)
    if len(bank_labels) != len(bank_features):
        raise RequestError(
            f"the bank needs one label for each row of features, found {len(bank_labels)} labels "
            f"and {len(bank_features)} rows"
        )
    found = neighbours(bank_features, query_features, max(config.k), config.metric)
    return scores_of(config, found, bank_labels, task, n_classes)


def scores_of(
    config: Voting, found: Found, bank_labels: Array, task: str, n_classes: int
) -> dict[int, Doubles]:
    """``scores`` of neighbours that are found already, by a vote that is a mean.

    Args:
        config: as of ``scores``.
        found: the neighbours of Q queries, as many as the largest k and more.
        bank_labels: as of ``scores``.
        task: as of ``scores``.
        n_classes: as of ``scores``.

    Raises:
        RequestError: several or continuous labels that are to be cut off.
    """
    if config.cut_off and task in (MULTI_LABEL, REGRESSION):
        only = "single labels only" if task == MULTI_LABEL else "classes, not for continuous labels"
        raise RequestError(f"DINOv2's release asks kNN for {only}; leave out --as-published")
    hold = {MULTI_LABEL: vote_multilabel, REGRESSION: average}.get(task, vote)
    # What a vote on several labels may leave open; others leave nothing.
    shares = known_shares(bank_labels) if task == MULTI_LABEL else np.zeros(n_classes)
    results = {k: np.empty((len(found[0]), n_classes)) for k in config.k}
    for k, rows, weights, labels in _heard(config, found, bank_labels):
        said = hold(weights, labels, n_classes)
        if config.cut_off:
            said *= weights.sum(axis=1, keepdims=True)
        results[k][rows] = np.where(np.isnan(said), shares, said)
    return results


def _mlknn_scores(
    config: Voting, bank_features: Floats, bank_labels: Ints, query_features: Floats, task: str
) -> dict[int, Doubles]:
    """k -> (Q, C) probabilities by ML-kNN; a second search is among the bank itself."""
    if task == REGRESSION:
        raise RequestError(f"--vote {MLKNN} is for several labels, not for continuous ones")
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


def _heard(
    config: Voting, found: Found, bank_labels: Array
) -> Iterator[tuple[int, slice, Doubles, Array]]:
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


def left_out_scores(
    config: Voting, features: Floats, labels: Array, units: Indices, task: str, n_classes: int
) -> dict[int, Doubles]:
    """Score every sample by those of other units, at every k.

    One search among all samples serves: who is of one's own unit is passed over; only very large
    units have a search of their own. ML-kNN learns from
    the whole bank what its neighbours mean, so there each unit left out is a bank of its own.

    Args:
        config: the numbers of neighbours, the metric and the vote.
        features: (n, D).
        labels: as of ``scores``, or (n,) continuous ones.
        units: (n,) number of each sample's unit, from 0.
        task: one of ``cache.task.TASKS``, or "regression".
        n_classes: C.

    Returns:
        k -> (n, C), of regression (n, 1). A label that no neighbour knows scores as its share of
        ones in the whole set.

    Raises:
        RequestError: see ``scores``. No k may exceed ``largest_k``.
    """
    if config.rule == MLKNN:
        found = {k: np.empty((len(labels), n_classes)) for k in config.k}
        for unit in range(int(units.max()) + 1):
            own = units == unit
            bank = features[~own], labels[~own]
            for k, said in scores(config, *bank, features[own], task, n_classes).items():
                found[k][own] = said
        return found
    others = _of_other_units(features, units, max(config.k), config.metric)
    if task == REGRESSION:
        labels, n_classes = labels[:, None], 1
    return scores_of(config, others, labels, task, n_classes)


def _of_other_units(features: Floats, units: Indices, k: int, metric: str) -> Found:
    """The k nearest samples of other units, of each sample."""
    sizes = np.bincount(units)
    is_large = sizes > LARGE_UNIT
    found = np.empty((len(units), k), np.float32), np.empty((len(units), k), np.int64)
    if (rows := np.flatnonzero(~is_large[units])).size:
        # As many more as a unit may have samples: that many neighbours at most are passed over.
        n = min(len(units), k + int(sizes[~is_large].max()))
        near = neighbours(features, features[rows], n, metric)
        is_own = units[near[1]] == units[rows, None]
        order = np.argsort(is_own, axis=1, kind="stable")[:, :k]
        for whole, part in zip(found, near, strict=True):
            whole[rows] = np.take_along_axis(part, order, axis=1)
    for unit in np.flatnonzero(is_large):
        own, rest = np.flatnonzero(units == unit), np.flatnonzero(units != unit)
        similarities, indices = neighbours(features[rest], features[own], k, metric)
        found[0][own], found[1][own] = similarities, rest[indices]
    return found


def largest_k(config: Voting, units: Indices) -> int:
    """The most neighbours that every sample has in other units; 0 or less where there are none."""
    return len(units) - int(np.bincount(units).max()) - config.n_needed
