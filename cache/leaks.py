"""Twins: images of test that train or val hold too, exactly or nearly, and patients in two splits.

A sample of test is looked for among train and val, one of val among train. Exact copies have the
same hash of their pixels. Near twins have thumbnails whose Pearson correlation is above NEAR: the
next frame of an ultrasound, one film scanned twice. Twins within a split are none of a leak.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.aggregate import RowsOfSamples
from cache.format.sample_tables import SPLITS

# In BreastMNIST at 64 px, 19 of 156 test images have such a twin in train, while exact hashing
# finds one pair. The smaller the thumbnail, the more images look alike: 39 of the same at 28 px.
NEAR = 0.99
MAX_TWINS = 8  # of a sample that are listed; whether it has any is always known
PARTS = 8  # a sample of several rows is compared by the means of this many pieces of it

# What is counted of test, and of val as val_n...
WHAT = ("n", "exact", "near", "groups", "group_samples")

SKETCH_SIDE = 16  # blocks along an edge of a thumbnail
SLACK = 1e-3  # float32 moves a sketch's bound by less than 1e-4, see ``sketch``
N_QUERIES = 8192  # samples that are compared with a block of others at one time
BLOCK_PIXELS = 2**22  # of a block of others: 32 MB as float64


class Twin(NamedTuple):
    """A sample, and one of an earlier split that is too like it."""

    sample: int  # index
    other: int  # index
    correlation: float  # of the thumbnails, to 6 digits; of exact copies 1
    kind: str  # "exact" or "near"


@dataclass(frozen=True)
class Leaks:
    """What the splits of a data set share. S samples; splits come in the order of SPLITS."""

    split: NDArray[np.uint8]  # (S,) index into SPLITS; any other number: left out
    exact: NDArray[np.bool_]  # (S,) an earlier split has an exact copy
    near: NDArray[np.bool_]  # (S,) none has, but one has a near twin
    patient: NDArray[np.bool_] | None  # (S,) an earlier split has its patient; None: unknown
    n_patients: Mapping[str, int]  # "val", "test" -> patients that an earlier split has too
    twins: tuple[Twin, ...]  # by sample; of each the MAX_TWINS most alike, exact copies first

    @property
    def twin(self) -> NDArray[np.bool_]:
        """(S,) an earlier split has a twin of either kind."""
        return self.exact | self.near

    def summary(self) -> dict[str, int | None]:
        """Counts as a row keeps them.

        Returns:
            Of test: "n" samples, "exact" (how many have a copy in train or val), "near" (how many
            have none, but a near twin), "groups" (patients that train or val have too) and
            "group_samples" (samples of those); the last two None where patients are unknown. Of
            val against train the same, as "val_n" and so on.
        """
        counts: dict[str, int | None] = {}
        for name, prefix in (("test", ""), ("val", "val_")):
            here = self.split == SPLITS.index(name)
            patient = self.patient
            counts |= {
                f"{prefix}n": int(here.sum()),
                f"{prefix}exact": int(self.exact[here].sum()),
                f"{prefix}near": int(self.near[here].sum()),
                f"{prefix}groups": None if patient is None else self.n_patients[name],
                f"{prefix}group_samples": None if patient is None else int(patient[here].sum()),
            }
        return counts


def describe_leaks(summary: Mapping[str, Any]) -> str:
    """A summary in words, such as "1 exact copy, 18 near twins of 156 test samples" or "0"."""
    parts = []
    for split, prefix in (("test", ""), ("val", "val_")):
        exact, near, patients = (summary[f"{prefix}{name}"] for name in ("exact", "near", "groups"))
        words = [_counted(exact, "exact copy", "exact copies")] if exact else []
        words += [_counted(near, "near twin", "near twins")] if near else []
        words += [_counted(patients, "patient", "patients")] if patients else []
        if words:
            parts.append(f"{', '.join(words)} of {summary[f'{prefix}n']} {split} samples")
    unknown = ["patients unknown"] if summary["groups"] is None else []
    return "; ".join([*(parts or ["0"]), *unknown])


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def find_twins(
    thumbnails: NDArray[np.uint8] | Stack,
    hashes: NDArray[np.uint8],
    row_sample: NDArray[np.integer],
    split: NDArray[np.uint8],
    groups: NDArray[np.str_] | None = None,
) -> Leaks:
    """Look for every sample of val and test among the splits before its own.

    No near twin is lost: what the quick comparison passes over is too far apart, see ``sketch``.
    Time grows with (val + test) x train; memory stays at some 200 MB.

    Args:
        thumbnails: (N, t * t) grey pictures of the rows, t by t pixels; may be a memory map.
        hashes: (N, 16) of the rows' pixels.
        row_sample: (N,) index of each row's sample. Samples of several rows (a volume's slices)
            are twins as wholes: exact copies have equal rows in equal order; near twins are alike
            in the means of PARTS equal pieces of their rows, laid side by side.
        split: (S,) index into SPLITS; samples with another number are left out.
        groups: (S,) patients; an empty name is nobody.

    Returns:
        Who has a twin, and which. A flat thumbnail correlates with nothing, so that flat samples
        have only exact copies.

    Raises:
        BrokenCache: a sample has no rows.
    """
    split = np.asarray(split, np.uint8)
    rows = RowsOfSamples(row_sample, len(split))
    pictures = _Pictures(thumbnails, rows)
    same = np.unique(_sample_hashes(hashes, rows), return_inverse=True)[1]
    exact = _is_earlier(same, split)
    twins = {
        sample: {other: Twin(sample, other, 1.0, "exact") for other in others}
        for sample, others in _members_before(same, split, exact)
    }
    near = np.zeros(len(split), bool)
    for name in ("val", "test"):
        own = SPLITS.index(name)
        queries, others = np.flatnonzero(split == own), np.flatnonzero(split < own)
        for twin in _search(pictures, queries, others):
            near[twin.sample] = not exact[twin.sample]
            twins.setdefault(twin.sample, {}).setdefault(twin.other, twin)
    patient, n_patients = _shared_patients(groups, split)
    listed = (
        twin
        for sample in sorted(twins)
        for twin in sorted(twins[sample].values(), key=lambda t: (t.kind, -t.correlation, t.other))[
            :MAX_TWINS
        ]
    )
    return Leaks(split, exact, near, patient, n_patients, tuple(listed))


# ---------------------------------------------------------------------------- same things


def number_copies(
    hashes: NDArray[np.uint8], row_sample: NDArray[np.integer], n_samples: int
) -> NDArray[np.intp]:
    """(S,) a number for each sample, the same for exact copies and for them alone.

    Args:
        hashes: (N, 16) of the rows' pixels.
        row_sample: (N,) index of each row's sample; see ``find_twins``.
        n_samples: S.

    Raises:
        BrokenCache: a sample has no rows.
    """
    rows = RowsOfSamples(row_sample, n_samples)
    return np.unique(_sample_hashes(hashes, rows), return_inverse=True)[1]


def _is_earlier(thing: NDArray[np.intp], split: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(S,) whether what a sample has, by number, is in a split before its own too."""
    first = np.full(thing.max(initial=-1) + 1, len(SPLITS), np.uint8)
    np.minimum.at(first, thing, split)
    return (split < len(SPLITS)) & (first[thing] < split)


