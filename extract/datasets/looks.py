"""What tells images apart without the images: a hash of the pixels, and a small grey picture.

Both are stored beside the features, so that copies and near twins across any split are found
without opening an image again (``cache/leaks.py``).
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.format.spec import HASH, HASH_BYTES, THUMBNAIL

# px. At 64 the correlation of two thumbnails of BreastMNIST's 64-px file is that of the images.
THUMBNAIL_SIDE = 64


def look_at(images: Iterable[NDArray[Any]], side: int) -> dict[str, NDArray[np.uint8]]:
    """Hash and thumbnail of each image.

    Args:
        images: (H, W) or (H, W, 3), uint8, or float32 levels of 0..255; of any sizes.
        side: of the thumbnails, pixels.

    Returns:
        "rows/hash" (n, 16) and "rows/thumbnail" (n, side * side), the arrays of a feature file.
    """
    pairs = [(image_hash(image), thumbnail(image, side)) for image in images]
    hashes = np.frombuffer(b"".join(digest for digest, _ in pairs), np.uint8)
    pictures = [picture.ravel() for _, picture in pairs]
    return {
        HASH: hashes.reshape(-1, HASH_BYTES),
        THUMBNAIL: np.array(pictures, np.uint8).reshape(-1, side * side),
    }


def thumbnail_side(source_size: int | None) -> int:
    """Side of a data set's thumbnails: 64 px, or that of its images where they are smaller."""
    return min(THUMBNAIL_SIDE, source_size or THUMBNAIL_SIDE)


def image_hash(image: NDArray[Any]) -> bytes:
    """16 bytes of the SHA-256 of the pixels, with their shape and type."""
    digest = hashlib.sha256(f"{image.shape} {image.dtype.str} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()[:HASH_BYTES]


def thumbnail(image: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """(side, side) grey levels, each the mean of its part of the image."""
    if image.shape == (side, side) and image.dtype == np.uint8:
        return image
    if image.dtype == np.uint8:
        grey = Image.fromarray(image).convert("L")
        return np.asarray(grey.resize((side, side), Image.Resampling.BOX))
    grey = image if image.ndim == 2 else image.mean(axis=-1, dtype=np.float32)
    small = Image.fromarray(np.ascontiguousarray(grey)).resize((side, side), Image.Resampling.BOX)
    return np.clip(np.rint(np.asarray(small)), 0, 255).astype(np.uint8)
