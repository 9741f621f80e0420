"""Writing features: whole units at known places, so that a kill costs at most the unit in work.

Order for a unit: all its rows, one ``fdatasync``, then its record (1 and the CRC-32 of every
array's rows). A unit without a record is computed again; a unit with one is whole. Rows are
written with positioned plain writes and never through a memory map: on a full disk or a truncated
file a map kills the process with SIGBUS and no message, and its dirty pages count as our memory.

Several processes may write one file: shard I of N owns the blocks of 256 rows b with b mod N == I, a
block being one unit, or of tokens several. Each holds a file lock for as long as it runs, which
the kernel frees on any death.

Long because one class holds the order of writing, which has to be read in one piece.
"""

import contextlib
import dataclasses
import errno
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache, CacheError, RequestError, StaleCache
from cache.files import sync_folder, write_all
from cache.format.arrays import Extent
from cache.format.create import create_file, table_checksums
from cache.format.fingerprint import describe_drift, describe_versions, drift, tolerance
from cache.format.key import PARTIAL, canonical_json, key_differences, partial_path
from cache.format.read import Header, parse_cost, read_header
from cache.format.rounding import round_tokens
from cache.format.spec import (
    COST_BYTES,
    ERROR,
    NO_FEATURES,
    PICTURE,
    RECORD_WORDS,
    SCALE,
    FileSpec,
    is_by_unit,
)
from cache.format.units import block_of
from cache.locks import Locks

COPY_BYTES = 1 << 24
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
SPLIT_TABLES = {"rows/sample", "samples/split", "samples/groups"}  # what leaks are counted from
FLOAT16_MAX = float(np.finfo(np.float16).max)  # 65504


