"""What must be known before a feature file's first row: its constants, its samples, its spec."""

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.key import canonical_json
from cache.format.sample_tables import TableSizes, check_table
from cache.format.units import UNIT_ROWS, count_units, fitting_rows
from cache.task import REGRESSION, TASKS

FORMAT = "medprobe-features"
POOLED_VERSION, TOKENS_VERSION = 1, 2  # format_version by what the features are
RECORD_WORDS = 1024  # uint32 words of a unit's record: one 4096-byte page
COST_BYTES = 4096
ALIGNMENT = 4096  # arrays start on a page, so a record never straddles two
# bfloat16 has no numpy type and is never stored; int8 has a scale a channel and unit: tokens alone
DTYPES, TOKEN_DTYPES = ("float16", "float32"), ("float16", "float32", "int8")
ARRAY_NAME = re.compile(r"layers/\d{2,}/(cls|mean)|head|proj")
TOKENS_NAME = re.compile(r"layers/\d{2,}/tokens")
TOKENS = "tokens"  # the pool of arrays with a grid, and the part of the key that such a file has
# Beside int8 tokens, a row a unit: what multiplies them, by channel; and what rounding did.
SCALE, ERROR = "_scale", "_error"
N_ERROR = 3  # sum of squared errors, sum of squared tokens, the largest error
# What tells images apart without the images, for the search of leaks: written with the features,
# row by row, but no features. Both are bytes, whatever the features' dtype is.
HASH, THUMBNAIL = "rows/hash", "rows/thumbnail"
LOOKS = (HASH, THUMBNAIL)
HASH_BYTES = 16
PICTURE = "rows/picture"  # what the encoder sees of a row, in colour: beside tokens
PICTURE_SHAPE = (224, 224, 3)
NO_FEATURES = (*LOOKS, PICTURE)
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
class Stored:
    """An array as it lies in a file."""

    shape: tuple[int, ...]  # first N rows, or so many units
    dtype: np.dtype[Any]


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
    # "layers/00/cls" -> width, or of tokens and pictures shape of a row, in the order of the units'
    # checksums; LOOKS and PICTURE last
    arrays: Mapping[str, int | tuple[int, ...]]
    dtype: str  # one of DTYPES, of tokens TOKEN_DTYPES
    row_ids: NDArray[np.str_]  # (N,) in id order
    row_sample: NDArray[np.int64]  # (N,) index into samples
    samples: Samples
    command: str  # the command line that makes (and finishes) this file
    positive_class: str | None = None  # binary tasks: the name of label 1
    notes: Mapping[str, Any] = field(default_factory=dict)  # transform in words, licence, marks
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Mapping[str, list[float]] = field(default_factory=dict)  # see fingerprint.py
    fixed_unit_rows: int | None = None  # of tokens that have units already; None: by their size

    @property
    def n_rows(self) -> int:
        return len(self.row_ids)

    @property
    def version(self) -> int:
        return TOKENS_VERSION if TOKENS in self.key else POOLED_VERSION

    @property
    def unit_rows(self) -> int:
        """Rows of a unit: a block's, but of tokens fewer where they are large."""
        if self.version == POOLED_VERSION:
            return UNIT_ROWS
        if self.fixed_unit_rows:
            return self.fixed_unit_rows
        sizes = {True: 0, False: 0}
        for name, dtype, shape in self._rows():
            sizes[is_by_unit(name)] += math.prod(shape) * dtype.itemsize
        # A picture counts whether or not it is kept: no key says so, and int8 is scaled by unit.
        without = 0 if PICTURE in self.arrays else math.prod(PICTURE_SHAPE)
        return fitting_rows(sizes[False] + without, sizes[True])

    @property
    def n_units(self) -> int:
        return count_units(self.n_rows, self.unit_rows)

    def _rows(self) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...]]]:
        """Name, type and shape of a row of every array, those that come with int8 among them."""
        for name, width in self.arrays.items():
            shape = width if isinstance(width, tuple) else (width,)
            yield name, array_type(name, self.dtype), shape
            if self.dtype == "int8" and name not in NO_FEATURES:
                yield name + SCALE, array_type(name + SCALE, self.dtype), shape[-1:]
                yield name + ERROR, array_type(name + ERROR, self.dtype), (N_ERROR,)

    @property
    def stored(self) -> dict[str, Stored]:
        """Every array of the file, in the order of the units' checksums."""
        first = {True: self.n_units, False: self.n_rows}
        return {
            name: Stored((first[is_by_unit(name)], *shape), dtype)
            for name, dtype, shape in self._rows()
        }

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
        dtypes = DTYPES if self.version == POOLED_VERSION else TOKEN_DTYPES
        if self.dtype not in dtypes:
            raise RequestError(f"features are stored as one of {dtypes}, not {self.dtype}")
        if self.task not in TASKS:
            raise RequestError(f"the task must be one of {TASKS}, found {self.task!r}")
        if not 0 < (n := len([*self._rows()])) < RECORD_WORDS:
            raise RequestError(
                f"a file holds 1 to {RECORD_WORDS - 1} arrays (layers x pools), asked for "
                f"{n}; choose fewer with --layers"
            )
        sizes = TableSizes(self.n_rows, len(self.samples.ids), self.task, len(self.class_names))
        for name, values in self.tables.items():
            check_table(name, values, sizes)


def attributes_crc(attributes: Mapping[str, Any]) -> int:
    plain = {name: value for name, value in attributes.items() if name != "attributes_crc32"}
    return zlib.crc32(canonical_json(plain).encode())


def is_by_unit(name: str) -> bool:
    """Whether an array has a row for each unit, not for each row of the file."""
    return name.endswith((SCALE, ERROR))


def array_type(name: str, dtype: str) -> np.dtype[Any]:
    """The type of an array in a file whose features are of ``dtype``."""
    if name in NO_FEATURES:
        return np.dtype("u1")
    if is_by_unit(name):
        return np.dtype("<f4" if name.endswith(SCALE) else "<f8")
    return np.dtype(dtype).newbyteorder("<")


def table_type(name: str, task: str) -> str:
    """The type of a table that every file has: TABLES', but of continuous labels float64."""
    return "<f8" if name == "samples/labels" and task == REGRESSION else TABLES[name]
