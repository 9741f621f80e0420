"""Masks: labels of pixels, in a file of their own beside the features of a data set.

They are no features and in no key: masks that change make a new file, ``masks_{digest}.h5``, and cost
no forward pass. FORMAT.md says what stands in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import BrokenCache, CacheError, RequestError
from cache.files import move_whole, open_no_link, work_folder
from cache.format.key import N_DIGEST, canonical_json, file_stem
from cache.format.read import open_hdf5, own_dataset

FORMAT = "medprobe-masks"
FORMAT_VERSION = 1
NAME = re.compile(r"masks_[0-9a-f]{12}\.h5")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
N_CLASSES = 255  # at most: a mask is of bytes, and 255 is padding (``cache.geometry``)
AT_ONCE = 16  # masks in memory
N_SHOWN = 8  # sizes
MAX_PIXELS = 89_478_485  # of an image, as of all that are read
TABLES = {
    "ids": "S",
    "shapes": "<u4",
    "counts": "<i8",
    "spacing": "<f4",
    "ends": "<u8",
    "crc32": "<u4",
}
CURE = "delete it and run extract --tokens again"

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class MaskSource:
    """A data set's masks, to be read. Class numbers are places in ``class_names``."""

    class_names: tuple[str, ...]
    background: int | None  # which class is none: outside the means of metrics; None: all count
    ignore: (
        int | None
    )  # value of pixels that count nowhere, no class's number; None: there are none
    # For each (first, behind last) range of the data set's rows a list of (H, W) uint8 arrays at the
    # images' own size; None for an image without a mask. Ranges ascend.
    stream: Callable[[Ranges], Iterator[Sequence[NDArray[np.uint8] | None]]]
    spacing: NDArray[np.floating] | None = None  # (N, 3) mm of row, column, slice; NaN: unknown
    # What the pixels come from ("md5:..."): while it is the same, so are they. None: they are read.
    origin: str | None = None

    def __post_init__(self) -> None:
        _check_classes(self.class_names, self.background, self.ignore)


def _check_classes(
    class_names: tuple[str, ...], background: int | None, ignore: int | None
) -> None:
    n = len(class_names)
    if not 2 <= n <= N_CLASSES or len({*class_names}) < n or not all(class_names):
        raise RequestError(
            f"masks have 2 to {N_CLASSES} classes, each with a name of its own; found {n}: "
            f"{', '.join(class_names[:8])}; name them with --mask-classes"
        )
    if background is not None and not 0 <= background < n:
        raise RequestError(f"the background is a class number in 0..{n - 1}, found {background}")
    if ignore is not None and not n <= ignore <= 255:
        raise RequestError(
            f"the ignored value is none of the classes 0..{n - 1} and at most 255, found {ignore}"
        )


