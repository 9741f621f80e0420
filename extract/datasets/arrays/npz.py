"""Images and labels in MedMNIST's .npz layout, streamed: memory stays flat.

``mmap_mode`` is silently ignored for .npz files, and at 224 px PathMNIST decodes to 16 GB, so the
rows are inflated one batch at a time, straight from the zip member. Pickles are never read.
"""

import contextlib
import errno
import io
import math
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.format.spec import Samples
from extract.datasets.dataset import Dataset, class_task
from extract.datasets.files.formats.stored import UnreadableImage, check_size
from extract.datasets.volumes import Slicing

CHUNK_BYTES = 1 << 20  # inflated at once
MAX_CLASSES = 4000  # HDF5 holds no list of names in an attribute beyond 64 KiB
# numpy.lib.format: a version's reader, and how the length before its header is written.
HEADERS = {
    (1, 0): (np.lib.format.read_array_header_1_0, "<H"),
    (2, 0): (np.lib.format.read_array_header_2_0, "<I"),
}
MAX_HEADER = 10_000  # numpy's own bound; arrays of numbers have 128 bytes
DEFLATE_RATIO = 1032  # zlib can't do more (zlib.net/zlib_tech.html)
MAX_SAMPLES = 2**24  # their ids take 2 GB; the largest MedMNIST set has 236,386
MAX_LABEL_BYTES = 2**31
# Types of arrays that hold whole numbers, as labels of pixels may.
WHOLE = ("uint8", "bool", *(f"{sign}int{n}" for n in (8, 16, 32, 64) for sign in ("", "u")))
CHANNELS = (1, 2, 3, 4)  # lengths of an axis that is one of channels, not of space
# What zipfile and numpy raise for a damaged file, an encrypted one, an unknown compression.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, struct.error)


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
        RequestError: not an .npz file, damaged, an array holds pickled objects, or says that it has
            more values than the file can hold.
    """
    with _naming_damage(path), zipfile.ZipFile(path) as archive:
        members = {}
        for entry in archive.infolist():
            member = _read_member(archive, path, entry)
            members[entry.filename.removesuffix(".npy")] = member
        return members


def _read_member(archive: zipfile.ZipFile, path: Path, entry: zipfile.ZipInfo) -> Member:
    # Only these two are inflated piece by piece: a few bytes of the others fill any memory.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RequestError(f"{path}: {entry.filename} is compressed otherwise than numpy does it")
    with archive.open(entry) as file:
        shape, fortran, dtype = _read_npy_header(file, path, entry.filename)
        n_bytes = math.prod(shape) * dtype.itemsize
        can_hold = min(entry.file_size, entry.compress_size * DEFLATE_RATIO) - file.tell()
    if min(shape, default=0) < 0 or n_bytes > can_hold:
        raise RequestError(
            f"{path}: {entry.filename} says that it holds {shape} of {dtype}, and the file holds "
            f"{max(can_hold, 0):_} bytes of it at most"
        )
    return Member(entry.filename, shape, dtype, fortran)


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
    read, length_format = HEADERS.get(version, (None, ""))
    if read is None:
        raise RequestError(f"{path}: {entry} has an unknown .npy version {version}")
    length = file.read(struct.calcsize(length_format))
    n = struct.unpack(length_format, length)[0]
    if n > MAX_HEADER:
        raise RequestError(f"{path}: {entry} has a header of {n:_} bytes; at most {MAX_HEADER:_}")
    try:
        shape, fortran, dtype = read(io.BytesIO(length + file.read(n)))
    # The one broad except: Python's parser, which numpy asks, raises anything, even MemoryError.
    except Exception as error:
        raise ValueError(f"{entry} has a header that can't be read") from error
    if dtype.hasobject:
        raise RequestError(
            f"{path}: {entry} holds pickled objects, which are never read; expected plain numbers"
        )
    return shape, fortran, dtype


def stream_rows(
    path: Path,
    names: Sequence[str],
    ranges: Sequence[tuple[int, int]],
    dtypes: Sequence[str] = ("uint8",),
) -> Iterator[NDArray[Any]]:
    """Stream rows of several members, seen as one long array.

    Args:
        path: the .npz file.
        names: members to chain, each (n, ...) in C order, e.g. "train_images".
        ranges: ascending, disjoint (first, behind last) rows of the whole; a range may begin in
            one member and end in the next.
        dtypes: that they may have.

    Yields:
        One (n, ...) array a range.

    Raises:
        RequestError: the file is damaged or has another type.
    """
    with (
        _naming_damage(path),
        zipfile.ZipFile(path) as archive,
        contextlib.closing(_open_members(archive, path, names, dtypes)) as members,
    ):
        position, end = 0, 0  # number of the next row, and of that behind the open member
        for start, stop in ranges:
            parts: list[NDArray[Any]] = []
            while position < stop:
                while position == end:
                    file, dtype, (n_rows, *shape) = next(members)
                    end += n_rows
                is_wanted = position >= start
                n = min(end, stop if is_wanted else start) - position
                chunks = _chunks(file, n * math.prod(shape) * dtype.itemsize)
                if is_wanted:
                    parts.append(np.frombuffer(_filled(chunks), dtype).reshape(n, *shape))
                else:
                    deque(chunks, maxlen=0)
                position += n
            # Popped: while the consumer works, only it holds them.
            parts = [np.concatenate(parts)] if len(parts) != 1 else parts
            yield parts.pop()


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
        depth: slices of a volume, along the axis that is cut.
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


def _open_members(
    archive: zipfile.ZipFile, path: Path, names: Sequence[str], dtypes: Sequence[str]
) -> Generator[tuple[IO[bytes], np.dtype, tuple[int, ...]], None, None]:
    """Each member, open behind its header, its type and shape; closed before the next one is opened."""
    for name in names:
        with archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = _read_npy_header(file, path, name)
            check_streamable(path, Member(name, shape, dtype, fortran), dtypes)
            yield file, dtype, shape
    raise EOFError("fewer rows than its headers say")


def check_streamable(path: Path, member: Member, dtypes: Sequence[str] = ("uint8",)) -> None:
    """Refuse a member that can't be read row after row, or holds something else."""
    if member.fortran or member.dtype.name not in dtypes:
        what = "uint8" if len(dtypes) == 1 else "whole numbers"
        raise RequestError(
            f"{path}: {member.name} should be {what} in C order, found {member.dtype}"
            f"{' in Fortran order' if member.fortran else ''}"
        )


