"""What is wrong with a stored row: whether its feature file and its labels are still as they were.

Labels, splits and patients are in no key: a row holds the checksums of the tables that it was asked
with, and a feature file those of the tables that it has now.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.catalogue import list_files
from cache.errors import CacheError
from cache.format.key import N_DIGEST
from cache.format.read import Header
from cache.header_index import HeaderIndex
from probe.report.rows.stored import StoredRow
from probe.results import IDS, PATIENTS, ROW_VERSION, ROWS, rows_of

# Kinds whose rows are of images, and not of the feature file that their digest would name: of a
# fine-tuned encoder it is that of the encoder before the training, of controls that of no encoder.
OF_NO_FILE = ("finetune", "control")
# What of Encoded.samples and Encoded.tables is the checksum of which table of a feature file.
TABLES = {
    "labels": "samples/labels",
    "split": "samples/split",
    PATIENTS: "samples/groups",
    IDS: "samples/ids",
    ROWS: "rows/ids",
    "rows": "rows/sample",
}
NAMES = {"rows": "images of a sample"}
OF_SLICES = (ROWS, "rows")


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a row."""

    why: str
    is_stale: bool = False  # its features or labels are gone or older: ``report gc`` deletes it


@dataclass(frozen=True)
class _Asked:
    """What one data set's part of a row was asked with."""

    dataset: str
    digest: str  # of the feature file's key
    checksums: Mapping[str, Any]  # as in TABLES, but for what was laid over
    needs_file: bool


@dataclass(frozen=True)
class Shelf:
    """The feature files below a folder, as far as rows depend on them."""

    folder: Path
    headers: tuple[Header, ...]
    unreadable: tuple[Path, ...] = field(default=())  # whose rows aren't called stale

    def faults_of(self, of: StoredRow) -> list[Fault]:
        """What is wrong with a row; empty where nothing is."""
        found = [Fault(of.lacking.partition(":")[0])] if of.lacking else []
        version = of.content.get("row_version", ROW_VERSION)
        if version != ROW_VERSION:
            found.append(Fault(f"written as row_version {version}, now {ROW_VERSION}"))
        for asked in _parts(of):
            found += [Fault(why, is_stale=True) for why in self._why_stale(asked)]
        return found

    @property
    def is_empty(self) -> bool:
        """Whether there is no feature file at all."""
        return not (self.headers or self.unreadable)

    @property
    def _of_images(self) -> list[Header]:
        """Of all images of a data set: those of some have other tables."""
        return [header for header in self.headers if not (header.is_text or header.is_part)]

    def _why_stale(self, asked: _Asked) -> Iterator[str]:
        own = [h for h in self.headers if h.digest == asked.digest]
        if not own and asked.needs_file:
            if not any(asked.digest[:N_DIGEST] in path.name for path in self.unreadable):
                yield f"feature file of {asked.dataset} is gone"
            return
        checksums, files = asked.checksums, own
        if not own:  # of images alone: any encoder's file has the samples, though not their slices
            checksums = {n: v for n, v in checksums.items() if n not in OF_SLICES}
            files = [h for h in self._of_images if h.attributes["dataset"] == asked.dataset]
        changed = [_changed(checksums, header.tables) for header in files]
        if changed and all(changed):
            names = ", ".join(NAMES.get(name, name) for name in min(changed, key=len))
            yield f"{names} of {asked.dataset} changed since"


def read_shelf(folder: Path) -> Shelf:
    """The feature files below a folder, those that aren't complete yet among them."""
    index, headers, unreadable = HeaderIndex(folder), [], []
    for path in list_files(folder):
        try:
            headers.append(index.read_header(path))
        except (CacheError, OSError):
            unreadable.append(path)  # `cache verify` says why
    index.save()
    return Shelf(folder, tuple(headers), tuple(unreadable))


def _parts(of: StoredRow) -> Iterator[_Asked]:
    e, posed, kind = of.row.encoded, of.row.posed, of.row.answered.kind
    laid = _laid_over(posed.target, posed.split)
    checksums = _checksums(e.samples, e.tables, laid)
    needs_file = kind not in OF_NO_FILE
    # Of encoders side by side the first one's file gave ids and labels, which others have in any order.
    first, *others = [part.digest for part in e.parts]
    yield _Asked(e.dataset, first, checksums, needs_file)
    for number, digest in enumerate(others, 1):
        name = rows_of(number)
        own = {"rows": e.samples[name]} if name in e.samples else {}
        yield _Asked(e.dataset, digest, own, needs_file)
    if train := posed.trained_on:  # whose digest, of several encoders, is no one file's
        laid = _laid_over(train.target, train.split)
        checksums = _checksums(train.samples, train.tables, laid)
        yield _Asked(train.dataset, train.digest, checksums, needs_file and not e.joined)


def _laid_over(target: Mapping[str, Any], split: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row has the digest of that lies over a file's table, and not the table's checksum."""
    return (*(("labels",) if target else ()), *(("split",) if split else ()))


def _checksums(
    samples: Mapping[str, Any], tables: Mapping[str, Any], laid: tuple[str, ...]
) -> dict[str, Any]:
    both = {**samples, **tables}
    return {name: value for name, value in both.items() if name in TABLES and name not in laid}


def _changed(checksums: Mapping[str, Any], tables: Mapping[str, int]) -> list[str]:
    return [name for name, value in checksums.items() if tables.get(TABLES[name]) != value]
