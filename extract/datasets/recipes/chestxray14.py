"""NIH ChestX-ray14: frontal chest X-rays, fourteen findings read out of reports by a program.

The owner's lists say what is test and what isn't, by patient. val is cut out of the rest by patient
too: of the patients in order of their numbers every tenth (Baharoon et al. 2023's systematic
sampling), so it is the same for everybody. Their own val isn't by patient; it has a name of its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import Target
from cache.splits.make import TEST, TRAIN, VAL, systematic
from cache.task import MULTI_LABEL
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    Folders,
    MissingFiles,
    Recipe,
    find_base,
    numbers,
    read_lines,
    require,
    require_images,
    sample_ids,
)

NAME = "chestxray14"
BAHAROON = "chestxray14-baharoon2023"
TASK = MULTI_LABEL
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


@dataclass(frozen=True)
class XRays:
    """What the owner's table says of the images that its two lists name. S images."""

    base: Path
    paths: tuple[str, ...]
    names: tuple[str, ...]  # (S,) as the lists have them: those that aren't test, then test
    findings: tuple[tuple[str, ...], ...]  # (S,)
    patients: NDArray[np.str_]  # (S,)
    meta: dict[str, NDArray]
    n_train_val: int
    notes: tuple[str, ...]


def _read(root: Path) -> XRays:
    base = find_base(root, TRAIN_VAL_LIST)
    require(base, TRAIN_VAL_LIST, TEST_LIST)
    folders = Folders(base)
    name = next((name for name in TABLES if name in folders), None)
    if name is None:
        raise MissingFiles(TABLES[0])
    table = read_csv(base / name)
    train_val, test = read_lines(base / TRAIN_VAL_LIST), read_lines(base / TEST_LIST)
    both = set(train_val) & set(test)
    if both:
        raise RequestError(f"{min(both)} is in {TRAIN_VAL_LIST} and in {TEST_LIST} of {base}")
    names = (*train_val, *test)
    row = {name: i for i, name in enumerate(column(table, "Image Index"))}
    unknown = [name for name in names if name not in row]
    if unknown:
        raise RequestError(f"{table.path} has no row for {unknown[0]} ({len(unknown)} in all)")
    rows = [row[name] for name in names]
    paths = [_find(folders, name) for name in names]
    require_images(folders, paths)
    ages = _ages(table)
    is_error = ages > OLDEST
    notes = [f"{len(row) - len(rows)} images of {table.path.name} are in neither list"]
    notes.append(f"{int(is_error[rows].sum())} ages beyond {OLDEST} years are taken as unknown")
    ages[is_error] = np.nan
    sex = "Patient Gender" if "Patient Gender" in table.columns else "Patient Sex"
    findings = column(table, "Finding Labels")
    patients = np.array(column(table, "Patient ID"))
    meta = {
        "age": ages,
        "sex": np.array(column(table, sex)),
        "view": np.array(column(table, "View Position")),
        "follow_up": numbers(column(table, "Follow-up #")),
    }
    return XRays(
        base,
        tuple(paths),
        names,
        tuple(_findings(table, i, findings[i]) for i in rows),
        np.char.zfill(patients, 8)[rows],  # as in the images' names; a text editor may drop zeros
        {key: values[rows] for key, values in meta.items()},
        len(train_val),
        tuple(note for note in notes if not note.startswith("0 ")),
    )


def _find(folders: Folders, name: str) -> str:
    paths = [f"{folder}/{name}" for folder in FOLDERS]
    return next((path for path in paths if path in folders), paths[0])


def _findings(table: Table, row: int, cell: str) -> tuple[str, ...]:
    findings = tuple(cell.split("|"))
    if unknown := set(findings) - {*FINDINGS, NONE}:
        raise RequestError(
            f"{table.path}, line {table.lines[row]}: no finding is called {min(unknown)!r}; "
            f"the owner's are {', '.join(FINDINGS)}"
        )
    return findings


def _ages(table: Table) -> NDArray[np.float64]:
    """Years. NaN where no age stands."""
    cells = column(table, "Patient Age")
    found = [re.fullmatch(r"(\d+)([YMD]?)", cell) for cell in cells]
    return np.array([int(m[1]) * YEARS[m[2] or "Y"] if m else np.nan for m in found], np.float64)


def _listing(
    name: str, xrays: XRays, labels: Sequence[str], split: NDArray[np.uint8], *notes: str
) -> Listing:
    place = {label: i for i, label in enumerate(labels)}
    values = np.zeros((len(xrays.names), len(labels)), np.int64)
    for row, findings in enumerate(xrays.findings):
        values[row, [place[finding] for finding in findings if finding in place]] = 1
    return Listing(
        name,
        xrays.base,
        xrays.paths,
        np.arange(len(xrays.paths)),
        sample_ids(xrays.names),
        Target(TASK, tuple(labels), values),
        split,
        xrays.patients,
        xrays.meta,
        notes=(*xrays.notes, *notes),
    )


def _list(root: Path) -> Listing:
    xrays = _read(root)
    split = np.full(len(xrays.names), TRAIN, np.uint8)
    patients = np.unique(xrays.patients[: xrays.n_train_val])  # in order of their numbers
    chosen = patients[systematic(len(patients), len(patients) // 10)]
    split[np.isin(xrays.patients, chosen)] = VAL
    split[xrays.n_train_val :] = TEST
    return _listing(NAME, xrays, FINDINGS, split)


def _list_baharoon(root: Path) -> Listing:
    """MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/nih_chest_xray.py: val is the last 10 002
    of the owner's list (:129-143; the paper says systematic), and the labels are scikit-learn's
    MultiLabelBinarizer's, in alphabetical order and with "No Finding" as a fifteenth (:63-67; the
    paper says 14)."""
    xrays = _read(root)
    split = np.full(len(xrays.names), TRAIN, np.uint8)
    split[max(0, xrays.n_train_val - N_VAL_BAHAROON) : xrays.n_train_val] = VAL
    split[xrays.n_train_val :] = TEST
    note = "train and val may share a patient: the list was cut, as in the paper's code"
    return _listing(BAHAROON, xrays, sorted((*FINDINGS, NONE)), split, note)


SIZE = "45 GB"
LICENCE = "no restrictions on use; link, citation and the NIH Clinical Center's name are asked for"
URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
REFERENCE = "Wang et al. 2017, https://arxiv.org/abs/1705.02315"
LAYOUT = (
    "Data_Entry_2017_v2020.csv",
    TRAIN_VAL_LIST,
    TEST_LIST,
    "images/*.png (of all twelve archives)",
)

CHESTXRAY14 = Recipe(
    NAME,
    "NIH ChestX-ray14",
    TASK,
    112120,
    SIZE,
    LICENCE,
    URL,
    "",
    REFERENCE,
    "the owner's test; every tenth of the other patients is val",
    LAYOUT,
    _list,
    origins=("NIH ChestX-ray14",),
)

CHESTXRAY14_BAHAROON2023 = Recipe(
    BAHAROON,
    "NIH ChestX-ray14 as Baharoon et al. 2023 read it",
    TASK,
    112120,
    SIZE,
    LICENCE,
    URL,
    "",
    REFERENCE,
    "the owner's test; the last 10 002 images of the other list are val",
    LAYOUT,
    _list_baharoon,
    origins=("NIH ChestX-ray14",),
)
