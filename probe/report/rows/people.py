"""Patients and meta columns of rows' samples, which stand in feature files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import CacheError, RequestError
from cache.format.key import PARTIAL
from probe.arrays import Array, Texts
from probe.results import IDS, PATIENTS, Row

if TYPE_CHECKING:
    from cache.features import Features


class Unfound(RequestError):
    """No feature file has the samples of a row."""


@dataclass(frozen=True)
class People:
    """What feature files know of samples, found by the checksums of their tables.

    Any file whose ids and patients are those that a row was asked with will do: of another encoder,
    say, where the row's own is gone, or of a fine-tuned encoder, which has none.
    """

    folder: Path  # of features
    opened: Sequence[Features] = ()  # files that are at hand anyway; they come first

    @cached_property
    def files(self) -> list[Features]:
        """The whole feature files of images."""
        # Late: most tables ask for no patients, and h5py takes a while.
        from cache.catalogue import list_files
        from cache.features import Features
        from cache.header_index import HeaderIndex

        index, found = HeaderIndex(self.folder), []
        for path in list_files(self.folder):
            if path.name.endswith(PARTIAL):
                continue
            try:
                features = Features(index.read_header(path))
            except (CacheError, OSError):
                continue  # `cache verify` says which and why
            found += [] if features.is_text else [features]
        index.save()
        return found

    def file_of(self, row: Row) -> Features:
        """A feature file with the samples, and the patients, that a row was asked with.

        Raises:
            Unfound: there is none.
        """
        for files in (self.opened, self.files):
            own = [f for f in files if f.digest == row.encoded.parts[0].digest]
            for features in (*own, *files):
                if features.dataset == row.encoded.dataset and _is_of(features, row.encoded.tables):
                    return features
        raise Unfound(
            f"patients and meta columns of {row.encoded.dataset} stand in its feature files, and none "
            f"below {self.folder} has the samples that {row.encoded.label}'s row was asked with; name "
            "their folder with --features DIR, or ask again"
        )

    def groups_of(self, row: Row, ids: Texts) -> Texts | None:
        """(N,) the patient of each sample; None where nobody knows them, or patients are measured.

        Raises:
            Unfound: see ``file_of``.
        """
        tables = row.encoded.tables
        if row.answered.settings.get("scores_of") == "patients" or tables.get(PATIENTS) is None:
            return None
        features = self.file_of(row)
        assert features.groups is not None
        return features.groups[_places(features, ids, row)]

    def meta_of(self, row: Row, ids: Texts) -> Mapping[str, Array]:
        """Column -> (N,) of each sample.

        Raises:
            Unfound: see ``file_of``.
        """
        features = self.file_of(row)
        places = _places(features, ids, row)
        return {name: column[places] for name, column in features.meta.items()}


def count_patients(groups: Array) -> int:
    """How many patients samples are of; one whose name nobody knows is one by himself."""
    named = groups[groups != ""]
    return len(np.unique(named)) + len(groups) - len(named)


def _is_of(features: Features, tables: Mapping[str, int | None]) -> bool:
    there = features.header.tables
    known = {IDS: there["samples/ids"], PATIENTS: there.get("samples/groups")}
    return all(known[name] == tables[name] for name in known if name in tables)


def _places(features: Features, ids: Texts, row: Row) -> Array:
    """Where samples stand in a file."""
    order = np.argsort(features.ids)
    places = order[np.minimum(np.searchsorted(features.ids, ids, sorter=order), len(order) - 1)]
    if not np.array_equal(features.ids[places], ids):
        raise Unfound(
            f"{features.header.path} hasn't all samples of {row.encoded.label}'s row on "
            f"{row.encoded.dataset}: ask again"
        )
    return places
