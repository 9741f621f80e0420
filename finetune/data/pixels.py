"""Pixels for random access: every image of a data set in one raw file, read in any order.

MedMNIST's arrays are zip members and files of images must be decoded, so neither gives image 70,000
without those before it, or in less than milliseconds. Training asks for all of them, shuffled, epoch
after epoch: they are unpacked once.

The file, all numbers little-endian:

    pixels   the images in row order, C order, one after another without gaps
    index    int32 (N, 4): height, width, channels (0: grey, without that axis), place in KINDS;
             then uint32 (N,): CRC-32 of each image's bytes; then the key as JSON
    tail     TAIL: magic, N, offset of the index, its length, its CRC-32

It is written beside its name and renamed when all of it is on the disk. A file that was cut off has
no tail; what a disk spoils later is found when an image is first read.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache
from cache.files import NewFile
from cache.format.key import canonical_json

MAGIC = b"mp-pix-1"
TAIL = struct.Struct("<8sQQQI")
KINDS = (np.dtype("u1"), np.dtype("<f4"))


class PixelWriter:
    """Writes one file of pixels, from nothing. A context manager; left early, nothing remains.

    Args:
        path: where the file will be; one that is there is replaced by ``finish``.
        key: what the pixels are, kept in the file.

    Raises:
        OSError: the folder can't be written, or the disk is full.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._key = key
        self._shapes: list[tuple[int, int, int, int]] = []
        self._checksums: list[int] = []
        self._new = NewFile(path)
        self._file = self._new.file

    def add(self, images: NDArray[Any]) -> None:
        """Write the next images: (n, H, W) or (n, H, W, 3), uint8 or float32."""
        kind = KINDS.index(images.dtype)
        height, width, channels = (*images.shape[1:], 0)[:3]
        for image in np.ascontiguousarray(images, KINDS[kind]):
            self._file.write(image.data)
            self._shapes.append((height, width, channels, kind))
            self._checksums.append(zlib.crc32(image.data))

    def finish(self) -> None:
        """Write the index and give the file its name."""
        offset = self._file.tell()
        index = np.array(self._shapes, "<i4").tobytes()
        index += np.array(self._checksums, "<u4").tobytes() + canonical_json(self._key).encode()
        tail = TAIL.pack(MAGIC, len(self._shapes), offset, len(index), zlib.crc32(index))
        self._file.write(index + tail)
        self._new.finish()

    def __enter__(self) -> PixelWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._new.discard()


class Pixels:
    """The images of one file, by row. Sent to processes by name, where it is opened anew.

    Args:
        path: a file that ``PixelWriter`` finished.

    Raises:
        BrokenCache: it isn't one, or it is damaged.
        OSError: it isn't there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        n_rows, offset, index = self._read_index()
        table = np.frombuffer(index, "<i4", 4 * n_rows).reshape(n_rows, 4)
        self._checksums = np.frombuffer(index, "<u4", n_rows, offset=16 * n_rows)
        self.key: Mapping[str, Any] = json.loads(index[20 * n_rows :])
        self._shapes = [tuple(size for size in sizes if size) for sizes in table[:, :3].tolist()]
        self._kinds: list[int] = table[:, 3].tolist()
        items = np.array([kind.itemsize for kind in KINDS])[table[:, 3]]
        sizes = np.maximum(table[:, :3], 1).astype(np.int64).prod(axis=1) * items
        self._ends = np.cumsum(sizes)
        self._starts = self._ends - sizes
        if n_rows == 0 or self._ends[-1] != offset:
            raise self._damaged("its index doesn't fit its pixels")
        # A map, though the disk's errors kill then: the file's length is checked, it is never
        # written again, and a gather from a map lets other threads run.
        self._bytes = np.memmap(path, np.uint8, "r", shape=(offset,)).view(np.ndarray)
        self._alike: NDArray[Any] | None = None
        if (table == table[0]).all():
            of_type = self._bytes.view(KINDS[self._kinds[0]])
            self._alike = of_type.reshape(n_rows, *self._shapes[0])
        self._seen = np.zeros(n_rows, bool)

    def __len__(self) -> int:
        return len(self._shapes)

    def __reduce__(self) -> tuple[type[Pixels], tuple[Path]]:
        return Pixels, (self.path,)

    def _read_index(self) -> tuple[int, int, bytes]:
        """How many rows, where their pixels end, and the index, its checksum compared."""
        size = self.path.stat().st_size
        if size < TAIL.size:
            raise self._damaged("it has no tail")
        with self.path.open("rb") as file:
            file.seek(size - TAIL.size)
            magic, n_rows, offset, length, checksum = TAIL.unpack(file.read(TAIL.size))
            if magic != MAGIC or offset + length + TAIL.size != size:
                raise self._damaged("it was cut off, or is no file of pixels")
            file.seek(offset)
            index = file.read(length)
        if zlib.crc32(index) != checksum or length < 20 * n_rows:
            raise self._damaged("its index doesn't match its checksum")
        return n_rows, offset, index

    def _damaged(self, what: str) -> BrokenCache:
        return BrokenCache(f"{self.path} is damaged: {what}; delete it and run again")

    def take(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Some images, in the order of the rows.

        Args:
            rows: (n,) from 0; may name one twice.

        Returns:
            (m, H, W) or (m, H, W, 3) each, writable copies: neighbours of one shape together.

        Raises:
            BrokenCache: an image isn't the one that was written; compared when it is first read.
        """
        if not len(rows):
            return []
        if self._alike is not None:
            images = np.take(self._alike, rows, axis=0)
            self._check(rows, images)
            return [images]
        groups = []
        for (shape, kind), group in itertools.groupby(
            rows.tolist(), key=lambda row: (self._shapes[row], self._kinds[row])
        ):
            those = np.array(list(group))
            images = np.empty((len(those), *shape), KINDS[kind])
            for place, row in enumerate(those.tolist()):
                start, end = self._starts[row], self._ends[row]
                images[place] = self._bytes[start:end].view(KINDS[kind]).reshape(shape)
            self._check(those, images)
            groups.append(images)
        return groups

    def _check(self, rows: NDArray[np.int64], images: NDArray[Any]) -> None:
        for place in np.flatnonzero(~self._seen[rows]).tolist():
            row = rows[place]
            if zlib.crc32(images[place].data) != self._checksums[row]:
                raise self._damaged(f"image {row} doesn't match its checksum")
            self._seen[row] = True
