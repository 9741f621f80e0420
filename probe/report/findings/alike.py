"""How alike encoders see the same images: from feature files alone, without labels.

Layers of one or two files are compared by CKA, several encoders by the neighbours they share, and one
layer is laid out in a plane. Files are matched by sample ids; a sample that has several rows, such as a
volume's slices, is their mean.

A file is read through a map, some samples of a layer at a time, after its checksums were compared: memory
doesn't grow with the number of layers.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.aggregate import RowsOfSamples
from cache.commands.names import counted
from cache.errors import RequestError
from cache.features import Features
from probe.arrays import Array, Doubles, Floats, Indices, Ints, Texts
from probe.places import Place
from probe.report.statistics.projections import pca, tsne
from probe.report.statistics.similarity import (
    Representation,
    batch_of,
    cka_matrix,
    nearest,
    represent,
    shared,
)
from probe.solvers.standardise import chunks

ALL = "all"  # samples, of whatever split
SPLITS = ("train", "val", "test", ALL)
MOST = 10_000  # samples where time grows with their square, or faster; of more, so many are drawn
CHUNK_SAMPLES = 64  # of several rows, that are read at one time
PCA, TSNE = "pca", "tsne"
N_DIGITS = 8  # of a key's digest


# ---------------------------------------------------------------------- the samples


@dataclass(frozen=True)
class Common:
    """Samples that all of several feature files hold, in the order of the first."""

    dataset: str
    split: str  # "train", "val", "test" or ALL
    ids: Texts  # (n,)
    places: Mapping[Path, Indices]  # file -> (n,) which of its samples each is
    notes: tuple[str, ...]  # what is left out, and why

    @property
    def n(self) -> int:
        return len(self.ids)


def match(
    files: Sequence[Features], split: str = ALL, most: int | None = None, seed: int = 0
) -> Common:
    """The samples that files have in common.

    Args:
        files: of one data set.
        split: whose samples; a sample counts where all files say so.
        most: samples that are kept; of more, so many are drawn.
        seed: of that draw.

    Raises:
        RequestError: texts, files of several data sets, an unknown split, or no common samples.
    """
    first = files[0]
    if split not in SPLITS:
        raise RequestError(f"samples are of {', '.join(SPLITS)}, not {split!r}")
    for file in files:
        if file.is_text:
            raise RequestError(f"{file.path} holds texts: name feature files of images")
        if file.dataset != first.dataset:
            raise RequestError(
                f"representations are compared on the same images: {first.path} is of "
                f"{first.dataset}, {file.path} of {file.dataset}; name files of one data set"
            )
    ids, order = first.ids, {}
    for file in files:
        order[file.path] = np.argsort(file.ids)
        ids = ids[np.isin(ids, file.ids)]
        if not len(ids):
            raise RequestError(
                f"{file.path} has none of the {counted(len(first.ids), 'sample')} of {first.path}: "
                f"the images of one data set have the same ids; `cache diff` says how files differ"
            )
    notes = [
        f"left out: {counted(len(file.ids) - len(ids), 'sample')} of {file.path.name} that another "
        "file hasn't"
        for file in dict.fromkeys(files)
        if len(file.ids) > len(ids)
    ]
    places = {
        file.path: order[file.path][np.searchsorted(file.ids, ids, sorter=order[file.path])]
        for file in files
    }
    if split != ALL:
        says = np.array([file.split[places[file.path]] == split for file in files])
        kept = says.all(axis=0)
        if not kept.any():
            raise RequestError(
                f"no sample is of {split} in {' and '.join(str(f.path) for f in files)}; "
                f"name another of {', '.join(SPLITS)}"
            )
        if n_other := int((says.any(axis=0) & ~kept).sum()):
            notes.append(f"left out: {counted(n_other, 'sample')} of {split} in some files only")
        ids, places = ids[kept], {path: found[kept] for path, found in places.items()}
    if most is not None and len(ids) > most:
        notes.append(f"{most} of {len(ids)} samples, drawn (seed {seed})")
        drawn = np.sort(np.random.default_rng(seed).choice(len(ids), most, replace=False))
        ids, places = ids[drawn], {path: found[drawn] for path, found in places.items()}
    return Common(first.dataset, split, ids, places, tuple(notes))


def _files_of(places: Sequence[Place]) -> list[Features]:
    """The files that places were found in, each once."""
    files: dict[Path, Features] = {}
    for place in places:
        files.setdefault(_file_of(place).path, _file_of(place))
    return list(files.values())


def _file_of(place: Place) -> Features:
    assert place.features is not None  # find_places says where
    return place.features


# ---------------------------------------------------------------------- reading


def reader(place: Place, samples: Indices) -> Callable[[Indices], Floats]:
    """What reads some of a place's vectors; the stored bytes are compared with their checksums first.

    Args:
        place: in a file.
        samples: (n,) samples of the file.

    Returns:
        (b,) numbers from 0 to n - 1 -> (b, D) vectors.

    Raises:
        RequestError, BrokenCache: as ``Features.array``.
    """
    features = _file_of(place)
    maps = []
    for layer, pool in _parts(place):
        features.array(layer, pool)
        maps.append(features.memmap(layer, pool))
    if features.rows_are_samples:
        return lambda numbers: _beside([mapped[samples[numbers]] for mapped in maps])
    rows_of = RowsOfSamples(features.row_sample, len(features.ids))

    def read(numbers: Indices) -> Doubles:
        means = np.empty((len(numbers), sum(mapped.shape[1] for mapped in maps)))
        for part in chunks(len(numbers), CHUNK_SAMPLES):
            own = samples[numbers[part]]
            rows, counts = np.concatenate([rows_of.of(s) for s in own]), rows_of.counts[own]
            x = _beside([mapped[rows] for mapped in maps]).astype(np.float64)
            means[part] = np.add.reduceat(x, np.cumsum(counts) - counts) / counts[:, None]
        return means

    return read


def _parts(place: Place) -> list[tuple[int, str]]:
    """Layers and pools that stand side by side, as ``probe.places.read_place`` has them."""
    pool = "cls" if place.pool == "concat" else place.pool
    parts = [(layer, pool) for layer in range(place.layer - place.n_last + 1, place.layer + 1)]
    return [*parts, (place.layer, "mean")] if place.pool == "concat" else parts


def _beside(parts: list[Floats]) -> Floats:
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _represent(place: Place, samples: Common) -> Representation:
    features = _file_of(place)
    read = reader(place, samples.places[features.path])
    try:
        return represent(read, samples.n)
    except RequestError as error:
        raise RequestError(f"{features.path}, {place}: {error}") from error


# ---------------------------------------------------------------------- results


@dataclass(frozen=True)
class Seen:
    """One layer of one encoder, in words and numbers."""

    encoder: str  # its name; where two share it, with what tells their files apart
    layer: int
    pool: str
    width: int  # D
    place: str  # layer and pool in words


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
    usual: float  # without the largest norms
    n: int  # samples
    n_usual: int  # that are left without these


@dataclass(frozen=True)
class LayersAlike:
    """CKA of each layer of one encoder with each of another, or its own."""

    samples: Common
    left: tuple[Seen, ...]  # A
    right: tuple[Seen, ...]  # B
    cka: Doubles  # (A, B), nan where a layer has no variance
    usual: Doubles  # (A, B) the check: without the samples of the largest norms of either layer
    n_usual: Ints  # (A, B) samples of the check
    is_debiased: bool
    batch: int  # samples of a minibatch; all: exact
    seed: int  # of the minibatches

    def describe(self) -> str:
        """How the numbers were made, in words."""
        n, which = self.samples.n, "" if self.samples.split == ALL else f" of {self.samples.split}"
        way = "all at once"
        if self.batch < n:
            way = f"in minibatches of {self.batch} (seed {self.seed})"
        name = "debiased" if self.is_debiased else "biased"
        widths = sorted({seen.width for seen in (*self.left, *self.right)})
        spans = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else f"{widths[0]}"
        words = f"linear CKA, {name}; n = {n}{which}, {way}; D = {spans}"
        return words if self.is_debiased else f"{words}; of noise it is about D / (D + n)"

    def pairs(self) -> tuple[Pair, ...]:
        """Each cell, row by row."""
        return tuple(
            Pair(
                *(a.encoder, a.layer, a.pool, a.width, b.encoder, b.layer, b.pool, b.width),
                *(float(self.cka[i, j]), float(self.usual[i, j])),
                *(self.samples.n, int(self.n_usual[i, j])),
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
        RequestError: see ``match`` and ``cka_matrix``.
        BrokenCache: stored rows don't match their checksums.
    """
    places = [*left, *right]
    common = match(_files_of(places), split, None if is_debiased else MOST, seed)
    represented = [_represent(place, common) for place in places]
    ours, others = represented[: len(left)], represented[len(left) :]
    found = cka_matrix(ours, others or None, is_debiased=is_debiased, batch=batch, seed=seed)
    seen = _seen(places)
    return LayersAlike(
        samples=common,
        left=seen[: len(left)],
        right=seen[len(left) :] or seen,
        cka=found.cka,
        usual=found.usual,
        n_usual=found.n_usual,
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
        which = "" if self.samples.split == ALL else f" of {self.samples.split}"
        return (
            f"share of the {self.k} nearest others, by cosine, that two encoders agree on; n = "
            f"{self.samples.n}{which}; by chance {self.chance:.2g}"
        )

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
        RequestError: see ``match`` and ``nearest``.
        BrokenCache: stored rows don't match their checksums.
    """
    common = match(_files_of(places), split, MOST, seed)
    found = [nearest(_vectors(place, common), k) for place in places]
    overlap = np.eye(len(places))
    for i, j in itertools.combinations(range(len(places)), 2):
        overlap[i, j] = overlap[j, i] = shared(found[i], found[j])
    return NeighboursAlike(common, _seen(places), overlap, k)


@dataclass(frozen=True)
class Scatter:
    """One layer's samples as points of a plane."""

    samples: Common
    seen: Seen
    method: str  # PCA or TSNE
    points: Doubles  # (n, 2), in the unit of the features; of t-SNE in none
    shares: tuple[float, ...]  # of the variance along each axis; empty of t-SNE
    labels: Array  # (n,) or (n, C), as ``Features.labels``
    class_names: tuple[str, ...]

    def describe(self) -> str:
        """How the points were made, in words."""
        which = "" if self.samples.split == ALL else f" of {self.samples.split}"
        words = f"{self.seen.encoder}, {self.seen.place}; n = {self.samples.n}{which}"
        if self.method == TSNE:
            return f"t-SNE of {words}; distances between groups mean nothing"
        shares = " and ".join(f"{100 * share:.0f} %" for share in self.shares)
        return f"principal components of {words}; {shares} of the variance"


def scatter(place: Place, method: str = PCA, *, split: str = ALL, seed: int = 0) -> Scatter:
    """A layer in two dimensions, at most ``MOST`` samples.

    Args:
        place: which.
        method: PCA or TSNE.
        split: whose samples.
        seed: of t-SNE, and of the samples that are drawn.

    Raises:
        RequestError: another method; see also ``match``, ``pca`` and ``tsne``.
        BrokenCache: stored rows don't match their checksums.
    """
    if method not in (PCA, TSNE):
        raise RequestError(f"layers are laid out by {PCA} or {TSNE}, not {method!r}")
    features = _file_of(place)
    common = match([features], split, MOST, seed)
    x = _vectors(place, common)
    if method == PCA:
        plane = pca(x)
        points, shares = plane.points, tuple(plane.shares.tolist())
    else:
        points, shares = tsne(x, seed).astype(np.float64), ()
    labels = features.labels[common.places[features.path]]
    (seen,) = _seen([place])
    return Scatter(common, seen, method, points, shares, labels, tuple(features.class_names))


def _vectors(place: Place, samples: Common) -> Floats:
    """(n, D) all vectors of a place, finite."""
    features = _file_of(place)
    x = reader(place, samples.places[features.path])(np.arange(samples.n))
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        sample = samples.ids[int(np.argmin(finite))]
        raise RequestError(
            f"{features.path}, {place}: features are finite, found inf or nan in sample {sample}"
        )
    return x


def _seen(places: Sequence[Place]) -> tuple[Seen, ...]:
    """What each place is called; files of one name by their size, or the digest of their key."""
    files = _files_of(places)
    names = _names(files)
    found = []
    for place in places:
        features = _file_of(place)
        width = sum(features.memmap(*part).shape[1] for part in _parts(place))
        found.append(Seen(names[features.path], place.layer, place.pool, width, str(place)))
    return tuple(found)


def _names(files: Sequence[Features]) -> dict[Path, str]:
    ways: list[Callable[[Features], str]] = [
        lambda file: file.label,
        lambda file: f"{file.label}, {file.size} px",
        lambda file: f"{file.label}, {file.size} px, {file.digest[:N_DIGITS]}",
    ]
    for way in ways:
        names = {file.path: way(file) for file in files}
        if len({*names.values()}) == len(files):
            break
    return names
