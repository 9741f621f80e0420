"""The demonstration set with masks: whole slices of one averaged brain. It proves nothing, either.

Images are axial slices, 233 x 197 px of 1 mm, of the T1 of the MNI152 template that ``demo`` is cut
from; masks say of each pixel which is likeliest: grey matter, white matter, or neither (all else, fluid
too), by the template's two maps of probability. Splits lie one above the other with GAP mm between
them, both hemispheres of a slice in one, for they are mirror images. Test lies in the middle, so that
train has slices below and above it, and none needs to be told of what no other has.

On a grid of 32 x 32 patches (--size 256 --tokens 2 of efficientnet-lite0, each 8 mm) the true masks,
pooled to the grid and back, reach a Dice of .84 for grey and .88 for white matter in the slices of test;
on 4 x 4, the last layer at 128 px, .24 and .63.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.format.sample_tables import SPLITS
from cache.format.spec import Samples
from cache.labels.target import unlabelled
from cache.masks import MaskSource
from extract.datasets.arrays.demo import LICENCE, read_map
from extract.datasets.dataset import Dataset, Ranges

NAME = "demo-masks"
CLASS_NAMES = ("background", "grey matter", "white matter")
SHAPE = (233, 197)
GAP = 6  # mm, and slices
SLICES = {
    "train": (*range(20, 61), *range(119, 145)),
    "val": tuple(range(67, 81)),
    "test": tuple(range(87, 113)),
}


def demo_counts() -> dict[str, int]:
    """How many images each split has."""
    return {split: len(slices) for split, slices in SLICES.items()}


def open_demo() -> Dataset:
    """Cut the slices: always the same ones.

    Raises:
        RequestError: nilearn or nibabel isn't installed.
    """
    t1, grey, white = (read_map(name).astype(np.uint8) for name in ("t1", "gm", "wm"))
    neither = 255 - np.minimum(grey.astype(np.int16) + white, 255)
    likeliest = np.argmax(np.stack([neither, grey, white]), axis=0).astype(np.uint8)
    places = [(split, z) for split in SPLITS for z in SLICES[split]]
    ids = np.array([f"{split}/z{z:03d}" for split, z in places])
    images, masks = (
        # Rows from front to back, columns from left to right.
        np.stack([volume[:, :, z].T[::-1] for _, z in places])
        for volume in (t1, likeliest)
    )

    def stream(ranges: Ranges) -> Iterator[NDArray[np.uint8]]:
        return (images[start:stop] for start, stop in ranges)

    def stream_masks(ranges: Ranges) -> Iterator[Sequence[NDArray[np.uint8]]]:
        return (list(masks[start:stop]) for start, stop in ranges)

    return Dataset(
        name=NAME,
        task=(target := unlabelled(len(ids))).task,
        class_names=target.class_names,
        source_size=None,
        n_channels=1,
        samples=Samples(
            ids, np.array([SPLITS.index(split) for split, _ in places], np.uint8), target.labels
        ),
        row_ids=ids,
        row_sample=np.arange(len(ids)),
        images_digest=_digest(ids, images),
        stream=stream,
        licence=LICENCE,
        masks=MaskSource(
            CLASS_NAMES, 0, None, stream_masks, np.ones((len(ids), 3)), _digest(ids, masks)
        ),
    )


def _digest(ids: NDArray[np.str_], stack: NDArray[np.uint8]) -> str:
    return f"sha256:{hashlib.sha256(chr(10).join(ids).encode() + stack.tobytes()).hexdigest()}"
