"""CheXpert: chest X-rays of Stanford, fourteen labels read out of reports by a program.

A report may leave a finding out (blank), and both papers that use the set read that as "not there";
so do these recipes. -1 is "uncertain" and stays that, UNCERTAIN, until somebody decides
(``--uncertain``). All views; patients are groups.

The radiologists' labels: valid.csv is val. The test set of 500 studies came out later, apart, with
labels in test_labels.csv; where it lies here too it is test, else there is none.

Below are the readings of two papers' released code.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import Target
from cache.splits.make import TEST, TRAIN, VAL, systematic
from cache.task import MISSING, MULTI_LABEL, UNCERTAIN
from extract.datasets.files.below import Root
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    SHOWN,
    MissingFiles,
    Recipe,
    find_base,
    numbers,
    require,
)

NAME = "chexpert"
HUIX = "chexpert-huix2024"
# The paper's count, and that of the last state of its code.
BAHAROON_AP = "chexpert-baharoon2023-ap"
BAHAROON_FRONTAL = "chexpert-baharoon2023-frontal"

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
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
VALUES = {"": 0, "0.0": 0, "0": 0, "1.0": 1, "1": 1, "-1.0": UNCERTAIN, "-1": UNCERTAIN}
META = {"age": "Age", "sex": "Sex", "projection": "AP/PA"}  # the owner's columns
# "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"; the test set's begin with "test".
PATH = re.compile(
    r"(?:[^/\\]+/)?(train|valid|val|test)/(patient\d+)/"
    r"(study\d+/view\d+_(?:frontal|lateral)\.(?:jpg|png))"
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
LAYOUT = ("train.csv", "valid.csv", "train/patient*/study*/view*.jpg", "valid/patient*/...")
N_VAL = 10_000  # of 161 590 AP frontal views, of Baharoon et al. 2023


def find_tables(root: Path) -> tuple[Root, dict[int, Path]]:
    """The folder of the images, and the table of each split; of test where it was unpacked here too."""
    base = find_base(root, "train.csv", TABLES_BATCH)
    place = base if (base.path / "train.csv").is_file() else Root(base.path / TABLES_BATCH)
    require(place, "train.csv", "valid.csv")
    tables = {TRAIN: place.path / "train.csv", VAL: place.path / "valid.csv"}
    test = base.first(*TEST_TABLES)
    return base, tables if test is None else {**tables, TEST: base.path / test}


def read_views(name: str, base: Root, tables: Mapping[int, Path]) -> Listing:
    """The X-rays of some of the owner's tables.

    Args:
        name: the recipe's.
        base: the images' folder.
        tables: index into SPLITS -> the table whose views it has.

    Raises:
        MissingFiles: patients without a folder.
        RequestError: a path or a label that isn't the owner's.
    """
    files: dict[str, str] = {}
    labels: list[NDArray[np.int64]] = []
    cells: dict[str, list[str]] = {key: [] for key in META}
    for path in tables.values():
        table = read_csv(path)
        found = _find_views(base, table)
        if twice := files.keys() & found:
            raise RequestError(f"{table.path}: {min(twice)} stands in another table too")
        files |= found
        labels.append(np.stack([_read_label(table, label) for label in LABELS], axis=1))
        for key, name_ in META.items():  # the test set's table lacks some
            cells[key] += table.columns.get(name_, ("",) * table.n_rows)
    return Listing(
        name,
        base.path,
        tuple(files.values()),
        np.arange(len(files)),
        tuple(files),
        Target(MULTI_LABEL, LABELS, np.concatenate(labels)),
        np.repeat(np.array([*tables], np.uint8), [len(part) for part in labels]),
        np.array([view.split("/")[1] for view in files]),
        {
            "age": numbers(cells["age"]),
            "sex": np.array(cells["sex"]),
            "view": np.array(["Frontal" if "_frontal." in view else "Lateral" for view in files]),
            "projection": np.array(cells["projection"]),
        },
    )


def _find_views(base: Root, table: Table) -> dict[str, str]:
    """Id of each view, which is its path without the archive's name -> its path on this disk.

    Only patients' folders are looked for: asking for 223 414 files would take minutes on a network
    disk, and the check pass opens each of them anyway.
    """
    folders: dict[str, str | None] = {}
    paths, ids = [], []
    for line, name in zip(table.lines, column(table, "Path"), strict=True):
        match = PATH.fullmatch(name)
        if match is None:
            raise RequestError(
                f"{table.path}, line {line}: expected a path like CheXpert-v1.0/train/patient00001/"
                f"study1/view1_frontal.jpg, found {name!r}"
            )
        split, patient, view = match.groups()
        folder = f"{split}/{patient}"
        if folder not in folders:
            folders[folder] = base.first(*(f"{place}/{patient}" for place in PLACES[split]))
        paths.append(f"{folders[folder]}/{view}")
        ids.append(f"{folder}/{view}")
    missing = [folder for folder, place in folders.items() if place is None]
    if missing:
        first = ", ".join(missing[:SHOWN])
        raise MissingFiles(f"{len(missing)} of {len(folders)} patients' folders ({first}, ...)")
    if len(set(ids)) < len(ids):
        raise RequestError(f"{table.path}: {Counter(ids).most_common(1)[0][0]} stands there twice")
    return dict(zip(ids, paths, strict=True))


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


def _list(root: Path) -> Listing:
    base, tables = find_tables(root)
    views = read_views(NAME, base, tables)
    if TEST in tables:
        return views
    note = f"no {TEST_TABLES[0]}, so {SPLITS[TEST]} is empty: valid.csv is {SPLITS[VAL]}"
    return dataclasses.replace(views, notes=(note,))


CHEXPERT = Recipe(
    NAME,
    "CheXpert v1.0",
    MULTI_LABEL,
    224316,
    "440 GB, or 11 GB as CheXpert-v1.0-small",
    "Stanford University Dataset Research Use Agreement (non-commercial, not to be passed on)",
    "https://stanfordmlgroup.github.io/competitions/chexpert/",
    "a registration with Stanford AIMI",
    "Irvin et al. 2019, https://arxiv.org/abs/1901.07031",
    "the owner's",
    (*LAYOUT, "test_labels.csv and test/patient*/... (may be absent)"),
    _list,
    origins=("CheXpert",),
    statistics=((0.503,) * 3, (0.292,) * 3),  # Huix et al. 2024, defaults/datasets.py
)


# ---------------------------------------------------------------------------- Huix et al. 2024


def _list_huix(root: Path) -> Listing:
    """joanaapa/Foundation-Medical, defaults/datasets.py:51-87.

    Only train.csv. Uncertain is 0 ("U-Zeros"), a row of zeros becomes "No Finding". Rows are sorted by
    path, and of the first fifth (and 15 rows more, so that fewer patients are cut in two) one half is
    val and the other test. pandas' ``loc`` takes both ends of a range, and so the code has the last
    row of val in test too, and the last of test in train. Here test is theirs, row for row, and val
    and train lack the row they share with it. The labels of ``loc`` are the rows' numbers in the
    file, not in the sorted order: where the file isn't sorted that is another row, and it is here.
    """
    base, tables = find_tables(root)
    views = read_views(HUIX, base, {TRAIN: tables[TRAIN]})
    labels = np.where(views.target.labels == UNCERTAIN, 0, views.target.labels)
    labels[~labels.any(axis=1), LABELS.index("No Finding")] = 1
    n = len(views.ids)
    order = np.array(sorted(range(n), key=views.ids.__getitem__))
    place = np.argsort(order)  # of a row of the file in the sorted order
    last = int(place[min(int(n * 0.2) + 15, n - 1)])  # of test
    middle = int(place[(last + 1) // 2])  # of val, and the first of test
    if middle > last:
        raise RequestError(f"{tables[TRAIN]} isn't in the owner's order, which the split needs")
    split = np.full(n, TRAIN, np.uint8)
    split[: last + 1] = TEST
    split[:middle] = VAL
    views = dataclasses.replace(views, target=Target(MULTI_LABEL, LABELS, labels)).take(order)
    note = "neighbouring splits may share a patient: rows were cut, as in the paper's code"
    return dataclasses.replace(views, split=split, notes=(note,))


CHEXPERT_HUIX2024 = dataclasses.replace(
    CHEXPERT,
    name=HUIX,
    title="CheXpert v1.0 as Huix et al. 2024 read it",
    n_images=223414,
    split="Huix et al. 2024, 80/10/10 of train.csv in order of paths",
    layout=LAYOUT,
    list_files=_list_huix,
)


# ---------------------------------------------------------------------------- Baharoon et al. 2023


def _list_baharoon_ap(root: Path) -> Listing:
    """MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/chexpert.py at 02249ea.

    AP frontal views of train.csv, of which every so many is val (make_val_set), patients or not; the
    frontal views of valid.csv, which radiologists labelled, are test. These are the paper's 161 792
    images: 151 590, 10 000 and 202. valid.csv has no uncertain label, so the sixth label has one class
    in test.
    """
    base, tables = find_tables(root)
    views = _five(read_views(BAHAROON_AP, base, {TRAIN: tables[TRAIN], TEST: tables[VAL]}))
    views = views.take(np.flatnonzero((views.split == TEST) | (views.meta["projection"] == "AP")))
    train = np.flatnonzero(views.split == TRAIN)
    split = np.full(len(views.ids), TEST, np.uint8)
    split[train] = TRAIN
    split[train[systematic(len(train), min(N_VAL, len(train)))]] = VAL
    notes = (
        "AP frontal views, as the paper counts them; the last state of its code reads all frontal "
        f"ones: --data {BAHAROON_FRONTAL}",
        "train and val share patients, as in the paper's code",
    )
    return dataclasses.replace(views, split=split, notes=notes)


def _list_baharoon_frontal(root: Path) -> Listing:
    """The last state of the same file, 6595333: all frontal views in the owner's three sets.

    191 027, 202 and 518, the last those of the test set that came out later. Only train.csv has
    uncertain labels, so the sixth label has one class in val and test.

    Raises:
        MissingFiles: the test set isn't there.
    """
    base, tables = find_tables(root)
    if TEST not in tables:
        raise MissingFiles(TEST_TABLES[0])
    note = (
        "all frontal views, as the last state of the paper's code reads them; the paper counts AP "
        f"ones alone: --data {BAHAROON_AP}"
    )
    return dataclasses.replace(_five(read_views(BAHAROON_FRONTAL, base, tables)), notes=(note,))


def _five(views: Listing) -> Listing:
    """Frontal views only, with the paper's six labels."""
    views = views.take(np.flatnonzero(views.meta["view"] == "Frontal"))
    five = views.target.labels[:, [LABELS.index(name) for name in FIVE]]
    uncertain = five == UNCERTAIN
    labels = np.column_stack([np.where(uncertain, 0, five), uncertain.any(axis=1)])
    target = Target(MULTI_LABEL, (*FIVE, "Uncertain"), labels.astype(np.int64))
    return dataclasses.replace(views, target=target)


