"""Volumes as slices: each slice is a row, each volume a sample.

Every slice goes through the encoder by itself; the slices' features are kept, and averaged when
they are read (Baharoon et al. 2023 average them in their linear probe). With neighbours, a slice's
three channels are the slices before, at and after it ("2.5D"); at both ends the last one is
repeated.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Pixel = TypeVar("Pixel", bound=np.generic)


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

    def take(self, volume: NDArray[Pixel], first: int, last: int) -> NDArray[Pixel]:
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
