"""The training images that are nearest to a sample, where its row's probe saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.aggregate import RowsOfSamples
from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.leaks import find_twins
from probe.arrays import Array, Floats, Indices, Singles, Texts
from probe.places import TOKENS, Place, name_places, places_in, read_side_by_side
from probe.questions.joining import align
from probe.report.findings.division import members_of, places_of
from probe.report.findings.looks import middle_rows
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.solvers.head import head_of
from probe.solvers.standardise import chunks

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while

ANEW = "ask by --choose cv, or by knn, linear or ridge, whose rows keep train's ids"
FROZEN = "head"  # the mode of finetune that trains no encoder


@dataclass(frozen=True)
class Neighbour:
    """A training image near a sample."""

    id: str
    label: str  # its class; of several labels those it has
    similarity: float  # cosine, -1 to 1
    is_same_patient: bool = False
    twin: str = ""  # "exact" or "near": it is the sample's picture once more
    row: int | None = (
        None  # of ``Learnt.features``, whose thumbnail stands for it; None: there is none
    )


@dataclass(frozen=True)
class Learnt:
    """What a row's probe was fitted on, as far as it is known."""

    features: Features
    places: tuple[Place, ...]  # side by side
    aggregate: str
    ids: Texts  # (m,)
    labels: Array  # (m,) or (m, C)
    said: str  # "train", "train and val"
    class_names: tuple[str, ...]
    others: tuple[Features, ...] = ()  # of encoders side by side with it, in its order of samples

    @property
    def files(self) -> tuple[Features, ...]:
        return self.features, *self.others

    def describe(self) -> str:
        """Where neighbours are looked for, in words."""
        where = (
            " beside ".join(map(str, self.places))
            if len(self.places) < 3
            else (f"{name_places(self.places)}, side by side")
        )
        where += ", the mean over encoders" if self.others else ""
        what = "images" if self.features.rows_are_samples else "samples"
        return f"nearest of {len(self.ids)} {what} of {self.said}, by cosine at {where}"


def class_words(label: Any, class_names: Sequence[str]) -> str:
    """A label in words; of several labels those that are so."""
    if np.ndim(label):
        has = [name for name, value in zip(class_names, label, strict=True) if value == 1]
        return " + ".join(has) or "none of them"
    return class_names[int(label)]


def find_learnt(of: StoredRow, arrays: Mapping[str, Array], people: People) -> Learnt:
    """What a row learnt from, and where it saw it.

    Args:
        of: the row.
        arrays: its scores.
        people: that knows the feature files.

    Raises:
        RequestError: the features are gone, no one place was seen, or which samples were learnt
            from isn't known.
    """
    row = of.row
    trained = row.posed.trained_on
    if trained and row.encoded.joined:
        raise RequestError(
            f"rows of several encoders don't say which files of {trained.dataset} they read"
        )
    digests = [trained.digest] if trained else [part.digest for part in row.encoded.parts]
    places, aggregate = _places(of, arrays)
    by_digest = {f.digest: f for f in reversed(people.files)}
    if not all(digest in by_digest for digest in digests):
        raise RequestError(
            f"none of the feature files below {people.folder} is the one that {row.encoded.label}'s row "
            "read; name their folder with --features DIR"
        )
    features, *others = align([by_digest[digest] for digest in digests])
    ids, labels, said = _samples(of, arrays, features)
    if row.answered.settings.get("mode", FROZEN) != FROZEN:
        said += ", as the encoder saw them before its training"
    names = tuple(str(name) for name in arrays["class_names"])
    return Learnt(features, places, aggregate, ids, labels, said, names, tuple(others))


def _places(of: StoredRow, arrays: Mapping[str, Array]) -> tuple[tuple[Place, ...], str]:
    settings = of.row.answered.settings
    try:
        if head := head_of(arrays):
            return head.places, head.aggregate
        places = places_in(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"rows of kind {of.row.answered.kind} don't say one layer and pool that was read"
        ) from error
    if any(place.pool == TOKENS for place in places):
        raise RequestError(
            f"rows of kind {of.row.answered.kind} read patches one by one, so no image has one vector "
            "whose neighbours could be shown"
        )
    return places, settings.get("aggregate", "mean")


