"""Files in a folder of results that belong to no row: scores that a kill left, and damaged rows."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.files import find_leftovers, locked
from probe.report.rows.index import INDEX
from probe.report.rows.stored import Problem, StoredRow
from probe.results import BrokenRow, NewerRow, read_row, scores_path

# Names that probe.results gives; what has another is nobody's to delete.
ROW_NAME = re.compile(r".+_[0-9a-f]{16}\.json")
SCORES_NAME = re.compile(r"(.+_[0-9a-f]{16})(\.[0-9a-f]{16})?\.npz")


def find_orphans(root: Path, rows: Iterable[StoredRow], problems: Iterable[Problem]) -> list[Path]:
    """Files of scores that belong to no row, those of rows that can't be read not among them.

    Args:
        root: the folder of results.
        rows: all of its rows.
        problems: the files among them that hold none.
    """
    of_rows = {_scores_of(of) for of in rows}
    unknown = {problem.path for problem in problems}
    return [
        path
        for path in sorted(root.glob("*/*.npz"))
        if path not in of_rows and (row := _row_of(path)) and row not in unknown
    ]


def delete_orphan(path: Path) -> bool:
    """Delete a file of scores that still belongs to no row; returns whether it was deleted.

    Raises:
        OSError: the folder can't be written.
    """
    row = _row_of(path)
    assert row
    with locked(path.parent):  # whoever writes scores holds it until their row is there
        try:
            if scores_path(row, read_row(row)) == path:
                return False
        except FileNotFoundError:
            pass
        except BrokenRow:
            return False
        path.unlink(missing_ok=True)
    return True


def find_damaged(problems: Sequence[Problem]) -> list[Path]:
    """Files that have the name of a row and hold none, not even one of a later medprobe, each with
    its scores.
    """
    rows = (p.path for p in problems if ROW_NAME.fullmatch(p.path.name) and p.path.is_file())
    return [path for row in rows if _is_damaged(row) for path in (row, *_scores_beside(row))]


def delete_damaged(path: Path) -> bool:
    """Delete what ``find_damaged`` found, where that still holds; returns whether it was deleted.

    Raises:
        OSError: the folder can't be written.
    """
    row = _row_of(path) or path
    with locked(path.parent):
        if row.exists() and not _is_damaged(row):
            return False
        path.unlink(missing_ok=True)
    return True


def _is_damaged(row: Path) -> bool:
    """Whether a file surely holds no row."""
    try:
        read_row(row)
    except (NewerRow, OSError):  # of what can't be read nobody knows
        return False
    except BrokenRow:
        return True
    return False


def _scores_beside(row: Path) -> list[Path]:
    beside = sorted(row.parent.glob(f"{glob.escape(row.stem)}*.npz"))
    return [path for path in beside if _row_of(path) == row]


def result_folders(root: Path) -> list[Path]:
    """The folders that rows, and what is remembered of them, are written into."""
    return [root, root / INDEX, *(path for path in sorted(root.glob("*")) if path.is_dir())]


def find_partial(root: Path) -> list[Path]:
    """What killed writers left, and what others are just writing."""
    return [path for folder in result_folders(root) for path in find_leftovers(folder)]


def _row_of(scores: Path) -> Path | None:
    """The row that a file of scores would belong to; None where it has no such name."""
    found = SCORES_NAME.fullmatch(scores.name)
    return scores.with_name(f"{found[1]}.json") if found else None


def _scores_of(of: StoredRow) -> Path | None:
    assert of.path
    try:
        return scores_path(of.path, of.content)
    except BrokenRow:
        return None
