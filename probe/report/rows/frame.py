"""Stored rows as pandas DataFrames: ``load_results`` and ``scores_of``.

    from probe.report import load_results, scores_of

    frame = load_results(where=["data=breastmnist", "kind=linear"])
    best = frame.loc[frame.val_auc.idxmax()]
    scores = scores_of(best)  # a line for each sample

pandas is imported by this module alone, which nothing imports before a frame is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.places import results_root
from cache.task import OVERLAP, REGRESSION, SEGMENTATION
from probe.arrays import Array
from probe.metrics.intervals import Interval
from probe.report.rows.fields import FIELDS, METRIC_NAMES, read_condition, written
from probe.report.rows.stored import StoredRow, Wanted, read_stored, stored_files
from probe.results import BrokenRow, read_scores
from probe.row_names import find_row

# Fields by their type in a frame; the others are texts.
COUNTS = (
    *("size", "layer", "depth", "shots", "episodes", "prompts", "seed", "k"),
    *("n_train", "n_val", "n_test"),
)
NUMBERS = ("encoder_lr", "head_lr", "C", "penalty", "seconds")
WRITTEN, TIME = "written", "datetime64[us, UTC]"  # whose unit pandas 2 and 3 would choose apart
NOTHING = Interval(np.nan, np.nan, np.nan)


def load_results(root: str | Path | None = None, where: str | Sequence[str] = ()) -> pd.DataFrame:
    """Stored rows, a line each.

    Files that hold no whole row are left out, with a warning; rows whose scores are missing or
    damaged are whole, and have a mark.

    Args:
        root: the folder of results; None: ``$MEDPROBE_RESULTS`` or ``./results``.
        where: conditions as of --where: "data=breastmnist", "k>=20", "model=vit,dinov2".

    Returns:
        By data set, encoder, kind and seed. Columns are

        - the fields of --where, by their names (see ``probe.report.rows.fields.FIELDS``): text,
          counts as Int64, ``seconds`` and what was chosen as float64, ``written`` in UTC;
        - ``layers``: those that a row saw side by side, "0..11" or "2+5"; such rows have no ``layer``;
        - ``marks``: what a reader of the numbers must know, with "; " between;
        - of each metric that any row has ``auc``, ``auc_low`` and ``auc_high``, the ends of its 95 %
          interval, on test, and ``val_auc``, on val. Float64; NaN: undefined, or not of this row.

    Raises:
        RequestError: a condition can't be read.
    """
    root = results_root() if root is None else Path(root)
    texts = [where] if isinstance(where, str) else where
    wanted = Wanted(where=[read_condition(text) for text in texts])
    rows, problems = read_stored(root, stored_files(root), wanted)
    kept = {of.path for of in rows}
    for problem in problems:
        if problem.path not in kept:
            warnings.warn(f"{problem.path}: {problem.why}", stacklevel=2)
    return make_frame(rows)


def make_frame(rows: Sequence[StoredRow]) -> pd.DataFrame:
    """The rows as ``load_results`` gives them, in their order."""
    columns: dict[str, Any] = {}
    for field in FIELDS:
        values = [field.of(of) for of in rows]
        if field.name == "layer":  # a number, so that frames of joined rows keep its type
            columns["layers"] = _texts(written(v) if isinstance(v, str) else None for v in values)
            values = [None if isinstance(v, str) else v for v in values]
        columns[field.name] = _column(field.name, values)
    seconds = pd.Series([of.written or np.nan for of in rows], dtype="float64").round()
    columns[WRITTEN] = pd.to_datetime(seconds, unit="s", utc=True).astype(TIME)
    columns["marks"] = _column("marks", ["; ".join(of.row.marks) or None for of in rows])
    tested = [of.row.measured.test for of in rows]
    chosen = [of.row.measured.val for of in rows]
    for name in METRIC_NAMES:
        if any(name in test for test in tested):
            found = np.array([test.get(name, NOTHING) for test in tested], np.float64)
            columns |= {name: found[:, 0], f"{name}_low": found[:, 1], f"{name}_high": found[:, 2]}
        if any(name in val for val in chosen):
            columns[f"val_{name}"] = np.array([val.get(name, np.nan) for val in chosen], np.float64)
    return pd.DataFrame(columns)


def scores_of(row: pd.Series | str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """What a row answered to each sample of val and test; and, out of fold, of train, where kept.

    Args:
        row: a line of ``load_results``, a row's file or its stem, or the start of its id.
        root: the folder of results; None: ``$MEDPROBE_RESULTS`` or ``./results``.

    Returns:
        A line for each sample of each split; of few-shot episodes for each of each episode.

        - ``split``, ``episode`` (few-shot alone), ``id`` (of the sample; of the patient, where
          patients are measured);
        - ``label``: the class's number, a number; of several labels a column each,
          ``label_{name}``, Int64, missing where nobody knows;
        - ``class``: the class's name, where there is one label of classes;
        - ``score_{name}`` of each class or label, float64. The row's ``score_type`` says what they
          are: probabilities, margins, or a number;
        - of masks ``label_{name}`` is how many pixels are of a class, and a column ``{what}_{name}``
          stands for each of ``cache.task.OVERLAP`` in the place of scores.

    Raises:
        RequestError: there is no such row, there are several, or its scores are missing or damaged.
    """
    root = results_root() if root is None else Path(root)
    name = str(row["path"]) if isinstance(row, pd.Series) else str(row)
    path, content = find_row(name, root, "")
    try:
        arrays = read_scores(path, content)
    except (OSError, BrokenRow) as error:
        raise RequestError(f"{path}: its scores can't be read ({error}); ask again") from error
    task = str(content["features"].get("task"))
    parts = [_of_split(split, arrays, task) for split in SPLITS if f"{split}_scores" in arrays]
    return pd.concat(parts, ignore_index=True)


def _column(name: str, values: Sequence[Any]) -> Any:
    """Values of a field; settings that other programs made may be anything: then it is text."""
    known = [value for value in values if value is not None]
    if name in COUNTS and all(_is_count(value) for value in known):
        return pd.array(list(values), dtype="Int64")
    if name in COUNTS + NUMBERS and all(_is_number(value) for value in known):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return _texts(None if value is None else written(value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _of_split(split: str, arrays: Mapping[str, Array], task: str) -> pd.DataFrame:
    ids, labels = arrays[f"{split}_ids"], arrays[f"{split}_labels"]
    scores = np.asarray(arrays[f"{split}_scores"], np.float64)
    names = [str(name) for name in arrays["class_names"]]
    n_times = len(scores) if scores.ndim == 3 else 1  # episodes
    labels = np.concatenate([labels] * n_times)
    columns: dict[str, Any] = {"split": _texts([split] * len(labels))}
    if scores.ndim == 3:
        columns["episode"] = np.repeat(np.arange(n_times), len(ids))
    columns["id"] = _texts([*ids] * n_times)
    if labels.ndim == 2:
        for name, label in zip(names, labels.T, strict=True):
            columns[f"label_{name}"] = pd.arrays.IntegerArray(label.astype(np.int64), label < 0)
    else:
        columns["label"] = labels
        if task != REGRESSION:
            columns["class"] = _texts(names[int(label)] for label in labels)
    of = [f"score_{name}" for name in names]
    if task == SEGMENTATION:
        of = [f"{what}_{name}" for what in OVERLAP for name in names]
    columns |= dict(zip(of, scores.reshape(-1, scores.shape[-1]).T, strict=True))
    return pd.DataFrame(columns)


def _texts(values: Iterable[Any]) -> Any:
    return pd.array([None if value is None else str(value) for value in values], dtype="string")
