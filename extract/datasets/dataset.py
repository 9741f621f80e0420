"""What every data set is to the rest of ``extract``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.layout import Samples
from extract.datasets.volumes import Slicing

# Ascending, disjoint row ranges -> one (n, H, W) or (n, H, W, 3) uint8 array for each.
Stream = Callable[[Sequence[tuple[int, int]]], Iterator[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Dataset:
    """One data set, its images found and checked. Rows are images, in id order."""

    name: str
    task: str  # one of MedMNIST's four words
    class_names: tuple[str, ...]
    source_size: int  # side of the stored images, pixels
    n_channels: int  # 1 or 3
    samples: Samples
    row_ids: NDArray[np.str_]  # (N,)
    row_sample: NDArray[np.int64]  # (N,)
    images_digest: str  # "md5:..." of the file, or "sha256:..." of the contents in id order
    stream: Stream
    licence: str = ""
    slicing: Slicing | None = None  # how volumes were cut into rows; None: images

    @property
    def n_rows(self) -> int:
        return len(self.row_ids)


def class_task(labels: NDArray[np.integer]) -> str:
    """MedMNIST's word for labels of (N, 1) class numbers or (N, C) zeros and ones."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        return "multi-label, binary-class"
    return "binary-class" if labels.max(initial=0) <= 1 else "multi-class"