def _samples(
    of: StoredRow, arrays: Mapping[str, Array], features: Features
) -> tuple[Texts, Array, str]:
    """Ids and labels that were learnt from, and of which splits they are."""
    posed = of.row.posed
    both = of.row.answered.settings.get("refit") == "train+val"
    there, wanted = members_of(of, arrays, features), SPLITS[: 1 + both]
    if any(split not in there for split in wanted):
        if posed.target or posed.trained_on or posed.split:
            raise RequestError(
                f"which samples of {features.dataset} were learnt from isn't kept; {ANEW}"
            )
        raise RequestError(
            f"{features.path.name} has other labels, or another split, by now; {ANEW}"
        )
    ids = np.concatenate([there[split].ids for split in wanted])
    labels = np.concatenate([there[split].labels for split in wanted])
    return ids, labels, " and ".join(wanted)


def find_nearest(
    learnt: Learnt, features: Features, ids: Texts, k: int
) -> list[tuple[Neighbour, ...]]:
    """The k nearest training images of each sample; never the sample itself.

    A file's features are read once, and compared with their checksums.

    Args:
        learnt: from ``find_learnt``.
        features: where the samples are.
        ids: (q,) of the samples.
        k: neighbours.

    Raises:
        RequestError: a sample isn't in its file.
        BrokenCache: stored rows don't match their checksums.
    """
    is_one = features is learnt.features
    queries, bank = places_of(features, ids), places_of(learnt.features, learnt.ids)
    files = learnt.files
    similarities = np.zeros((len(queries), len(bank)), np.float32)
    for i in range(len(files)):
        places = [place for place in learnt.places if place.file == i]
        x = read_side_by_side(places, files, learnt.aggregate)
        other = x if is_one else read_side_by_side(places, (features,), learnt.aggregate)
        similarities += _cosines(other[queries], x, bank) / np.float32(len(files))
    if is_one:
        similarities[queries[:, None] == bank] = -np.inf
    order = np.argsort(-similarities, axis=1, kind="stable")[:, : min(k, len(bank) - is_one)]
    twins = _twins(features, queries, learnt.features, bank[order])
    patients = _patients(features, queries), _patients(learnt.features, bank)
    rows = middle_rows(learnt.features, bank[order].ravel())
    has_pictures = learnt.features.thumbnails is not None
    found = []
    for q, near in enumerate(order):
        own = patients[0][q] if is_one else ""
        found.append(
            tuple(
                Neighbour(
                    str(learnt.ids[j]),
                    class_words(learnt.labels[j], learnt.class_names),
                    float(similarities[q, j]),
                    bool(own) and patients[1][j] == own,
                    twins.get((q, int(bank[j])), ""),
                    rows[q * len(near) + place] if has_pictures else None,
                )
                for place, j in enumerate(near.tolist())
            )
        )
    return found


def _cosines(queries: Floats, x: Floats, bank: Indices) -> Singles:
    """(q, m) of queries (q, D) with some rows of x; 0 where one has no length."""
    found = np.empty((len(queries), len(bank)), np.float32)
    unit = _unit(queries)
    for rows in chunks(len(bank)):
        found[:, rows] = unit @ _unit(x[bank[rows]]).T
    return np.clip(found, -1, 1)


def _unit(x: Floats) -> Floats:
    wide = np.asarray(x, np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, 1)


def _patients(features: Features, samples: Indices) -> Texts:
    if features.groups is None:
        return np.full(len(samples), "")
    return features.groups[samples]


def _twins(
    features: Features, queries: Indices, others: Features, near: Indices
) -> dict[tuple[int, int], str]:
    """(number of a query, sample of ``others``) -> "exact" or "near", by the definition of leaks."""
    samples, files = np.unique(near), (features, others)
    pictures = [file.thumbnails for file in files if file.thumbnails is not None]
    hashes = [file.hashes for file in files if file.hashes is not None]
    is_alike = len({of.shape[1] for of in pictures}) == 1
    if len(pictures) + len(hashes) < 4 or not is_alike or not near.size:
        return {}
    rows = [_rows(features, queries), _rows(others, samples)]
    flat = [np.concatenate(own) for own in rows]
    n_rows = [len(own) for of_file in rows for own in of_file]
    leaks = find_twins(
        np.concatenate([of[own] for of, own in zip(pictures, flat, strict=True)]),
        np.concatenate([of[own] for of, own in zip(hashes, flat, strict=True)]),
        np.repeat(np.arange(len(n_rows)), n_rows),
        np.repeat(np.array([2, 0], np.uint8), [len(queries), len(samples)]),  # test and train
    )
    return {(t.sample, int(samples[t.other - len(queries)])): t.kind for t in leaks.twins}


def _rows(features: Features, samples: Indices) -> list[Indices]:
    if features.rows_are_samples:
        return [samples[i : i + 1] for i in range(len(samples))]
    rows = RowsOfSamples(features.row_sample, len(features.ids))
    return [rows.of(sample) for sample in samples.tolist()]
