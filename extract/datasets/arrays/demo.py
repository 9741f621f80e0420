"""The demonstration set: patches of one averaged brain. It needs no download, and proves nothing.

Images are 64 x 64 px axial patches of the MNI152 template (Fonov et al. 2011,
https://doi.org/10.1016/j.neuroimage.2010.07.033) as nilearn ships it: T1, grey-matter and
white-matter map. The class is the map. The template is exactly left-right symmetric, so its
hemispheres are mirror images and must not stand on two sides of a split: the splits are cut front
to back instead, val and test from each other by height, with gaps wider than nothing shared.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.format.spec import Samples
from cache.task import MULTI_CLASS
from extract.datasets.dataset import Dataset

NAME = "demo"
SIDE = 64  # px; 1 px is 1 mm
MAPS = ("t1", "gm", "wm")
TASK = MULTI_CLASS
CLASS_NAMES = ("T1", "grey matter", "white matter")
LICENCE = "MNI152 template: free to use and copy with its copyright notice"
STRIDE = 8  # px between neighbouring patches
TISSUE = 0.2  # of the T1's largest value: brighter is tissue
MIN_TISSUE = 0.6  # of a patch's pixels
# Where patches may lie: y wholly inside [first, behind last), z from these slices.
REGIONS = {
    "train": (range(0, 116), range(0, 189, 2)),
    "val": (range(120, 233), range(56, 76, 2)),
    "test": (range(120, 233), range(84, 124, 2)),
}
PER_CLASS = {"train": 300, "val": 60, "test": 100}


def demo_counts() -> int:
    """How many images the set has."""
    return len(MAPS) * sum(PER_CLASS.values())


def open_demo() -> Dataset:
    """Cut the patches: always the same ones.

    Raises:
        RequestError: nilearn or nibabel isn't installed.
    """
    volumes = [read_map(name) for name in MAPS]
    images, labels, split, ids = [], [], [], []
    for index, name in enumerate(SPLITS):
        for x, y, z in choose_places(volumes[0], name):
            for label, volume in enumerate(volumes):
                # Rows from front to back, columns from left to right.
                images.append(volume[x : x + SIDE, y : y + SIDE, z].T[::-1])
                labels.append(label)
                split.append(index)
                ids.append(f"{name}/{MAPS[label]}/x{x:03d}-y{y:03d}-z{z:03d}")
    stack = np.stack(images)
    digest = hashlib.sha256("\n".join(ids).encode() + stack.tobytes()).hexdigest()
    return Dataset(
        name=NAME,
        task=TASK,
        class_names=CLASS_NAMES,
        source_size=SIDE,
        n_channels=1,
        samples=Samples(np.array(ids), np.array(split, np.uint8), np.array(labels, np.int64)),
        row_ids=np.array(ids),
        row_sample=np.arange(len(ids)),
        images_digest=f"sha256:{digest}",
        stream=lambda ranges: (stack[start:stop] for start, stop in ranges),
        licence=LICENCE,
    )


def choose_places(t1: NDArray[np.uint8], split: str) -> list[tuple[int, int, int]]:
    """The (x, y, z) corners of a split's patches, evenly spread over all that qualify."""
    tissue = t1 > TISSUE * t1.max()
    inside_y, slices = REGIONS[split]
    places = [
        (x, y, z)
        for z in slices
        for y in range(inside_y.start, inside_y.stop - SIDE + 1, STRIDE)
        for x in range(0, t1.shape[0] - SIDE + 1, STRIDE)
        if tissue[x : x + SIDE, y : y + SIDE, z].mean() > MIN_TISSUE
    ]
    chosen = np.linspace(0, len(places) - 1, PER_CLASS[split]).round().astype(int)
    return [places[i] for i in chosen]


def read_map(name: str) -> NDArray[np.uint8]:
    """One of the template's maps, (x, y, z) from left, behind and below.

    Raises:
        RequestError: nilearn or nibabel isn't installed.
    """
    found = importlib.util.find_spec("nilearn")  # found, not imported: that would take seconds
    if found is None or not found.submodule_search_locations:
        raise RequestError("the demo needs nilearn and nibabel: pip install 'medprobe[demo]'")
    try:
        import nibabel
    except ImportError as error:
        raise RequestError("the demo needs nibabel: pip install 'medprobe[demo]'") from error
    folder = Path(next(iter(found.submodule_search_locations))) / "datasets" / "data"
    path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise RequestError(f"nilearn has no {path.name}; install the version that pyproject names")
    return np.asarray(nibabel.load(path).dataobj).astype(np.uint8)  # type: ignore[attr-defined]