def _filled(chunks: Iterable[bytes]) -> bytearray:
    """All of them as one; ``join`` would list them before."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
    return data


def _chunks(file: IO[bytes], n_bytes: int) -> Iterator[bytes]:
    """The next bytes of a file, no more at once than memory is to be taken for a damaged one.

    Raises:
        EOFError: it has fewer.
    """
    while n_bytes:
        chunk = file.read(min(n_bytes, CHUNK_BYTES))
        if not chunk:
            raise EOFError("the data end early")
        n_bytes -= len(chunk)
        yield chunk


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
        path: the .npz file; images (n, H, W) or (n, H, W, 3) uint8, or volumes (n, D, H, W), labels
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
    shape = check_images(path, members, slicing)
    counts = [members[f"{split}_images"].shape[0] for split in SPLITS]
    parts = _read_labels(path, members, counts)
    labels = _join_labels(path, parts)
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
    depth = shape.n_rows // max(len(ids), 1)
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
        source_size=shape.source_size,
        n_channels=shape.n_channels,
        samples=Samples(ids, np.repeat(np.arange(3, dtype=np.uint8), counts), labels),
        row_ids=row_ids,
        row_sample=row_sample,
        images_digest=images_digest,
        stream=stream,
        licence=licence,
        slicing=slicing,
        row_bytes=np.full(shape.n_rows, shape.height * shape.width * shape.n_channels),
    )


@dataclass(frozen=True)
class ImageShape:
    """What the headers tell of the images, which are a volume's slices where it is cut."""

    n_rows: int
    height: int
    width: int
    n_channels: int

    @property
    def source_size(self) -> int | None:
        """Their side; None where they aren't square."""
        return self.height if self.height == self.width else None


