"""Exact search for nearest neighbours, on a processor or a GPU."""

from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe.arrays import Doubles, Floats, Singles
from probe.solvers.faiss_library import load_faiss
from probe.solvers.standardise import chunks
from probe.solvers.votes import check_word

METRICS = ("cosine", "euclidean")
CHUNK_ROWS = 4096  # queries that are searched for at one time
BANK_BYTES = 2**29  # of prepared rows of the bank that are held at one time, in float32
FAISS_ROWS = 1024  # of a bank that one product takes: faiss's distance_compute_blas_database_bs
CHUNK_PREPARED = 512  # rows that are cast, measured and scaled at one time: they stay in the cache
CHUNK_VOTES = 2**22  # neighbour labels that are in work at one time
GPU_MAX_K = 2048  # neighbours that faiss selects on a GPU: getMaxKSelection() of faiss/gpu/impl/IndexUtils.cu
SPARE = 8  # neighbours searched beyond k, so that a tie at the k-th place is seen


Found = tuple[Singles, NDArray[np.int64]]  # see ``neighbours``


def neighbours(
    bank: Floats, queries: Floats, k: int, metric: str = "cosine"
) -> tuple[Singles, NDArray[np.int64]]:
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
    check_word("metric", metric, METRICS)
    _check_search(bank, queries, k)
    faiss = load_faiss()
    centre = None if metric == "cosine" else _mean(bank)
    search = _searcher(faiss, _Bank(bank, centre), metric)

    similarities = np.empty((len(queries), k), dtype=np.float32)
    indices = np.empty((len(queries), k), dtype=np.int64)
    prepared = np.empty((min(len(queries), CHUNK_ROWS), bank.shape[1]), dtype=np.float32)
    for rows in chunks(len(queries), CHUNK_ROWS):
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


Search = Callable[[Singles, int], tuple[Singles, NDArray[np.int64]]]


class _Bank:
    """Rows of a bank as the search wants them, some at a time; kept where one time is enough."""

    def __init__(self, features: Floats, centre: Doubles | None) -> None:
        self.features, self.centre = features, centre
        n_held = max(1, BANK_BYTES // (4 * features.shape[1] * FAISS_ROWS)) * FAISS_ROWS
        # Whole products of faiss: its sums don't depend on where the bank is cut.
        self.parts = list(chunks(len(features), n_held))
        self.points = np.empty((min(len(features), n_held), features.shape[1]), dtype=np.float32)
        self.held: slice | None = None

    def __iter__(self) -> Iterator[tuple[int, Singles]]:
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

    def search(queries: Singles, n: int) -> tuple[NDArray, NDArray]:
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
    search: Search, queries: Singles, k: int, n: int, n_points: int
) -> tuple[Singles, NDArray[np.int64]]:
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
    for part in chunks(len(crowded), max(1, CHUNK_VOTES // n)):
        rows = crowded[part]
        kept[rows], indices[rows] = _in_order(search, queries[rows], k, 4 * n, n_points)
    return kept, indices


def _prepare(
    features: Floats, out: Singles, centre: Doubles | None, name: str, first_row: int = 0
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
    for rows in chunks(len(features), CHUNK_PREPARED):
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


def _mean(features: Floats) -> Doubles:
    """Mean of the rows, (D,); read in chunks."""
    total = np.zeros(features.shape[1])
    for rows in chunks(len(features), CHUNK_ROWS):
        total += np.sum(features[rows], axis=0, dtype=np.float64)
    return total / len(features)


def _check_search(bank: Floats, queries: Floats, k: int) -> None:
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
