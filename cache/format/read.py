"""The layout of a feature file: how it is created whole, and how its header is read back.

HDF5 is the envelope: any HDF5 tool can open the file. Its arrays are contiguous and allocated
early, so every one of them is a plain run of bytes at a known offset. The HDF5 library writes the
file once, before the first row, and never again; rows go in by positioned writes (``store``) and
come out as memory maps (``features``). FORMAT.md says the same for other programs.
"""

import contextlib
import json
import os
import shlex
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache, CacheError, RequestError
from cache.files import no_file, open_regular
from cache.format.arrays import UNIT_SIZES, Extent, is_known, misplaced, misshapen
from cache.format.fingerprint import is_fingerprint
from cache.format.key import canonical_json, key_digest
from cache.format.sample_tables import SPLITS, TableSizes, check_table
from cache.format.spec import (
    COST_BYTES,
    FORMAT,
    LISTS,
    NO_FEATURES,
    OBJECTS,
    POOLED_VERSION,
    RECORD_WORDS,
    TABLES,
    TEXTS,
    TOKENS,
    TOKENS_VERSION,
    attributes_crc,
    is_by_unit,
    table_type,
)
from cache.format.units import UNIT_ROWS, count_units, unit_rows
from cache.task import MULTI_CLASS, MULTI_LABEL, TASKS

MAX_THREADS = 1024


@dataclass(frozen=True)
class Header:
    """A feature file's description of itself, checked; no feature has been read yet."""

    path: Path
    attributes: Mapping[str, Any]
    key: Mapping[str, Any]
    arrays: Mapping[str, Extent]  # features and looks that we know, in the order of the checksums
    tables: Mapping[str, int]  # name -> CRC-32
    units: Extent
    cost: Extent
    n_rows: int
    n_samples: int
    fingerprint: Mapping[str, list[float]]  # empty in files that have none
    identity: tuple[int, int] = (0, 0)  # of the very file that was read: device and inode
    others: Mapping[str, Extent] = field(default_factory=dict)  # of a later writer: by row or unit

    @property
    def unit_rows(self) -> int:
        """Rows of a unit: a part of a block of 256, or all of it."""
        return self.attributes.get("unit_rows", UNIT_ROWS)

    @property
    def n_units(self) -> int:
        return count_units(self.n_rows, self.unit_rows)

    @property
    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every array that has one, the shape of a row, as ``FileSpec.arrays`` takes them."""
        return {n: at.shape[1:] for n, at in self.arrays.items() if not is_by_unit(n)}

    def rows_of(self, unit: int) -> tuple[int, int]:
        """First row of a unit and the row behind its last."""
        return unit_rows(unit, self.n_rows, self.unit_rows)

    def word(self, name: str) -> int:
        """The place of an array's checksum in the record of a unit."""
        return 1 + self.attributes["arrays"].index(name)

    def part(self, extent: Extent, unit: int) -> slice:
        """The rows of an array that are a unit's: of one that has a row a unit, this row."""
        by_unit = extent.shape[0] != self.n_rows
        return slice(*((unit, unit + 1) if by_unit else self.rows_of(unit)))

    @property
    def command(self) -> list[str]:
        """The words of the command that makes this file.

        Whoever wrote the file may have put anything there: what isn't one of medprobe's commands
        gives way to the usual one for this encoder and data set.
        """
        try:
            words = shlex.split(self.attributes["command"])
        except ValueError:
            words = []
        if words[:1] in (["extract"], ["cache"], ["finetune"]):
            return words
        usual = ["extract", *(["--text"] if self.is_text else [])]
        if self.is_tokens:
            usual += ["--tokens", ",".join(map(str, self.key["layers"]["stored"]))]
        return [*usual, "--model", self.attributes["model"], "--data", self.attributes["dataset"]]

    @property
    def cure(self) -> str:
        """The command that makes this file, each word quoted: a shell runs nothing but that."""
        return shlex.join(self.command)

    def damage(self, what: str, cure: str) -> CacheError:
        """The error to raise where stored bytes aren't those that were written.

        Args:
            what: is wrong, e.g. "units doesn't match its checksum".
            cure: what the file's own command does about it.
        """
        if _identity(self.path) != self.identity:  # labels that changed make a new file
            return self._replaced()
        return BrokenCache(f"{self.path} is damaged: {what}; {cure}:\n  {self.cure}")

    def refuse_replaced(self, file: IO[bytes]) -> None:
        """Refuse to read on where another file has taken this one's name, its arrays elsewhere.

        Labels that changed make such a file, and a map of it has no checksum that would tell.

        Args:
            file: what was opened by this name now.

        Raises:
            CacheError: it was replaced.
        """
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) == self.identity:
            return
        now = read_header(self.path)  # a copy of the same file, or a drive that numbers files anew
        places = [(h.digest, h.arrays, h.units, h.cost) for h in (now, self)]
        if places[0] != places[1]:
            raise self._replaced()

    def _replaced(self) -> CacheError:
        return CacheError(f"{self.path} was replaced while it was read; run the command again")

    @property
    def digest(self) -> str:
        return key_digest(self.key)

    @property
    def is_text(self) -> bool:
        """Whether the rows are prompts, not images."""
        return "text" in self.key

    @property
    def is_part(self) -> bool:
        """Whether it holds some images of its data set alone."""
        return "rows" in self.key

    @property
    def is_tokens(self) -> bool:
        """Whether the features are patch tokens, not pooled ones."""
        return TOKENS in self.key


