"""The arrays of a feature file, read with their checksums compared, or mapped without."""

import zlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache, CacheError
from cache.format.arrays import Extent
from cache.format.read import Header


def count_done(header: Header) -> int:
    """How many units of a file are done."""
    return int((read_units(header)[:, 0] == 1).sum())


def read_units(header: Header) -> NDArray[np.uint32]:
    """(n_units, RECORD_WORDS) records: [0] is 1 when done, [1 + i] the CRC-32 of array i."""
    return read_extent(header, header.units)


def incomplete_message(header: Header, n_done: int) -> str:
    """What to say of a file whose extraction hasn't ended."""
    return (
        f"{header.path} isn't complete: {n_done} of {header.n_units} units are done; finish it "
        f"with\n  {header.cure}"
    )


class StoredArrays:
    """A feature file's arrays by their names, as they are stored. Read-only.

    Args:
        header: of the file.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self.path = header.path
        self._right: set[tuple[str, int]] = set()  # array, unit: those that ``stored`` compared
        self._maps: dict[str, NDArray[Any]] = {}  # of those

    def _map(self, name: str) -> NDArray[Any]:
        extent = self.header.arrays[name]
        # Plain ndarray, not np.memmap: its subclass makes every slice slower and prints oddly.
        with self.path.open("rb") as file:
            self.header.refuse_replaced(file)
            mapped = np.memmap(file, extent.dtype, "r", extent.offset, extent.shape)
        return mapped.view(np.ndarray)

    def stored(self, name: str, unit: int) -> NDArray[Any]:
        """An array's part of a unit as it is stored: read and checked once, then a map.

        Args:
            name: of the array, as in ``header.arrays``.
            unit: index of the unit.

        Raises:
            BrokenCache: it isn't what was written.
        """
        extent, header = self.header.arrays[name], self.header
        part = header.part(extent, unit)
        if (name, unit) in self._right:
            if name not in self._maps:
                self._maps[name] = self._map(name)
            return self._maps[name][part]
        values = read_extent(header, extent, part)
        if zlib.crc32(values.data) != self._records[unit, header.word(name)]:
            raise self._damage(name, unit)
        self._right.add((name, unit))
        return values

    @cached_property
    def _records(self) -> NDArray[np.uint32]:
        return read_units(self.header)

    def _checked(self, name: str) -> NDArray[Any]:
        values = read_extent(self.header, self.header.arrays[name])
        self._compare(name, values)
        values.flags.writeable = False
        return values

    def _compare(self, name: str, values: NDArray[Any]) -> None:
        header, records = self.header, read_units(self.header)
        for unit in range(header.n_units):
            part = header.part(header.arrays[name], unit)
            if zlib.crc32(values[part].data) != records[unit, header.word(name)]:
                raise self._damage(name, unit)

    def _damage(self, name: str, unit: int) -> CacheError:
        start, stop = self.header.rows_of(unit)
        return self.header.damage(
            f"rows {start}..{stop - 1} of {name} don't match their checksum",
            "this computes just them again",
        )


def read_extent(header: Header, extent: Extent, rows: slice = slice(None)) -> NDArray[Any]:
    """An array by plain reads: a disk's error is an error, where a map would kill the process."""
    first, stop, _ = rows.indices(extent.shape[0]) if extent.shape else (0, 1, 1)
    shape = (stop - first, *extent.shape[1:]) if extent.shape else ()
    count = int(np.prod(shape, dtype=np.int64))
    with header.path.open("rb") as file:
        header.refuse_replaced(file)
        offset = extent.offset + first * extent.row_bytes
        values = np.fromfile(file, extent.dtype, count, offset=offset)
    if len(values) < count:
        raise BrokenCache(
            f"{header.path} could only be read in part; delete it and run\n  {header.cure}"
        )
    return values.reshape(shape)
