"""How alike encoders see the same images: from feature files alone, without labels.

Layers of one or two files are compared by CKA, several encoders by the neighbours they share, and one
layer is laid out in a plane.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from probe.arrays import Array, Doubles, Ints
from probe.places import Place
from probe.report.findings.matched import (
    ALL,
    Common,
    Seen,
    file_of,
    files_of,
    match_samples,
    name_layers,
    represented,
    vectors,
)
from probe.report.statistics.projections import (
    NEAREST,
    neighbours_of,
    pca,
    perplexity_of,
    tsne,
    umap,
)
from probe.report.statistics.similarity import (
    batch_of,
    cka_matrix,
    nearest,
    shared,
)

MOST = 10_000  # samples where time grows with their square, or faster; of more, so many are drawn
MOST_TSNE = 3000  # of t-SNE: 10,000 take two minutes
PCA, TSNE, UMAP = METHODS = "pca", "tsne", "umap"
TITLES = {PCA: "principal component", TSNE: "t-SNE", UMAP: "UMAP"}


@dataclass(frozen=True)
class Pair:
    """One cell of ``LayersAlike``."""

    encoder: str
    layer: int
    pool: str
    width: int
    other: str
    other_layer: int
    other_pool: str
    other_width: int
    cka: float  # nan where a layer has no variance
    trimmed: float  # without the samples of the largest norms
    n: int  # samples
    n_trimmed: int  # samples without these


@dataclass(frozen=True)
class LayersAlike:
    """CKA of each layer of one encoder with each of another, or its own."""

    samples: Common
    left: tuple[Seen, ...]  # A
    right: tuple[Seen, ...]  # B
    cka: Doubles  # (A, B), nan where a layer has no variance
    trimmed: Doubles  # (A, B) the check: without the samples of the largest norms of either layer
    n_trimmed: Ints  # (A, B) samples of the check
    is_debiased: bool
    batch: int  # samples of a minibatch; all: exact
    seed: int  # of the minibatches

    def describe(self) -> str:
        """How the numbers were made, in words."""
        way, n_batches = "all at once", -(-self.samples.n // self.batch)
        if n_batches > 1:
            way = f"in {n_batches} minibatches of at most {self.batch} (seed {self.seed})"
        name = "debiased" if self.is_debiased else "biased"
        widths = sorted({seen.width for seen in (*self.left, *self.right)})
        spans = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else f"{widths[0]}"
        words = f"linear CKA, {name}, {way}; D = {spans}"
        return words if self.is_debiased else f"{words}; of noise it is about D / (D + n)"

    def pairs(self) -> tuple[Pair, ...]:
        """Each cell, row by row."""
        return tuple(
            Pair(
                *(a.encoder, a.layer, a.pool, a.width, b.encoder, b.layer, b.pool, b.width),
                *(float(self.cka[i, j]), float(self.trimmed[i, j])),
                *(self.samples.n, int(self.n_trimmed[i, j])),
            )
            for (i, a), (j, b) in itertools.product(enumerate(self.left), enumerate(self.right))
        )


def layers_alike(
    left: Sequence[Place],
    right: Sequence[Place] = (),
    *,
    split: str = ALL,
    is_debiased: bool = True,
    batch: int | None = None,
    seed: int = 0,
) -> LayersAlike:
    """CKA between layers of one or two feature files.

    Args:
        left: layers, as ``probe.places.find_places`` gives them.
        right: others; none: those of ``left`` with each other.
        split: whose samples.
        is_debiased: else biased CKA, which is high of noise where n isn't much larger than D. It is
            always exact, of at most ``MOST`` samples.
        batch: samples of a minibatch; None: exact up to ``similarity.EXACT`` samples.
        seed: of the minibatches, and of the samples that are drawn.

    Raises:
        RequestError: see ``match_samples`` and ``cka_matrix``.
        BrokenCache: stored rows don't match their checksums.
    """
    places = [*left, *right]
    common = match_samples(files_of(places), split, None if is_debiased else MOST, seed)
    found = [represented(place, common) for place in places]
    ours, others = found[: len(left)], found[len(left) :]
    similarity = cka_matrix(ours, others or None, is_debiased=is_debiased, batch=batch, seed=seed)
    seen = name_layers(places)
    return LayersAlike(
        samples=common,
        left=seen[: len(left)],
        right=seen[len(left) :] or seen,
        cka=similarity.cka,
        trimmed=similarity.trimmed,
        n_trimmed=similarity.n_trimmed,
        is_debiased=is_debiased,
        batch=min(batch or batch_of(common.n, is_debiased), common.n),
        seed=seed,
    )


@dataclass(frozen=True)
class Shared:
    """One cell of ``NeighboursAlike``."""

    encoder: str
    place: str
    other: str
    other_place: str
    overlap: float
    k: int
    n: int
    chance: float


@dataclass(frozen=True)
class NeighboursAlike:
    """The share of each sample's k nearest others that two encoders agree on."""

    samples: Common
    encoders: tuple[Seen, ...]  # E
    overlap: Doubles  # (E, E) symmetric, 1 in the diagonal
    k: int

    @property
    def chance(self) -> float:
        """The overlap of encoders that have nothing in common."""
        return self.k / (self.samples.n - 1)

    def describe(self) -> str:
        """How the numbers were made, in words."""
        return f"share of the {self.k} nearest others, by cosine, that two encoders agree on"

    def pairs(self) -> tuple[Shared, ...]:
        """Each cell, row by row."""
        cells = itertools.product(enumerate(self.encoders), enumerate(self.encoders))
        return tuple(
            Shared(
                *(a.encoder, a.place, b.encoder, b.place, float(self.overlap[i, j])),
                *(self.k, self.samples.n, self.chance),
            )
            for (i, a), (j, b) in cells
        )


