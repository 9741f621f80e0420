"""Masks that lie in files beside their images: read, cut and turned as these are.

One value a pixel, or a colour; what they mean stands in ``mask_classes``. A palette's indices are the
values, whatever its colours. Of volumes image and mask must say the same of where they lie, or slices of
one would be laid on another's.
"""

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.masks import MaskSource
from extract.datasets.dataset import Ranges
from extract.datasets.files.decode import IMAGE_SUFFIXES, decode_file
from extract.datasets.files.formats import dicom, nifti, pillow
from extract.datasets.files.formats.stored import UnreadableImage, reading
from extract.datasets.files.index import FRESH_SECONDS, file_stamp
from extract.datasets.files.mask_classes import IGNORED, MaskClasses
from extract.datasets.volumes import Slicing

DECODER = 1  # another one that reads other values needs another number
JPEG = (".jpg", ".jpeg")
ALIKE = 0.01  # of a voxel's side: as far as two headers' spacing may differ
NEAR = 0.5  # voxels: as far as the corners of a mask may lie from its image's


@dataclass(frozen=True)
class MaskFiles:
    """The masks of some files of images. F files, in their order, each of (n, H, W) frames."""

    root: Path
    images: tuple[str, ...]  # (F,)
    masks: tuple[str | None, ...]  # (F,); None: there is none
    shapes: tuple[tuple[int, int, int], ...]  # (F,) n, H, W of the image's frames
    slicing: Slicing
    classes: MaskClasses
    also: tuple[str, ...] = ()  # (F,) of each a second mask, whose larger values count; (): none

    def source(self) -> MaskSource:
        """Them, to be read.

        Raises:
            RequestError: an image and its mask lie elsewhere by their headers.
        """
        spacing = [self._spacing(file) for file in range(len(self.images))]
        return MaskSource(
            self.classes.names,
            self.classes.background,
            None if self.classes.ignore is None else IGNORED,
            self._stream,
            np.repeat(np.array(spacing), [shape[0] for shape in self.shapes], axis=0),
            self._origin(),
        )

    def _stream(self, ranges: Ranges) -> Iterator[Sequence[NDArray[np.uint8] | None]]:
        classes = copy.copy(self.classes)  # what it learns is of one pass
        starts = np.concatenate([[0], np.cumsum([shape[0] for shape in self.shapes])])
        held, frames = -1, None  # a volume is read once, for all ranges of its slices
        for first, end in ranges:
            part: list[NDArray[np.uint8] | None] = []
            for row in range(first, end):
                file = int(np.searchsorted(starts, row, "right")) - 1
                if file != held:
                    held, frames = file, self._read(file)
                frame = None if frames is None else frames[row - starts[file]]
                part.append(None if frame is None else self._numbers(classes, file, frame))
            yield part

    def _numbers(self, classes: MaskClasses, file: int, frame: NDArray[Any]) -> NDArray[np.uint8]:
        try:
            return classes.numbers(frame)
        except UnreadableImage as error:
            raise RequestError(f"mask {self.masks[file]}: {error}") from error

    def _read(self, file: int) -> NDArray[Any] | None:
        """(n, H, W) or (n, H, W, 3) values of a file's mask."""
        name = self.masks[file]
        if name is None:
            return None
        frames = self._frames(file, name)
        return np.maximum(frames, self._frames(file, self.also[file])) if self.also else frames

    def _frames(self, file: int, name: str) -> NDArray[Any]:
        try:
            values = read_values(self.root / name)
        except (UnreadableImage, OSError) as error:
            raise RequestError(f"mask {name} can't be read: {error}") from error
        frames = (
            values
            if values.ndim == 4
            else self.slicing.take(values, 0, values.shape[self.slicing.axis])
        )
        if frames.shape[:3] != self.shapes[file]:
            sizes = [_words(shape) for shape in (frames.shape[:3], self.shapes[file])]
            raise RequestError(
                f"mask {name} is {sizes[0]}, and its image {self.images[file]} {sizes[1]}; they must be "
                "alike: a mask is never resized"
            )
        return frames

    def _spacing(self, file: int) -> tuple[float, float, float]:
        """mm from row to row, column to column, slice to slice; NaN where no header says."""
        image, name = self.images[file], self.masks[file]
        unknown = (np.nan, np.nan, np.nan)
        if name is None:
            return unknown
        of_volume = [path.lower().endswith(nifti.SUFFIXES) for path in (image, name)]
        if not any(of_volume):
            return self._plane(file)
        if not all(of_volume):
            raise RequestError(
                f"image {image} and mask {name}: one is NIfTI, which is turned upright by its header, and "
                "the other isn't; store both as NIfTI"
            )
        try:
            own, of_mask = (nifti.read_placement(self.root / path) for path in (image, name))
        except (UnreadableImage, OSError) as error:
            raise RequestError(f"image {image} or mask {name} can't be read: {error}") from error
        if difference := own.difference(of_mask, ALIKE, NEAR):
            raise RequestError(
                f"mask {name} lies elsewhere than its image {image} by their headers ({difference}); "
                "mend the header that is wrong"
            )
        axis = self.slicing.axis
        rows, columns = (mm for i, mm in enumerate(own.spacing) if i != axis)
        return rows, columns, own.spacing[axis]

    def _plane(self, file: int) -> tuple[float, float, float]:
        """Of a single image: what DICOM says of its plane."""
        path = self.root / self.images[file]
        is_other = (
            path.name.lower().endswith(IMAGE_SUFFIXES) and path.suffix.lower() not in dicom.SUFFIXES
        )
        found = None if is_other or self.shapes[file][0] > 1 else dicom.read_spacing(path)
        return (*found, np.nan) if found else self.classes.spacing

    def _origin(self) -> str | None:
        """What the masks are made of; None of files so new that their times tell nothing yet."""
        stamps = []
        for name in (*self.masks, *self.also):
            try:
                stamps.append(None if name is None else file_stamp(self.root / name))
            except OSError as error:
                raise RequestError(f"mask {name} can't be read: {error.strerror}") from error
        newest = max((stamp[1] for stamp in stamps if stamp), default=0)
        if time.time() - newest / 1e9 < FRESH_SECONDS:
            return None
        known = [sorted(self.classes.values.items()), self.classes.ignore, self.classes.is_open]
        about = [DECODER, str(self.root), self.masks, stamps, self.shapes, self.slicing.axis, known]
        about += [self.also] if self.also else []
        return f"sha256:{hashlib.sha256(json.dumps(about).encode()).hexdigest()}"


def read_values(path: Path) -> NDArray[Any]:
    """The values of a mask's file: (n, H, W), in colour (n, H, W, 3).

    Raises:
        UnreadableImage: it can't be read, or is JPEG.
    """
    name = path.name.lower()
    if name.endswith(JPEG):
        raise UnreadableImage("JPEG changes the values of pixels; store it as PNG")
    with reading(path):
        if name.endswith(pillow.SUFFIXES):
            return pillow.read_numbers(path)
        stored = decode_file(path)
        stored.check()
        return stored.values


def _words(shape: tuple[int, ...]) -> str:
    n, height, width = shape
    return f"{width} x {height} px" + (f" of {n} slices" if n > 1 else "")
