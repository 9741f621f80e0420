"""MedMNIST's sets: the official files, checked, from the disk or from their own addresses.

Facts (task, classes, sizes of the splits, MD5, addresses) come from ``medmnist.INFO``.
"""

import functools
import importlib.util
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache import RequestError
from cache.format.sample_tables import SPLITS
from extract.datasets.arrays.npz import open_npz, read_members
from extract.datasets.arrays.official import OfficialFile, check_file, choose_size
from extract.datasets.dataset import Dataset
from extract.datasets.volumes import Slicing

FLAGS_2D = (  # smallest first, so that a long run has something to show soon
    "breastmnist",
    "retinamnist",
    "pneumoniamnist",
    "dermamnist",
    "bloodmnist",
    "organcmnist",
    "organsmnist",
    "organamnist",
    "pathmnist",
    "octmnist",
    "chestmnist",
    "tissuemnist",
)
FLAGS_3D = (  # likewise
    "organmnist3d",
    "adrenalmnist3d",
    "nodulemnist3d",
    "fracturemnist3d",
    "synapsemnist3d",
    "vesselmnist3d",
)
FLAGS = (*FLAGS_2D, *FLAGS_3D)
SIZES_2D = (28, 64, 128, 224)
SIZES_3D = (28, 64)
# The second Zenodo edition (2022) had other Organ splits; medmnist 3 publishes the third.
OLD_EDITION = {
    "organamnist": (34581, 6491, 17778),
    "organcmnist": (13000, 2392, 8268),
    "organsmnist": (13940, 2452, 8829),
}


def info(flag: str) -> dict[str, Any]:
    """MedMNIST's own description of a set.

    Raises:
        RequestError: there is no such set.
    """
    every = _every_info()
    if flag not in every:
        raise RequestError(f"no data set {flag!r} among MedMNIST's; there are {', '.join(FLAGS)}")
    return every[flag]


@functools.cache
def _every_info() -> dict[str, Any]:
    """``medmnist.INFO``, from its file alone: to import the package is to import torch, seconds."""
    package = importlib.util.find_spec("medmnist")
    assert package is not None, "it is a dependency"
    assert package.origin is not None
    return runpy.run_path(str(Path(package.origin).with_name("info.py")))["INFO"]


def find_file(flag: str, size: int, source_size: int | None, root: Path | None) -> OfficialFile:
    """Which official file belongs to a request.

    Args:
        flag: e.g. "pathmnist".
        size: side of the encoder's input: decides the source size if that is None.
        source_size: 28, 64, 128 or 224, of volumes 28 or 64; None: see ``choose_size``.
        root: the folder of the files; None is MedMNIST's own, ``~/.medmnist``.

    Raises:
        RequestError: unknown set or size.
    """
    facts = info(flag)
    is_volume = flag in FLAGS_3D
    root = root or Path.home() / ".medmnist"
    paths = {s: _path(root, flag, s) for s in (SIZES_3D if is_volume else SIZES_2D)}
    source_size, usual_size = choose_size(flag, paths, size, source_size)
    suffix = _suffix(source_size)
    n_images = sum(facts["n_samples"].values())
    return OfficialFile(
        flag,
        source_size,
        paths[source_size],
        facts[f"MD5{suffix}"],
        facts[f"url{suffix}"],
        n_images,
        n_images * facts["n_channels"] * source_size ** (3 if is_volume else 2),
        usual_size,
        tuple(paths.items()),
    )


def _path(root: Path, flag: str, size: int) -> Path:
    return root / f"{flag}{_suffix(size)}.npz"


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def open_medmnist(
    file: OfficialFile, md5_of: Callable[[Path], str], slicing: Slicing | None = None
) -> Dataset:
    """Check an official file and describe it.

    Args:
        file: present on the disk.
        md5_of: computes, or remembers, a file's MD5.
        slicing: how volumes are cut.

    Raises:
        RequestError: it isn't the official file; expected and found are named.
    """
    facts = info(file.name)
    check_file(file, md5_of, _why_not)
    return open_npz(
        file.path,
        file.name,
        f"md5:{file.md5}",
        task=facts["task"],
        class_names=tuple(facts["label"].values()),
        licence=facts["license"],
        slicing=slicing,
    )


def _why_not(file: OfficialFile) -> str:
    """Why a file isn't the official one, as far as its numbers of images tell."""
    expected = tuple(info(file.name)["n_samples"].values())
    members = read_members(file.path)
    counts = tuple(members[f"{split}_images"].shape[0] for split in SPLITS)
    if counts == OLD_EDITION.get(file.name):
        return f" (it is the edition of 2022: {counts} images instead of {expected})"
    return f" (it has {counts} images instead of {expected})" if counts != expected else ""
