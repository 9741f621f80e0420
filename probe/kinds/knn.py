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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.labels.columns import MISSING
from probe.metrics.classification import (
    MULTI_LABEL,
    UNNORMALISED,
    check_labels,
    check_task,
    known_shares,
)
from probe.metrics.regression import check_targets
from probe.solvers import mlknn
from probe.solvers.faiss_library import load_faiss

METRICS = ("cosine", "euclidean")
MLKNN = "mlknn"
MEANS = ("weighted", "majority")  # votes that are a mean of what the neighbours are
VOTES = (*MEANS, MLKNN)

K_OF_EPISODES = (1, 3, 5, 11, 21)  # one of which a few-shot episode may choose

CHUNK_ROWS = 4096  # queries that are searched for at one time
BANK_BYTES = 2**29  # of prepared rows of the bank that are held at one time, in float32
FAISS_ROWS = 1024  # of a bank that one product takes: faiss's distance_compute_blas_database_bs
CHUNK_PREPARED = 512  # rows that are cast, measured and scaled at one time: they stay in the cache
CHUNK_VOTES = 2**22  # neighbour labels that are in work at one time
GPU_MAX_K = 2048  # neighbours that faiss selects on a GPU: getMaxKSelection() of faiss/gpu/impl/IndexUtils.cu
SPARE = 8  # neighbours searched beyond k, so that a tie at the k-th place is seen


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
        _check_word("metric", self.metric, METRICS)
        if self.vote is not None:
            _check_word("vote", self.vote, VOTES)
        if not self.k or min(self.k) < 1:
            raise RequestError(f"k is one or more numbers from 1 up, found {_listed(self.k)}")
        if len(set(self.k)) < len(self.k):
            raise RequestError(f"each k may be named once, found {_listed(self.k)}")
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
        task: one of ``probe.metrics.classification.TASKS``.
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


