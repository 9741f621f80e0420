"""A feature file, created whole: written once by the HDF5 library, before the first row."""

import errno
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.commands.names import format_bytes
from cache.errors import RequestError
from cache.files import sync_folder
from cache.format.key import canonical_json
from cache.format.read import read_header
from cache.format.sample_tables import SPLITS
from cache.format.spec import (
    ALIGNMENT,
    COST_BYTES,
    FORMAT,
    POOLED_VERSION,
    RECORD_WORDS,
    TABLES,
    FileSpec,
    attributes_crc,
    table_type,
)


def create_file(path: Path, spec: FileSpec) -> None:
    """Write the whole envelope to ``path`` and reserve every byte of it.

    Args:
        path: must not exist; on any failure it doesn't exist afterwards either.
        spec: what the file will hold.

    Raises:
        RequestError: the disk has too little room.
        OSError: the folder can't be written.
    """
    try:
        _write_envelope(path, spec)
        _reserve(path, "--layers" if spec.version == POOLED_VERSION else "--tokens")
    except (OSError, RuntimeError) as error:  # h5py tells a full disk in several lines, or so
        path.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise OSError(f"can't create {path}: {reason}; is the disk full?") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write_envelope(path: Path, spec: FileSpec) -> None:
    with h5py.File(
        path,
        "x",
        # Since 1.10 HDF5's own structures carry checksums. In older ones a single flipped bit can
        # send the library round in circles, or turn every number's bytes around (both were seen).
        libver=("v110", "v110"),
        alignment_threshold=1,
        alignment_interval=ALIGNMENT,
        locking=False,
    ) as file:
        for name, raw in _raw_tables(spec).items():
            if raw.dtype.kind == "S":
                raw = raw.astype(h5py.string_dtype("utf-8", raw.dtype.itemsize))
            file.create_dataset(name, data=raw)
        for name, array in spec.stored.items():
            _reserve_array(file, name, array.shape, array.dtype)
        _reserve_array(file, "units", (spec.n_units, RECORD_WORDS), np.dtype("<u4"))
        _reserve_array(file, "cost", (), np.dtype(f"S{COST_BYTES}"))
        attributes = _attributes(spec)
        attributes["tables_crc32"] = canonical_json(table_checksums(spec))
        attributes["attributes_crc32"] = attributes_crc(attributes)
        for name, value in attributes.items():
            _write_attribute(file, name, value)


def _write_attribute(file: h5py.File, name: str, value: Any) -> None:
    """Store a number, a text or a list of texts; texts at one length each, as UTF-8."""
    if isinstance(value, int):
        file.attrs[name] = value
        return
    # Not of variable length: those lie in a heap that has no checksum, even in HDF5 1.10.
    texts = np.array([text.encode() for text in ([value] if isinstance(value, str) else value)])
    length = max(map(len, texts), default=0) or 1
    data = texts.astype(f"S{length}")
    stored = h5py.string_dtype("utf-8", length)
    if isinstance(value, str):
        file.attrs.create(name, data[0], dtype=stored)
    else:
        file.attrs.create(name, data, shape=data.shape, dtype=stored)


def _attributes(spec: FileSpec) -> dict[str, Any]:
    attributes = {
        "format": FORMAT,
        "format_version": spec.version,
        "model": spec.model,
        "encoder": spec.encoder,
        "size": spec.size,
        "dataset": spec.dataset,
        "task": spec.task,
        "class_names": list(spec.class_names),
        "positive_class": spec.positive_class or "",
        "key": canonical_json(spec.key),
        "arrays": list(spec.stored),
        "splits": list(SPLITS),
        "command": spec.command,
        "notes": canonical_json(spec.notes),
        "versions": canonical_json(spec.versions),
    }
    if spec.version > POOLED_VERSION:
        attributes["unit_rows"] = spec.unit_rows
    if spec.fingerprint:
        attributes["fingerprint"] = canonical_json(spec.fingerprint)
    return {name: _as_utf8(value) for name, value in attributes.items()}


def _as_utf8(value: Any) -> Any:
    """Texts without what UTF-8 can't say: the surrogates of a path that isn't valid UTF-8."""
    if isinstance(value, list):
        return [_as_utf8(item) for item in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _raw_tables(spec: FileSpec) -> dict[str, NDArray[Any]]:
    """The tables as their bytes lie in the file: numbers of FORMAT.md's types, UTF-8 of one length."""
    types = {name: table_type(name, spec.task) for name in TABLES if TABLES[name] != "S"}
    return {
        name: np.ascontiguousarray(
            np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values, types.get(name)
        )
        for name, values in spec.tables.items()
    }


def table_checksums(spec: FileSpec) -> dict[str, int]:
    """CRC-32 of the bytes of every sample table."""
    return {name: zlib.crc32(raw.tobytes()) for name, raw in _raw_tables(spec).items()}


def _reserve_array(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Give an array its place in the file without writing to it."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    # Late allocation, the default, would leave get_offset() None until HDF5 itself writes.
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    h5py.h5d.create(
        file.id,
        name.encode(),
        h5py.h5t.py_create(dtype, logical=True),
        h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR),
        dcpl=creation,
        lcpl=links,
    )


def _reserve(path: Path, flag: str) -> None:
    """Make the file's whole length real, so that no later write can find the disk full.

    Args:
        path: of the file.
        flag: which chooses its layers.
    """
    size = path.stat().st_size
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not _fallocate(descriptor, size):
            _write_zeros(path)
        os.fsync(descriptor)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise RequestError(
            f"can't reserve {format_bytes(size)} for {path.name} in {path.parent} "
            f"({format_bytes(free)} free): {error.strerror}; free some space, or choose another "
            f"place with --features DIR, or fewer layers with {flag}"
        ) from error
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def _fallocate(descriptor: int, size: int) -> bool:
    """Reserve by the system's own call; whether there is one, and the file system knows it."""
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


def _write_zeros(path: Path) -> None:
    """Fill every reserved array with zeros, by plain writes."""
    header = read_header(path)
    zeros = bytes(1 << 20)
    with path.open("r+b", buffering=0) as file:
        for extent in [*header.arrays.values(), header.units, header.cost]:
            file.seek(extent.offset)
            left = extent.end - extent.offset
            while left:
                left -= file.write(zeros[: min(left, len(zeros))])
