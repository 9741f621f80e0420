"""What ``--data`` can name: each source knows whether its images are here and how to get them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import RequestError
from cache.key import file_stem
from extract.datasets import demo, medmnist
from extract.datasets.dataset import Dataset
from extract.datasets.npz import check_images, open_npz, read_members
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

    @property
    def present(self) -> bool:
        """Whether the images are on this machine."""
        return self.file is None or self.file.exists


def expand_names(names: tuple[str, ...]) -> list[str]:
    """``all`` becomes the twelve 2D sets, smallest first; doubles are dropped."""
    wide = [flag for name in names for flag in (medmnist.FLAGS_2D if name == "all" else (name,))]
    return list(dict.fromkeys(wide))


def find_source(name: str, size: int, source_size: int | None, root: Path | None) -> Source:
    """The source behind one word of ``--data``.

    Args:
        name: a MedMNIST flag, "demo", or "npz:FILE" for a file in MedMNIST's layout.
        size: side of the encoder's input, pixels.
        source_size: which of MedMNIST's sizes; None chooses by ``size``.
        root: folder of MedMNIST's files.

    Raises:
        RequestError: unknown name, or a file that isn't there.
    """
    if name == demo.NAME:
        _refuse_source_size(name, source_size, demo.SIDE)
        n = demo.demo_counts()
        classes = (demo.TASK, demo.CLASS_NAMES)
        return Source(name, name, n, demo.SIDE, 1, lambda memory: demo.open_demo(), classes=classes)
    if name.startswith(NPZ):
        return _npz_source(Path(name.removeprefix(NPZ)).expanduser(), source_size)
    file = medmnist.find_file(name, size, source_size, root)

    def open_file(memory: DigestMemory) -> Dataset:
        return medmnist.open_medmnist(file, lambda p: memory.get("md5", p, file_md5))

    facts = medmnist.info(name)
    return Source(
        name,
        name,
        file.n_images,
        file.source_size,
        facts["n_channels"],
        open_file,
        file.path,
        file,
        (facts["task"], tuple(facts["label"].values())),
    )


def _npz_source(path: Path, source_size: int | None) -> Source:
    if not path.is_file():
        raise RequestError(f"no file at {path}; --data npz:FILE takes a file in MedMNIST's layout")
    name = file_stem(path.stem)
    if name in (*medmnist.FLAGS_2D, demo.NAME):
        raise RequestError(
            f"{path} is named like the official set {name}, and its rows would pass for it; rename "
            f"the file, or name its folder with --data {name} --data-root {path.parent}"
        )
    n, side, n_channels = check_images(path, read_members(path))
    _refuse_source_size(path.name, source_size, side)

    def open_file(memory: DigestMemory) -> Dataset:
        return open_npz(path, name, "md5:" + memory.get("md5", path, file_md5))

    return Source(name, f"{NPZ}{path}", n, side, n_channels, open_file, path)


def _refuse_source_size(name: str, wish: int | None, side: int) -> None:
    if wish is not None and wish != side:
        raise RequestError(f"--source-size {wish}: {name} has images of {side} px only")
