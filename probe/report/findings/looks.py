"""What samples look like: the thumbnails that feature files hold."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.aggregate import RowsOfSamples
from cache.format.sample_tables import SPLITS
from cache.task import MISSING, MULTI_LABEL, REGRESSION, SEGMENTATION
from probe.arrays import Array, Indices

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while

PER_CLASS = 6


def picture(features: Features, row: int) -> Array:
    """(t, t) grey levels of a row, uint8.

    Args:
        features: with thumbnails.
        row: of the file.
    """
    assert features.thumbnails is not None
    flat = features.thumbnails[row]
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)


def thumbnail_png(features: Features, row: int) -> bytes:
    """The picture of a row as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(features, row)).save(file, "PNG", optimize=True)
    return file.getvalue()


def middle_rows(features: Features, samples: Indices) -> list[int]:
    """The row that stands for each sample: of a volume the middle slice."""
    if features.rows_are_samples:
        return samples.tolist()
    rows = RowsOfSamples(features.row_sample, len(features.ids))
    return [int(own[len(own) // 2]) for own in map(rows.of, samples.tolist())]


@dataclass(frozen=True)
class ClassLooks:
    """Some samples of a class, for a contact sheet."""

    name: str
    n: int  # samples of the class
    rows: tuple[int, ...]  # whose thumbnails stand for them; empty in files without


def class_looks(
    features: Features, split: str = SPLITS[0], per_class: int = PER_CLASS
) -> tuple[ClassLooks, ...]:
    """Some samples of each class, evenly spread in the order of the file.

    Of several labels, and of masks, a sample stands with each class that it has. Numbers have no classes: all are one.

    Args:
        features: a file of images, its stored labels.
        split: whose samples.
        per_class: pictures at most.

    Raises:
        BrokenCache: thumbnails don't match their checksums.
    """
    features.check_thumbnails()
    labels, is_in = features.labels, features.split == split
    if features.task == REGRESSION:
        members = {name: ~np.isnan(labels) for name in features.class_names}
    elif features.task in (MULTI_LABEL, SEGMENTATION):  # 1, or pixels of the class
        members = {name: labels[:, c] > 0 for c, name in enumerate(features.class_names)}
    else:
        members = {name: labels == c for c, name in enumerate(features.class_names)}
        members |= {"no label": labels == MISSING} if (labels[is_in] == MISSING).any() else {}
    found = []
    for name, has in members.items():
        samples = np.flatnonzero(has & is_in)
        places = np.linspace(0, len(samples) - 1, min(per_class, len(samples))).round().astype(int)
        rows = middle_rows(features, samples[places]) if features.thumbnails is not None else []
        found.append(ClassLooks(name, len(samples), tuple(rows)))
    return tuple(found)