class FeatureWriter:
    """Writes one shard of one feature file, from nothing or from where it stopped.

    A context manager; leaving it frees the shard's lock. Use ``todo``, ``write_unit`` for each of
    them, then ``finish``. Not for several threads at a time.

    Args:
        path: where the complete file will be; until then ``.partial`` is added.
        spec: what the file holds; an existing file must hold the same features. Ids, labels and
            splits may differ: then its tables are rewritten around them.
        shard: (I, N); this process computes the blocks b with b mod N == I.
        overwrite: throw away what is there, complete or not.

    Raises:
        Busy: another process writes this shard, or the file with another N.
        StaleCache: the stored file was made for something else, or it was begun with libraries
            that compute something else.
        BrokenCache: the unfinished file is damaged.
        RequestError: the disk has too little room, or the shard is out of range.
        OSError: the folder can't be written.
    """

    def __init__(
        self,
        path: Path,
        spec: FileSpec,
        *,
        shard: tuple[int, int] = (0, 1),
        overwrite: bool = False,
    ) -> None:
        index, count = shard
        if not 0 <= index < count:
            raise RequestError(f"--shard I/N needs 0 <= I < N, found {index}/{count}")
        self.path = path
        self.partial_path = partial_path(path)
        self.spec = spec
        self.shard = shard
        self.was_complete = False
        self.bad_units: list[int] = []  # had a record, but not the rows it promised
        # Table -> how it changed; rewritten, with every feature kept.
        self.changed_tables: dict[str, str] = {}
        self._file: Any = None
        self._locks = Locks(path)
        if overwrite and count > 1:
            raise RequestError(
                "--overwrite with several shards would let one delete the rows of another; "
                "remove the file once with `cache rm FILE`, then start the shards"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locks.gate():
                self._locks.take_shard(index, count)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            if not overwrite and self._is_whole():
                return
            raise RequestError(
                f"can't write to {path.parent} ({error.strerror}); choose another place with "
                "--features DIR"
            ) from error
        try:
            self._join(overwrite)
        except BaseException:
            self.close()
            raise

    def _is_whole(self) -> bool:
        """Whether the file is complete, right and up to date: then no lock is needed."""
        if not self.path.exists():
            return False
        self.header = read_header(self.path)
        self._check_same(self.header)
        if changed_tables(self.header, self.spec):
            return False
        with self.path.open("rb", buffering=0) as file:
            self.was_complete = not self._wrong_units(file)
        return self.was_complete

    def _wrong_units(self, file: Any) -> list[int]:
        """The units of a file by its final name that aren't done, or aren't what they were."""
        done = done_units(file, self.header)
        missing = {*range(self.header.n_units)} - {*done}
        return sorted({*missing, *(u for u in done if bad_arrays(file, self.header, u))})

    def _join(self, overwrite: bool) -> None:
        """Find, mend or create the file."""
        with self._locks.gate():
            if overwrite:
                self.path.unlink(missing_ok=True)
                self.partial_path.unlink(missing_ok=True)
            if not self.path.exists() and not self.partial_path.exists():
                making = self.path.with_name(self.path.name + ".new")
                making.unlink(missing_ok=True)  # left by a kill in create_file; we hold the gate
                create_file(making, self.spec)
                making.replace(self.partial_path)
                sync_folder(self.path.parent)
            # Opened with the gate held: no other shard renames the file between look and open.
            complete = self.path.exists()
            there = self.path if complete else self.partial_path
            self.header = read_header(there)
            self._check_same(self.header)
            self.changed_tables = changed_tables(self.header, self.spec)
            if self.changed_tables:
                self._rewrite_tables(there)
            self._file = there.open("rb" if complete else "r+b", buffering=0)
        if complete:
            self.bad_units = self._wrong_units(self._file)
            self._file.close()
            self.was_complete = not self.bad_units
        else:
            mine = filter(self._owns, done_units(self._file, self.header))
            self.bad_units = [u for u in mine if bad_arrays(self._file, self.header, u)]
        self.check_fingerprint(self.spec.fingerprint)
        if self.bad_units:
            self._take_back(reopen=complete)

    def _take_back(self, *, reopen: bool) -> None:
        """Before damaged units are mended: neither they nor the file may pass for done."""
        with self._locks.gate():
            # A shard that was quicker may have finished the file while its units were compared.
            if self.path.exists():
                self.path.replace(self.partial_path)
                sync_folder(self.path.parent)
            if reopen:
                self._file = self.partial_path.open("r+b", buffering=0)
            blank = np.zeros(RECORD_WORDS, "<u4")
            for unit in filter(self._owns, self.bad_units):
                self._write_at(_record_offset(self.header, unit), blank)
            _sync(self._file)

    def _check_same(self, header: Header) -> None:
        spec = self.spec
        differences = key_differences(header.key, json.loads(canonical_json(spec.key)))
        # Files without looks or pictures, and those with pictures, are finished as they were begun.
        there = header.attributes["arrays"]
        wanted = [name for name in spec.stored if name in there or name not in NO_FEATURES]
        wanted += [PICTURE] if PICTURE in there and PICTURE not in wanted else []
        if there != wanted:
            differences.append(f"arrays: {there} -> {list(spec.stored)}")
        if header.n_rows != spec.n_rows:
            differences.append(f"rows: {header.n_rows} -> {spec.n_rows}")
        if differences:
            raise StaleCache(
                f"{header.path} was made for something else ({'; '.join(differences[:4])}); "
                "make it anew with --overwrite, or give another folder with --features DIR"
            )

    def _rewrite_tables(self, there: Path) -> None:
        """Other ids, labels or splits of the same images: a new envelope around the old rows.

        The key holds the images in their order and nothing of this, so no feature changes. The
        new file takes the old one's place at once; who reads the old one keeps reading it.
        """
        if self.shard[1] > 1:
            raise StaleCache(
                f"{there} has other tables ({', '.join(self.changed_tables)}), and several shards "
                "can't rewrite it at once; run the command once without --shard and torchrun"
            )
        old = self.header
        spec = dataclasses.replace(
            self.spec,
            arrays=old.row_shapes,
            fixed_unit_rows=old.unit_rows,
            fingerprint=old.fingerprint,
            versions=json.loads(old.attributes["versions"]),
        )
        making = self.path.with_name(self.path.name + ".new")
        making.unlink(missing_ok=True)
        create_file(making, spec)
        try:
            self._copy_rows(there, making)
        except BaseException:
            making.unlink(missing_ok=True)
            raise
        making.replace(there)
        sync_folder(there.parent)
        self.header = read_header(there)

    def _copy_rows(self, there: Path, making: Path) -> None:
        """All but the tables, from the old file to the new one."""
        old, new = self.header, read_header(making)
        pairs = [(old.arrays[name], new.arrays[name]) for name in old.arrays]
        pairs += [(old.units, new.units), (old.cost, new.cost)]
        with there.open("rb") as source, making.open("r+b", buffering=0) as target:
            for at, to in pairs:
                target.seek(to.offset)
                for start in range(at.offset, at.end, COPY_BYTES):
                    n_bytes = min(COPY_BYTES, at.end - start)
                    write_all(target, _read_at(source, start, n_bytes))
            if SPLIT_TABLES & {*self.changed_tables}:
                target.seek(new.cost.offset)
                cost = _read_at(source, old.cost.offset, COST_BYTES)
                write_all(target, _without_leaks(cost))
            os.fsync(target.fileno())

    def check_fingerprint(self, fingerprint: Mapping[str, Sequence[float]]) -> None:
        """Refuse to add rows that other libraries, or changed weights, would make.

        Called on opening with the spec's fingerprint; call it again where that was empty, since
        the encoder wasn't loaded yet.

        Args:
            fingerprint: of the encoder as it computes now. Nothing is compared where this one or
                the stored one is empty, or where the file is complete.

        Raises:
            StaleCache: the same key made other numbers when the file was begun.
        """
        moved = drift(self.header.fingerprint, fingerprint)
        allowed = tolerance(self.header.key)
        if self.was_complete or not moved or max(moved.values()) <= allowed:
            return
        begun_with = json.loads(self.header.attributes["versions"])
        raise StaleCache(
            f"{self.path.name} was begun with the same key, but other numbers: "
            f"{describe_drift(moved, allowed)}; {describe_versions(begun_with, self.spec.versions)}"
            "; --overwrite starts anew, or install the versions the file was begun with"
        )

    def _owns(self, unit: int) -> bool:
        index, count = self.shard
        return block_of(unit, self.header.unit_rows) % count == index

    @property
    def todo(self) -> list[int]:
        """This shard's units that have no record yet, in order.

        Batches are cut from the beginning of a block, so that a resumed file equals one that wasn't:
        of a block some of whose units are done, those that touch the missing ones are run again.
        """
        if self.was_complete:
            return []
        done = {*done_units(self._file, self.header)}
        return [u for u in range(self.header.n_units) if u not in done and self._owns(u)]

    def whole(self) -> Header | None:
        """The file as it can be read now, where every unit of every shard is done; else None."""
        if self.was_complete or len(done_units(self._file, self.header)) < self.header.n_units:
            return None
        for path in (self.partial_path, self.path):  # another shard may just have finished it
            with contextlib.suppress(FileNotFoundError):
                return read_header(path)
        return None

    def write_unit(self, unit: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store a unit's rows, then its record.

        Args:
            unit: index of the unit.
            arrays: name -> (rows of the unit, D) float, of tokens (rows, h, w, D), of looks and
                pictures uint8; those of ``header.arrays``. int8 is made here, with its scales.

        Raises:
            RequestError: a value is NaN or infinite, or doesn't survive the cast.
            CacheError: the file was deleted or replaced while being written.
            OSError: the disk failed.
        """
        stored: dict[str, NDArray[Any]] = {}
        for name, extent in self.header.arrays.items():
            if not is_by_unit(name):
                stored |= self._stored(name, extent, arrays[name], unit)
        self.write_stored(unit, stored)

    def write_stored(self, unit: int, stored: Mapping[str, NDArray[Any]]) -> None:
        """As ``write_unit``, of what has its form on disk already, as in another file.

        Args:
            unit: index of the unit.
            stored: of every array of ``header.arrays`` its part.
        """
        record = np.zeros(RECORD_WORDS, "<u4")
        for name, extent in self.header.arrays.items():
            rows = stored[name]
            first = self.header.part(extent, unit).start
            self._write_at(extent.offset + first * extent.row_bytes, rows)
            record[self.header.word(name)] = zlib.crc32(rows.data)
        _sync(self._file)
        record[0] = 1
        self._write_at(_record_offset(self.header, unit), record)
        self._check_still_there()

    def _stored(
        self, name: str, extent: Extent, values: NDArray[Any], unit: int
    ) -> dict[str, NDArray[Any]]:
        """The rows as they will lie on disk; of int8 tokens their scales and error, too."""
        start, stop = self.header.rows_of(unit)
        expected = (stop - start, *extent.shape[1:])
        if values.shape != expected:
            raise ValueError(f"{name}: expected rows of shape {expected}, found {values.shape}")
        if name in NO_FEATURES:
            return {name: np.ascontiguousarray(values, dtype=extent.dtype)}
        check_storable(name, values, extent.dtype.name)
        if extent.dtype != np.int8:
            return {name: np.ascontiguousarray(values, dtype=extent.dtype)}
        rounded = round_tokens(values)
        return {
            name: rounded.tokens,
            name + SCALE: rounded.scale[None],
            name + ERROR: rounded.error[None],
        }

    def _write_at(self, offset: int, values: NDArray[Any]) -> None:
        self._file.seek(offset)
        write_all(self._file, values.data)

    def _check_still_there(self) -> None:
        ours = os.fstat(self._file.fileno())
        # Under its final name too: another shard may have seen our last record before this look.
        for path in (self.partial_path, self.path):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), ours):
                    return
        raise CacheError(
            f"{self.partial_path} was deleted or replaced while being written; "
            f"run again to make it anew:\n  {self.spec.command}"
        )

    def agree(self, cost: Mapping[str, Any]) -> Mapping[str, Any]:
        """What every run and every shard of this file must have alike: the first one's word counts.

        Args:
            cost: what this run would have it be, a part of what ``finish`` gets.

        Returns:
            The same parts, as the file's first run had them.
        """
        with self._locks.gate():
            self._check_still_there()
            stored = self._read_cost()
            agreed = {**cost, **{name: stored[name] for name in cost if name in stored}}
            if agreed != {name: stored.get(name) for name in cost}:
                self._write_cost({**stored, **agreed})
        return agreed

    def _read_cost(self) -> dict[str, Any]:
        raw = _read_at(self._file, self.header.cost.offset, COST_BYTES)
        return parse_cost(raw, self.partial_path, self.header.cure)

    def _write_cost(self, cost: Mapping[str, Any]) -> None:
        text = canonical_json(cost).encode()[:COST_BYTES].ljust(COST_BYTES)
        self._write_at(self.header.cost.offset, np.frombuffer(text, np.uint8))
        os.fsync(self._file.fileno())

    def finish(self, cost: Mapping[str, Any]) -> bool:
        """Give the file its final name if every unit of every shard is done.

        Args:
            cost: what it took (images/s, device...), stored as JSON.

        Returns:
            Whether the file is complete; if not, another shard will finish it.
        """
        if self.was_complete:
            return True
        with self._locks.gate():
            self._check_still_there()
            if not self.partial_path.exists():
                return True  # another shard was the last
            if len(done_units(self._file, self.header)) < self.header.n_units:
                return False
            agreed = {name: v for name, v in self._read_cost().items() if name != "leaks"}
            self._write_cost({**agreed, **cost})
            self._file.close()  # Windows renames no open file
            self.partial_path.replace(self.path)
            sync_folder(self.path.parent)
        return True

    def close(self) -> None:
        """Free the file and the lock; what is written stays for the next run."""
        if self._file is not None:
            self._file.close()
        self._locks.release()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self._drop_if_empty()
        self.close()

    def _drop_if_empty(self) -> None:
        """After a failure before the first unit, give the reserved bytes back."""
        if self._file is None or self._file.closed or self.shard[1] > 1:
            return
        with contextlib.suppress(OSError, CacheError), self._locks.gate():
            if not done_units(self._file, self.header):
                self._check_still_there()
                self.partial_path.unlink()


def check_storable(name: str, values: NDArray[Any], dtype: str) -> None:
    """Refuse values that a file of this dtype can't hold.

    Args:
        name: the array, for the message.
        values: (n, D) float, or of tokens (n, h, w, D).
        dtype: "float16", "float32" or "int8".

    Raises:
        RequestError: NaN or infinity (the encoder made it) or, for float16, |x| > 65504.
    """
    if not np.isfinite(values).all():
        kind = "NaN" if np.isnan(values).any() else "infinity"
        raise RequestError(
            f"the encoder's output {name} holds {kind}; its arithmetic overflowed: use "
            "--precision fp32 (if it is fp32 already, the weights or the images are at fault)"
        )
    if dtype == "float16":
        largest = float(np.abs(values).max(initial=0.0))
        # The cast rounds to nearest: up to 65519.99 still becomes 65504, beyond it infinity.
        if largest > FLOAT16_MAX:
            raise RequestError(
                f"{name} reaches {largest:.0f}, and float16 ends at {FLOAT16_MAX:.0f}; "
                "store wider with --store float32, or leave the layer out with --layers"
            )


# ---------------------------------------------------------------------------- checking


def done_units(file: Any, header: Header) -> list[int]:
    """The units that have a record now, other processes' units included."""
    extent = header.units
    raw = _read_at(file, extent.offset, extent.end - extent.offset)
    words = np.frombuffer(raw, "<u4").reshape(extent.shape)[:, 0]
    return np.flatnonzero(words == 1).tolist()


def bad_arrays(file: Any, header: Header, unit: int) -> list[str]:
    """The arrays of a unit that is done whose rows don't match its record."""
    offset = _record_offset(header, unit)
    record = np.frombuffer(_read_at(file, offset, RECORD_WORDS * 4), "<u4")
    bad = []
    for name, extent in {**header.arrays, **header.others}.items():
        part = header.part(extent, unit)
        n_bytes = (part.stop - part.start) * extent.row_bytes
        rows = _read_at(file, extent.offset + part.start * extent.row_bytes, n_bytes)
        if zlib.crc32(rows) != record[header.word(name)]:
            bad.append(name)
    return bad


def delete_file(path: Path) -> None:
    """Delete a feature file, complete or not, unless a process is writing it.

    Raises:
        Busy: a process is writing it.
    """
    final = path.with_name(path.name.removesuffix(PARTIAL))
    locks = Locks(final)
    with locks.gate():
        locks.refuse_if_any_held()
        path.unlink()
        locks.remove_shard_files()


def changed_tables(header: Header, spec: FileSpec) -> dict[str, str]:
    """What differs of ids, labels, splits and their names, and how: the key doesn't hold them."""
    old, new = header.tables, table_checksums(spec)
    changed = {
        name: "added" if name not in old else "removed" if name not in new else "changed"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    said = {
        "positive_class": spec.positive_class or "",
        "class_names": spec.class_names,
        "task": spec.task,
    }
    for name, value in said.items():
        before, after = _words(header.attributes[name]), _words(value)
        if before != after:
            changed[name.replace("_", " ")] = f"{before or 'none'} -> {after or 'none'}"
    return changed


def _words(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _without_leaks(cost: bytes) -> bytes:
    """A cost whose count of leaks, if it has one, was of another split."""
    try:
        said = json.loads(cost.rstrip(b" \0") or b"{}")
        said.pop("leaks", None)
    except (ValueError, AttributeError):  # it has no checksum; who reads it says so
        return cost
    return canonical_json(said).encode().ljust(COST_BYTES)


def _record_offset(header: Header, unit: int) -> int:
    return header.units.offset + unit * RECORD_WORDS * 4


def _read_at(file: Any, offset: int, n_bytes: int) -> bytes:
    file.seek(offset)
    chunks = []
    while n_bytes:
        chunk = file.read(n_bytes)
        if not chunk:
            raise BrokenCache(f"{file.name} ends early; delete it and run extract again")
        chunks.append(chunk)
        n_bytes -= len(chunk)
    return b"".join(chunks)


def _sync(file: Any) -> None:
    getattr(os, "fdatasync", os.fsync)(file.fileno())


# ---------------------------------------------------------------------------- locks