Found = tuple[NDArray[np.float32], NDArray[np.int64]]  # see ``neighbours``


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
    for rows in _chunks(len(indices), max(1, CHUNK_VOTES // (max(config.k) * width))):
        labels = bank_labels[indices[rows]]
        # Once for every k: the say is relative to the nearest, which is the same for all.
        weights = weigh(similarities[rows], config.rule, config.temperature)
        if config.cut_off:
            weights /= weights[:, : max(config.k)].sum(axis=1, keepdims=True)
        for k in config.k:
            yield k, rows, weights[:, :k], labels[:, :k]


def weigh(
    similarities: NDArray[np.floating], rule: str, temperature: float = 0.07
) -> NDArray[np.float64]:
    """Each neighbour's say.

    Args:
        similarities: (Q, K), highest first; the majority rule doesn't look at them.
        rule: "weighted" by exp(similarity / temperature), or "majority": one vote each.
        temperature: divides the similarities; the smaller it is, the more the nearest neighbour
            decides.

    Returns:
        (Q, K) above 0, of the weighted rule relative to the nearest neighbour's; rows don't sum to 1.

    Raises:
        RequestError: another rule.
    """
    _check_word("vote", rule, MEANS)
    if rule == "majority":
        return np.ones(similarities.shape)
    # Taking off the largest keeps exp() finite when a sweep tries temperatures below 0.01.
    similarities = similarities.astype(np.float64)
    return np.exp((similarities - similarities[:, :1]) / temperature)


def vote(
    weights: NDArray[np.float64], neighbour_labels: NDArray[np.integer], n_classes: int
) -> NDArray[np.float64]:
    """Turn each query's neighbours into class scores.

    Args:
        weights: (Q, K) each neighbour's say.
        neighbour_labels: (Q, K) labels, each in [0, n_classes).
        n_classes: C, the number of classes to score.

    Returns:
        (Q, C) scores; each row sums to 1. Equal counts under the majority rule are exactly equal
        scores, so that argmax gives a tie to the smallest label, as ``scipy.stats.mode`` does.

    Raises:
        RequestError: a label lies outside [0, n_classes).
    """
    _check_neighbour_labels(neighbour_labels, n_classes)
    cells = np.arange(len(weights))[:, None] * n_classes + neighbour_labels  # (Q, K)
    # bincount, not fancy +=: a class named twice among the neighbours must count twice.
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(weights) * n_classes)
    votes = votes.reshape(-1, n_classes)  # (Q, C)
    return votes / votes.sum(axis=1, keepdims=True)


def vote_multilabel(
    weights: NDArray[np.float64], neighbour_labels: NDArray[np.integer], n_classes: int
) -> NDArray[np.float64]:
    """Turn each query's neighbours into a score for each label: a mean of their label vectors.

    Args:
        weights: (Q, K) each neighbour's say.
        neighbour_labels: (Q, K, C) zeros and ones; MISSING has no vote.
        n_classes: C, the number of labels.

    Returns:
        (Q, C) scores, each in 0..1; rows don't sum to 1. nan where no neighbour has a vote, or one
        so far away that its weight is 0.

    Raises:
        RequestError: labels that are not zeros and ones for C labels.
    """
    if neighbour_labels.shape[2:] != (n_classes,):
        raise RequestError(
            f"neighbour labels have shape (Q, K, {n_classes}), found {neighbour_labels.shape}"
        )
    _check_neighbour_labels(neighbour_labels, 2, MISSING)
    votes = np.einsum("qk,qkc->qc", weights, neighbour_labels == 1, dtype=np.float64)
    is_known = neighbour_labels != MISSING
    if is_known.all():
        return votes / weights.sum(axis=1, keepdims=True)
    held = np.einsum("qk,qkc->qc", weights, is_known, dtype=np.float64)
    return np.divide(votes, held, out=np.full_like(votes, np.nan), where=held > 0)


def neighbours(
    bank: NDArray[np.floating], queries: NDArray[np.floating], k: int, metric: str = "cosine"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find each query's nearest rows of the bank: exact, in float32, by faiss.

    Cosine is the inner product of L2-normalised rows; a row of zeros has no direction and gets
    similarity 0 to everything. Euclidean is on the features as they are, except that the bank's
    mean is first taken off both sides, which changes no distance: where faiss goes through BLAS
    it computes |x|^2 + |y|^2 - 2xy, and far from the origin the difference of those large numbers
    is noise. (Measured at D = 768 with every feature around 100 and a spread of 1: a third of the
    20 nearest neighbours right without the centring, all of them with it.)

    Equal similarities are ordered by the place in the bank, the earlier row first, also where the
    tie is for the k-th place. "Equal" means to the last bit of float32: two images at the same
    distance by arithmetic may differ there. (Left to itself, faiss keeps whichever of the tied
    rows its heap saw at the right moment, so the answer at k = 10 could depend on asking for
    k = 200 as well.)

    Args:
        bank: (N, D) features, float16 or wider; may be a memmap. In float32 at most BANK_BYTES of
            it are held at one time: a larger one is prepared anew for every CHUNK_ROWS queries, and
            the answers are the same to the last bit.
        queries: (Q, D), read in chunks; may be a memmap.
        k: K, at most N.
        metric: "cosine" or "euclidean".

    Returns:
        (Q, K) similarities, highest first (cosine, or the negative Euclidean distance), and
        (Q, K) row numbers of the bank.

    Raises:
        RequestError: k above the bank's size, widths that differ, features that are not finite,
            an unknown metric, or two faiss distributions in one environment.
    """
    _check_word("metric", metric, METRICS)
    _check_search(bank, queries, k)
    faiss = load_faiss()
    centre = None if metric == "cosine" else _mean(bank)
    search = _searcher(faiss, _Bank(bank, centre), metric)

    similarities = np.empty((len(queries), k), dtype=np.float32)
    indices = np.empty((len(queries), k), dtype=np.int64)
    prepared = np.empty((min(len(queries), CHUNK_ROWS), bank.shape[1]), dtype=np.float32)
    for rows in _chunks(len(queries), CHUNK_ROWS):
        block = prepared[: rows.stop - rows.start]
        _prepare(queries[rows], block, centre, "queries", rows.start)
        similarities[rows], indices[rows] = _in_order(search, block, k, k + SPARE, len(bank))
    if metric == "euclidean":
        # faiss gives squares, and rounding can take the square of a zero distance below zero.
        similarities = -np.sqrt(np.maximum(-similarities, 0))
    return similarities, indices


def bytes_held(n_bank: int, n_queries: int, width: int, k: int) -> int:
    """About how much memory ``neighbours`` takes at its peak, beside the features themselves."""
    points = min(4 * n_bank * width, max(BANK_BYTES, 4 * FAISS_ROWS * width))
    chunk = 4 * CHUNK_ROWS * width + 3 * 12 * CHUNK_ROWS * (k + SPARE)  # two parts and both merged
    return points + chunk + 12 * n_queries * k


Search = Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.int64]]]


class _Bank:
    """Rows of a bank as the search wants them, some at a time; kept where one time is enough."""

    def __init__(self, features: NDArray[np.floating], centre: NDArray[np.float64] | None) -> None:
        self.features, self.centre = features, centre
        n_held = max(1, BANK_BYTES // (4 * features.shape[1] * FAISS_ROWS)) * FAISS_ROWS
        # Whole products of faiss: its sums don't depend on where the bank is cut.
        self.parts = list(_chunks(len(features), n_held))
        self.points = np.empty((min(len(features), n_held), features.shape[1]), dtype=np.float32)
        self.held: slice | None = None

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """First row and points of each part; they are good until the next one is asked for."""
        for rows in self.parts:
            points = self.points[: rows.stop - rows.start]
            if rows != self.held:
                _prepare(self.features[rows], points, self.centre, "bank", rows.start)
                self.held = rows
            yield rows.start, points


def _searcher(faiss: ModuleType, bank: _Bank, metric: str) -> Search:
    """What finds each query's n nearest points, the nearest first, on the GPU where there is one.

    Returns:
        Takes (q, D) queries and n; gives (q, n) similarities and row numbers.
    """
    measure = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    sign = 1 if metric == "cosine" else -1
    on_gpu = None
    if faiss.get_num_gpus():
        on_gpu = faiss.GpuIndexFlat(faiss.StandardGpuResources(), bank.points.shape[1], measure)
        for _, points in bank:
            on_gpu.add(points)

    def search(queries: NDArray[np.float32], n: int) -> tuple[NDArray, NDArray]:
        if on_gpu is not None and n <= GPU_MAX_K:
            distances, found = on_gpu.search(queries, n)
            return sign * distances, _checked(found)
        nearest = None
        for start, points in bank:
            distances, found = faiss.knn(queries, points, min(n, len(points)), metric=measure)
            own = sign * distances, _checked(found) + start
            nearest = own if nearest is None else _nearer(nearest, own, n)
        assert nearest is not None
        return nearest

    return search


def _checked(found: NDArray[np.int64]) -> NDArray[np.int64]:
    # faiss answers -1 for "no neighbour", which numpy would read as the last row.
    assert found.min() >= 0, "faiss found fewer neighbours than the bank has rows"
    return found


def _nearer(a: Found, b: Found, n: int) -> Found:
    """The n nearest of what two parts of a bank have, the nearest first."""
    similarities = np.concatenate([a[0], b[0]], axis=1)
    rows = np.concatenate([a[1], b[1]], axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _in_order(
    search: Search, queries: NDArray[np.float32], k: int, n: int, n_points: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search n >= k neighbours, order ties, and keep k; search wider where a tie reaches the n-th.

    Returns:
        (Q, k) similarities and row numbers.
    """
    n = min(n, n_points)
    similarities, found = search(queries, n)
    tied = np.flatnonzero((similarities[:, 1:] == similarities[:, :-1]).any(axis=1))
    order = np.lexsort((found[tied], -similarities[tied]), axis=-1)
    found[tied] = np.take_along_axis(found[tied], order, axis=1)
    kept, indices = similarities[:, :k], found[:, :k]

    # Where the k-th equals the last one found, more of their like may be in the bank.
    crowded = np.flatnonzero(kept[:, -1] == similarities[:, -1]) if n < n_points else []
    for part in _chunks(len(crowded), max(1, CHUNK_VOTES // n)):
        rows = crowded[part]
        kept[rows], indices[rows] = _in_order(search, queries[rows], k, 4 * n, n_points)
    return kept, indices


def _prepare(
    features: NDArray[np.floating],
    out: NDArray[np.float32],
    centre: NDArray[np.float64] | None,
    name: str,
    first_row: int = 0,
) -> None:
    """Write rows as the search wants them: L2-normalised, or less the centre where there is one.

    Args:
        features: (n, D), float16 or wider.
        out: (n, D), written to.
        centre: (D,), or None.
        name: of the features, for a message, which counts their rows from ``first_row``.
        first_row: see there.

    Raises:
        RequestError: a row that isn't finite.
    """
    for rows in _chunks(len(features), CHUNK_PREPARED):
        block = np.asarray(features[rows])
        if block.dtype == np.float16:
            np.copyto(out[rows], block)
            block = out[rows]
        # Squares in float64: those of a float32 may overflow, or vanish and leave a row of zeros.
        squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
        if not np.isfinite(squares).all():  # or so long that its square overflows
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                row = first_row + rows.start + int(np.argmin(finite))
                raise RequestError(
                    f"features are finite, found inf or nan in row {row} of the {name}"
                )
        if centre is not None:
            np.subtract(block, centre, out=out[rows], casting="same_kind")
            continue
        norms = np.sqrt(squares)[:, None]
        norms = np.where(norms > 0, norms, 1).astype(block.dtype)
        np.divide(block, norms, out=out[rows], casting="same_kind")


def _mean(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of the rows, (D,); read in chunks."""
    total = np.zeros(features.shape[1])
    for rows in _chunks(len(features), CHUNK_ROWS):
        total += np.sum(features[rows], axis=0, dtype=np.float64)
    return total / len(features)


def _chunks(n_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _check_search(bank: NDArray[np.floating], queries: NDArray[np.floating], k: int) -> None:
    if bank.ndim != 2 or queries.ndim != 2:
        raise RequestError(
            f"features have shape (N, D), found {bank.shape} in the bank and {queries.shape} "
            "in the queries"
        )
    if bank.shape[1] != queries.shape[1]:
        raise RequestError(
            f"bank and queries must be of one width, found {bank.shape[1]} in the bank and "
            f"{queries.shape[1]} in the queries: both must come from one encoder, layer and pool"
        )
    if not 1 <= k <= len(bank):
        raise RequestError(
            f"k = {k} neighbours can't be found in a bank of {len(bank)}: "
            f"choose k from 1 to {len(bank)}"
        )


def _check_neighbour_labels(
    neighbour_labels: NDArray[np.integer], n_values: int, lowest: int = 0
) -> None:
    if neighbour_labels.size == 0:
        return
    low, high = neighbour_labels.min(), neighbour_labels.max()
    if low < lowest or high >= n_values:
        raise RequestError(f"neighbour labels lie in 0..{n_values - 1}, found {low}..{high}")


def _check_word(setting: str, word: str, choices: tuple[str, ...]) -> None:
    if word not in choices:
        expected = " or ".join(f'"{choice}"' for choice in choices)
        raise RequestError(f'unknown {setting} "{word}": expected {expected}')


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) or "none"
