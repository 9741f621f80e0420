"""Images and labels in MedMNIST's .npz layout, streamed: memory stays flat.

``mmap_mode`` is silently ignored for .npz files, and at 224 px PathMNIST decodes to 16 GB, so the
rows are inflated one batch at a time, straight from the zip member. Pickles are never read.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.layout import SPLITS, Samples
from extract.datasets.dataset import Dataset, class_task

DISCARD_BYTES = 1 << 20  # read at once when skipping rows of other shards


@dataclass(frozen=True)
class Member:
    """One array of an .npz file, described by its header."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


def read_members(path: Path) -> dict[str, Member]:
    """The arrays of an .npz file, without their values.

    Raises:
        RequestError: not an .npz file, damaged, or an array holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {}
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    shape, _, dtype = _read_npy_header(file, path, entry)
                members[entry.removesuffix(".npy")] = Member(entry, shape, dtype)
            return members
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{path} isn't a readable .npz file ({error}); get it anew") from error


def _read_npy_header(
    file: IO[bytes], path: Path, entry: str
) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise RequestError(f"{path}: {entry} has an unknown .npy version {version}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise RequestError(
            f"{path}: {entry} holds pickled objects, which are never read; expected plain numbers"
        )
    return shape, fortran, dtype


def stream_rows(
    path: Path, names: Sequence[str], ranges: Sequence[tuple[int, int]]
) -> Iterator[NDArray[np.uint8]]:
    """Stream rows of several members, seen as one long array.

    Args:
        path: the .npz file.
        names: members to chain, each (n, ...) uint8 in C order, e.g. "train_images".
        ranges: ascending, disjoint (first, behind last) rows of the whole; none crosses... any
            range may cross from one member into the next.

    Yields:
        One (n, ...) uint8 array a range.

    Raises:
        RequestError: the file is damaged or its images aren't uint8.
    """
    rows = _rows(path, names)
    position = 0
    next(rows)  # start the generator: it takes orders from here on
    for start, stop in ranges:
        if start > position:
            rows.send((start - position, False))
        yield rows.send((stop - start, True))
        position = stop
    rows.close()


def _rows(path: Path, names: Sequence[str]):
    """A coroutine: send (n, wanted) and get the next n rows, or None for skipped ones."""
    order = yield None
    parts: list[NDArray[np.uint8]] = []
    left, wanted = order
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    shape, fortran, dtype = _read_npy_header(file, path, name)
                    if fortran or dtype != np.uint8:
                        raise RequestError(
                            f"{path}: {name} should be uint8 in C order, found {dtype}"
                            f"{' in Fortran order' if fortran else ''}"
                        )
                    row_bytes = int(np.prod(shape[1:]))
                    available = shape[0]
                    while available:
                        n = min(left, available)
                        if wanted:
                            data = _read_exactly(file, n * row_bytes)
                            parts.append(np.frombuffer(data, np.uint8).reshape(n, *shape[1:]))
                        else:
                            _discard(file, n * row_bytes)
                        available -= n
                        left -= n
                        if not left:
                            block = (
                                np.concatenate(parts) if len(parts) > 1 else (parts or [None])[0]
                            )
                            parts = []
                            left, wanted = yield block
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise RequestError(f"{path} is damaged ({error}); get it anew") from error
    raise RequestError(f"{path} holds fewer rows than its header says; get it anew")


def _read_exactly(file: IO[bytes], n_bytes: int) -> bytearray:
    data = bytearray(n_bytes)
    view = memoryview(data)
    while view:
        chunk = file.read(min(len(view), DISCARD_BYTES))
        if not chunk:
            raise EOFError("the data end early")
        view[: len(chunk)] = chunk
        view = view[len(chunk) :]
    return data


def _discard(file: IO[bytes], n_bytes: int) -> None:
    while n_bytes:
        chunk = file.read(min(n_bytes, DISCARD_BYTES))
        if not chunk:
            raise EOFError("the data end early")
        n_bytes -= len(chunk)


def open_npz(
    path: Path,
    name: str,
    images_digest: str,
    *,
    task: str | None = None,
    class_names: Sequence[str] | None = None,
    licence: str = "",
) -> Dataset:
    """A data set from a file with ``{split}_images`` and ``{split}_labels``.

    Args:
        path: the .npz file; images (n, H, W) or (n, H, W, 3) uint8, labels (n, 1) or (n, C).
        name: of the data set.
        images_digest: digest of the file, for the key.
        task: one of MedMNIST's words; None infers it from the labels.
        class_names: None names the classes by their numbers.
        licence: for the user to see.

    Raises:
        RequestError: arrays are missing or don't fit each other.
    """
    members = read_members(path)
    wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
    missing = [member for member in wanted if member not in members]
    if missing:
        raise RequestError(
            f"{path} lacks {', '.join(missing)}; expected MedMNIST's layout: {', '.join(wanted)}"
        )
    counts = [members[f"{split}_images"].shape[0] for split in SPLITS]
    side, n_channels = _image_shape(path, members)
    with np.load(path, allow_pickle=False) as file:
        parts = [np.asarray(file[f"{split}_labels"]) for split in SPLITS]
    labels = _join_labels(path, parts, counts)
    task = task or class_task(labels)
    n_classes = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=0)) + 1
    names = tuple(class_names or (str(i) for i in range(max(n_classes, 2))))
    if labels.min(initial=0) < 0 or (labels.ndim == 1 and n_classes > len(names)):
        raise RequestError(
            f"{path}: labels must lie in 0..{len(names) - 1}, found {labels.min()}..{labels.max()}"
        )
    ids = np.array([f"{s}/{i:06d}" for s, n in zip(SPLITS, counts, strict=True) for i in range(n)])
    images = [f"{split}_images" for split in SPLITS]
    return Dataset(
        name=name,
        task=task,
        class_names=names,
        source_size=side,
        n_channels=n_channels,
        samples=Samples(ids, np.repeat(np.arange(3, dtype=np.uint8), counts), labels),
        row_ids=ids,
        row_sample=np.arange(len(ids)),
        images_digest=images_digest,
        stream=lambda ranges: stream_rows(path, images, ranges),
        licence=licence,
    )


def _image_shape(path: Path, members: dict[str, Member]) -> tuple[int, int]:
    """Side and channels of the images, the same in every split."""
    shapes = {members[f"{split}_images"].shape[1:] for split in SPLITS}
    shape = next(iter(shapes))
    square = len(shape) in (2, 3) and shape[0] == shape[1] and shape[2:] in ((), (3,))
    if len(shapes) > 1 or not square:
        raise RequestError(
            f"{path}: images should be (n, S, S) or (n, S, S, 3) and alike in every split, found "
            f"{', '.join(str(('n', *s)) for s in sorted(shapes))}"
        )
    return shape[0], 3 if len(shape) == 3 else 1


def _join_labels(path: Path, parts: list[np.ndarray], counts: list[int]) -> NDArray[np.int64]:
    for split, part, n in zip(SPLITS, parts, counts, strict=True):
        if len(part) != n or part.dtype.kind not in "iub" or part.ndim > 2:
            raise RequestError(
                f"{path}: {split}_labels should be {n} rows of whole numbers, found "
                f"{part.shape} {part.dtype}"
            )
    columns = {part.shape[1:] for part in parts}
    if len(columns) > 1:
        raise RequestError(f"{path}: labels differ in shape between the splits: {columns}")
    labels = np.concatenate(parts).astype(np.int64)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