@dataclass(frozen=True)
class Masks:
    """A masks file, its tables checked. R images have a mask, C classes."""

    path: Path
    dataset: str
    class_names: tuple[str, ...]
    background: int | None
    ignore: int | None
    digest: str  # "sha256:...", of all that masks mean
    origin: str | None  # see MaskSource
    ids: NDArray[np.str_]  # (R,) row ids
    shapes: NDArray[np.int64]  # (R, 2) height and width
    counts: NDArray[np.int64]  # (R, C) pixels of each class
    spacing: NDArray[np.float64]  # (R, 3) mm of row, column, slice; NaN: unknown
    ends: NDArray[np.int64]  # (R,) where each mask's compressed bytes end
    crc32: NDArray[np.uint32]  # (R,) of each mask's bytes
    place: int  # of the compressed bytes in the file

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """Row id -> place in this file."""
        return {name: i for i, name in enumerate(self.ids.tolist())}

    def find(self, ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """The place of each row id in this file; -1 where it has no mask."""
        return np.array([self.index.get(str(name), -1) for name in ids], np.int64)

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.memmap(self.path, np.uint8, "r", self.place, (int(self.ends[-1]),))

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Mask i, (H, W) class numbers or ``ignore``, at its image's size.

        Raises:
            BrokenCache: its bytes aren't those that were written.
        """
        i = range(len(self))[i]
        height, width = (int(n) for n in self.shapes[i])
        start = int(self.ends[i - 1]) if i else 0
        packed = self._bytes[start : int(self.ends[i])].tobytes()
        try:
            # Never more than the shape says, whatever a hostile file would unpack to.
            raw = zlib.decompressobj().decompress(packed, height * width + 1)
        except zlib.error:
            raw = b""
        if len(raw) != height * width or zlib.crc32(raw) != self.crc32[i]:
            raise BrokenCache(f"{self.path} is damaged: the mask of {self.ids[i]}; {CURE}")
        return np.frombuffer(raw, np.uint8).reshape(height, width)

    def facts(self) -> dict[str, str]:
        """What the file says of itself, in words."""
        pixels = self.shapes.prod(axis=1).sum()
        sizes = [f"{height} x {width}" for height, width in np.unique(self.shapes, axis=0)]
        n_known = int((~np.isnan(self.spacing).any(axis=1)).sum())
        classes = {
            f"class {i}": f"{name}: {counts.sum() / pixels:.2%} of all pixels, in {(counts > 0).sum():_} images"
            for i, (name, counts) in enumerate(zip(self.class_names, self.counts.T, strict=True))
        }
        return {
            "dataset": self.dataset,
            "masks": f"{len(self):_}",
            "sizes": ", ".join(sizes[:N_SHOWN]) + (" ..." if len(sizes) > N_SHOWN else ""),
            "spacing": f"known of {n_known:_}",
            "background": "none" if self.background is None else self.class_names[self.background],
            "ignored": "no value" if self.ignore is None else f"value {self.ignore}",
            "digest": self.digest,
            **classes,
        }

    def verify(self) -> None:
        """Read every mask, and compare what it says with the tables and the digest.

        Raises:
            BrokenCache: something differs.
        """
        digest = _Digest(self.class_names, self.background, self.ignore)
        for i in range(len(self)):
            mask = self.mask(i)
            if not np.array_equal(_count(mask, len(self.class_names)), self.counts[i]):
                raise BrokenCache(f"{self.path} is damaged: the counts of {self.ids[i]}; {CURE}")
            digest.add(str(self.ids[i]), mask, self.spacing[i])
        if digest.text != self.digest:
            raise BrokenCache(f"{self.path} is damaged: its digest is of other masks; {CURE}")


def masks_path(folder: Path, digest: str) -> Path:
    """The name of the masks of this digest ("sha256:...") in a data set's folder."""
    return folder / f"masks_{digest.partition(':')[2][:N_DIGEST]}.h5"


def is_masks(path: Path) -> bool:
    """Whether a name is that of a masks file."""
    return NAME.fullmatch(path.name) is not None


def find_masks(root: Path, dataset: str) -> list[Path]:
    """A data set's masks files below the folder of features, the newest first."""
    found = _masks_in(root / file_stem(dataset))
    return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))


def list_masks(root: Path) -> list[Path]:
    """All masks files below the folder of features, by name."""
    return sorted(path for folder in root.glob("*/") for path in _masks_in(folder))


def _masks_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("masks_*.h5") if is_masks(path) and path.is_file()]


# ---------------------------------------------------------------------------- writing


