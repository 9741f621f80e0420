"""What every data set is to the rest of ``extract``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.format.spec import Samples
from cache.labels.target import Target
from cache.masks import MaskSource
from cache.splits.rules import DRAWN, Drawn
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL
from extract.datasets.looks import look_at, thumbnail_side
from extract.datasets.volumes import Slicing

# Of some rows: one (n, H, W) or (n, H, W, 3) array, or one (H, W) or (H, W, 3) array each where
# sizes differ. uint8, or float32 levels in 0..255.
Images = NDArray[Any] | list[NDArray[Any]]
Ranges = Sequence[tuple[int, int]]  # ascending, disjoint (first, behind last) rows
Stream = Callable[[Ranges], Iterator[Images]]  # the images of each range
Prepare = Callable[[NDArray[Any]], NDArray[Any]]  # (n, H, W[, 3]) -> (n, h, w[, 3]), on the host

PIECE_BYTES = 1 << 25  # 32 MB of pixels are decoded, passed on and resized at once


@dataclass(frozen=True)
class Piece:
    """Some rows, decoded."""

    images: list[NDArray[Any]]  # in order; each (n, H, W) or (n, H, W, 3), prepared
    looks: Mapping[str, NDArray[np.uint8]]  # of the images as stored: see looks.py

    def __len__(self) -> int:
        return sum(map(len, self.images))


@dataclass(frozen=True)
class Dataset:
    """One data set, its images found and checked. Rows are images, in id order."""

    name: str
    task: str  # one of TASKS
    class_names: tuple[str, ...]
    source_size: int | None  # side of the stored images, pixels; None: not all alike and square
    n_channels: int  # 1 or 3
    samples: Samples
    row_ids: NDArray[np.str_]  # (N,)
    row_sample: NDArray[np.int64]  # (N,)
    images_digest: str  # "md5:..." of the file, or "sha256:..." of the contents in id order
    stream: Stream
    licence: str = ""
    slicing: Slicing | None = None  # how volumes were cut into rows; None: images
    # Of files of images: how they were read, for the key; what to say of them; what a row takes.
    reading: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    rows: Mapping[str, Any] | None = None  # for the key, of a part of the images: which; None: all
    drawn: Drawn | None = None  # how it was divided; None: as its owner has it
    row_bytes: NDArray[np.int64] | None = None  # (N,) decoded; None: a batch is small
    piece_bytes: int | None = None  # of volumes, decoded as a whole; None: PIECE_BYTES, a batch
    masks: MaskSource | None = None  # labels of pixels, where it has any; in no key
    # Decodes in processes of its own. None: ``stream`` is as fast in a thread.
    load: Callable[[Ranges, Prepare], Iterator[Piece]] | None = field(default=None, compare=False)

    @property
    def said(self) -> dict[str, Any]:
        """What a feature file notes of its samples beside their tables."""
        notes = {"data": list(self.notes)} if self.notes else {}
        return notes | ({DRAWN: self.drawn.note} if self.drawn else {})

    @property
    def target(self) -> Target:
        """What is to be predicted of its samples."""
        return Target(self.task, self.class_names, self.samples.labels)

    @property
    def n_rows(self) -> int:
        return len(self.row_ids)

    @property
    def thumbnail_side(self) -> int:
        """Side of the pictures that leaks are searched with, pixels."""
        return thumbnail_side(self.source_size)

    def pieces(self, ranges: Ranges, prepare: Prepare) -> Iterator[Piece]:
        """The rows of each range, decoded and prepared, with their looks."""
        if self.load is not None:
            yield from self.load(ranges, prepare)
            return
        for images in self.stream(ranges):
            yield make_piece(images, prepare, self.thumbnail_side)

    def cut(self, ranges: Ranges, at_most: int) -> list[tuple[int, int]]:
        """The same rows in shorter ranges, to be decoded one by one.

        Args:
            ranges: of rows.
            at_most: rows of a range; of no meaning for volumes.

        Returns:
            Ranges of PIECE_BYTES at most; a row that is larger is a range by itself.
        """
        cut = []
        most_bytes = self.piece_bytes or PIECE_BYTES
        for start, stop in ranges:
            first = start
            while first < stop:
                last = stop if self.piece_bytes else min(first + at_most, stop)
                if self.row_bytes is not None:
                    taken = np.cumsum(self.row_bytes[first:last])
                    last = first + max(1, int(np.searchsorted(taken, most_bytes, "right")))
                cut.append((first, min(last, stop)))
                first = cut[-1][1]
        return cut


def make_piece(images: Images, prepare: Prepare, side: int) -> Piece:
    """Look at images as they are stored, then prepare them.

    Args:
        images: of some rows.
        prepare: what is done on the host; images of one shape come together.
        side: of the thumbnails, pixels.
    """
    looks = look_at(images, side)
    return Piece([prepare(group) for group in group_shapes(images)], looks)


def as_stored(images: NDArray[Any]) -> NDArray[Any]:
    """Nothing is done to images on the host; a function that worker processes can be sent."""
    return images


def group_shapes(images: Images) -> list[NDArray[Any]]:
    """Images in order, neighbours of one shape stacked: (n, H, W[, 3]) each."""
    if isinstance(images, np.ndarray):
        return [images]
    groups: list[list[NDArray[Any]]] = []
    for image in images:
        alike = groups and (groups[-1][0].shape, groups[-1][0].dtype) == (image.shape, image.dtype)
        if alike:
            groups[-1].append(image)
        else:
            groups.append([image])
    return [group[0][None] if len(group) == 1 else np.stack(group) for group in groups]


def class_task(labels: NDArray[np.integer]) -> str:
    """MedMNIST's word for labels of (N, 1) class numbers or (N, C) zeros and ones."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        return MULTI_LABEL
    return BINARY if labels.max(initial=0) <= 1 else MULTI_CLASS
