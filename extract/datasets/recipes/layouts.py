"""What the recipes share: finding files without asking for each, and reading cells of tables."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.labels.tables import Table, is_number
from cache.splits.make import TEST, TRAIN, VAL, systematic
from extract.datasets.files.below import composed, refuse_leading_out

SHOWN = 3  # names in a message


class MissingFiles(Exception):
    """A layout is incomplete; the text says what is missing, for ``open_recipe``'s message."""


def find_base(root: Path, *marks: str) -> Path:
    """The folder that holds one of ``marks``: the root, or its one folder that does.

    Archives often unpack into a folder of their own.

    Raises:
        MissingFiles: neither, or several.
    """
    folders = Folders(root)
    if any(mark in folders for mark in marks):
        return root
    found = [
        name
        for name in sorted(folders.names(""))
        if any((root / name / mark).exists() for mark in marks)
    ]
    if len(found) == 1 and found[0] in folders:
        return root / found[0]
    raise MissingFiles(" or ".join(marks))


def require(base: Path, *names: str) -> None:
    """Check for files and folders.

    Raises:
        MissingFiles: not all are there.
    """
    folders = Folders(base)
    missing = [name for name in names if name not in folders]
    if missing:
        raise MissingFiles(", ".join(missing))


class Folders:
    """The names in a root's folders. Each folder is read once: asking for 100 000 files costs one
    system call a folder, not one a file. A link that leads out of the root is refused when asked for.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = os.path.realpath(root)
        self._names: dict[str, frozenset[str]] = {}
        self._links: set[str] = set()

    def names(self, folder: str) -> frozenset[str]:
        """What lies in a folder, given relative to the root; nothing where there is none.

        Raises:
            RequestError: the folder is a link that leads out of the root.
        """
        if folder not in self._names:
            is_there = not folder or folder in self
            self._names[folder] = self._read(folder) if is_there else frozenset()
        return self._names[folder]

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if name not in self.names(folder):
            return False
        if path in self._links:
            refuse_leading_out(self._root / path, self._real)
        return True

    def _read(self, folder: str) -> frozenset[str]:
        names = []
        # A file where a folder was expected holds nothing.
        with contextlib.suppress(NotADirectoryError), os.scandir(self._root / folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if entry.is_symlink():
                    self._links.add(f"{folder}/{entry.name}" if folder else entry.name)
        return frozenset(names)


def require_images(folders: Folders, paths: Sequence[str]) -> None:
    """Check for images.

    Raises:
        MissingFiles: not all are there; the first are named.
    """
    missing = [path for path in paths if path not in folders]
    if missing:
        first = ", ".join(missing[:SHOWN])
        raise MissingFiles(f"{len(missing)} of {len(paths)} images ({first}{_more(missing)})")


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > SHOWN else ""


def safe_path(cell: str, where: str) -> str:
    """A path out of a table: relative, and below the folder it is relative to.

    Raises:
        RequestError: it is empty, or leads elsewhere.
    """
    parts = PurePosixPath(cell).parts
    if not parts or cell.startswith("/") or ".." in parts or any(c in cell for c in "\\:\0"):
        raise RequestError(f"{where}: expected a path below the data set's folder, found {cell!r}")
    return "/".join(parts)


def row_paths(table: Table, column: str, folder: str = "", suffix: str = "") -> tuple[str, ...]:
    """One path for each row of a table.

    Raises:
        RequestError: a cell leads out of the folder, or two rows have one path.
    """
    seen: dict[str, int] = {}
    prefix = f"{folder}/" if folder else ""
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        path = f"{prefix}{safe_path(cell, f'{table.path}, line {line}')}{suffix}"
        if path in seen:
            raise RequestError(
                f"{table.path}, line {line}: {cell} again, which stands in line {seen[path]} too"
            )
        seen[path] = line
    return tuple(seen)


def read_lines(path: Path) -> tuple[str, ...]:
    """A list of images, one path a line, each checked; blank lines are passed over.

    Raises:
        RequestError: not UTF-8, a path that leads elsewhere, or one that stands there twice.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} isn't UTF-8; expected one path a line") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if cell := line.strip():
            name = safe_path(cell, f"{path}, line {number}")
            if name in seen:
                raise RequestError(f"{path}: lines {seen[name]} and {number} are both {name}")
            seen[name] = number
    return tuple(seen)


def sample_ids(paths: Iterable[str]) -> tuple[str, ...]:
    """Ids of samples that are named by a path, the same on every file system."""
    return tuple(composed(path) for path in paths)


def numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """A column of numbers; NaN where a cell holds anything else."""
    return np.array([float(cell) if is_number(cell) else np.nan for cell in cells], np.float64)


def systematic_split(n: int, n_test: int, n_val: int) -> NDArray[np.uint8]:
    """Baharoon et al. 2023: every so many of all are test, every so many of the rest val. (n,)"""
    split = np.full(n, TRAIN, np.uint8)
    split[systematic(n, n_test)] = TEST
    rest = np.flatnonzero(split == TRAIN)
    split[rest[systematic(len(rest), n_val)]] = VAL
    return split


def straddling(names: Sequence[str] | NDArray[np.str_], split: NDArray[np.uint8]) -> int:
    """How many groups have samples in more than one split."""
    pairs = set(zip(names, split.tolist(), strict=True))
    return sum(n > 1 for n in Counter(name for name, _ in pairs).values())
