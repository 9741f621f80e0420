"""Images and labels in MedMNIST's .npz layout, streamed: memory stays flat.

``mmap_mode`` is silently ignored for .npz files, and at 224 px PathMNIST decodes to 16 GB, so the
rows are inflated one batch at a time, straight from the zip member. Pickles are never read.
"""

import contextlib
import errno
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
from extract.datasets.volumes import Slicing

DISCARD_BYTES = 1 << 20  # read at once when skipping rows of other shards
MAX_CLASSES = 4000  # HDF5 holds no list of names in an attribute beyond 64 KiB
# What zipfile and numpy raise for a damaged file, an encrypted one, an unknown compression.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One array of an .npz file, described by its header."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool  # column after column: rows don't lie one after another


def read_members(path: Path) -> dict[str, Member]:
    """The arrays of an .npz file, without their values.

    Raises:
        RequestError: not an .npz file, damaged, or an array holds pickled objects.
    """
    with _naming_damage(path), zipfile.ZipFile(path) as archive:
        members = {}
        for entry in archive.namelist():
            with archive.open(entry) as file:
                shape, fortran, dtype = _read_npy_header(file, path, entry)
            members[entry.removesuffix(".npy")] = Member(entry, shape, dtype, fortran)
        return members


@contextlib.contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Whatever zipfile and numpy stumble over becomes one message."""
    try:
        yield
    except RequestError:
        raise
    except (*DAMAGE, OSError) as error:
        # EINVAL is a seek to a place that no file has; other OSErrors are the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise RequestError(f"{path} is damaged, or no .npz file ({error}); get it anew") from error


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
        ranges: ascending, disjoint (first, behind last) rows of the whole; a range may begin in
            one member and end in the next.

    Yields:
        One (n, ...) uint8 array a range.

    Raises:
        RequestError: the file is damaged or its images aren't uint8.
    """
    position = 0
    with (
        _naming_damage(path),
        zipfile.ZipFile(path) as archive,
        _Rows(archive, path, names) as rows,
    ):
        for start, stop in ranges:
            rows.skip(start - position)
            yield rows.take(stop - start)
            position = stop


def stream_slices(
    path: Path,
    names: Sequence[str],
    depth: int,
    slicing: Slicing,
    ranges: Sequence[tuple[int, int]],
) -> Iterator[NDArray[np.uint8]]:
    """Stream the slices of an .npz file's volumes; one volume is in memory at a time.

    Args:
        path: the .npz file.
        names: members to chain, each (n, D, H, W) uint8.
        depth: slices of a volume.
        slicing: how volumes are cut.
        ranges: ascending, disjoint (first, behind last) rows; row r is slice r mod depth of volume
            r // depth. A range may begin and end inside a volume.

    Yields:
        One (n, rows, columns) or (n, rows, columns, 3) array a range.
    """
    wanted = sorted({v for start, stop in ranges for v in _volumes(start, stop, depth)})
    volumes = zip(wanted, stream_rows(path, names, [(v, v + 1) for v in wanted]), strict=True)
    number, volume = -1, np.empty((1, 0, 0, 0), np.uint8)
    for start, stop in ranges:
        parts = []
        for v in _volumes(start, stop, depth):
            while number < v:
                number, volume = next(volumes)
            first, last = max(start - v * depth, 0), min(stop - v * depth, depth)
            parts.append(slicing.take(volume[0], first, last))
        yield np.concatenate(parts)


