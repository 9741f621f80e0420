"""What stored rows say, remembered, so that ten thousand are read in a moment.

A row's file is parsed and its checksum compared once, and so is the file of its scores. The index holds
what they said, a file for each data set, as long as both have the size, times and inode that they had
then. Nothing is lost when it is deleted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.checked_json import read_checked, write_checked
from cache.format.key import key_digest
from probe.results import ADDED_LATER, ROW_VERSION, BrokenRow, check_scores, read_row, scores_path

INDEX = ".index"  # folder below the results
# What a row is read as: another medprobe may add fields to it.
READER = key_digest({"version": ROW_VERSION, "fields": sorted(ADDED_LATER)})[:8]
MISSING, DAMAGED = "scores are missing: ask again", "scores are damaged: ask again"


@dataclass(frozen=True)
class Content:
    """What a row's files hold."""

    row: Mapping[str, Any]  # as ``read_row`` gives it
    lacking: str  # what is wrong with its scores, whose numbers are whole without them; "": nothing
    written: float  # when, in seconds since 1970


class RowIndex:
    """The remembered rows of the files below one folder.

    Args:
        root: the folder of results.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: dict[Path, dict[str, Any]] = {}  # of each folder as it was, by file
        self._seen: dict[Path, dict[str, Any]] = {}

    def read(self, path: Path) -> Content:
        """A row, from memory where its files are as they were.

        Raises:
            OSError, BrokenRow: as ``read_row``.
        """
        folder = path.parent
        if folder.parent != self._root:
            row = read_row(path)
            return Content(row, _lacking(path, row), path.stat().st_mtime)
        if folder not in self._entries:
            self._entries[folder] = read_checked(self._place(folder))
            self._seen[folder] = {}
        stamp = _stamp(path)
        entry = self._entries[folder].get(path.name)
        if entry is None or not _is_of(entry, stamp, folder):
            row = read_row(path)
            scores = _name_of_scores(path, row)
            entry = {
                # Both stamps before what they are of is read: what changes meanwhile is read again.
                **{"stamp": stamp, "scores": scores, "of_scores": _stamp(folder / scores)},
                **{"lacking": _lacking(path, row), "row": row, "reader": READER},
            }
        if entry["lacking"] in ("", MISSING, DAMAGED):  # an error of the moment isn't remembered
            self._seen[folder][path.name] = entry
        return Content(entry["row"], entry["lacking"], stamp[3] / 1e9 if stamp else 0.0)

    def save(self) -> None:
        """Remember what was read; of a folder that was read in part, what was known stays."""
        for folder, seen in self._seen.items():
            entries = self._entries[folder]
            kept = {n: e for n, e in entries.items() if n in seen or (folder / n).exists()}
            if kept | seen != entries:
                write_checked(self._place(folder), kept | seen)

    def _place(self, folder: Path) -> Path:
        return self._root / INDEX / f"{folder.name}.rows"


def _is_of(entry: Any, stamp: list[int], folder: Path) -> bool:
    """Whether an entry is of files as they are."""
    return (
        isinstance(entry, dict)
        and entry.get("reader") == READER
        and entry.get("stamp") == stamp
        and entry.get("of_scores") == _stamp(folder / str(entry.get("scores")))
    )


def _stamp(path: Path) -> list[int]:
    """Of a file that is there; else nothing."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _name_of_scores(path: Path, row: Mapping[str, Any]) -> str:
    try:
        return scores_path(path, row).name
    except BrokenRow:
        return ""


def _lacking(path: Path, row: Mapping[str, Any]) -> str:
    try:
        check_scores(path, row)
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"scores can't be read ({error.strerror}): ask again"
    except BrokenRow:
        return DAMAGED
    return ""