CHEXPERT_BAHAROON2023_AP = dataclasses.replace(
    CHEXPERT,
    name=BAHAROON_AP,
    title="CheXpert v1.0, AP frontal views, as Baharoon et al. 2023 count them",
    n_images=161792,
    split="Baharoon et al. 2023: 10 000 evenly spaced views of train.csv are val, valid.csv is test",
    layout=LAYOUT,
    list_files=_list_baharoon_ap,
    statistics=None,
)

CHEXPERT_BAHAROON2023_FRONTAL = dataclasses.replace(
    CHEXPERT_BAHAROON2023_AP,
    name=BAHAROON_FRONTAL,
    title="CheXpert v1.0, frontal views, as the last state of Baharoon et al.'s code reads it",
    n_images=191747,
    split=CHEXPERT.split,
    layout=(*LAYOUT, f"{TEST_TABLES[0]} and test/patient*/..."),
    list_files=_list_baharoon_frontal,
)

# A name that was read as neither does: all frontal views, but split as the AP ones.
CHEXPERT_RETIRED = {
    "chexpert-baharoon2023": "chexpert-baharoon2023 was all frontal views (181 027 / 10 000 / 202), "
    f"which neither the paper nor its code has; --data {BAHAROON_AP} is the paper's count (151 590 / "
    f"10 000 / 202), {BAHAROON_FRONTAL} the code's last state (191 027 / 202 / 518). Features made "
    "under the old name can still be probed"
}
