"""What a recipe is, how one is opened, and what recipes share: finding files, cells of tables, splits.

Nothing is downloaded here: most owners want a registration first. A recipe knows what lies where once
their archives are unpacked, says what is missing, and reads labels, patients and the split.
"""

import dataclasses
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.labels.tables import Table, column, is_number
from cache.splits.make import TEST, TRAIN, VAL, systematic
from extract.datasets.files.below import Root, composed
from extract.datasets.files.listing import Listing

DATA_VARIABLE = "MEDPROBE_DATA"
SHOWN = 3  # names in a message
SEED = 42  # of Huix et al. 2024


class MissingFiles(Exception):
    """A layout is incomplete; the text says what is missing, for ``open_recipe``'s message."""


@dataclass(frozen=True)
class Recipe:
    """A published data set: who publishes it under which terms, and how its files are read."""

    name: str  # as typed after --data
    title: str
    task: str  # one of cache.task.TASKS
    n_images: int  # as published, or as the paper counts; 0: nobody says
    size: str  # of the archives, in words
    licence: str  # as its owner words it
    url: str  # where it is published
    access: str  # what the owner wants first; "" where it is nothing
    reference: str
    split: str  # whose, in words
    layout: tuple[str, ...]  # what is expected below the root
    list_files: Callable[[Path], Listing]  # raises MissingFiles, RequestError
    origins: tuple[str, ...]  # whose images these are, in the words of ``Pretraining.seen``
    # Mean and std of each channel as a paper has them; None: computed from the train split's pixels.
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    mask_classes: tuple[str, ...] = ()  # of sets with masks
    templates: tuple[str, ...] = ()  # of prompts; {} is the class. (): those of any data set


def recipe_root(recipe: Recipe, root: Path | None) -> Path:
    """Where a data set is looked for.

    Args:
        recipe: which.
        root: a folder that holds the set, or a folder named like it that does; None is
            ``$MEDPROBE_DATA``, or ``./data``.
    """
    if root is None:
        return Path(os.environ.get(DATA_VARIABLE) or "data").expanduser() / recipe.name
    named = root / recipe.name
    return named if named.is_dir() else root


def open_recipe(recipe: Recipe, root: Path | None) -> Listing:
    """List a data set's files and read what its owner says of them. No image is opened.

    Args:
        recipe: which.
        root: see ``recipe_root``.

    Raises:
        RequestError: no folder, an incomplete one (what is missing is named, with what is expected
            and where it is published), or tables that aren't the owner's.
    """
    folder = recipe_root(recipe, root)
    if not folder.is_dir():
        raise RequestError(f"no folder {folder} for {recipe.name}; {_expected(recipe)}")
    try:
        listing = recipe.list_files(folder)
    except MissingFiles as missing:
        raise RequestError(
            f"{folder} lacks {missing} of {recipe.name}; {_expected(recipe)}"
        ) from None
    notes = listing.notes
    if recipe.n_images and len(listing.paths) != recipe.n_images:
        notes = (f"{recipe.n_images} images are published, {len(listing.paths)} are here", *notes)
    return dataclasses.replace(
        listing,
        ids=tuple(map(composed, listing.ids)),  # the same on every file system
        licence=recipe.licence,
        notes=notes,
        split_words=recipe.split,
    )


def _expected(recipe: Recipe) -> str:
    needs = f"needs {recipe.access}; " if recipe.access else ""
    return (
        f"expected there: {', '.join(recipe.layout)}. Published at {recipe.url} ({recipe.size}; "
        f"{needs}licence: {recipe.licence}); name its folder with --data-root DIR"
    )


# ---------------------------------------------------------------------------- files


def find_base(root: Path, *marks: str, needs: Iterable[str] = ()) -> Root:
    """The folder that holds one of ``marks``: the root, or its one folder that does.

    Archives often unpack into a folder of their own.

    Args:
        root: where the set is looked for.
        marks: files or folders, any of which tells the set's folder.
        needs: those that must all be there.

    Raises:
        MissingFiles: no such folder, or several, or not all that is needed.
    """
    base = Root(root)
    if base.first(*marks) is None:
        found = [
            name
            for name in sorted(base.names(""))
            if any((root / name / mark).exists() for mark in marks)
        ]
        if len(found) != 1 or found[0] not in base:
            raise MissingFiles(" or ".join(marks))
        base = Root(root / found[0])
    require(base, *needs)
    return base


def require(base: Root, *names: str) -> None:
    """Check for files and folders.

    Raises:
        MissingFiles: not all are there.
    """
    missing = [name for name in names if name not in base]
    if missing:
        raise MissingFiles(", ".join(missing))


def require_images(base: Root, paths: Sequence[str]) -> None:
    """Check for images.

    Raises:
        MissingFiles: not all are there; the first are named.
    """
    missing = [path for path in paths if path not in base]
    if missing:
        first = ", ".join(missing[:SHOWN])
        more = ", ..." if len(missing) > SHOWN else ""
        raise MissingFiles(f"{len(missing)} of {len(paths)} images ({first}{more})")


# ---------------------------------------------------------------------------- cells of tables


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


def rows_of(table: Table, name: str, cells: Sequence[str]) -> list[int]:
    """The number of the row that has each of some cells in the column ``name``.

    Raises:
        RequestError: no row has one; they are counted.
    """
    row = {cell: i for i, cell in enumerate(column(table, name))}
    missing = [cell for cell in cells if cell not in row]
    if missing:
        raise RequestError(f"{table.path} has no row for {missing[0]} ({len(missing)} in all)")
    return [row[cell] for cell in cells]


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


def numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """A column of numbers; NaN where a cell holds anything else."""
    return np.array([float(cell) if is_number(cell) else np.nan for cell in cells], np.float64)


# ---------------------------------------------------------------------------- splits


def systematic_split(n: int, n_test: int, n_val: int, published: int) -> NDArray[np.uint8]:
    """Baharoon et al. 2023: every so many of all are test, every so many of the rest val.

    Args:
        n: how many there are.
        n_test: those of test, where all that are published are there; else as large a part.
        n_val: likewise.
        published: how many are.

    Returns:
        (n,) index into SPLITS.
    """
    split = np.full(n, TRAIN, np.uint8)
    split[systematic(n, round(n * n_test / published))] = TEST
    rest = np.flatnonzero(split == TRAIN)
    split[rest[systematic(len(rest), round(len(rest) * n_val / (published - n_test)))]] = VAL
    return split


def cut_val(listing: Listing) -> Listing:
    """A set of train and test, with val cut out of train.

    Of the patients of train, less those of test too, it takes every tenth in their order.
    """
    split, patients = listing.split, listing.groups
    assert split is not None and patients is not None  # noqa: PT018
    only_train = np.setdiff1d(patients[split == TRAIN], patients[split == TEST])
    chosen = only_train[systematic(len(only_train), len(only_train) // 10)]
    cut = np.where(np.isin(patients, chosen), VAL, split).astype(np.uint8)
    return dataclasses.replace(listing, split=cut)


def shuffled_split(n: int, share: float) -> NDArray[np.uint8]:
    """The first ``share`` of the shuffled rows is halved: val, then test; the others train.

    Args:
        n: rows of the owner's table, in its order.
        share: of val and test together.

    Returns:
        (n,) index into SPLITS.
    """
    rows = list(range(n))
    random.Random(SEED).shuffle(rows)  # the same on every machine and in every Python 3
    held_out = rows[: int(n * share)]
    split = np.full(n, TRAIN, np.uint8)
    split[held_out[: len(held_out) // 2]] = VAL
    split[held_out[len(held_out) // 2 :]] = TEST
    return split