# ---------------------------------------------------------------------------- creating


def parse_cost(raw: bytes, path: Path, cure: str) -> dict[str, Any]:
    """What an extraction took; of a file that isn't complete, what its runs agreed on.

    Args:
        raw: as it is stored, without a checksum.
        path: of the file.
        cure: the command that makes it.

    Raises:
        BrokenCache: it isn't JSON, or no machine has so many threads.
    """
    try:
        cost = dict(json.loads(raw.rstrip(b" \0") or b"{}"))
        threads = cost.get("threads", 1)
        if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"{threads!r} threads")
        return cost
    except (ValueError, TypeError) as error:
        raise BrokenCache(
            f"{path} is damaged: its cost isn't readable; delete it and run\n  {cure}"
        ) from error


# ---------------------------------------------------------------------------- reading


@contextlib.contextmanager
def open_hdf5(
    path: Path, what: str = "feature", cure: str = "or add --overwrite to its extract command"
) -> Iterator[h5py.File]:
    """The file opened for reading; whatever HDF5 stumbles over becomes a BrokenCache.

    Args:
        path: of the file.
        what: it should be, and ``cure``, how another is made, once it is deleted; for messages.

    Raises:
        BrokenCache: not an HDF5 file, or a damaged one; a pipe, a folder, a link to nothing.
        OSError: missing, or not readable by us.
    """
    if os.path.lexists(path) and not path.is_file():
        raise BrokenCache(f"{no_file(path)}; delete or rename it")
    with open_regular(path):  # HDF5 words a missing or forbidden file badly, and waits for a pipe
        pass
    try:
        # No HDF5 locks: they fail on network file systems, and nobody writes through HDF5.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip("'\"").splitlines()
        raise BrokenCache(
            f"{path} is not a readable {what} file ({reason[0] if reason else error!r}); "
            f"if it should be one, make it anew: delete it, {cure}"
        ) from error


def read_header(path: Path) -> Header:
    """Read and check a feature file's description of itself.

    Raises:
        BrokenCache: not a feature file, another format version, damaged or truncated.
    """
    with open_hdf5(path) as file:
        header = _read_header(path, file)
    arrays = [*header.arrays.values(), *header.others.values()]
    end = max(extent.end for extent in [*arrays, header.units, header.cost])
    size = path.stat().st_size
    if size < end:
        raise BrokenCache(
            f"{path} is truncated: expected {end:_} bytes, found {size:_}; delete it and run\n"
            f"  {header.cure}"
        )
    return header


