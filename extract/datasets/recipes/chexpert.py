"""CheXpert: chest X-rays of Stanford, fourteen labels read out of reports by a program.

A report may leave a finding out (blank), and both papers that use the set read that as "not there";
so do these recipes. -1 is "uncertain" and stays that, UNCERTAIN, until somebody decides
(``--uncertain``). All views; patients are groups.

The radiologists' labels: valid.csv is val. The test set of 500 studies came out later, apart, with
labels in test_labels.csv; where it lies here too it is test, else there is none.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import Target
from cache.splits.make import TEST, TRAIN, VAL
from cache.task import MISSING, MULTI_LABEL, UNCERTAIN
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    SHOWN,
    Folders,
    MissingFiles,
    Recipe,
    find_base,
    numbers,
    require,
    sample_ids,
)

NAME = "chexpert"
TASK = MULTI_LABEL
LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
VALUES = {"": 0, "0.0": 0, "0": 0, "1.0": 1, "1": 1, "-1.0": UNCERTAIN, "-1": UNCERTAIN}
# "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"; the test set's begin with "test".
PATH = re.compile(
    r"(?:[^/\\]+/)?(train|valid|val|test)/"
    r"((patient\d+)/study\d+/view\d+_(frontal|lateral)\.(?:jpg|png))"
)

# Stanford's four archives of full-size images unpack into these; the small ones into train and valid.
TABLES_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
PLACES = {
    "train": (
        "train",
        "CheXpert-v1.0 batch 2 (train 1)",
        "CheXpert-v1.0 batch 3 (train 2)",
        "CheXpert-v1.0 batch 4 (train 3)",
    ),
    "valid": ("valid", f"{TABLES_BATCH}/valid"),
    "val": ("val",),
    "test": ("test",),
}
TEST_TABLES = ("test_labels.csv", "test.csv")


@dataclass(frozen=True)
class Views:
    """X-rays of one of the owner's tables. V views, in the table's order."""

    paths: tuple[str, ...]  # (V,) as they lie on this disk
    ids: tuple[str, ...]  # (V,) as the table names them, without the archive's name
    names: tuple[str, ...]  # (V,) as the table names them
    patients: NDArray[np.str_]  # (V,)
    frontal: NDArray[np.bool_]  # (V,)
    labels: NDArray[
        np.int64
    ]  # (V, 14) 0, 1, UNCERTAIN, or MISSING where the table has no such column
    meta: dict[str, NDArray]  # (V,)

    def __getitem__(self, kept: NDArray[np.integer]) -> "Views":
        """Some of them, in the order given."""
        rows = kept.tolist()
        return Views(
            tuple(self.paths[i] for i in rows),
            tuple(self.ids[i] for i in rows),
            tuple(self.names[i] for i in rows),
            self.patients[kept],
            self.frontal[kept],
            self.labels[kept],
            {name: values[kept] for name, values in self.meta.items()},
        )


def find_chexpert(root: Path) -> tuple[Path, Path]:
    """The folder of the images, and that of train.csv and valid.csv."""
    base = find_base(root, "train.csv", TABLES_BATCH)
    tables = base if (base / "train.csv").is_file() else base / TABLES_BATCH
    require(tables, "train.csv", "valid.csv")
    return base, tables


def read_views(base: Path, table_path: Path) -> Views:
    """Read one of the owner's tables.

    Only patients' folders are looked for: asking for 223 414 files would take minutes on a network
    disk, and the check pass opens each of them anyway.

    Raises:
        MissingFiles: patients without a folder.
        RequestError: a path or a label that isn't the owner's.
    """
    table = read_csv(table_path)
    names = column(table, "Path")
    found = [PATH.fullmatch(name) for name in names]
    folders = Folders(base)
    parents: dict[tuple[str, str], str] = {}
    missing: list[str] = []
    paths, ids, patients, frontal = [], [], [], []
    for line, name, match in zip(table.lines, names, found, strict=True):
        if match is None:
            raise RequestError(
                f"{table.path}, line {line}: expected a path like CheXpert-v1.0/train/patient00001/"
                f"study1/view1_frontal.jpg, found {name!r}"
            )
        split, view, patient, side = match.groups()
        if (split, patient) not in parents:
            places = [p for p in PLACES[split] if f"{p}/{patient}" in folders]
            if not places:
                missing.append(f"{split}/{patient}")
            parents[split, patient] = places[0] if places else ""
        paths.append(f"{parents[split, patient]}/{view}")
        ids.append(f"{split}/{view}")
        patients.append(patient)
        frontal.append(side == "frontal")
    if missing:
        first = ", ".join(missing[:SHOWN])
        raise MissingFiles(f"{len(missing)} of {len(parents)} patients' folders ({first}, ...)")
    if len(set(ids)) < len(ids):
        raise RequestError(f"{table.path}: {Counter(ids).most_common(1)[0][0]} stands there twice")
    return Views(
        tuple(paths),
        sample_ids(ids),
        names,
        np.array(patients),
        np.array(frontal),
        np.stack([_read_label(table, label) for label in LABELS], axis=1),
        {
            "age": numbers(_cells(table, "Age")),
            "sex": np.array(_cells(table, "Sex")),
            "view": np.where(frontal, "Frontal", "Lateral"),
            "projection": np.array(_cells(table, "AP/PA")),
        },
    )


def _cells(table: Table, name: str) -> tuple[str, ...]:
    """A column; empty where the table lacks it, as the test set's does."""
    return table.columns.get(name, ("",) * table.n_rows)


