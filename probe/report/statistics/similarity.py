"""How alike two representations of the same samples are: linear CKA, and the neighbours they share.

X (n, D) and Y (n, E) have the Grams K = X X' and L = Y Y'. CKA is HSIC(K, L) over the root of
HSIC(K, K) HSIC(L, L) (Kornblith et al. 2019, arXiv 1905.00414). There are two estimators of HSIC:

    biased    tr(K H L H) / (n - 1)^2, with H = I - 1/n
    debiased  [tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2)] / (n (n - 3)), where the
              diagonals of K and L are 0 (Song et al. 2012, JMLR 13:1393)

Biased CKA of noise is about D / (D + n), so .94 of 50 samples at D = 768, and says little where n isn't
much larger than D. The debiased one is about 0 there and may lie below.

**Minibatches.** The debiased HSIC of any 4 or more samples has the same mean. So it is summed over
batches, each of the three terms, and then there is one ratio (Nguyen et al. 2021, arXiv 2010.15327). The
mean of the batches' CKAs is another number, and a worse one. The biased HSIC depends on n, and has no
minibatches.

**Outliers.** Debiasing doesn't cure them: two of 200 samples, moved far away together, bring .01 to .99.
So each CKA comes with a second one, without the 1 % of the largest norms in X and in Y.

Nothing here holds an n x n matrix: Grams are made some rows at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cache.errors import RequestError
from probe.arrays import Array, Bools, Doubles, Floats, Indices, Ints
from probe.solvers.standardise import chunks

FEWEST = 4  # samples that the debiased HSIC is defined for
EXACT = 2048  # samples; of more, minibatches unless asked otherwise
BATCH = 512  # samples of a minibatch; 64 and 16 are as unbiased, and scatter more
ONE_OF = 100  # samples, rounded up: those of the largest norms, which the second CKA is without
ROUNDING = 1e-12  # of a trace: an HSIC(K, K) below is 0 but for rounding
GRAM_BYTES = 2**28  # of all layers' Grams that are held at one time
CHUNK_ROWS = 1024  # samples that are read at one time where no Gram is made
DECIMALS = 12  # of a cosine: closer ones are equal, as those of exact copies


@dataclass(frozen=True)
class Representation:
    """One layer's vectors of n samples, read some at a time, as all of many layers are too many."""

    read: Callable[[Indices], Floats]  # (b,) places from 0 to n - 1 -> (b, D), finite
    is_usual: Bools  # (n,) whether a sample's norm isn't among the largest


class Similarity(NamedTuple):
    """CKA of A representations with B others."""

    cka: Doubles  # (A, B), NaN where a side has no variance
    trimmed: Doubles  # (A, B) the check: without the largest norms of either side
    n_trimmed: Ints  # (A, B) samples of the check