def _read_header(path: Path, file: h5py.File) -> Header:
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    if attributes.get("format") != FORMAT:
        raise BrokenCache(
            f"{path} is an HDF5 file, but no feature file: its attribute 'format' should be "
            f"{FORMAT!r}, found {attributes.get('format')!r}"
        )
    version = attributes.get("format_version")
    if version not in (POOLED_VERSION, TOKENS_VERSION):
        raise BrokenCache(
            f"{path} has format version {version}, this medprobe reads {POOLED_VERSION} and "
            f"{TOKENS_VERSION}; update medprobe, or extract again"
        )
    if attributes.get("attributes_crc32") != attributes_crc(attributes):
        raise BrokenCache(
            f"{path} is damaged: its attributes don't match their checksum; delete it and run "
            "extract again"
        )
    wrong = [name for name in (*TEXTS, *OBJECTS) if not isinstance(attributes.get(name), str)]
    wrong += [name for name in LISTS if not isinstance(attributes.get(name), list)]
    wrong += [] if isinstance(attributes.get("size"), int) else ["size"]
    wrong += [] if attributes.get("task") in TASKS else ["task"]
    wrong += [] if attributes.get("splits") == [*SPLITS] else ["splits"]
    sizes = [UNIT_ROWS] if version == POOLED_VERSION else UNIT_SIZES
    given = attributes.get("unit_rows", UNIT_ROWS if version == POOLED_VERSION else None)
    wrong += [] if type(given) is int and given in sizes else ["unit_rows"]
    if not isinstance(attributes.get("fingerprint", ""), str):
        wrong.append("fingerprint")
    _refuse(path, wrong, "as FORMAT.md has it")
    objects = {name: json.loads(attributes[name]) for name in OBJECTS}
    wrong = [name for name, value in objects.items() if not isinstance(value, dict)]
    _refuse(path, wrong, "a JSON object")
    key, tables = objects["key"], objects["tables_crc32"]
    if not isinstance(key.get("layers"), dict) or not isinstance(key["layers"].get("of"), int):
        _refuse(path, ["key"], "with the number of layers as layers.of")
    canonical_json(key)  # raises where it holds NaN, which has no digest
    _refuse(path, _misfits(attributes, key), f"as a file of {_content(key)} has it")
    fingerprint = json.loads(attributes.get("fingerprint", "{}"))
    if not is_fingerprint(fingerprint, attributes["arrays"]):
        _refuse(path, ["fingerprint"], "as FORMAT.md has it")

    missing = TABLES.keys() - tables.keys() - {"samples/groups"}
    _refuse(path, sorted(missing), "among the tables")
    n_rows = own_dataset(file, "rows/sample").shape[0]
    n_samples = own_dataset(file, "samples/split").shape[0]
    n_units = count_units(n_rows, given)
    extents = {name: _extent(file, name) for name in attributes["arrays"]}
    arrays = {name: at for name, at in extents.items() if is_known(name, TOKENS in key)}
    others = {name: at for name, at in extents.items() if name not in arrays}
    units, cost = _extent(file, "units"), _extent(file, "cost")
    wrong = misshapen(arrays, n_rows, n_units, key)
    for name in tables:
        table = own_dataset(file, name)
        kind = "S" if table.dtype.kind == "S" else table.dtype.str
        is_right = table.shape[:1] == (n_rows if name.startswith("rows/") else n_samples,)
        is_right &= name not in TABLES or kind == table_type(name, attributes["task"])
        several = name == "samples/labels" and attributes["task"] == MULTI_LABEL
        wrong += [] if is_right and table.ndim == 1 + several else [name]
    right = {
        "units": units.shape == (n_units, RECORD_WORDS) and units.dtype == "<u4",
        "cost": cost.shape == () and cost.dtype.itemsize == COST_BYTES,
        # An encoder without layers is none: tables and looks of images that are trained on.
        "arrays": len({*arrays} - {*NO_FEATURES}) >= min(key["layers"]["of"], 1)
        and 0 < len(extents) == len(attributes["arrays"]) < RECORD_WORDS,  # none twice
        "rows and samples": n_rows and n_samples,
    }
    wrong += [name for name, is_right in right.items() if not is_right]
    _refuse(path, wrong, f"of the shape and type that {n_rows} rows need")
    placed = [*misplaced({**extents, "units": units, "cost": cost})]
    _refuse(path, placed, "in a place of its own")
    return Header(
        path,
        attributes,
        key,
        arrays,
        tables,
        units,
        cost,
        n_rows,
        n_samples,
        fingerprint,
        _identity(path),
        {name: at for name, at in others.items() if at.shape[:1] in ((n_rows,), (n_units,))},
    )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _misfits(attributes: Mapping[str, Any], key: Mapping[str, Any]) -> list[str]:
    """What a file of images, or one of texts, can't have."""
    if (TOKENS in key) != (attributes["format_version"] == TOKENS_VERSION):
        return ["key"]
    if TOKENS in key and not isinstance(key[TOKENS], dict):
        return ["key"]
    if "text" not in key:
        return [] if attributes["size"] > 0 else ["size"]
    right = {
        "key": isinstance(key["text"], dict),
        "size": attributes["size"] == 0,  # texts have no pixels
        "arrays": attributes["arrays"] == ["proj"],
        "task": attributes["task"] == MULTI_CLASS,
    }
    return [name for name, is_right in right.items() if not is_right]