def _read_label(table: Table, name: str) -> NDArray[np.int64]:
    if name not in table.columns:
        return np.full(table.n_rows, MISSING, np.int64)
    try:
        return np.array([VALUES[cell] for cell in table.columns[name]], np.int64)
    except KeyError as error:
        line = table.lines[table.columns[name].index(error.args[0])]
        raise RequestError(
            f"{table.path}, line {line}: {name} is 1, 0, -1 or blank, found {error.args[0]!r}"
        ) from None


def join_views(
    name: str,
    base: Path,
    parts: list[tuple[int, Views]],
    labels: tuple[str, ...] = LABELS,
    notes: tuple[str, ...] = (),
) -> Listing:
    """A listing of views that already are what their split needs.

    Args:
        name: the recipe's.
        base: the images' folder.
        parts: index into SPLITS, and the views that belong there.
        labels: names of the labels' columns.
        notes: for the user.
    """
    every = [views for _, views in parts]
    paths = tuple(path for views in every for path in views.paths)
    return Listing(
        name,
        base,
        paths,
        np.arange(len(paths)),
        tuple(i for views in every for i in views.ids),
        Target(TASK, labels, np.concatenate([views.labels for views in every])),
        np.concatenate([np.full(len(views.paths), split, np.uint8) for split, views in parts]),
        np.concatenate([views.patients for views in every]),
        {key: np.concatenate([views.meta[key] for views in every]) for key in every[0].meta},
        notes=notes,
    )


def find_test_table(base: Path) -> Path | None:
    """The table of the test set, where it was unpacked here too."""
    folders = Folders(base)
    return next((base / name for name in TEST_TABLES if name in folders), None)


def _list(root: Path) -> Listing:
    base, tables = find_chexpert(root)
    parts = [
        (TRAIN, read_views(base, tables / "train.csv")),
        (VAL, read_views(base, tables / "valid.csv")),
    ]
    test = find_test_table(base)
    notes = ()
    if test is None:
        notes = (f"no {TEST_TABLES[0]}, so {SPLITS[TEST]} is empty: valid.csv is {SPLITS[VAL]}",)
    else:
        parts.append((TEST, read_views(base, test)))
    return join_views(NAME, base, parts, notes=notes)


LICENCE = "Stanford University Dataset Research Use Agreement (non-commercial, not to be passed on)"
URL = "https://stanfordmlgroup.github.io/competitions/chexpert/"
ACCESS = "a registration with Stanford AIMI"
REFERENCE = "Irvin et al. 2019, https://arxiv.org/abs/1901.07031"
SIZE = "440 GB, or 11 GB as CheXpert-v1.0-small"
LAYOUT = ("train.csv", "valid.csv", "train/patient*/study*/view*.jpg", "valid/patient*/...")

STATISTICS = ((0.503,) * 3, (0.292,) * 3)  # Huix et al. 2024, defaults/datasets.py

CHEXPERT = Recipe(
    NAME,
    "CheXpert v1.0",
    TASK,
    224316,
    SIZE,
    LICENCE,
    URL,
    ACCESS,
    REFERENCE,
    "the owner's",
    (*LAYOUT, "test_labels.csv and test/patient*/... (may be absent)"),
    _list,
    origins=("CheXpert",),
    statistics=STATISTICS,
)
