"""What feature files say of themselves, remembered, so that thousands are listed in a moment.

To open an HDF5 file takes milliseconds. The index holds the checked headers of complete files, each as
long as its file's size, times and inode are the same; nothing is lost when it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.checked_json import read_checked, write_checked
from cache.format.arrays import Extent
from cache.format.key import PARTIAL
from cache.format.read import Header, read_header
from cache.format.spec import POOLED_VERSION

INDEX = ".index"  # folder below the features
NAME = "headers.json"


class HeaderIndex:
    """The remembered headers of the files below one folder.

    Args:
        root: the folder of features.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / INDEX / NAME
        self._entries: dict[str, Any] = read_checked(self._path)
        self._seen: dict[str, Any] = {}

    def read_header(self, path: Path) -> Header:
        """As ``cache.format.read.read_header``, which opens what isn't remembered."""
        if path.name.endswith(PARTIAL):
            return read_header(path)
        name, stamp = path.relative_to(self._root).as_posix(), _stamp(path)
        entry = self._entries.get(name)
        if not isinstance(entry, dict) or entry.get("stamp") != stamp:
            header = read_header(path)
            knows_all = len(header.arrays) == len(header.attributes["arrays"])
            if not knows_all or header.attributes["format_version"] != POOLED_VERSION:
                return header  # an older medprobe would take it from the index without a check
            entry = {"stamp": stamp, "header": _pack(header)}
        else:
            header = _unpack(path, entry["header"], (stamp[0], stamp[1]))
        self._seen[name] = entry
        return header

    def save(self) -> None:
        """Remember what was read."""
        if self._seen != self._entries:
            write_checked(self._path, self._seen)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _pack(header: Header) -> dict[str, Any]:
    """A header as JSON, without what is in its attributes already, or follows from the file."""
    left_out = ("path", "key", "identity", "others")
    kept = {n: v for n, v in vars(header).items() if n not in left_out}
    places = {name: _pack_extent(kept[name]) for name in ("units", "cost")}
    arrays = {name: _pack_extent(extent) for name, extent in header.arrays.items()}
    return {**kept, **places, "arrays": arrays}


def _unpack(path: Path, packed: Mapping[str, Any], identity: tuple[int, int]) -> Header:
    places = {name: _unpack_extent(packed[name]) for name in ("units", "cost")}
    arrays = {name: _unpack_extent(extent) for name, extent in packed["arrays"].items()}
    key = json.loads(packed["attributes"]["key"])
    return Header(path, key=key, identity=identity, **{**packed, **places, "arrays": arrays})


def _pack_extent(extent: Extent) -> list[Any]:
    return [extent.offset, list(extent.shape), extent.dtype.str]


def _unpack_extent(packed: list[Any]) -> Extent:
    offset, shape, dtype = packed
    return Extent(offset, tuple(shape), np.dtype(dtype))