def _members_before(
    thing: NDArray[np.intp], split: NDArray[np.uint8], wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, list[int]]]:
    """Each wanted sample, and the first MAX_TWINS of earlier splits that have the same thing."""
    order = np.lexsort((split, thing))  # of one thing, earlier splits come first
    starts = np.searchsorted(thing[order], thing)
    for sample in np.flatnonzero(wanted).tolist():
        first = order[starts[sample] : starts[sample] + MAX_TWINS]
        fits = (thing[first] == thing[sample]) & (split[first] < split[sample])
        yield sample, first[fits].tolist()


def _shared_patients(
    groups: NDArray[np.str_] | None, split: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_] | None, dict[str, int]]:
    """Which samples' patients are in an earlier split too, and how many patients that are."""
    if groups is None:
        return None, {}
    patient = np.unique(groups, return_inverse=True)[1]
    shared = _is_earlier(patient, split) & (groups != "")
    counts = {
        name: len(np.unique(patient[shared & (split == SPLITS.index(name))]))
        for name in ("val", "test")
    }
    return shared, counts


# ---------------------------------------------------------------------------- samples of rows


class Stack:
    """Thumbnails of several files, one after another, without a copy of them all.

    Args:
        parts: (N_i, t * t) each; may be memory maps.
    """

    def __init__(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        self._parts = parts
        self._stops = np.cumsum([len(part) for part in parts])
        self.shape = int(self._stops[-1]), parts[0].shape[1]

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(n, t * t) of n rows, counted through all parts."""
        taken = np.empty((len(rows), self.shape[1]), np.uint8)
        of_part = np.searchsorted(self._stops, rows, side="right")
        for i, (part, stop) in enumerate(zip(self._parts, self._stops, strict=True)):
            here = of_part == i
            taken[here] = part[rows[here] - (stop - len(part))]
        return taken


class _Pictures:
    """What samples look like: ``take`` gives some of them, so that never all are in memory."""

    def __init__(self, thumbnails: NDArray[np.uint8] | Stack, rows: RowsOfSamples) -> None:
        self._thumbnails, self._rows = thumbnails, rows
        self.n_parts = min(PARTS, rows.most)
        self.n_pixels = self.n_parts * thumbnails.shape[1]

    def take(self, samples: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(n, n_parts * t * t) of n samples."""
        if self._rows.most == 1:
            return self._thumbnails[self._rows.order[samples]]
        return np.stack([self._parts(self._thumbnails[self._rows.of(s)]) for s in samples])

    def _parts(self, thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The means of equal pieces of a sample's thumbnails, rounded, side by side."""
        starts = np.arange(self.n_parts) * len(thumbnails) // self.n_parts
        # Of fewer rows than parts some are taken twice: reduceat gives one where two starts agree.
        sums = np.add.reduceat(thumbnails, starts, axis=0, dtype=np.int64)
        n = np.maximum(np.diff(starts, append=len(thumbnails)), 1)[:, None]
        return ((2 * sums + n) // (2 * n)).astype(np.uint8).ravel()


def _sample_hashes(hashes: NDArray[np.uint8], rows: RowsOfSamples) -> NDArray[np.bytes_]:
    """(S,) one hash for each sample: its row's, or the hash of its rows' in order."""
    if rows.most == 1:
        found = np.ascontiguousarray(hashes[rows.order])
    else:
        digests = (
            hashlib.sha256(hashes[rows.of(sample)].tobytes()).digest()[: hashes.shape[1]]
            for sample in range(len(rows.starts))
        )
        found = np.frombuffer(b"".join(digests), np.uint8)
    # As texts: numpy sorts those, and zeros that it drops at the end are the same in all.
    return found.view(f"S{hashes.shape[1]}").ravel()


# ---------------------------------------------------------------------------- near twins


def unit_vectors(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pictures as vectors whose dot products are Pearson correlations.

    Args:
        pictures: (n, P).

    Returns:
        (n, P), each of mean 0 and length 1; zeros of a flat picture.
    """
    x = pictures - pictures.mean(axis=1, keepdims=True)
    flat = (pictures == pictures[:, :1]).all(axis=1)  # rounding would leave a length of 1e-14
    x[flat] = 0
    x /= np.where(flat, 1, np.linalg.norm(x, axis=1))[:, None]
    return x


def sketch(units: NDArray[np.float64], n_parts: int) -> NDArray[np.float32]:
    """Shorten unit vectors so that their dot products can only grow.

    Let p be the projection of a vector u onto pictures that are constant over blocks, and r the
    length of what is left. Then u.v = p.q + (u - p).(v - q) <= p.q + r s, the dot product of the
    sketches (p, r) and (q, s): pairs whose sketches are farther apart than NEAR needn't be looked
    at. A sketch is a unit vector too.

    Args:
        units: (n, n_parts * t * t) of ``unit_vectors``.
        n_parts: thumbnails side by side in each.

    Returns:
        (n, n_parts * b * b + 1) with b = min(t, SKETCH_SIDE) blocks along an edge. In float32, r
        may be wrong by 3e-4 where it is small; a pair above NEAR has then another r below 0.15,
        so that their product is wrong by less than 1e-4.
    """
    side = round((units.shape[1] / n_parts) ** 0.5)
    edges = np.arange(min(side, SKETCH_SIDE)) * side // min(side, SKETCH_SIDE)
    sums = np.add.reduceat(units.reshape(-1, side, side), edges, axis=1)
    sums = np.add.reduceat(sums, edges, axis=2)
    lengths = np.diff(edges, append=side)
    # Divided by the root of a block's area: its coordinate on a vector of length 1.
    inside = (sums / np.sqrt(np.outer(lengths, lengths))).reshape(len(units), -1)
    outside = np.square(units).sum(axis=1) - np.square(inside).sum(axis=1)
    rest = np.sqrt(np.maximum(outside, 0))  # of a flat picture 0, not 1
    return np.concatenate([inside, rest[:, None]], axis=1).astype(np.float32)


def _search(
    pictures: _Pictures, queries: NDArray[np.intp], others: NDArray[np.intp]
) -> Iterator[Twin]:
    """The near twins of every query, at most MAX_TWINS of each."""
    size = max(64, min(2048, BLOCK_PIXELS // pictures.n_pixels))
    for asked in _blocks(queries, N_QUERIES):
        sketches = np.concatenate(
            [
                sketch(unit_vectors(pictures.take(some)), pictures.n_parts)
                for some in _blocks(asked, size)
            ]
        )
        best = np.zeros((len(asked), MAX_TWINS))  # correlations, highest first; 0: none
        found = np.zeros((len(asked), MAX_TWINS), np.intp)
        for block in _blocks(others, size):
            units = unit_vectors(pictures.take(block))
            possible = sketches @ sketch(units, pictures.n_parts).T > NEAR - SLACK
            columns = np.flatnonzero(possible.any(axis=0))
            for rows in _blocks(np.flatnonzero(possible.any(axis=1)), size):
                exactly = unit_vectors(pictures.take(asked[rows])) @ units[columns].T
                exactly = np.where(exactly > NEAR, exactly.round(6), 0)
                _keep_best(best, found, rows, exactly, block[columns])
        for row, column in np.argwhere(best > 0).tolist():
            yield Twin(int(asked[row]), int(found[row, column]), float(best[row, column]), "near")


def _keep_best(
    best: NDArray[np.float64],
    found: NDArray[np.intp],
    rows: NDArray[np.intp],
    correlations: NDArray[np.float64],
    others: NDArray[np.intp],
) -> None:
    """Put correlations of some rows with others (R, O) where they beat what the rows have."""
    values = np.concatenate([best[rows], correlations], axis=1)
    names = np.concatenate([found[rows], np.broadcast_to(others, correlations.shape)], axis=1)
    # Stable: of equal ones those that come first, on every machine.
    order = np.argsort(-values, axis=1, kind="stable")[:, :MAX_TWINS]
    best[rows] = np.take_along_axis(values, order, axis=1)
    found[rows] = np.take_along_axis(names, order, axis=1)


def _blocks(samples: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
