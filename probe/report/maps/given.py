"""What maps are made of: token files, and the rows and masks of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import RequestError
from cache.places import results_root
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow, read_stored, stored_files

if TYPE_CHECKING:
    from cache.features import Features
    from cache.masks import Masks


@dataclass(frozen=True)
class Given:
    """What maps are made of."""

    files: Sequence[Features]  # token files of one data set
    rows: Sequence[StoredRow]  # stored rows of it
    is_named: bool  # whether the rows were named
    masks: Masks | None
    people: People


def find_given(
    files: Sequence[Features],
    rows: Sequence[Path] | None,
    results: Path | None,
    masks: Path | None,
    folder: Path,
) -> Given:
    """Rows and masks of token files.

    Args:
        files: of one data set.
        rows: their JSON files; None: those of the results folder.
        results: that folder; None: the usual one.
        masks: their file; None: that of the first row of masks, else the newest of the data set.
        folder: of features.

    Raises:
        RequestError: a file that is named is no row, or of another data set.
    """
    dataset, root = files[0].dataset, results or results_root()
    found, problems = read_stored(root, rows or stored_files(root))
    if rows and problems:
        raise RequestError(f"--row {problems[0].path}: {problems[0].why}")
    if rows:  # beside each other as they are named
        found.sort(key=lambda of: rows.index(of.path) if of.path in rows else len(rows))
    own = [of for of in found if of.row.encoded.dataset == dataset]
    if rows and len(own) < len(found):
        other = next(of for of in found if of not in own)
        raise RequestError(
            f"--row {other.path} is of {other.row.encoded.dataset}, not of {dataset}"
        )
    return given_of(files, own, people=People(folder), is_named=bool(rows), masks=masks)


def given_of(
    files: Sequence[Features],
    rows: Sequence[StoredRow],
    *,
    people: People,
    is_named: bool = False,
    masks: Path | None = None,
) -> Given:
    """Rows of a data set with its masks: those of a row, else the newest; or those that are named."""
    from cache.masks import find_masks, open_masks  # h5py takes a while

    if masks is None:
        there = find_masks(files[0].path.parent.parent, files[0].dataset)
        names = [of.row.posed.target.get("file") for of in rows]
        masks = next((path for path in there if path.name in names), next(iter(there), None))
    opened = None if masks is None else open_masks(masks)
    return Given(files, rows, is_named, opened, people)
