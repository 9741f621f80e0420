"""Images that a table lists: ``--data csv:FILE``.

Paths are relative to the table's folder, or to ``--root``, and never lead out of it. What the table
says of the images is a default: probes may lay other labels and splits over it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.key import file_stem
from cache.labels.columns import blank_out, is_missing, read_target
from cache.labels.tables import Table, column, is_number, list_columns, read_csv
from cache.labels.target import LOOKS_MISSING, Target, name_missing, unlabelled, warn_of_classes
from cache.splits.make import LEFT_OUT
from cache.task import MISSING, MULTI_LABEL, REGRESSION
from extract.datasets.files.below import Root, composed
from extract.datasets.files.decode import IMAGE_SUFFIXES
from extract.datasets.files.folders import SPLIT_WORDS
from extract.datasets.files.listing import Listing, MaskListing, first_of
from extract.datasets.files.mask_classes import MaskClasses
from extract.datasets.files.options import TableOptions

PATH_COLUMNS = ("path", "image", "file", "filename")  # the first that is there
SPLIT_COLUMN = "split"
SHOWN_COLUMNS = 8


def list_table(path: Path, options: TableOptions | None = None, name: str | None = None) -> Listing:
    """List the images of a table; none is opened, but all must be there.

    Rows whose split is empty are left out, and so are those without a label, except where several
    labels stand side by side.

    Args:
        path: the CSV file.
        options: which column is what.
        name: of the data set; None: the file's own.

    Raises:
        RequestError: a column, a file or a label is missing or wrong, an id stands there twice, a
            path leads out of the root; line and column are named.
    """
    options = options or TableOptions()
    if options.samples != TableOptions().samples:
        raise RequestError(
            f"--samples {options.samples} is for folder:PATH; in a table name the column of samples "
            "with --sample-col"
        )
    rows = _Rows(read_csv(path.expanduser()), options)
    split = rows.read_splits()
    kept = np.arange(len(rows.first)) if split is None else np.flatnonzero(split != LEFT_OUT)
    if not len(kept):
        raise RequestError(f"{path}: column {rows.split_col} is empty in every row")
    target = rows.read_target(kept)
    known = _has_label(target)
    notes = rows.note_left_out(len(rows.first) - len(kept), kept[~known])
    kept = kept[known]
    target = Target(target.task, target.class_names, target.labels[known])
    groups, group_notes = rows.read_groups(kept)
    paths, sample, of_file = rows.find_files(kept)
    return Listing(
        name=name or file_stem(path.stem),
        root=rows.root.path,
        paths=paths,
        sample=sample,
        ids=tuple(rows.ids[s] for s in kept),
        target=target,
        split=None if split is None else split[kept],
        groups=groups,
        meta=rows.read_meta(kept),
        licence=options.licence,
        window=options.window,
        masks=rows.find_masks(of_file),
        notes=(*notes, *group_notes, *rows.note_unused(), *warn_of_classes(target)),
    )


class _Rows:
    """The rows of a table, R, joined to samples, S.

    Args:
        table: the table.
        options: which column is what.
    """

    def __init__(self, table: Table, options: TableOptions) -> None:
        self.table = table
        self.options = options
        folder = Path(options.root) if options.root else table.path.parent
        if not folder.expanduser().is_dir():
            raise RequestError(f"no folder at {folder}")
        self.root = Root(folder.expanduser().absolute())
        self.path_col = options.path_col or _find_path_column(table)
        self.split_col = options.split_col
        if self.split_col is None and SPLIT_COLUMN in table.columns:
            self.split_col = SPLIT_COLUMN
        self.label_cols = () if options.unlabelled else options.label_cols
        if (
            options.mask_col
            and "label" not in table.columns
            and options.label_cols == TableOptions.label_cols
        ):
            self.label_cols = ()  # those of pixels are enough
        elif "label" not in table.columns and self.label_cols == TableOptions.label_cols:
            cure = "name the column of labels with --label-col, or say --unlabelled"
            raise RequestError(_lacks(table, "label", cure))
        for name in self.used_columns():
            column(table, name)  # all of them are there, before anything is read
        self.places = self._read_places()  # (R,)
        ids, self.sample = self._join()  # (R,) of indices into ids
        self.ids = tuple(ids)  # (S,)
        self.first = np.array(list(ids.values()))  # (S,) the first row of each sample
        if options.sample_col:
            self._check_agreement()

    def used_columns(self) -> list[str]:
        asked = self.options
        others = [self.split_col, asked.group_col, asked.id_col, asked.sample_col, asked.mask_col]
        known = [name for name in others if name is not None]
        return [self.path_col, *self.label_cols, *known, *asked.meta_cols]

    def at(self, row: int, name: str) -> str:
        return f"{self.table.path}, column {name}, line {self.table.lines[row]}"

    # ------------------------------------------------------------------------ rows and samples

    def _read_places(self) -> list[str]:
        places = []
        for row, cell in enumerate(self.table.columns[self.path_col]):
            try:
                places.append(self.root.place(cell + self.options.suffix if cell else ""))
            except RequestError as error:
                raise RequestError(f"{self.at(row, self.path_col)}: {error}") from error
        return places

    def _join(self) -> tuple[dict[str, int], NDArray[np.int64]]:
        """Id of each sample -> its first row, and (R,) the sample of each row."""
        name = self.options.sample_col or self.options.id_col or self.path_col
        names = self.places if name == self.path_col else self.table.columns[name]
        ids: dict[str, int] = {}
        numbers: dict[str, int] = {}
        sample = np.empty(len(names), np.int64)
        for row, text in enumerate(names):
            if not text:
                raise RequestError(f"{self.at(row, name)}: empty; every row needs an id")
            key = composed(text)
            if ids.setdefault(key, row) != row and not self.options.sample_col:
                raise RequestError(
                    f"{self.at(row, name)}: {text} stands in line {self.table.lines[ids[key]]} too; "
                    "if both rows are one sample, name its column with --sample-col"
                )
            sample[row] = numbers.setdefault(key, len(numbers))
        return ids, sample

    def _check_agreement(self) -> None:
        """What is said of a sample is said of all its rows."""
        shared = [self.split_col, self.options.group_col, *self.label_cols]
        for name in (*shared, *self.options.meta_cols):
            if name is None:
                continue
            cells = self.table.columns[name]
            for row, first in enumerate(self.first[self.sample]):
                if cells[row] != cells[first]:
                    raise RequestError(
                        f"{self.at(row, name)}: {cells[row]!r}, but {cells[first]!r} in line "
                        f"{self.table.lines[first]}, which is of the same sample"
                    )

    def cells(self, name: str, samples: NDArray[np.int64]) -> list[str]:
        """A column's values for some samples; "nan" where they are named as missing."""
        cells = self.table.columns[name]
        return [*blank_out([cells[row] for row in self.first[samples]], self.options.missing)]

    # ------------------------------------------------------------------------ what is said of them

    def read_splits(self) -> NDArray[np.uint8] | None:
        """(S,) indices into SPLITS, LEFT_OUT where the cell is empty; None without a column."""
        if self.split_col is None:
            return None
        words = {word.lower() for word in self.options.missing}
        cells = self.table.columns[self.split_col]
        cells = ["" if text.lower() in words else text for text in cells]
        for row, text in enumerate(cells):
            if text and text.lower() not in SPLIT_WORDS:
                raise RequestError(
                    f"{self.at(row, self.split_col)}: {text!r} is no split; expected train, val, "
                    "test, or nothing to leave the row out"
                )
        splits = [SPLIT_WORDS[cells[row].lower()] if cells[row] else LEFT_OUT for row in self.first]
        return np.array(splits, np.uint8)

    def read_target(self, samples: NDArray[np.int64]) -> Target:
        if not self.label_cols:
            return unlabelled(len(samples))
        return read_target(
            {name: self.cells(name, samples) for name in self.label_cols},
            where=str(self.table.path),
            lines=[self.table.lines[row] for row in self.first[samples]],
            task=self.options.task,
            separator=self.options.label_sep,
            positive=self.options.positive,
        )

    def read_groups(
        self, samples: NDArray[np.int64]
    ) -> tuple[NDArray[np.str_] | None, tuple[str, ...]]:
        """(S,) patients, and what is to be told of them."""
        name = self.options.group_col
        if name is None:
            return None, ()
        cells = self.cells(name, samples)
        groups = ["" if is_missing(text) else composed(text) for text in cells]
        notes = []
        if blanks := sorted({text for text in groups if text.lower() in LOOKS_MISSING}):
            notes = [f"patients that look like none: {', '.join(blanks)} ({name_missing(*blanks)})"]
        alone = [s for s, group in zip(samples, groups, strict=True) if not group]
        if not alone:
            return np.array(groups), tuple(notes)
        # An empty name shared by all would be one huge patient; so each is a patient by itself.
        named = [group or f"{self.ids[s]} alone" for s, group in zip(samples, groups, strict=True)]
        note = f"without {name}: {len(alone):_}, each taken for a patient by itself"
        notes.append(f"{note} ({self._lines(alone)})")
        return np.array(named), tuple(notes)

    def read_meta(self, samples: NDArray[np.int64]) -> dict[str, NDArray]:
        """Column -> (S,) float64 with NaN if all that stands there is numbers, else text."""
        meta = {}
        for name in self.options.meta_cols:
            if "/" in name or name in (".", ".."):
                raise RequestError(f"{self.table.path}: column {name!r} can't be kept; rename it")
            cells = self.cells(name, samples)
            known = [cell for cell in cells if not is_missing(cell)]
            if known and all(map(is_number, known)):
                values = [float(cell) if is_number(cell) else np.nan for cell in cells]
                meta[name] = np.array(values, np.float64)
            else:
                meta[name] = np.array([composed(cell) for cell in cells])
        return meta

    # ------------------------------------------------------------------------ files

    def find_files(
        self, samples: NDArray[np.int64]
    ) -> tuple[tuple[str, ...], NDArray[np.int64], list[int]]:
        """The files of some samples, (F,), which of these samples each belongs to, (F,), and its row.

        Raises:
            RequestError: files are missing (all are counted), or one stands there twice.
        """
        position = np.full(len(self.ids), -1)
        position[samples] = np.arange(len(samples))
        of_row = position[self.sample]
        rows = np.flatnonzero(of_row >= 0).tolist()
        found: dict[str, int] = {}
        missing = []
        for row in rows:
            try:
                path = self.root.find(self.places[row])
            except RequestError as error:
                raise RequestError(f"{self.at(row, self.path_col)}: {error}") from error
            if path is None:
                missing.append(row)
            elif found.setdefault(path, row) != row:
                raise RequestError(
                    f"{self.at(row, self.path_col)}: {path} stands in line "
                    f"{self.table.lines[found[path]]} too; one file belongs to one row"
                )
        if missing:
            raise RequestError(self._say_missing(missing, len(rows)))
        return tuple(found), of_row[rows], rows

    def find_masks(self, rows: Sequence[int]) -> MaskListing | None:
        """The masks of some rows; None without a column.

        Raises:
            RequestError: one isn't there, or none is named.
        """
        name = self.options.mask_col
        if name is None:
            return None
        found: list[str | None] = []
        for row in rows:
            cell = self.table.columns[name][row]
            try:
                found.append(self.root.find(self.root.place(cell)) if cell else None)
            except RequestError as error:
                raise RequestError(f"{self.at(row, name)}: {error}") from error
            if cell and found[-1] is None:
                raise RequestError(f"{self.at(row, name)}: no file {cell} in {self.root.path}")
        if not any(found):
            raise RequestError(f"{self.table.path}: column {name} is empty in every row")
        return MaskListing(tuple(found), MaskClasses.of(self.options))

    def _say_missing(self, missing: Sequence[int], n_rows: int) -> str:
        named = [f"{self.places[row]} (line {self.table.lines[row]})" for row in missing]
        place = self.places[missing[0]]
        suffix = next((s for s in IMAGE_SUFFIXES if self.root.find(place + s)), None)
        cure = f"add --suffix {suffix}" if suffix else "is --root right, and --path-col?"
        return (
            f"{self.table.path}, column {self.path_col}: {len(missing):_} of {n_rows:_} files aren't "
            f"in {self.root.path}: {first_of(named)}; {cure}"
        )

    # ------------------------------------------------------------------------ notes

    def note_left_out(self, n_without_split: int, without_label: NDArray[np.int64]) -> list[str]:
        notes = []
        if n_without_split:
            notes.append(f"left out: {n_without_split:_} without {self.split_col}")
        if len(without_label):
            lines = self._lines(without_label)
            notes.append(f"left out: {len(without_label):_} without a label ({lines})")
        return notes

    def note_unused(self) -> list[str]:
        """A column of patients that nobody named is worth a look."""
        unused = [name for name in self.table.columns if name not in self.used_columns()]
        if not unused:
            return []
        names = first_of(unused, SHOWN_COLUMNS)
        return [f"columns not used: {names} (--group-col, --meta-cols)"]

    def _lines(self, samples: Sequence[int] | NDArray[np.int64]) -> str:
        lines = [str(self.table.lines[self.first[sample]]) for sample in samples]
        return f"{'line' if len(samples) == 1 else 'lines'} {first_of(lines)}"


def _find_path_column(table: Table) -> str:
    found = next((name for name in PATH_COLUMNS if name in table.columns), None)
    if found is None:
        cure = "name the column of the images' paths with --path-col"
        raise RequestError(_lacks(table, " or ".join(PATH_COLUMNS), cure))
    return found


def _lacks(table: Table, name: str, cure: str) -> str:
    return f"{table.path} has no column {name}, but {list_columns(table)}; {cure}"


def _has_label(target: Target) -> NDArray[np.bool_]:
    """(S,) whether a sample can be kept: of several labels any may be missing."""
    if target.task == MULTI_LABEL:
        return np.ones(len(target.labels), bool)
    if target.task == REGRESSION:
        return ~np.isnan(target.labels)
    return target.labels != MISSING