def represent(read: Callable[[Indices], Floats], n: int) -> Representation:
    """Look through vectors for their largest norms, once.

    Norms are of what is left when the mean is taken off, as CKA does: an outlier may lie nearer to
    the origin than all others.

    Args:
        read: see ``Representation``.
        n: samples.

    Returns:
        The vectors as they are, and which are usual: all but 1 % of them.
    """
    places = np.arange(n)
    mean = sum(
        np.sum(read(places[rows]), axis=0, dtype=np.float64) for rows in chunks(n, CHUNK_ROWS)
    ) / max(n, 1)
    norms = np.empty(n)
    for rows in chunks(n, CHUNK_ROWS):
        norms[rows] = np.linalg.norm(read(places[rows]) - mean, axis=1)
    is_usual = np.ones(n, np.bool_)
    is_usual[np.argsort(-norms, kind="stable")[: -(-n // ONE_OF)]] = False
    return Representation(read, is_usual)


def as_representation(x: Floats) -> Representation:
    """(n, D) vectors in memory."""
    return represent(lambda places: x[places], len(x))


# ---------------------------------------------------------------------- CKA of two


def hsic(x: Floats, y: Floats, is_debiased: bool = True) -> float:
    """HSIC of two representations, exact, in float64.

    Of centred X and Y tr(K H L H) is the sum of squares of X'Y, taken so where D and E are below n,
    and the sum of the products of K and L, else. With k and l, the diagonals of the centred
    Grams, the debiased one is

        [|X'Y|^2 - n/(n - 2) k'l + sum(k) sum(l) / ((n - 1)(n - 2))] / (n (n - 3)).

    Args:
        x: (n, D).
        y: (n, E).
        is_debiased: else the biased one.

    Raises:
        RequestError: rows that differ in number, or too few.
    """
    n = _n_of(x, y, is_debiased)
    x, y = _centred(x), _centred(y)
    if max(x.shape[1], y.shape[1]) < n:
        trace = float(np.square(x.T @ y).sum())
    else:
        trace = sum(
            float(((x[rows] @ x.T) * (y[rows] @ y.T)).sum()) for rows in chunks(n, CHUNK_ROWS)
        )
    if not is_debiased:
        return trace / (n - 1) ** 2
    k, l = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    both = k.sum() * l.sum() / ((n - 1) * (n - 2))
    return float(trace - n / (n - 2) * (k @ l) + both) / (n * (n - 3))


def cka(x: Floats, y: Floats, is_debiased: bool = True) -> float:
    """Linear CKA of two representations, exact; NaN where one has no variance, see ``hsic``."""
    own = [hsic(side, side, is_debiased) for side in (x, y)]
    scale = [hsic(side, side, is_debiased=False) for side in (x, y)]
    return float(_ratio(hsic(x, y, is_debiased), *np.array(own), *np.array(scale)))


def _n_of(x: Array, y: Array, is_debiased: bool) -> int:
    if len(x) != len(y):
        raise RequestError(
            f"representations of the same samples have as many rows, found {len(x)} and {len(y)}"
        )
    _refuse_few(len(x), is_debiased)
    return len(x)


def _refuse_few(n: int, is_debiased: bool) -> None:
    fewest = FEWEST if is_debiased else 2
    if n < fewest:
        raise RequestError(f"CKA needs {fewest} samples at least, found {n}")


def _centred(x: Floats, is_usual: Bools | None = None) -> Doubles:
    """(n, D) rows less the mean of the usual ones, in float64.

    HSIC is the same whatever is taken off all rows, but not its rounding: were outliers in the mean,
    the others would be small differences of large numbers. A row comes off first, so that rows
    that are all the same become 0 and not what rounding leaves.
    """
    usual = np.ones(len(x), np.bool_) if is_usual is None or not is_usual.any() else is_usual
    centred: Doubles = np.subtract(x, x[np.argmax(usual)], dtype=np.float64)
    centred -= centred.mean(axis=0, where=usual[:, None])
    return centred


def _ratio(
    both: Doubles | float, left: Doubles, right: Doubles, of_left: Doubles, of_right: Doubles
) -> Doubles:
    """CKA of three HSICs; NaN where one of a side with itself is 0 but for rounding ``of`` it."""
    known = (left > ROUNDING * of_left) & (right > ROUNDING * of_right)
    root = np.sqrt(np.where(known, left, np.nan)) * np.sqrt(np.where(known, right, np.nan))
    return both / root


# ---------------------------------------------------------------------- CKA of many


def cka_matrix(
    left: Sequence[Representation],
    right: Sequence[Representation] | None = None,
    *,
    is_debiased: bool = True,
    batch: int | None = None,
    seed: int = 0,
) -> Similarity:
    """Linear CKA of each representation with each other, and the check without outliers.

    A layer's Gram of a batch is made once, for all others. A pair's check is without the samples that
    aren't usual in either of both; a batch of which it leaves under ``FEWEST`` isn't in it.

    Args:
        left: A representations of the same n samples.
        right: B others; None: those of ``left``, which takes half the time.
        is_debiased: else biased.
        batch: samples of a minibatch, about, as batches are made equal but for one sample; n and
            more is exact; None: see ``batch_of``.
        seed: of the order in which samples make batches.

    Raises:
        RequestError: representations of other samples, too few samples, or minibatches that are
            too small, or of the biased CKA.
    """
    every = [*left, *(right or ())]
    n = len(every[0].is_usual)
    for other in every:
        _n_of(every[0].is_usual, other.is_usual, is_debiased)
    batch = batch_of(n, is_debiased) if batch is None else batch
    if batch < n and not is_debiased:
        raise RequestError(
            "biased CKA depends on n and has no minibatches: take all samples at once"
        )
    if batch < min(n, FEWEST):
        raise RequestError(f"minibatches have {FEWEST} samples at least, not {batch}")

    found = np.zeros((2, 5, len(left), len(left if right is None else right)))
    n_batches = -(-n // batch)
    order = np.random.default_rng(seed).permutation(n) if n_batches > 1 else np.arange(n)
    for places in np.array_split(order, n_batches):
        found += _of_batch(left, right, places, is_debiased)
    usual = np.array([side.is_usual for side in left], np.int64)
    others = usual if right is None else np.array([side.is_usual for side in right], np.int64)
    return Similarity(_ratio(*found[0]), _ratio(*found[1]), usual @ others.T)


def batch_of(n: int, is_debiased: bool = True) -> int:
    """Samples of a minibatch, n of what is small enough to be exact, or biased."""
    return BATCH if is_debiased and n > EXACT else n


def _of_batch(
    left: Sequence[Representation],
    right: Sequence[Representation] | None,
    places: Indices,
    is_debiased: bool,
) -> Doubles:
    """(2, 5, A, B) what ``_ratio`` takes, of all samples of a batch and of the usual ones."""
    n_layers, n = len(left) + len(right or ()), len(places)
    usual = np.array([side.is_usual[places] for side in left], np.float64)
    others = usual if right is None else np.array([r.is_usual[places] for r in right], np.float64)
    sums = [_Sums(np.ones_like(usual), np.ones_like(others)), _Sums(usual, others)]
    for rows in chunks(n, max(1, GRAM_BYTES // (8 * n_layers * n))):
        grams = _grams(left, places, rows, is_debiased)
        of_others = grams if right is None else _grams(right, places, rows, is_debiased)
        sums[0].add(grams, of_others, rows)
        _mask(grams, usual, rows)
        if right is not None:
            _mask(of_others, others, rows)
        sums[1].add(grams, of_others, rows)
    return np.array([each.hsics(is_debiased) for each in sums])


def _grams(
    layers: Sequence[Representation], places: Indices, rows: slice, is_debiased: bool
) -> Doubles:
    """(A, r, n) some rows of each layer's Gram of a batch; debiased: 0 in the diagonal."""
    grams = np.empty((len(layers), rows.stop - rows.start, len(places)))
    for layer, gram in zip(layers, grams, strict=True):
        x = _centred(layer.read(places), layer.is_usual[places])
        np.matmul(x[rows], x.T, out=gram)
    if is_debiased:
        diagonal = np.arange(rows.start, rows.stop)
        grams[:, diagonal - rows.start, diagonal] = 0
    return grams


def _mask(grams: Doubles, kept: Doubles, rows: slice) -> None:
    """Make 0 what is of samples that aren't kept; kept (A, n) is of 0 and 1."""
    grams *= kept[:, rows, None]
    grams *= kept[:, None, :]


class _Sums:
    """What HSIC needs of the Grams of A and B layers, each pair on the samples that both keep.

    Args:
        kept: (A, n) 1 where a layer keeps a sample, else 0.
        others: (B, n).
    """

    def __init__(self, kept: Doubles, others: Doubles) -> None:
        self.kept, self.others = kept, others
        shape = len(kept), len(others)
        self.traces = np.zeros((3, *shape))  # tr(KL), tr(KK), tr(LL)
        self.rows = np.zeros((3, *shape))  # 1'KL1, 1'KK1, 1'LL1
        self.totals = np.zeros((2, *shape))  # 1'K1, 1'L1

    def add(self, k: Doubles, l: Doubles, rows: slice) -> None:
        """Some rows of the Grams, (A, r, n) and (B, r, n), 0 where their own layer keeps nothing."""
        mine, its = self.kept[:, None, rows], self.others[None, :, rows]
        of_k = (k @ self.others.T).transpose(0, 2, 1) * its  # (A, B, r) row sums
        of_l = (l @ self.kept.T).transpose(2, 0, 1) * mine
        self.totals += of_k.sum(axis=2), of_l.sum(axis=2)
        for i, (a, b) in enumerate(((of_k, of_l), (of_k, of_k), (of_l, of_l))):
            self.rows[i] += np.einsum("abr,abr->ab", a, b)
        self.traces[0] += k.reshape(len(k), -1) @ l.reshape(len(l), -1).T
        for a, gram in enumerate(k):
            self.traces[1, a] += ((np.square(gram) @ self.others.T) * its[0].T).sum(axis=0)
        for b, gram in enumerate(l):
            self.traces[2, :, b] += ((np.square(gram) @ self.kept.T) * mine[:, 0].T).sum(axis=0)

    def hsics(self, is_debiased: bool) -> Doubles:
        """(5, A, B) HSIC of (K, L), (K, K), (L, L), and the traces of the last two on their scale."""
        n = self.kept @ self.others.T
        is_few = n < (FEWEST if is_debiased else 2)
        n = np.where(is_few, FEWEST, n)
        k, l = self.totals
        products = np.array([k * l, k * k, l * l])
        if is_debiased:
            scale = n * (n - 3)
            found = self.traces + products / ((n - 1) * (n - 2)) - 2 * self.rows / (n - 2)
        else:
            scale = (n - 1) ** 2
            found = self.traces + products / n**2 - 2 * self.rows / n
        found = np.concatenate([found, self.traces[1:]]) / scale
        return np.where(is_few, 0, found)


# ---------------------------------------------------------------------- neighbours that are shared


def nearest(x: Floats, k: int) -> Indices:
    """(n, k) places of each sample's k nearest others by cosine, ascending.

    Vectors are L2-normalised; one of zeros has no direction, and cosine 0 with all. Of equally
    near ones the earlier come first; cosines are equal that agree to ``DECIMALS``.

    Args:
        x: (n, D).
        k: neighbours, 1 to n - 1.

    Raises:
        RequestError: another k.
    """
    n = len(x)
    if not 1 <= k < n:
        raise RequestError(f"{n} samples have 1 to {n - 1} neighbours each, not {k}")
    x = np.asarray(x, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(norms > 0, norms, 1)
    found = np.empty((n, k), np.intp)
    for rows in chunks(n, max(1, GRAM_BYTES // (32 * n))):
        cosines = np.round(x[rows] @ x.T, DECIMALS)
        cosines[np.arange(len(cosines)), np.arange(rows.start, rows.stop)] = -np.inf  # itself
        last = -np.partition(-cosines, k - 1, axis=1)[:, k - 1 : k]
        is_nearer, is_last = cosines > last, cosines == last
        n_open = k - is_nearer.sum(axis=1, keepdims=True)
        chosen = is_nearer | (is_last & (np.cumsum(is_last, axis=1) <= n_open))
        found[rows] = np.nonzero(chosen)[1].reshape(-1, k)
    return found


def shared(a: Indices, b: Indices) -> float:
    """Mean share of each sample's k neighbours in one encoder that are its neighbours in another.

    Mutual kNN of Huh et al. 2024 (arXiv 2405.07987), without their cut of large values and without
    the largest of all pairs of layers, which is a choice. Of encoders that have nothing in common
    it is k / (n - 1).

    Args:
        a: (n, k) see ``nearest``.
        b: (n, k).
    """
    n, k = a.shape
    n_shared = 0
    for rows in chunks(n, CHUNK_ROWS):
        n_shared += int((a[rows, :, None] == b[rows, None, :]).sum())
    return n_shared / (n * k)