def _content(key: Mapping[str, Any]) -> str:
    return "texts" if "text" in key else "images"


def _refuse(path: Path, wrong: list[str], expected: str) -> None:
    if wrong:
        raise BrokenCache(
            f"{path} is damaged: {', '.join(wrong[:3])} should be {expected}; delete it and run "
            "extract again"
        )


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that lies in this very file: no soft or external link leads to another."""
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:depth]), getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise BrokenCache(
                f"{file.filename}: {name} is missing or a link to elsewhere, which a feature "
                "file never has; don't use it"
            )
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise BrokenCache(f"{file.filename}: {name} should be an array, found {dataset!r}")
    creation = dataset.id.get_create_plist()
    if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count():
        raise BrokenCache(f"{file.filename}: {name} isn't stored contiguously in this file")
    # A wrong shape must not become a request for all the memory there is.
    if dataset.size * dataset.dtype.itemsize != dataset.id.get_storage_size():
        raise BrokenCache(f"{file.filename}: {name} isn't as long as its shape says")
    return dataset


def _extent(file: h5py.File, name: str) -> Extent:
    dataset = own_dataset(file, name)
    offset = dataset.id.get_offset()
    if offset is None:
        raise BrokenCache(f"{file.filename}: {name} has no place in the file")
    return Extent(offset, dataset.shape, dataset.dtype)


def read_table(header: Header, name: str) -> NDArray[Any]:
    """One of the small tables, its checksum checked; strings come as ``str``.

    Raises:
        BrokenCache: the table doesn't match its checksum, or holds what no table can.
    """
    with open_hdf5(header.path) as file:
        raw = np.ascontiguousarray(own_dataset(file, name)[()])
    if zlib.crc32(raw.tobytes()) != header.tables[name]:
        raise header.damage(f"{name} doesn't match its checksum", "delete it and run")
    attributes = header.attributes
    n_classes = len(attributes["class_names"])
    sizes = TableSizes(header.n_rows, header.n_samples, attributes["task"], n_classes)
    try:
        values = np.char.decode(raw, "utf-8") if raw.dtype.kind == "S" else raw
        check_table(name, values, sizes)
    except UnicodeDecodeError as error:
        raise header.damage(f"{name} holds a text that isn't UTF-8", "delete it and run") from error
    except RequestError as error:
        raise header.damage(str(error), "delete it and run") from error
    return values


def _plain(value: Any) -> Any:
    """An attribute as Python made it."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    return value.decode() if isinstance(value, bytes) else value
