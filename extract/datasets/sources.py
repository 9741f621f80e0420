"""What ``--data`` can name: each source knows whether its images are here and how to get them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import RequestError
from cache.key import file_stem
from extract.datasets import demo, medmnist
from extract.datasets.dataset import Dataset
from extract.datasets.npz import check_images, is_volume, open_npz, read_members
from extract.datasets.volumes import Slicing
from extract.digests import DigestMemory, file_md5

NPZ = "npz:"


@dataclass(frozen=True)
class Source:
    """A data set that was named, before its images are read."""

    name: str
    wish: str  # as typed after --data
    n_images: int
    source_size: int
    n_channels: int
    open: Callable[[DigestMemory], Dataset]  # checks the file; raises RequestError
    path: Path | None = None  # the file whose MD5 stands for the images
    file: medmnist.MedmnistFile | None = None  # where it can be downloaded to
    classes: tuple[str, tuple[str, ...]] | None = None  # task and class names, where known already
    slicing: Slicing | None = None  # how volumes are cut into rows; None: images

    @property
    def present(self) -> bool:
        """Whether the images are on this machine."""
        return self.file is None or self.file.exists


def expand_names(names: tuple[str, ...]) -> list[str]:
    """``all`` becomes the twelve 2D sets, ``all3d`` the six 3D sets; doubles are dropped."""
    groups = {"all": medmnist.FLAGS_2D, "all3d": medmnist.FLAGS_3D}
    wide = [flag for name in names for flag in groups.get(name, (name,))]
    return list(dict.fromkeys(wide))


def find_source(
    name: str,
    size: int,
    source_size: int | None,
    root: Path | None,
    slicing: Slicing | None = None,
) -> Source:
    """The source behind one word of ``--data``.

    Args:
        name: a MedMNIST flag, "demo", or "npz:FILE" for a file in MedMNIST's layout.
        size: side of the encoder's input, pixels.
        source_size: which of MedMNIST's sizes; None chooses by ``size``.
        root: folder of MedMNIST's files.
        slicing: how volumes are cut; None: along their first axis, one by one.

    Raises:
        RequestError: unknown name, a file that isn't there, or slices of what has none.
    """
    if name == demo.NAME:
        _refuse_slicing(name, slicing)
        _refuse_source_size(name, source_size, demo.SIDE)
        n = demo.demo_counts()
        classes = (demo.TASK, demo.CLASS_NAMES)
        return Source(name, name, n, demo.SIDE, 1, lambda memory: demo.open_demo(), classes=classes)
    if name.startswith(NPZ):
        return _npz_source(Path(name.removeprefix(NPZ)).expanduser(), source_size, slicing)
    file = medmnist.find_file(name, size, source_size, root)

    def open_file(memory: DigestMemory) -> Dataset:
        return medmnist.open_medmnist(file, lambda p: memory.get("md5", p, file_md5), cut)

    facts = medmnist.info(name)
    cut = (slicing or Slicing()) if name in medmnist.FLAGS_3D else None
    if cut is None:
        _refuse_slicing(name, slicing)
    return Source(
        name,
        name,
        file.n_images * (file.source_size if cut else 1),
        file.source_size,
        cut.n_channels if cut else facts["n_channels"],
        open_file,
        file.path,
        file,
        (facts["task"], tuple(facts["label"].values())),
        cut,
    )


def _npz_source(path: Path, source_size: int | None, slicing: Slicing | None) -> Source:
    if not path.is_file():
        raise RequestError(f"no file at {path}; --data npz:FILE takes a file in MedMNIST's layout")
    name = file_stem(path.stem)
    if name in (*medmnist.FLAGS, demo.NAME):
        raise RequestError(
            f"{path} is named like the official set {name}, and its rows would pass for it; rename "
            f"the file, or name its folder with --data {name} --data-root {path.parent}"
        )
    members = read_members(path)
    cut = (slicing or Slicing()) if is_volume(members) else None
    if cut is None:
        _refuse_slicing(path.name, slicing)
    n, side, n_channels = check_images(path, members, cut)
    _refuse_source_size(path.name, source_size, side)

    def open_file(memory: DigestMemory) -> Dataset:
        return open_npz(path, name, "md5:" + memory.get("md5", path, file_md5), slicing=cut)

    return Source(name, f"{NPZ}{path}", n, side, n_channels, open_file, path, slicing=cut)


def _refuse_slicing(name: str, slicing: Slicing | None) -> None:
    if slicing is not None:
        raise RequestError(
            f"--slice-axis and --slice-neighbours are for volumes, and {name} has images; leave "
            "them out"
        )


def _refuse_source_size(name: str, wish: int | None, side: int) -> None:
    if wish is not None and wish != side:
        raise RequestError(f"--source-size {wish}: {name} has images of {side} px only")
