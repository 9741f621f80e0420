"""What must be known before a feature file's first row: its constants, its samples, its spec."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.key import canonical_json
from cache.format.sample_tables import TableSizes, check_table
from cache.format.units import count_units
from cache.task import REGRESSION, TASKS

FORMAT = "medprobe-features"
FORMAT_VERSION = 1
RECORD_WORDS = 1024  # uint32 words of a unit's record: one 4096-byte page
COST_BYTES = 4096
ALIGNMENT = 4096  # arrays start on a page, so a record never straddles two
DTYPES = ("float16", "float32")  # bfloat16 has no numpy type and is never stored
ARRAY_NAME = re.compile(r"layers/\d{2,}/(cls|mean)|head|proj")
# What tells images apart without the images, for the search of leaks: written with the features,
# row by row, but no features. Both are bytes, whatever the features' dtype is.
HASH, THUMBNAIL = "rows/hash", "rows/thumbnail"
LOOKS = (HASH, THUMBNAIL)
HASH_BYTES = 16
# What a file must hold besides its arrays: attributes by type, tables by kind of number. Byte order
# is part of the kind: a flipped bit in it would change every number and no checksum.
TEXTS = ("model", "encoder", "dataset", "task", "positive_class", "command")
LISTS = ("class_names", "arrays", "splits")
OBJECTS = ("key", "notes", "versions", "tables_crc32")  # as JSON
TABLES = {
    "rows/ids": "S",
    "rows/sample": "<i8",
    "samples/ids": "S",
    "samples/split": "|u1",
    "samples/labels": "<i8",  # of regression "<f8"
    "samples/groups": "S",  # the only one that a file may lack
}


@dataclass(frozen=True)
class Samples:
    """What carries a label: an image, a volume, a patient. S samples.

    Labels and splits are the data set's own defaults; probes may lay others over them.
    """

    ids: NDArray[np.str_]  # (S,) unique
    split: NDArray[np.uint8]  # (S,) index into SPLITS
    labels: NDArray[np.int64 | np.float64]  # (S,) or (S, C), see ``check_stored_labels``
    groups: NDArray[np.str_] | None = None  # (S,) patients, where known
    meta: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # name -> (S,)


@dataclass(frozen=True)
class FileSpec:
    """All that must be known before the first row is computed. N rows."""

    model: str  # short name, as typed after --model
    encoder: str  # full name
    size: int  # side of the encoder's input, pixels; 0 of texts
    dataset: str
    task: str  # one of TASKS
    class_names: tuple[str, ...]
    key: Mapping[str, Any]
    # "layers/00/cls" -> width, in the order of the units' checksums; LOOKS last
    arrays: Mapping[str, int]
    dtype: str  # one of DTYPES
    row_ids: NDArray[np.str_]  # (N,) in id order
    row_sample: NDArray[np.int64]  # (N,) index into samples
    samples: Samples
    command: str  # the command line that makes (and finishes) this file
    positive_class: str | None = None  # binary tasks: the name of label 1
    notes: Mapping[str, Any] = field(default_factory=dict)  # transform in words, licence, marks
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Mapping[str, list[float]] = field(default_factory=dict)  # see fingerprint.py

    @property
    def n_rows(self) -> int:
        return len(self.row_ids)

    @property
    def n_units(self) -> int:
        return count_units(self.n_rows)

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Name -> what stands in each table, as it was given."""
        samples = self.samples
        tables: dict[str, NDArray[Any]] = {
            "rows/ids": self.row_ids,
            "rows/sample": self.row_sample,
            "samples/ids": samples.ids,
            "samples/split": samples.split,
            "samples/labels": samples.labels,
        }
        if samples.groups is not None:
            tables["samples/groups"] = samples.groups
        return tables | {f"samples/meta/{column}": v for column, v in samples.meta.items()}

    def __post_init__(self) -> None:
        if not self.n_rows:
            raise RequestError(f"{self.dataset} has no images, so there is nothing to extract")
        if self.dtype not in DTYPES:
            raise RequestError(f"features are stored as one of {DTYPES}, not {self.dtype}")
        if self.task not in TASKS:
            raise RequestError(f"the task must be one of {TASKS}, found {self.task!r}")
        if not 0 < len(self.arrays) < RECORD_WORDS:
            raise RequestError(
                f"a file holds 1 to {RECORD_WORDS - 1} arrays (layers x pools), asked for "
                f"{len(self.arrays)}; choose fewer with --layers"
            )
        sizes = TableSizes(self.n_rows, len(self.samples.ids), self.task, len(self.class_names))
        for name, values in self.tables.items():
            check_table(name, values, sizes)


def attributes_crc(attributes: Mapping[str, Any]) -> int:
    plain = {name: value for name, value in attributes.items() if name != "attributes_crc32"}
    return zlib.crc32(canonical_json(plain).encode())


def table_type(name: str, task: str) -> str:
    """The type of a table that every file has: TABLES', but of continuous labels float64."""
    return "<f8" if name == "samples/labels" and task == REGRESSION else TABLES[name]
