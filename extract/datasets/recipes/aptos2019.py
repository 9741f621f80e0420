"""APTOS 2019: photographs of the retina, graded for diabetic retinopathy.

The competition's own test labels were never published, so everybody splits its train set. The split
is that of Huix et al. 2024 as their code draws it: 2564, 549 and 549 images.
"""

from pathlib import Path

import numpy as np

from cache import RequestError
from cache.labels.tables import column, read_csv
from cache.labels.target import Target
from cache.task import ORDINAL
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    Recipe,
    find_base,
    require_images,
    row_paths,
    shuffled_split,
)

NAME = "aptos2019"
GRADES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")


def _list(root: Path) -> Listing:
    base = find_base(root, "train.csv", needs=["train_images"])
    table = read_csv(base.path / "train.csv")
    diagnoses = column(table, "diagnosis")
    column(table, "id_code")
    known = {str(grade): grade for grade in range(len(GRADES))}
    for line, diagnosis in zip(table.lines, diagnoses, strict=True):
        if diagnosis not in known:
            raise RequestError(
                f"{table.path}, line {line}: the diagnosis is a grade of 0 to 4, found {diagnosis!r}"
            )
    paths = row_paths(table, "id_code", "train_images", ".png")
    require_images(base, paths)
    return Listing(
        NAME,
        base.path,
        paths,
        np.arange(len(paths)),
        table.columns["id_code"],
        Target(ORDINAL, GRADES, np.array([known[d] for d in diagnoses], np.int64)),
        shuffled_split(len(paths), 0.3),
    )


APTOS2019 = Recipe(
    NAME,
    "APTOS 2019 Blindness Detection",
    ORDINAL,  # as MedMNIST's RetinaMNIST
    3662,
    "10 GB",
    "the competition's rules",
    "https://www.kaggle.com/c/aptos2019-blindness-detection",
    "a Kaggle account and the competition's rules accepted",
    "Karthik, Maggie and Dane, APTOS 2019 Blindness Detection, Kaggle 2019",
    "Huix et al. 2024, 70/15/15 as coded",
    ("train.csv (id_code, diagnosis)", "train_images/*.png"),
    _list,
    origins=("APTOS 2019",),
    # Huix et al. 2024, defaults/datasets.py
    statistics=((0.415, 0.221, 0.073), (0.275, 0.150, 0.081)),
)
