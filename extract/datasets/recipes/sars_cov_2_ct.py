"""SARS-CoV-2 CT: slices of chest CTs of patients with COVID-19, other lung disease, or none.

Published twice. Paper and recipe take the later edition, with a folder for each of 210 patients: a
patient is a sample, and its slices are rows. The first edition has 2482 slices and no patients; a
recipe of its own says so.
"""

from pathlib import Path

import numpy as np

from cache.labels.target import Target
from cache.task import BINARY
from extract.datasets.files.below import composed
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    MissingFiles,
    Recipe,
    find_base,
    systematic_split,
)

NAME = "sars-cov-2-ct"
SLICES = "sars-cov-2-ct-slices"
CLASSES = ("no COVID-19", "COVID-19")
DIAGNOSES = {"Covid": 1, "Healthy": 0, "Others": 0}
N_PATIENTS, N_TEST, N_VAL = 210, 70, 50
SLICE_FOLDERS = {"COVID": 1, "non-COVID": 0}


def _list(root: Path) -> Listing:
    """MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/sars_cov_2_ct.py: patients are numbered
    through Covid, Healthy and Others in the order that listing a folder gave; of the numbers every
    third is test, and of the others 50 are val. That order isn't recorded. The authors' paths are
    those of a Windows disk, which lists folders by upper-cased names; so does this."""
    base = find_base(root, *DIAGNOSES, needs=DIAGNOSES)
    paths: list[str] = []
    sample: list[int] = []
    ids: list[str] = []
    for diagnosis in DIAGNOSES:
        for patient in sorted(base.names(diagnosis), key=str.upper):
            folder = f"{diagnosis}/{patient}"
            slices = sorted(name for name in base.names(folder) if name.endswith(".png"))
            if slices:
                paths += [f"{folder}/{name}" for name in slices]
                sample += [len(ids)] * len(slices)
                ids.append(composed(folder))
    if not ids:
        raise MissingFiles("patients' folders with *.png")
    n = len(ids)
    diagnoses = [name.partition("/")[0] for name in ids]
    notes = ()
    if n != N_PATIENTS:
        notes = (f"{N_PATIENTS} patients are published, {n} are here: the split isn't the paper's",)
    return Listing(
        NAME,
        base.path,
        tuple(paths),
        np.array(sample),
        tuple(ids),
        Target(BINARY, CLASSES, np.array([DIAGNOSES[d] for d in diagnoses], np.int64)),
        systematic_split(n, N_TEST, N_VAL, N_PATIENTS),
        np.array(ids),
        {"diagnosis": np.array(diagnoses)},
        notes=notes,
    )


def _list_slices(root: Path) -> Listing:
    base = find_base(root, *SLICE_FOLDERS, needs=SLICE_FOLDERS)
    paths = [
        f"{folder}/{name}"
        for folder in SLICE_FOLDERS
        for name in sorted(base.names(folder))
        if name.endswith(".png")
    ]
    if not paths:
        raise MissingFiles(", ".join(f"{folder}/*.png" for folder in SLICE_FOLDERS))
    labels = [SLICE_FOLDERS[path.partition("/")[0]] for path in paths]
    return Listing(
        SLICES,
        base.path,
        tuple(paths),
        np.arange(len(paths)),
        tuple(paths),
        Target(BINARY, CLASSES, np.array(labels, np.int64)),
        notes=(
            "nobody says which slices are of one patient, so any split puts a patient's slices on "
            f"both sides; {NAME} knows the patients",
        ),
    )


REFERENCE = "Soares et al. 2020, https://doi.org/10.1101/2020.04.24.20078584"

SARS_COV_2_CT = Recipe(
    NAME,
    "SARS-CoV-2 CT, by patient (A COVID multiclass dataset of CT scans)",
    BINARY,
    4171,  # files; the owner's text counts 4173
    "1 GB",
    "as its page on Kaggle says",
    "https://www.kaggle.com/datasets/plameneduardo/a-covid-multiclass-dataset-of-ct-scans",
    "a Kaggle account",
    REFERENCE,
    "Baharoon et al. 2023, 90/50/70 patients",
    ("Covid/PATIENT/*.png", "Healthy/PATIENT/*.png", "Others/PATIENT/*.png"),
    _list,
    origins=("Soares 2020 chest CT",),
)

SARS_COV_2_CT_SLICES = Recipe(
    SLICES,
    "SARS-CoV-2 CT, slices without patients (SARS-COV-2 Ct-Scan Dataset)",
    BINARY,
    2482,
    "0.2 GB",
    "as its page on Kaggle says",
    "https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset",
    "a Kaggle account",
    REFERENCE,
    "nobody's",
    ("COVID/*.png", "non-COVID/*.png"),
    _list_slices,
    origins=("Soares 2020 chest CT",),
)
