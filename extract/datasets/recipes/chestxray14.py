"""NIH ChestX-ray14: frontal chest X-rays, fourteen findings read out of reports by a program.

The owner's lists say what is test and what isn't, by patient. val is cut out of the rest by patient
too: of the patients in order of their numbers every tenth (Baharoon et al. 2023's systematic
sampling), so it is the same for everybody. Their own val isn't by patient; it has a name of its own.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import Target
from cache.splits.make import TEST, TRAIN, VAL
from cache.task import MULTI_LABEL
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    MissingFiles,
    Recipe,
    cut_val,
    find_base,
    numbers,
    read_lines,
    require_images,
    rows_of,
)

NAME = "chestxray14"
BAHAROON = "chestxray14-baharoon2023"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NONE = "No Finding"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAIN_VAL_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
# The owner's twelve archives all unpack into images/; Kaggle's have a folder each.
FOLDERS = ("images", *(f"images_{number:03d}/images" for number in range(1, 13)))

N_VAL_BAHAROON = 10_002
OLDEST = 120  # years; the table of 2017 has some ages of 148 to 414
YEARS = {"Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}  # "058Y" in 2017's table, "58" in 2020's


def _read(root: Path, name: str, labels: Sequence[str]) -> Listing:
    """The images that the owner's two lists name, those that aren't test first, as train."""
    base = find_base(root, TRAIN_VAL_LIST, needs=[TEST_LIST])
    file = base.first(*TABLES)
    if file is None:
        raise MissingFiles(TABLES[0])
    table = read_csv(base.path / file)
    train_val, test = (read_lines(base.path / list_) for list_ in (TRAIN_VAL_LIST, TEST_LIST))
    both = set(train_val) & set(test)
    if both:
        raise RequestError(f"{min(both)} is in {TRAIN_VAL_LIST} and in {TEST_LIST} of {base.path}")
    names = (*train_val, *test)
    rows = rows_of(table, "Image Index", names)
    # One image at a time: 13 places of each of 112,120 would take 130 MB.
    paths = [
        base.first(*(f"{folder}/{image}" for folder in FOLDERS)) or f"{FOLDERS[0]}/{image}"
        for image in names
    ]
    require_images(base, paths)
    ages = _ages(table)
    is_error = ages > OLDEST
    notes = [
        f"{len({*column(table, 'Image Index')}) - len(rows)} images of {table.path.name} are in neither list"
    ]
    notes.append(f"{int(is_error[rows].sum())} ages beyond {OLDEST} years are taken as unknown")
    ages[is_error] = np.nan
    sex = "Patient Gender" if "Patient Gender" in table.columns else "Patient Sex"
    patients = np.array(column(table, "Patient ID"))
    meta = {
        "age": ages,
        "sex": np.array(column(table, sex)),
        "view": np.array(column(table, "View Position")),
        "follow_up": numbers(column(table, "Follow-up #")),
    }
    return Listing(
        name,
        base.path,
        tuple(paths),
        np.arange(len(paths)),
        tuple(names),
        Target(MULTI_LABEL, tuple(labels), _read_labels(table, rows, labels)),
        np.repeat(np.array([TRAIN, TEST], np.uint8), [len(train_val), len(test)]),
        np.char.zfill(patients, 8)[rows],  # as in the images' names; a text editor may drop zeros
        {key: values[rows] for key, values in meta.items()},
        notes=tuple(note for note in notes if not note.startswith("0 ")),
    )


def _read_labels(table: Table, rows: Sequence[int], labels: Sequence[str]) -> NDArray[np.int64]:
    """(rows, labels) zeros and ones."""
    cells = column(table, "Finding Labels")
    values = np.zeros((len(rows), len(labels)), np.int64)
    for row, of_image in zip(rows, values, strict=True):
        findings = set(cells[row].split("|"))
        if unknown := findings - {*FINDINGS, NONE}:
            raise RequestError(
                f"{table.path}, line {table.lines[row]}: no finding is called {min(unknown)!r}; "
                f"the owner's are {', '.join(FINDINGS)}"
            )
        of_image[:] = [label in findings for label in labels]
    return values


def _ages(table: Table) -> NDArray[np.float64]:
    """Years. NaN where no age stands."""
    cells = column(table, "Patient Age")
    found = [re.fullmatch(r"(\d+)([YMD]?)", cell) for cell in cells]
    return np.array([int(m[1]) * YEARS[m[2] or "Y"] if m else np.nan for m in found], np.float64)


def _list(root: Path) -> Listing:
    return cut_val(_read(root, NAME, FINDINGS))


def _list_baharoon(root: Path) -> Listing:
    """MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/nih_chest_xray.py: val is the last 10 002
    of the owner's list (:129-143; the paper says systematic), and the labels are scikit-learn's
    MultiLabelBinarizer's, in alphabetical order and with "No Finding" as a fifteenth (:63-67; the
    paper says 14)."""
    listing = _read(root, BAHAROON, sorted((*FINDINGS, NONE)))
    assert listing.split is not None
    listing.split[np.flatnonzero(listing.split == TRAIN)[-N_VAL_BAHAROON:]] = VAL
    note = "train and val may share a patient: the list was cut, as in the paper's code"
    return dataclasses.replace(listing, notes=(*listing.notes, note))


CHESTXRAY14 = Recipe(
    NAME,
    "NIH ChestX-ray14",
    MULTI_LABEL,
    112120,
    "45 GB",
    "no restrictions on use; link, citation and the NIH Clinical Center's name are asked for",
    "https://nihcc.app.box.com/v/ChestXray-NIHCC",
    "",
    "Wang et al. 2017, https://arxiv.org/abs/1705.02315",
    "the owner's test; every tenth of the other patients is val",
    (
        "Data_Entry_2017_v2020.csv",
        TRAIN_VAL_LIST,
        TEST_LIST,
        "images/*.png (of all twelve archives)",
    ),
    _list,
    origins=("NIH ChestX-ray14",),
)

CHESTXRAY14_BAHAROON2023 = dataclasses.replace(
    CHESTXRAY14,
    name=BAHAROON,
    title="NIH ChestX-ray14 as Baharoon et al. 2023 read it",
    split="the owner's test; the last 10 002 images of the other list are val",
    list_files=_list_baharoon,
)
