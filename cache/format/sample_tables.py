"""What the small tables of a feature file may hold: one check, on writing and on reading.

A checksum tells that a table is the one that was written, not that whoever wrote it was right; and
an index that leads out of an array takes the process down.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import MISSING, MULTI_LABEL, REGRESSION, UNCERTAIN

SPLITS = ("train", "val", "test")  # /samples/split holds an index into this
KINDS = "USiufb"  # numpy's letters of the types that a column may have: texts and numbers


@dataclass(frozen=True)
class TableSizes:
    """What a table must fit: N rows, S samples, C classes of a task."""

    n_rows: int
    n_samples: int
    task: str
    n_classes: int


def check_table(name: str, values: NDArray[Any], sizes: TableSizes) -> None:
    """Refuse a table that no file can hold.

    Args:
        name: "rows/sample", "samples/ids"..., as in FORMAT.md.
        values: what stands in it, texts as ``str``.
        sizes: of its file.

    Raises:
        RequestError: another length, shape or type, an index out of range, a sample without rows,
            an id twice, or a text that UTF-8 can't say.
    """
    n = sizes.n_rows if name.startswith("rows/") else sizes.n_samples
    what = "rows" if name.startswith("rows/") else "samples"
    if len(values) != n:
        raise RequestError(f"{n} {what}, but {len(values)} entries in {name}")
    if name == "samples/labels":
        check_stored_labels(values, sizes.task, sizes.n_classes)
        return
    if values.ndim != 1 or values.dtype.kind not in KINDS:
        raise RequestError(
            f"{name} holds a text or a number for each of {n} {what}, found {values.dtype} of shape "
            f"{values.shape}"
        )
    if values.dtype.kind == "U":
        _check_texts(name, values)
    if name == "rows/sample":
        _check_range(name, values, sizes.n_samples)
        if not np.bincount(values, minlength=sizes.n_samples).all():
            raise RequestError("rows/sample has no row of some sample")
    elif name == "samples/split":
        _check_range(name, values, len(SPLITS))
    elif name == "samples/ids" and len({*values.tolist()}) < n:
        raise RequestError("samples/ids: two samples have one id")


def _check_texts(name: str, values: NDArray[Any]) -> None:
    try:
        np.char.encode(values, "utf-8")
    except UnicodeEncodeError as error:  # half of a surrogate pair, as in a path that isn't UTF-8
        raise RequestError(f"{name} holds a text that UTF-8 can't say: {error.object!r}") from error


def _check_range(name: str, values: NDArray[Any], end: int) -> None:
    if values.dtype.kind not in "iu" or np.min(values) < 0 or np.max(values) >= end:
        raise RequestError(f"{name} lies in 0..{end - 1}, found another number")


def check_stored_labels(labels: NDArray[Any], task: str, n_classes: int) -> None:
    """Refuse labels that a file of this task can't hold.

    Args:
        labels: (S,) class numbers, or MISSING; of several labels (S, C) of 0, 1, MISSING and
            UNCERTAIN; of regression (S,) floats, NaN where unknown.
        task: one of TASKS.
        n_classes: C.

    Raises:
        RequestError: another shape, type or value.
    """
    kinds, what = ("f", "floats") if task == REGRESSION else ("iu", "whole numbers")
    shape = (len(labels), n_classes) if task == MULTI_LABEL else (len(labels),)
    if labels.shape != shape or labels.dtype.kind not in kinds:
        raise RequestError(
            f"labels of the task {task!r} are {what} of shape {shape}, found {labels.dtype} of "
            f"shape {labels.shape}"
        )
    if task == REGRESSION:
        if np.isinf(labels).any():
            row = int(np.argmax(np.isinf(labels)))
            raise RequestError(
                f"labels are finite, or NaN where unknown; found {labels[row]} in sample {row}"
            )
        return
    low, high = (UNCERTAIN, 1) if task == MULTI_LABEL else (MISSING, n_classes - 1)
    if labels.size and (labels.min() < low or labels.max() > high):
        raise RequestError(
            f"labels of the task {task!r} lie in {low}..{high}, found "
            f"{labels.min()}..{labels.max()}"
        )
