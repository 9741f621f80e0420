"""ISIC 2019: dermoscopic images of eight kinds of skin lesions, out of HAM10000, BCN20000 and MSK.

The split is that of Huix et al. 2024 as their code draws it: 20265, 2533 and 2533 images, whatever
lesion they show. Groups are lesions (``lesion_id``), where the owner names one; patients aren't
published. A lesion photographed several times lies on both sides of that split, and it is counted.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import Target
from cache.task import MULTI_CLASS
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    MissingFiles,
    Recipe,
    find_base,
    numbers,
    require_images,
    row_paths,
    rows_of,
    shuffled_split,
)

NAME = "isic2019"
TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
# As the owner's archive unpacks, as Kaggle's does, and as Huix et al. keep it.
FOLDERS = (
    "ISIC_2019_Training_Input",
    "ISIC_2019_Training_Input/ISIC_2019_Training_Input",
    "train",
)
CLASSES = {  # the owner's columns; a ninth, UNK, is for the test set and empty in this one
    "MEL": "Melanoma",
    "NV": "Melanocytic nevus",
    "BCC": "Basal cell carcinoma",
    "AK": "Actinic keratosis",
    "BKL": "Benign keratosis",
    "DF": "Dermatofibroma",
    "VASC": "Vascular lesion",
    "SCC": "Squamous cell carcinoma",
}


def _list(root: Path) -> Listing:
    base = find_base(root, TRUTH)
    table = read_csv(base.path / TRUTH)
    names = column(table, "image")
    first = base.first(*(f"{folder}/{names[0]}.jpg" for folder in FOLDERS))
    if first is None:
        raise MissingFiles(f"{FOLDERS[0]}/{names[0]}.jpg")
    paths = row_paths(table, "image", first.rpartition("/")[0], ".jpg")
    require_images(base, paths)
    split = shuffled_split(len(names), 0.2)
    groups, meta, notes = None, {}, (f"{METADATA} isn't here, so lesions aren't known",)
    if METADATA in base:
        groups, meta = _read_metadata(read_csv(base.path / METADATA), names)
        places = Counter(lesion for lesion, _ in set(zip(groups, split.tolist(), strict=True)))
        n_lesions = sum(n > 1 for n in places.values())
        notes = (f"{n_lesions} lesions lie in more than one split of Huix et al. 2024",)
    return Listing(
        NAME,
        base.path,
        paths,
        np.arange(len(paths)),
        names,
        Target(MULTI_CLASS, tuple(CLASSES.values()), _one_class(table)),
        split,
        groups,
        meta,
        notes=notes,
    )


def _one_class(table: Table) -> NDArray[np.int64]:
    """(S,) the one column that holds a one."""
    # "1.0" in the file; any other form of one and nought is fine.
    one_hot = np.stack([numbers(column(table, name)) for name in CLASSES], axis=1)  # (S, C)
    wrong = np.flatnonzero((one_hot == 1).sum(1) != 1)
    if len(wrong):
        raise RequestError(
            f"{table.path}, line {table.lines[wrong[0]]}: expected a 1 in one of "
            f"{', '.join(CLASSES)}; is it the table of the train set?"
        )
    return one_hot.argmax(axis=1).astype(np.int64)


def _read_metadata(
    table: Table, names: tuple[str, ...]
) -> tuple[NDArray[np.str_], dict[str, NDArray]]:
    """Lesions and what else is known, in the order of ``names``. A lesion without a name is one of
    its own."""
    order = rows_of(table, "image", names)

    def cells(name: str) -> list[str]:
        values = column(table, name)
        return [values[i] for i in order]

    lesions = [lesion or name for lesion, name in zip(cells("lesion_id"), names, strict=True)]
    meta = {
        "age": numbers(cells("age_approx")),
        "sex": np.array(cells("sex")),
        "site": np.array(cells("anatom_site_general")),
    }
    return np.array(lesions), meta


ISIC2019 = Recipe(
    NAME,
    "ISIC 2019, training set",
    MULTI_CLASS,
    25331,
    "9 GB",
    "CC BY-NC 4.0",
    "https://challenge.isic-archive.com/data/#2019",
    "",
    "Tschandl et al. 2018 (HAM10000); Codella et al. 2018; Hernández-Pérez et al. 2024 (BCN20000)",
    "Huix et al. 2024, 80/10/10 as coded; lesions lie on both sides of it",
    (
        f"{TRUTH} (image, MEL, NV, ...)",
        f"{METADATA} (lesions, age, sex, site; may be absent)",
        f"{FOLDERS[0]}/*.jpg",
    ),
    _list,
    origins=("HAM10000", "BCN20000", "MSK"),
    # Huix et al. 2024, defaults/datasets.py
    statistics=((0.668, 0.530, 0.524), (0.224, 0.204, 0.215)),
)
