"""What samples look like: the thumbnails that feature files hold."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cache.aggregate import RowsOfSamples
from probe.arrays import Array, Indices

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while


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