def neighbours_alike(
    places: Sequence[Place], k: int = 10, *, split: str = ALL, seed: int = 0
) -> NeighboursAlike:
    """How many nearest neighbours encoders share.

    Images of one patient are near each other in any encoder; so the overlap is above chance where
    patients have several.

    Args:
        places: one of each encoder, say ``probe.places.last_place``; at most ``MOST`` samples.
        k: neighbours.
        split: whose samples.
        seed: of the samples that are drawn, where there are more.

    Raises:
        RequestError: see ``match_samples`` and ``nearest``.
        BrokenCache: stored rows don't match their checksums.
    """
    common = match_samples(files_of(places), split, MOST, seed)
    found = [nearest(vectors(place, common), k) for place in places]
    overlap = np.eye(len(places))
    for i, j in itertools.combinations(range(len(places)), 2):
        overlap[i, j] = overlap[j, i] = shared(found[i], found[j])
    return NeighboursAlike(common, name_layers(places), overlap, k)


@dataclass(frozen=True)
class Scatter:
    """One layer's samples as points of a plane."""

    samples: Common
    seen: Seen
    method: str  # one of METHODS
    points: Doubles  # (n, 2), in the unit of the features; of t-SNE and UMAP in none
    shares: tuple[float, ...]  # of the variance along each axis; empty of others than PCA
    labels: Array  # (n,) or (n, C), as ``Features.labels``
    class_names: tuple[str, ...]
    seed: int

    def describe(self) -> str:
        """How the points were made, in words."""
        n = self.samples.n
        if self.method == PCA:
            return "principal components, in the unit of the features"
        if self.method == TSNE:
            settings = f"perplexity {perplexity_of(n):.3g}"
        else:
            settings = f"{neighbours_of(n)} neighbours, least distance {NEAREST:g}"
        return f"by {TITLES[self.method]}; {settings}, seed {self.seed}"


def scatter(place: Place, method: str = PCA, *, split: str = ALL, seed: int = 0) -> Scatter:
    """A layer in two dimensions, at most ``MOST`` samples, or ``MOST_TSNE``.

    Args:
        place: which.
        method: one of METHODS.
        split: whose samples.
        seed: of t-SNE and UMAP, and of the samples that are drawn.

    Raises:
        RequestError: another method; see also ``match_samples``, ``pca``, ``tsne`` and ``umap``.
        BrokenCache: stored rows don't match their checksums.
    """
    if method not in METHODS:
        raise RequestError(f"layers are laid out by {', '.join(METHODS)}, not {method!r}")
    features = file_of(place)
    common = match_samples([features], split, MOST_TSNE if method == TSNE else MOST, seed)
    x = vectors(place, common)
    if method == PCA:
        plane = pca(x)
        points, shares = plane.points, tuple(plane.shares.tolist())
    else:
        lay_out = tsne if method == TSNE else umap
        points, shares = lay_out(x, seed).astype(np.float64), ()
    labels = features.labels[common.places[features.path]]
    (seen,) = name_layers([place])
    return Scatter(common, seen, method, points, shares, labels, tuple(features.class_names), seed)
