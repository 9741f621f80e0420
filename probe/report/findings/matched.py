"""Several feature files' vectors of the same samples.

Files are matched by sample ids; a sample that has several rows, such as a volume's slices, is their mean.
Files are read through a map, some samples of a layer at a time, after their checksums were compared: memory
doesn't grow with the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.aggregate import RowsOfSamples
from cache.commands.names import counted, short_label
from cache.errors import RequestError
from probe.arrays import Floats, Indices, Texts
from probe.places import Place
from probe.report.statistics.similarity import Representation, represent
from probe.solvers.standardise import chunks

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while

ALL = "all"  # samples, of whatever split
SPLITS = ("train", "val", "test", ALL)
CHUNK_SAMPLES = 64  # of several rows, that are read at one time
N_DIGITS = 8  # of a key's digest


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

    def __str__(self) -> str:
        return f"n = {self.n}" + ("" if self.split == ALL else f" of {self.split}")


def match_samples(
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
        if file.is_tokens:
            raise RequestError(f"{file.path} holds patch tokens: name files of pooled features")
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
        f"Left out: {counted(len(file.ids) - len(ids), 'sample')} of {file.path.name} that another "
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
            notes.append(f"Left out: {counted(n_other, 'sample')} of {split} in some files only")
        ids, places = ids[kept], {path: found[kept] for path, found in places.items()}
    if most is not None and len(ids) > most:
        notes.append(f"{most} of {len(ids)} samples, drawn (seed {seed})")
        drawn = np.sort(np.random.default_rng(seed).choice(len(ids), most, replace=False))
        ids, places = ids[drawn], {path: found[drawn] for path, found in places.items()}
    return Common(first.dataset, split, ids, places, tuple(notes))


def files_of(places: Sequence[Place]) -> list[Features]:
    """The files that places were found in, each once."""
    files: dict[Path, Features] = {}
    for place in places:
        files.setdefault(file_of(place).path, file_of(place))
    return list(files.values())


def file_of(place: Place) -> Features:
    """The file that a place was found in."""
    assert place.features is not None  # find_places says where
    return place.features


def reader(place: Place, samples: Indices) -> Callable[[Indices], Floats]:
    """What reads some of a place's vectors; the stored bytes are compared with their checksums first.

    Args:
        place: in a file.
        samples: (n,) samples of the file.

    Returns:
        (b,) numbers from 0 to n - 1 -> (b, D) vectors.

    Raises:
        RequestError, BrokenCache: as ``Features.array``; or some vectors aren't finite.
    """
    features, maps = file_of(place), []
    for layer, pool in place.arrays:
        if not np.isfinite(features.array(layer, pool)).all():
            raise RequestError(
                f"features are finite, found inf or nan in {features.path}, layer {layer}, {pool}: "
                "leave it out"
            )
        maps.append(features.memmap(layer, pool))
    width = sum(mapped.shape[1] for mapped in maps)
    rows_of = None
    if not features.rows_are_samples:
        rows_of = RowsOfSamples(features.row_sample, len(features.ids))

    def read(numbers: Indices) -> Floats:
        own = samples[numbers]
        if rows_of is None:
            return _beside([mapped[own] for mapped in maps])
        means = np.empty((len(own), width))
        for part in chunks(len(own), CHUNK_SAMPLES):
            rows, counts = [rows_of.of(s) for s in own[part]], rows_of.counts[own[part]]
            x = _beside([mapped[np.concatenate(rows)] for mapped in maps]).astype(np.float64)
            means[part] = np.add.reduceat(x, np.cumsum(counts) - counts) / counts[:, None]
        return means

    return read


def _beside(parts: list[Floats]) -> Floats:
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def represented(place: Place, samples: Common) -> Representation:
    """A place's vectors, read some at a time."""
    return represent(reader(place, samples.places[file_of(place).path]), samples.n)


def vectors(place: Place, samples: Common) -> Floats:
    """(n, D) all vectors of a place."""
    return reader(place, samples.places[file_of(place).path])(np.arange(samples.n))


@dataclass(frozen=True)
class Seen:
    """One layer of one encoder, in words and numbers."""

    encoder: str  # its name; where two share it, with what tells their files apart
    layer: int
    pool: str
    width: int  # D
    place: str  # layer and pool in words


def name_layers(places: Sequence[Place]) -> tuple[Seen, ...]:
    """What each place is called; files of one name by their size, or the digest of their key."""
    files = files_of(places)
    names = file_names(files)
    found = []
    for place in places:
        features = file_of(place)
        width = sum(features.memmap(*part).shape[1] for part in place.arrays)
        found.append(Seen(names[features.path], place.layer, place.pool, width, str(place)))
    return tuple(found)


def file_names(files: Sequence[Features]) -> dict[Path, str]:
    """What each is called: as tables call its encoder, and as much more as tells all apart."""
    ways: list[Callable[[Features], str]] = [
        lambda file: short_label(file.label),
        lambda file: f"{short_label(file.label)}, {file.size} px",
        lambda file: f"{file.label}, {file.size} px",
        lambda file: f"{file.label}, {file.size} px, {file.digest[:N_DIGITS]}",
    ]
    for way in ways:
        names = {file.path: way(file) for file in files}
        if len({*names.values()}) == len(files):
            break
    return names