def _volumes(start: int, stop: int, depth: int) -> range:
    return range(start // depth, (stop - 1) // depth + 1)


class _Rows:
    """The rows of several members, one after another."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, names: Sequence[str]) -> None:
        self._archive, self._path, self._names = archive, path, list(names)
        self._file: IO[bytes] | None = None
        self._left = 0  # rows that the open member still has
        self._shape: tuple[int, ...] = ()  # of a row

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def skip(self, n: int) -> None:
        for file, count in self._pieces(n):
            _discard(file, count * self._row_bytes)

    def take(self, n: int) -> NDArray[np.uint8]:
        parts = [
            np.frombuffer(_read_exactly(file, count * self._row_bytes), np.uint8).reshape(
                count, *self._shape
            )
            for file, count in self._pieces(n)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self._shape))

    def _pieces(self, n: int) -> Iterator[tuple[IO[bytes], int]]:
        """The next n rows as (open member, rows to read from it)."""
        while n:
            while not self._left:
                self._open_next()
            count = min(n, self._left)
            self._left -= count
            n -= count
            assert self._file is not None
            yield self._file, count

    def _open_next(self) -> None:
        if not self._names:
            raise EOFError("fewer rows than its headers say")
        if self._file is not None:
            self._file.close()
        name = self._names.pop(0)
        self._file = self._archive.open(f"{name}.npy")
        shape, fortran, dtype = _read_npy_header(self._file, self._path, name)
        _check_streamable(self._path, Member(name, shape, dtype, fortran))
        self._left, self._shape = shape[0], shape[1:]


def _check_streamable(path: Path, member: Member) -> None:
    if member.fortran or member.dtype != np.uint8:
        raise RequestError(
            f"{path}: {member.name} should be uint8 in C order, found {member.dtype}"
            f"{' in Fortran order' if member.fortran else ''}"
        )


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
    slicing: Slicing | None = None,
) -> Dataset:
    """A data set from a file with ``{split}_images`` and ``{split}_labels``.

    Args:
        path: the .npz file; images (n, S, S) or (n, S, S, 3) uint8, or volumes (n, S, S, S), labels
            (n, 1) or (n, C).
        name: of the data set.
        images_digest: digest of the file, for the key.
        task: one of MedMNIST's words; None infers it from the labels.
        class_names: None names the classes by their numbers.
        licence: for the user to see.
        slicing: how volumes are cut; None for images.

    Raises:
        RequestError: arrays are missing or don't fit each other.
    """
    members = read_members(path)
    n_rows, side, n_channels = check_images(path, members, slicing)
    counts = [members[f"{split}_images"].shape[0] for split in SPLITS]
    with _naming_damage(path), np.load(path, allow_pickle=False) as file:
        parts = [np.asarray(file[f"{split}_labels"]) for split in SPLITS]
    labels = _join_labels(path, parts, counts)
    task = task or class_task(labels)
    n_classes = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=0)) + 1
    names = tuple(class_names or (str(i) for i in range(max(n_classes, 2))))
    if n_classes > len(names):
        raise RequestError(
            f"{path}: labels must lie in 0..{len(names) - 1}, found {labels.min()}..{labels.max()}"
        )
    ids = np.array([f"{s}/{i:06d}" for s, n in zip(SPLITS, counts, strict=True) for i in range(n)])
    images = [f"{split}_images" for split in SPLITS]
    row_ids, row_sample = ids, np.arange(len(ids))
    depth = n_rows // max(len(ids), 1)
    if slicing is not None:
        row_ids = np.array([f"{name}/{i:03d}" for name in ids for i in range(depth)])
        row_sample = row_sample.repeat(depth)

    def stream(ranges: Sequence[tuple[int, int]]) -> Iterator[NDArray[np.uint8]]:
        if slicing is None:
            return stream_rows(path, images, ranges)
        return stream_slices(path, images, depth, slicing, ranges)

    return Dataset(
        name=name,
        task=task,
        class_names=names,
        source_size=side,
        n_channels=n_channels,
        samples=Samples(ids, np.repeat(np.arange(3, dtype=np.uint8), counts), labels),
        row_ids=row_ids,
        row_sample=row_sample,
        images_digest=images_digest,
        stream=stream,
        licence=licence,
        slicing=slicing,
    )


def check_images(
    path: Path, members: dict[str, Member], slicing: Slicing | None = None
) -> tuple[int, int, int]:
    """What the headers tell of the images: how many there are, their side, their channels.

    Args:
        path: the .npz file.
        members: as ``read_members`` gives them.
        slicing: how volumes are cut, whose slices are then the images; None for images.

    Raises:
        RequestError: members are missing, or the images can't be streamed as they are.
    """
    wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
    missing = [member for member in wanted if member not in members]
    if missing:
        raise RequestError(
            f"{path} lacks {', '.join(missing)}; expected MedMNIST's layout: {', '.join(wanted)}"
        )
    side, n_channels = _image_shape(path, members, slicing)
    images = [members[f"{split}_images"] for split in SPLITS]
    for member in images:
        _check_streamable(path, member)
    n = sum(member.shape[0] for member in images)
    return n * (side if slicing else 1), side, n_channels


def is_volume(members: dict[str, Member]) -> bool:
    """Whether the images are (n, S, S, S); an array (n, 3, 3, 3) is small pictures in colour."""
    member = members.get("train_images")
    return member is not None and len(member.shape) == 4 and member.shape[3] != 3


def _image_shape(
    path: Path, members: dict[str, Member], slicing: Slicing | None
) -> tuple[int, int]:
    """Side and channels of the images, the same in every split."""
    shapes = {members[f"{split}_images"].shape[1:] for split in SPLITS}
    shape = next(iter(shapes))
    if slicing is not None and len(shapes) == 1 and len(shape) == 3 and len({*shape}) == 1:
        return shape[0], slicing.n_channels
    square = len(shape) in (2, 3) and shape[0] == shape[1] and shape[2:] in ((), (3,))
    if len(shapes) > 1 or not square:
        raise RequestError(
            f"{path}: images should be (n, S, S), (n, S, S, 3) or volumes (n, S, S, S), and alike "
            "in every split, found "
            f"{', '.join(str(('n', *s)) for s in sorted(shapes))}"
        )
    return shape[0], 3 if len(shape) == 3 else 1


def _join_labels(path: Path, parts: list[np.ndarray], counts: list[int]) -> NDArray[np.int64]:
    for split, part, n in zip(SPLITS, parts, counts, strict=True):
        if part.shape[:1] != (n,) or part.dtype.kind not in "iub" or part.ndim > 2:
            raise RequestError(
                f"{path}: {split}_labels should be {n} rows of whole numbers, found "
                f"{part.shape} {part.dtype}"
            )
    columns = {part.shape[1:] for part in parts}
    if len(columns) > 1:
        raise RequestError(f"{path}: labels differ in shape between the splits: {columns}")
    labels = np.concatenate(parts).astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    highest = 1 if labels.ndim == 2 else MAX_CLASSES - 1
    if labels.min(initial=0) < 0 or labels.max(initial=0) > highest:
        raise RequestError(
            f"{path}: labels must lie in 0..{highest}"
            f"{', one column a class' if labels.ndim == 2 else ''}, "
            f"found {labels.min()}..{labels.max()}"
        )
    return labels
