"""Finding a stored row by what a user calls it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cache.errors import RequestError
from probe.results import BrokenRow, read_row

ID = re.compile(r"[0-9a-f]{4,64}")  # the start of a row's id
N_IN_NAME = 16  # digits of the id in a file's name: see probe.results.Row.path
LISTED = 3


def find_row(run: str, results_dir: Path, flag: str) -> tuple[Path, dict[str, Any]]:
    """A stored row.

    Args:
        run: a row's JSON file, the stem of its name, or the start of its id.
        results_dir: the folder of results.
        flag: that named it, for messages; "" where no flag does.

    Returns:
        Its file, and what it holds.

    Raises:
        RequestError: there is none, there are several, or it is no row.
    """
    path = Path(run)
    if path.suffix != ".json" or not path.is_file():
        path = _find_by_name(run, results_dir, flag)
    try:
        row = read_row(path)
    except (OSError, BrokenRow) as error:
        raise RequestError(f"{_before(flag)}{path} can't be read as a result ({error})") from error
    return path, row


def _before(flag: str) -> str:
    return f"{flag}: " if flag else ""


def _find_by_name(run: str, results_dir: Path, flag: str) -> Path:
    """The file with this stem, or whose row's id begins so."""
    by_id = ID.fullmatch(run)
    found = sorted(
        path
        for path in results_dir.glob("*/*.json")
        if path.stem == run or (by_id and path.stem.rpartition("_")[2].startswith(run[:N_IN_NAME]))
    )
    if not found:
        raise RequestError(
            f"{_before(flag)}no result {run!r} in {results_dir}; name a row's JSON file, the stem of its "
            "name, or the start of its id"
        )
    if len(found) > 1:
        names = ", ".join(path.stem for path in found[:LISTED])
        raise RequestError(
            f"{_before(flag)}{run!r} may mean {len(found)} results ({names}); name one"
        )
    return found[0]