class _Digest:
    """SHA-256 of all that masks mean: classes, then each row's id, shape, spacing and pixels."""

    def __init__(
        self, class_names: tuple[str, ...], background: int | None, ignore: int | None
    ) -> None:
        about = [list(class_names), background, ignore]
        self._digest = hashlib.sha256(canonical_json(about).encode())

    def add(self, row_id: str, mask: NDArray[np.uint8], spacing: NDArray[np.floating]) -> None:
        known = np.asarray(spacing, "<f4")
        row = [row_id, *mask.shape, *(None if np.isnan(mm) else float(mm) for mm in known)]
        self._digest.update(canonical_json(row).encode())
        self._digest.update(mask.tobytes())

    @property
    def text(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def write_masks(
    folder: Path, dataset_name: str, row_ids: NDArray[np.str_], source: MaskSource
) -> Path:
    """Write a data set's masks, unless a file has them.

    Args:
        folder: of the data set, ``features/{data}``; it is made.
        dataset_name: as feature files call it.
        row_ids: (N,) of the data set's rows, in its order.
        source: their masks.

    Returns:
        The file's name. Where ``source.origin`` is that of a file, no mask is read.

    Raises:
        RequestError: a mask holds a value that is no class, or isn't (H, W) bytes; no image has one.
        OSError: the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spacing = _spacing(source, len(row_ids))
    origin = _origin(source, row_ids, spacing)
    for path in find_masks(folder.parent, folder.name) if origin else []:
        try:
            if open_masks(path).origin == origin:
                return _asked(path)
        except (CacheError, OSError):
            continue  # it is damaged: its masks are written anew, and replace it
    digest = _Digest(source.class_names, source.background, source.ignore)
    tables: dict[str, list[Any]] = {name: [] for name in TABLES}
    with work_folder(folder / "masks.h5") as work:
        spool = work / "masks.packed"
        with open_no_link(spool, "wb") as file:
            for row, mask in _each(source, len(row_ids)):
                row_id = str(row_ids[row])
                _check(mask, row_id, source)
                raw = np.ascontiguousarray(mask).tobytes()
                digest.add(row_id, mask, spacing[row])
                file.write(zlib.compress(raw))
                values = (
                    row_id.encode(),
                    mask.shape,
                    _count(mask, len(source.class_names)),
                    spacing[row],
                    file.tell(),
                    zlib.crc32(raw),
                )
                for name, value in zip(TABLES, values, strict=True):
                    tables[name].append(value)
        if not tables["ids"]:
            raise RequestError(f"none of the {len(row_ids):_} images of {dataset_name} has a mask")
        path = masks_path(folder, digest.text)
        if origin is None and _is_whole(path, digest.text):
            return _asked(path)
        about = {
            "dataset": dataset_name,
            "class_names": list(source.class_names),
            "background": source.background,
            "ignore": source.ignore,
            "digest": digest.text,
            "origin": origin,
        }
        arrays = {name: np.array(tables[name], TABLES[name]) for name in TABLES}
        _write(work / "masks.h5", about, arrays, spool)
        move_whole(work / "masks.h5", path)
    return path


def _each(source: MaskSource, n_rows: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Row and mask of each image that has one."""
    ranges = [(first, min(first + AT_ONCE, n_rows)) for first in range(0, n_rows, AT_ONCE)]
    for (first, end), masks in zip(ranges, source.stream(ranges), strict=True):
        for row, mask in zip(range(first, end), masks, strict=True):
            if mask is not None:
                yield row, mask


def _check(mask: NDArray[Any], row_id: str, source: MaskSource) -> None:
    if mask.dtype != np.uint8 or mask.ndim != 2 or not 0 < mask.size <= MAX_PIXELS:
        raise RequestError(
            f"the mask of {row_id} should be (height, width) of bytes, found {mask.dtype} of shape "
            f"{mask.shape}"
        )
    counts = np.bincount(mask.ravel(), minlength=256)
    n = len(source.class_names)
    unknown = [v for v in range(n, 256) if counts[v] and v != source.ignore]
    if unknown:
        found = ", ".join(f"{value} ({counts[value]:_} pixels)" for value in unknown[:5])
        raise RequestError(
            f"the mask of {row_id} holds {found}, and classes are 0..{n - 1} "
            f"({', '.join(source.class_names[:5])}{', ..' if n > 5 else ''}); name them with "
            "--mask-classes, or leave one value out with --mask-ignore"
        )


def _count(mask: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    return np.bincount(mask.ravel(), minlength=256)[:n_classes]


def _spacing(source: MaskSource, n_rows: int) -> NDArray[np.float32]:
    if source.spacing is None:
        return np.full((n_rows, 3), np.nan, np.float32)
    spacing = np.asarray(source.spacing, np.float32)
    if spacing.shape != (n_rows, 3) or (spacing <= 0).any() or np.isinf(spacing).any():
        raise RequestError(f"spacing is ({n_rows}, 3) positive mm, or NaN, found {spacing.shape}")
    return spacing


def _origin(
    source: MaskSource, row_ids: NDArray[np.str_], spacing: NDArray[np.float32]
) -> str | None:
    """One text for where these masks come from; while it is the same, so are they."""
    if source.origin is None:
        return None
    about = [list(source.class_names), source.background, source.ignore, source.origin]
    digest = hashlib.sha256(canonical_json([*about, row_ids.tolist()]).encode())
    digest.update(np.nan_to_num(spacing).astype("<f4").tobytes())
    return f"sha256:{digest.hexdigest()}"


def _asked(path: Path) -> Path:
    """A file that was there already is the newest now: its masks are those that the data set has."""
    with contextlib.suppress(OSError):
        os.utime(path)
    return path


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return open_masks(path).digest == digest
    except (CacheError, OSError):
        return False


def _write(
    path: Path, about: Mapping[str, Any], arrays: dict[str, NDArray[Any]], spool: Path
) -> None:
    # As of feature files: HDF5's own structures carry checksums since 1.10.
    with h5py.File(path, "x", libver=("v110", "v110"), locking=False) as file:
        for name, values in arrays.items():
            kind = values.dtype
            stored = h5py.string_dtype("utf-8", kind.itemsize) if kind.kind == "S" else kind
            file.create_dataset(name, data=values.astype(stored))
        packed = file.create_dataset("packed", (spool.stat().st_size,), np.uint8)
        with spool.open("rb") as source:
            place = 0
            while chunk := source.read(1 << 24):
                packed[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
                place += len(chunk)
        checksums = {name: zlib.crc32(values.tobytes()) for name, values in arrays.items()}
        text = canonical_json({**about, "tables_crc32": checksums}).encode()
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["about"] = np.bytes_(text)
        file.attrs["about_crc32"] = zlib.crc32(text)


# ---------------------------------------------------------------------------- reading


def open_masks(path: Path) -> Masks:
    """Open a masks file; its tables are checked, a mask is when it is read.

    Raises:
        BrokenCache: not a masks file, another version, or a damaged one.
        OSError: missing, or not readable.
    """
    with open_hdf5(path, "masks", "and run extract --tokens again") as file:
        found = file.attrs.get("format")
        if found != FORMAT.encode():
            raise BrokenCache(
                f"{path} is no masks file: its attribute 'format' should be {FORMAT!r}, found "
                f"{found!r}"
            )
        if (version := file.attrs.get("format_version")) != FORMAT_VERSION:
            raise BrokenCache(
                f"{path} is of masks format {version}, and this medprobe reads {FORMAT_VERSION}; "
                "update medprobe, or delete the file"
            )
        text: bytes = np.bytes_(file.attrs["about"])
        if zlib.crc32(text) != file.attrs["about_crc32"]:
            raise _damaged(path, "about")
        about = json.loads(text)
        _check_classes(tuple(about["class_names"]), about["background"], about["ignore"])
        tables: dict[str, Any] = {}
        for name, kind in TABLES.items():
            raw = np.ascontiguousarray(own_dataset(file, name)[()])
            if zlib.crc32(raw.tobytes()) != about["tables_crc32"][name]:
                raise _damaged(path, name)
            if raw.dtype.kind != "S" and raw.dtype != np.dtype(kind):
                raise _damaged(path, name)
            tables[name] = raw
        packed = own_dataset(file, "packed")
        place = packed.id.get_offset()
        tables["ids"] = np.char.decode(tables["ids"], "utf-8")
        n, n_classes = len(tables["ids"]), len(about["class_names"])
        shapes = {"ids": (n,), "shapes": (n, 2), "counts": (n, n_classes), "spacing": (n, 3)}
        shapes |= {"ends": (n,), "crc32": (n,)}
        wrong = [name for name, shape in shapes.items() if tables[name].shape != shape]
        ends = tables["ends"].astype(np.int64)
        sizes = tables["shapes"].astype(np.int64)
        if (
            wrong
            or not n
            or len(set(tables["ids"].tolist())) < n
            or (np.diff(ends, prepend=0) <= 0).any()
            or packed.dtype != np.uint8
            or packed.shape != (ends[-1],)
            or place is None
            or (sizes <= 0).any()
            or (sizes.prod(1) > MAX_PIXELS).any()
            or not DIGEST.fullmatch(about["digest"])
            or (tables["counts"] < 0).any()
            or (tables["counts"].sum(1) > sizes.prod(1)).any()
            or not (
                (tables["spacing"] > 0) & (tables["spacing"] < np.inf) | np.isnan(tables["spacing"])
            ).all()
        ):
            raise _damaged(path, ", ".join(wrong) or "its tables")
    return Masks(
        path,
        str(about["dataset"]),
        tuple(about["class_names"]),
        about["background"],
        about["ignore"],
        about["digest"],
        about["origin"],
        ids=tables["ids"],
        shapes=sizes,
        counts=tables["counts"],
        spacing=tables["spacing"].astype(np.float64),
        ends=ends,
        crc32=tables["crc32"],
        place=place,
    )


def _damaged(path: Path, what: str) -> BrokenCache:
    return BrokenCache(f"{path} is damaged: {what} isn't what was written; {CURE}")
