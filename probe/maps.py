"""Token maps and masks of one question: what kinds that see patches are given, some rows at a time.

A row of a token file is an image as the encoder saw it; its grid covers the encoder's square input.
Nothing here holds all tokens: ten thousand images of one layer of a ViT-L are 5 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.aggregate import RowsOfSamples
from cache.errors import RequestError
from cache.geometry import PADDING, Geometry
from probe.arrays import Array, Doubles, Floats, Indices, Ints, Singles, Texts
from probe.places import Place
from probe.questions.question import Question, Split

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it
    from cache.masks import Masks

CHUNK_BYTES = 1 << 26  # of tokens in float32 that are held at once


@dataclass(frozen=True)
class Maps:
    """The tokens at one place, or of several layers side by side, and the masks of their images."""

    features: Features
    places: tuple[Place, ...]
    masks: Masks | None = None  # None: a kind that needs none

    @staticmethod
    def of(question: Question, places: Sequence[Place]) -> Maps:
        """Those of a question's file."""
        return Maps(question.features, tuple(places), question.masks)

    # ------------------------------------------------------------------ what there is

    @property
    def key(self) -> Mapping[str, Any]:
        """Of the token file: what its tokens are."""
        return self.features.key

    @property
    def layers(self) -> list[int]:
        """The layers that are read, the first on the left."""
        return [layer for place in self.places for layer, _ in place.arrays]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, of the first layer."""
        return self.features.grid(self.layers[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of a patch at each layer."""
        return tuple(self.features.memmap(layer, "tokens").shape[-1] for layer in self.layers)

    @property
    def width(self) -> int:
        """Features of a patch, of all layers."""
        return sum(self.widths)

    @property
    def n_classes(self) -> int:
        return len(self._masks.class_names)

    @cached_property
    def geometry(self) -> Geometry:
        """From an image's own pixels to the encoder's input, and back."""
        return Geometry.of(self.key)

    @cached_property
    def _rows(self) -> RowsOfSamples:
        return RowsOfSamples(self.features.row_sample, len(self.features.ids))

    @property
    def _masks(self) -> Masks:
        assert self.masks is not None, "kinds that segment are asked with masks alone"
        return self.masks

    @cached_property
    def row_ids(self) -> Texts:
        """(N,) the rows' own ids."""
        from cache.format.read import read_table  # h5py: --help shouldn't wait for it

        return read_table(self.features.header, "rows/ids")

    @cached_property
    def _mask_of(self) -> Ints:
        """(N,) the number of each row's mask, -1 where it has none."""
        return self._masks.find(self.row_ids)

    # ------------------------------------------------------------------ rows

    def rows_of(self, split: Split) -> Indices:
        """The rows of a split's samples, sample by sample, but those without a mask."""
        found = [self.rows_of_sample(int(sample)) for sample in split.x[:, 0]]
        return np.concatenate(found) if found else np.empty(0, np.intp)

    def rows_of_sample(self, sample: int) -> Indices:
        """One sample's rows that have a mask, in the file's order; all of them without masks."""
        rows = self._rows.of(sample)
        return rows if self.masks is None else rows[self._mask_of[rows] >= 0]

    def chunks(self, rows: Indices, n_bytes: int = CHUNK_BYTES) -> Iterator[Indices]:
        """The same rows in parts whose tokens take so many bytes in float32, one row at least."""
        h, w = self.grid
        n = max(1, n_bytes // (4 * h * w * self.width))
        for start in range(0, len(rows), n):
            yield rows[start : start + n]

    def tokens(self, rows: Indices) -> Singles:
        """(n, h, w, D) tokens of some rows, of several layers side by side.

        Raises:
            BrokenCache: stored rows don't match their checksums.
            RequestError: layers have different grids.
        """
        self._check_grids()
        parts = self.parts(rows)
        return np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def parts(self, rows: Indices) -> list[Singles]:
        """Of each layer (n, h, w, D) tokens of some rows.

        Raises:
            BrokenCache: stored rows don't match their checksums.
        """
        parts = [self.features.tokens(layer, rows) for layer in self.layers]
        return [part.astype(np.float32, copy=False) for part in parts]

    def stored(self, rows: Indices) -> Floats:
        """(n, h, w, D) tokens as they are stored: in float16, too.

        Raises:
            BrokenCache: stored rows don't match their checksums.
            RequestError: layers have different grids.
        """
        self._check_grids()
        parts = [self.features.tokens(layer, rows) for layer in self.layers]
        return np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def _check_grids(self) -> None:
        if len(grids := {self.features.grid(layer) for layer in self.layers}) > 1:
            told = " and ".join(f"{h} x {w}" for h, w in sorted(grids))
            raise RequestError(
                f"layers side by side need one grid, and these of {self.features.path.name} have "
                f"{told}; name one layer, or use --kind decoder --head ms"
            )

    def truths(self, rows: Indices) -> list[Array]:
        """(H, W) uint8 class numbers of each row's image, as large as its file has it."""
        return [self._masks.mask(int(number)) for number in self._mask_of[rows]]

    def shapes(self, rows: Indices) -> list[tuple[int, int]]:
        """Height and width of each row's image."""
        return [(int(h), int(w)) for h, w in self._masks.shapes[self._mask_of[rows]]]

    def counts(self, rows: Indices) -> Ints:
        """(n, C) pixels of each class of each row's image."""
        return self._masks.counts[self._mask_of[rows]]

    def patch_pixels(self, rows: Indices) -> Doubles:
        """(n,) how many of each image's own pixels a patch of the grid covers."""
        h, w = self.grid
        found = []
        for height, width in self.shapes(rows):
            resized = self.geometry.resized(height, width)
            scale = height * width / (resized[0] * resized[1])
            found.append(scale * self.geometry.size**2 / (h * w))
        return np.array(found)

    def spacing(self, row: int) -> Floats:
        """(3,) mm of a pixel's height and width, and between slices; NaN where unknown."""
        return self._masks.spacing[self._mask_of[row]]

    def input_mask(self, truth: Array) -> Array:
        """(size, size) uint8: the mask where the encoder sees its image; PADDING counts nowhere."""
        seen = self.geometry.to_input(truth)
        if self._masks.ignore is not None:
            seen[seen == self._masks.ignore] = PADDING
        return seen

    def shares(self, rows: Indices) -> Singles:
        """(n, h, w, C) the share of each class among a patch's pixels.

        Padding and ignored pixels are in no class, so a patch's shares sum to 1 at most.
        """
        found = np.empty((len(rows), *self.grid, self.n_classes), np.float32)
        for number, truth in enumerate(self.truths(rows)):
            found[number] = patch_shares(self.input_mask(truth), self.grid, self.n_classes)
        return found

    def to_mask(self, maps: Floats, shape: tuple[int, int]) -> Array:
        """(H, W) uint8 the class of each of an image's pixels, by the largest of upsampled maps.

        Args:
            maps: (h', w', C) of any grid over the encoder's input.
            shape: the image's height and width.
        """
        whole = self.geometry.to_source(np.asarray(maps, np.float32), shape)
        return whole.argmax(axis=-1).astype(np.uint8)

    def bound(self, truth: Array) -> Array:
        """(H, W) what is left of a mask that is pooled to the grid and put back: no head does better.

        Not a strict bound: a head may guess a border's course between patches. It tells what the grid
        alone costs.
        """
        shares = patch_shares(self.input_mask(truth), self.grid, self.n_classes)
        return self.to_mask(shares, truth.shape[:2])


def patch_shares(mask: Array, grid: tuple[int, int], n_classes: int) -> Singles:
    """(h, w, C) the share of each class among the pixels of each patch.

    Args:
        mask: (H, W) uint8 class numbers; numbers from C up are in no class.
        grid: h, w: row i of H is in row i * h // H of the grid.
        n_classes: C.
    """
    (height, width), (h, w) = mask.shape, grid
    of_row, of_column = np.arange(height) * h // height, np.arange(width) * w // width
    cell = of_row[:, None] * w + of_column
    is_known = mask < n_classes
    places = cell[is_known] * n_classes + mask[is_known]
    counts = np.bincount(places, minlength=h * w * n_classes).reshape(h, w, n_classes)
    pixels = np.bincount(cell.ravel(), minlength=h * w).reshape(h, w, 1)
    return (counts / np.maximum(pixels, 1)).astype(np.float32)
