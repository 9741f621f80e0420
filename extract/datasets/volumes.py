"""Volumes as slices: each slice is a row, each volume a sample.

Every slice goes through the encoder by itself; the slices' features are kept, and averaged when
they are read (Baharoon et al. 2023 average them in their linear probe). With neighbours, a slice's
three channels are the slices before, at and after it ("2.5D"); at both ends the last one is
repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.npz import stream_rows

AXES = (0, 1, 2)


@dataclass(frozen=True)
class Slicing:
    """How a volume (D, H, W) is cut. Part of the key."""

    axis: int = 0  # of the volume as stored; slices are numbered along it
    neighbours: bool = False  # three slices as channels

    @property
    def key(self) -> dict[str, Any]:
        channels = "before, at, after" if self.neighbours else "single"
        return {"axis": self.axis, "channels": channels}

    @property
    def n_channels(self) -> int:
        return 3 if self.neighbours else 1

    def slice_shape(self, volume: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of the slices of a (D, H, W) volume."""
        rows, columns = (n for axis, n in enumerate(volume) if axis != self.axis)
        return rows, columns

    def take(self, volume: NDArray[np.uint8], first: int, last: int) -> NDArray[np.uint8]:
        """Slices first to last - 1 of one volume.

        Args:
            volume: (D, H, W).
            first: number of a slice along ``axis``.
            last: behind the last one.

        Returns:
            (last - first, rows, columns), or (last - first, rows, columns, 3) with neighbours.
        """
        slices = np.moveaxis(volume, self.axis, 0)
        if not self.neighbours:
            return slices[first:last]
        middle = np.arange(first, last)
        around = np.clip(middle[:, None] + np.array([-1, 0, 1]), 0, len(slices) - 1)
        return np.moveaxis(slices[around], 1, -1)  # (n, 3, rows, columns) -> channels last


def stream_slices(
    path: Path,
    names: Sequence[str],
    depth: int,
    slicing: Slicing,
    ranges: Sequence[tuple[int, int]],
) -> Iterator[NDArray[np.uint8]]:
    """Stream the slices of an .npz file's volumes; one volume is in memory at a time.

    Args:
        path: the .npz file.
        names: members to chain, each (n, D, H, W) uint8.
        depth: slices of a volume.
        slicing: how volumes are cut.
        ranges: ascending, disjoint (first, behind last) rows; row r is slice r mod depth of volume
            r // depth. A range may begin and end inside a volume.

    Yields:
        One (n, rows, columns) or (n, rows, columns, 3) array a range.
    """
    wanted = sorted({v for start, stop in ranges for v in _volumes(start, stop, depth)})
    volumes = zip(wanted, stream_rows(path, names, [(v, v + 1) for v in wanted]), strict=True)
    number, volume = -1, np.empty((1, 0, 0, 0), np.uint8)
    for start, stop in ranges:
        parts = []
        for v in _volumes(start, stop, depth):
            while number < v:
                number, volume = next(volumes)
            first, last = max(start - v * depth, 0), min(stop - v * depth, depth)
            parts.append(slicing.take(volume[0], first, last))
        yield np.concatenate(parts)


def _volumes(start: int, stop: int, depth: int) -> range:
    return range(start // depth, (stop - 1) // depth + 1)
