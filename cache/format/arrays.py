"""The arrays of a feature file, as a reader meets them: where they lie, and which it knows.

An array that this reader doesn't know is of a later writer: it is left alone, and no damage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.format.spec import (
    ALIGNMENT,
    ARRAY_NAME,
    ERROR,
    HASH,
    HASH_BYTES,
    N_ERROR,
    NO_FEATURES,
    PICTURE,
    PICTURE_SHAPE,
    SCALE,
    TOKENS,
    TOKENS_NAME,
    array_type,
    is_by_unit,
)
from cache.format.units import MIN_UNIT_ROWS, UNIT_ROWS

UNIT_SIZES = [n for n in range(MIN_UNIT_ROWS, UNIT_ROWS + 1) if n & (n - 1) == 0]
FLOATS = (np.dtype("<f2"), np.dtype("<f4"))
OF_TOKENS = (*FLOATS, np.dtype("i1"))


@dataclass(frozen=True)
class Extent:
    """Where an array's bytes lie in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def is_known(name: str, of_tokens: bool) -> bool:
    """Whether an array is one that files of tokens, or of pooled features, have by this name."""
    if name in NO_FEATURES:
        return of_tokens or name != PICTURE
    if not of_tokens:
        return ARRAY_NAME.fullmatch(name) is not None
    return TOKENS_NAME.fullmatch(name.removesuffix(SCALE).removesuffix(ERROR)) is not None


def misshapen(
    arrays: Mapping[str, Extent], n_rows: int, n_units: int, key: Mapping[str, Any]
) -> list[str]:
    """The known arrays that have another shape or type than the format gives them."""
    n_first = {True: n_units, False: n_rows}
    return [
        name
        for name, extent in arrays.items()
        if extent.shape[:1] != (n_first[is_by_unit(name)],)
        or not _is_right(name, extent, arrays, key)
    ]


def _is_right(
    name: str, extent: Extent, arrays: Mapping[str, Extent], key: Mapping[str, Any]
) -> bool:
    row, dtype = extent.shape[1:], extent.dtype
    if is_by_unit(name):
        tokens = arrays.get(name.removesuffix(SCALE).removesuffix(ERROR))
        if tokens is None:
            return False
        right = tokens.shape[-1:] if name.endswith(SCALE) else (N_ERROR,)
        return row == right and dtype == array_type(name, "int8")
    if name in NO_FEATURES:
        right = {PICTURE: PICTURE_SHAPE, HASH: (HASH_BYTES,)}.get(name, (extent.row_bytes,))
        return row == right and dtype == array_type(name, "int8")
    if TOKENS not in key:
        return len(row) == 1 and dtype in FLOATS
    has_scale = name + SCALE in arrays or dtype != np.dtype("i1")
    fits = len(row) == 3 and grid_of(name, key) == row[:-1]
    return dtype in OF_TOKENS and has_scale and fits


def grid_of(name: str, key: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The grid (h, w) that the key gives the tokens of a layer; None where it gives none."""
    stored, grids = key["layers"].get("stored"), key[TOKENS].get("grids")
    try:
        return {int(i): tuple(grid) for i, grid in zip(stored, grids, strict=True)}[
            int(name.split("/")[1])
        ]
    except (LookupError, TypeError, ValueError):
        return None


def misplaced(extents: Mapping[str, Extent]) -> Iterator[str]:
    """Arrays that don't start on a page or reach into the next: writing them would destroy it."""
    places = sorted(extents.items(), key=lambda item: item[1].offset)
    ends = [0, *(extent.end for _, extent in places)]
    for (name, extent), end in zip(places, ends, strict=False):
        if extent.offset % ALIGNMENT or extent.offset < end:
            yield name
