"""MATLAB's .mat files of version 7.3, which are HDF5."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from extract.datasets.files.formats.stored import Stored, UnreadableImage, check_size, reading

SUFFIXES = (".mat",)
FIGSHARE = "cjdata/image"  # of the Brain Tumor set (Cheng 2017), where a mask lies beside the image
INTERNAL = ("#refs#", "#subsystem#")  # what MATLAB keeps there isn't a variable
NUMERIC = ("", "double", "single", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)))


def read(path: Path) -> Stored:
    """Read ``cjdata/image``, or the file's only array of two or three dimensions.

    MATLAB writes its columns first, so HDF5 sees the axes in reverse; they are turned back. An
    array (rows, columns, n) is a volume of n slices; (rows, columns, 3) of uint8 is an image in
    colour, as MATLAB's own ``imshow`` takes it.
    """
    with _open(path) as file:
        dataset = _find_image(file)
        shape = dataset.shape[::-1]
        check_size(shape[0], shape[1], *shape[2:])
        values = np.asarray(dataset[()]).T
    kind = values.dtype
    span = Stored.whole_span(kind) if kind.kind in "iu" else None
    if values.ndim == 2:
        return Stored(values[None], kind, span, natural=False)
    if values.dtype == np.uint8 and values.shape[2] == 3:
        return Stored(values[None], kind, span, natural=False)
    return Stored(np.moveaxis(values, 2, 0), kind, span, natural=False, is_stack=True)


def read_mat_scalar(path: Path, name: str) -> float:
    """One number of a .mat file.

    Args:
        path: the file.
        name: of the variable, with its structure: "cjdata/label".

    Raises:
        UnreadableImage: the file can't be read, or there is no such number.
    """
    with reading(path), _open(path) as file:
        values = _dataset(file, name)[()]
        if np.size(values) != 1 or values.dtype.kind not in "iufb":
            raise UnreadableImage(f"{name} should be one number, found {_describe(values)}")
        return float(np.ravel(values)[0])


def read_mat_text(path: Path, name: str) -> str:
    """One text of a .mat file, where MATLAB keeps it as the numbers of its characters.

    Args:
        path: the file.
        name: of the variable, with its structure: "cjdata/PID".

    Raises:
        UnreadableImage: the file can't be read, or there is no such text.
    """
    with reading(path), _open(path) as file:
        codes = _dataset(file, name)[()]
        if codes.dtype != np.uint16 or codes.ndim != 2 or min(codes.shape) != 1:
            raise UnreadableImage(f"{name} should be a text, found {_describe(codes)}")
        return codes.astype("<u2").tobytes().decode("utf-16-le")


def _open(path: Path) -> h5py.File:
    if not h5py.is_hdf5(path):
        raise UnreadableImage(
            "not HDF5; .mat files of MATLAB before 7.3 aren't read: save(..., '-v7.3') makes one"
        )
    return h5py.File(path, "r", locking=False)


def _find_image(file: h5py.File) -> h5py.Dataset:
    if _is_hard(file, FIGSHARE):
        return _dataset(file, FIGSHARE)
    found = [name for name in _names(file) if _is_image(_dataset(file, name))]
    if len(found) != 1:
        what = ", ".join(found[:3]) or "none"
        raise UnreadableImage(f"expected one array of 2 or 3 dimensions, found {what}")
    return _dataset(file, found[0])


def _names(group: h5py.Group, prefix: str = "") -> Iterator[str]:
    """Datasets below a group that lie in this very file."""
    for name in map(str, group):
        if (not prefix and name in INTERNAL) or not _is_hard(group, name):
            continue
        member = group[name]
        if isinstance(member, h5py.Dataset):
            yield prefix + name
        elif isinstance(member, h5py.Group) and prefix.count("/") < 8:  # structures may be circular
            yield from _names(member, f"{prefix}{name}/")


def _is_image(dataset: h5py.Dataset) -> bool:
    matlab_class = dataset.attrs.get("MATLAB_class", b"")
    name = matlab_class.decode() if isinstance(matlab_class, bytes) else str(matlab_class)
    return (
        name in NUMERIC
        and dataset.dtype.kind in "iuf"
        and dataset.ndim in (2, 3)
        and min(dataset.shape) > 1
    )


def _is_hard(group: h5py.Group, name: str) -> bool:
    """Whether a name leads to something in this very file, by no soft or external link."""
    parts = name.split("/")
    steps = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return all(isinstance(group.get(step, getlink=True), h5py.HardLink) for step in steps)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    dataset = file[name] if _is_hard(file, name) else None
    if not isinstance(dataset, h5py.Dataset):
        raise UnreadableImage(f"no array {name} in it")
    creation = dataset.id.get_create_plist()
    if creation.get_external_count() or creation.get_layout() == h5py.h5d.VIRTUAL:
        raise UnreadableImage(f"{name} lies in another file, which is never followed")
    return dataset


def _describe(values: NDArray[Any]) -> str:
    return f"{'x'.join(map(str, values.shape)) or 'one'} {values.dtype}"