def check_images(
    path: Path, members: dict[str, Member], slicing: Slicing | None = None
) -> ImageShape:
    """What the headers tell of the images.

    Args:
        path: the .npz file.
        members: as ``read_members`` gives them.
        slicing: how volumes are cut; None for images.

    Raises:
        RequestError: members are missing, or the images can't be streamed as they are.
    """
    wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
    missing = [member for member in wanted if member not in members]
    if missing:
        raise RequestError(
            f"{path} lacks {', '.join(missing)}; expected MedMNIST's layout: {', '.join(wanted)}"
        )
    images = [members[f"{split}_images"] for split in SPLITS]
    shapes = {member.shape[1:] for member in images}
    shape = next(iter(shapes))
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    if len(shapes) > 1 or not (_is_volume(shape) if slicing else is_image):
        raise RequestError(
            f"{path}: images should be (n, H, W), (n, H, W, 3) or volumes (n, D, H, W), and alike "
            f"in every split, found {', '.join(str(('n', *s)) for s in sorted(shapes))}"
        )
    for member in images:
        check_streamable(path, member)
    n = sum(member.shape[0] for member in images)
    if n > MAX_SAMPLES:
        raise RequestError(f"{path} has {n:_} samples; at most {MAX_SAMPLES:_} are read")
    depth, n_channels = 1, 3 if len(shape) == 3 else 1
    height, width = shape[:2]
    if slicing is not None:
        depth, n_channels = shape[slicing.axis], slicing.n_channels
        height, width = slicing.slice_shape(shape)
    try:
        check_size(height, width, depth)
    except UnreadableImage as error:
        raise RequestError(f"{path}: images of {error}") from error
    return ImageShape(n * depth, height, width, n_channels)


def is_volume(members: dict[str, Member]) -> bool:
    """Whether the images are (n, D, H, W); an array (n, H, W, 3) is pictures in colour."""
    member = members.get("train_images")
    return member is not None and len(member.shape) == 4 and member.shape[3] != 3


def _is_volume(shape: tuple[int, ...]) -> bool:
    """Of volumes that are no cubes, pictures whose channels come first or are four look the same."""
    is_cube = len({*shape}) == 1
    return len(shape) == 3 and (is_cube or not {*shape} & {*CHANNELS})


def _read_labels(path: Path, members: dict[str, Member], counts: list[int]) -> list[np.ndarray]:
    """Each split's labels, once it is sure that they are such."""
    parts = []
    with _naming_damage(path), zipfile.ZipFile(path) as archive:
        for split, n in zip(SPLITS, counts, strict=True):
            member = members[f"{split}_labels"]
            shape, dtype = member.shape, member.dtype
            if shape[:1] != (n,) or dtype.kind not in "iub" or len(shape) > 2:
                raise RequestError(
                    f"{path}: {split}_labels should be {n} rows of whole numbers, found "
                    f"{shape} {dtype}"
                )
            n_bytes = math.prod(shape) * dtype.itemsize
            if n_bytes > MAX_LABEL_BYTES:
                raise RequestError(f"{path}: {split}_labels has {n_bytes:_} bytes of labels")
            with archive.open(member.name) as file:
                _read_npy_header(file, path, member.name)
                values = np.frombuffer(_filled(_chunks(file, n_bytes)), dtype)
                if file.read(1):  # which also compares the checksum
                    raise ValueError(f"{member.name} goes on behind its labels")
            parts.append(values.reshape(shape, order="F" if member.fortran else "C"))
    return parts


def _join_labels(path: Path, parts: list[np.ndarray]) -> NDArray[np.int64]:
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
