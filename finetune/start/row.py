"""Finding an earlier result by what a user calls it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import RequestError
from probe.questions.question import Question
from probe.results import read_row

ID = re.compile(r"[0-9a-f]{4,64}")  # the start of a row's id
N_IN_NAME = 16  # digits of the id in a file's name: see probe.results.Row.path
LISTED = 3


def find_row(run: str, results_dir: Path, flag: str) -> tuple[Path, dict[str, Any]]:
    """A stored row.

    Args:
        run: a row's JSON file, the stem of its name, or the start of its id.
        results_dir: the folder of results.
        flag: that named it, for messages.

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
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(f"{flag}: {path} can't be read as a result ({error})") from error
    needed = {"id": str, "features": dict, "probe": dict, "chosen": dict}
    if wrong := [name for name, kind in needed.items() if not isinstance(row.get(name), kind)]:
        raise RequestError(f"{flag}: {path} is no result of probe: it has no {wrong[0]}")
    return path, row


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
            f"{flag}: no result {run!r} in {results_dir}; name a row's JSON file, the stem of its "
            "name, or the start of its id"
        )
    if len(found) > 1:
        names = ", ".join(path.stem for path in found[:LISTED])
        raise RequestError(f"{flag}: {run!r} may mean {len(found)} results ({names}); name one")
    return found[0]


def refuse_other_samples(row: Mapping[str, Any], question: Question, name: str) -> None:
    """Refuse a row of other images, labels or another split than are asked for now.

    Args:
        row: the earlier one.
        question: the question.
        name: of the row, for messages.

    Raises:
        RequestError: they differ; the message says in what.
    """
    dataset = row["features"].get("dataset")
    if row.get("trained_on"):
        raise RequestError(
            f"{name} learnt from {row['trained_on'].get('dataset')} and was tested on {dataset}; "
            "name a row of one data set"
        )
    if dataset != question.dataset:
        raise RequestError(f"{name} is of {dataset}, and {question.dataset} is asked for")
    found = row["features"].get("samples", {})
    other = [what for what in ("labels", "split") if found.get(what) != question.samples.get(what)]
    if other or row["features"].get("task") != question.task.word:
        raise RequestError(
            f"{name} has another {' and other '.join(reversed(other)) or 'task'} of "
            f"{question.dataset}; take the same --labels, --target, --split and --split-seed"
        )
