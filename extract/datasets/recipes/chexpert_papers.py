"""CheXpert as two papers' released code reads it."""

import dataclasses
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.splits.make import TEST, TRAIN, VAL, systematic
from cache.task import UNCERTAIN
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.chexpert import (
    ACCESS,
    LABELS,
    LAYOUT,
    LICENCE,
    REFERENCE,
    SIZE,
    STATISTICS,
    TASK,
    TEST_TABLES,
    URL,
    Views,
    find_chexpert,
    find_test_table,
    join_views,
    read_views,
)
from extract.datasets.recipes.recipe import MissingFiles, Recipe

HUIX = "chexpert-huix2024"
# The paper's count, and that of the last state of its code.
BAHAROON_AP = "chexpert-baharoon2023-ap"
BAHAROON_FRONTAL = "chexpert-baharoon2023-frontal"

FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
N_VAL = 10_000  # of 161 590 AP frontal views


def _list_huix(root: Path) -> Listing:
    """joanaapa/Foundation-Medical, defaults/datasets.py:51-87.

    Only train.csv. Uncertain is 0 ("U-Zeros"), a row of zeros becomes "No Finding". Rows are sorted by
    path, and of the first fifth (and 15 rows more, so that fewer patients are cut in two) one half is
    val and the other test. pandas' ``loc`` takes both ends of a range, and so the code has the last
    row of val in test too, and the last of test in train. Here test is theirs, row for row, and val
    and train lack the row they share with it. The labels of ``loc`` are the rows' numbers in the
    file, not in the sorted order: where the file isn't sorted that is another row, and it is here.
    """
    base, tables = find_chexpert(root)
    views = read_views(base, tables / "train.csv")
    labels = np.where(views.labels == UNCERTAIN, 0, views.labels)
    labels[~labels.any(axis=1), LABELS.index("No Finding")] = 1
    views = dataclasses.replace(views, labels=labels)
    n = len(views.names)
    order = np.array(sorted(range(n), key=views.names.__getitem__))
    place = np.argsort(order)  # of a row of the file in the sorted order
    last = int(place[min(int(n * 0.2) + 15, n - 1)])  # of test
    middle = int(place[(last + 1) // 2])  # of val, and the first of test
    if middle > last:
        raise RequestError(
            f"{tables / 'train.csv'} isn't in the owner's order, which the split needs"
        )
    return join_views(
        HUIX,
        base,
        [
            (VAL, views[order[:middle]]),
            (TEST, views[order[middle : last + 1]]),
            (TRAIN, views[order[last + 1 :]]),
        ],
        notes=("neighbouring splits may share a patient: rows were cut, as in the paper's code",),
    )


def _list_baharoon_ap(root: Path) -> Listing:
    """MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/chexpert.py at 02249ea.

    AP frontal views of train.csv, of which every so many is val (make_val_set), patients or not; the
    frontal views of valid.csv, which radiologists labelled, are test. These are the paper's 161 792
    images: 151 590, 10 000 and 202. valid.csv has no uncertain label, so the sixth label has one class
    in test.
    """
    base, tables = find_chexpert(root)
    train, test = (_five(read_views(base, tables / f"{name}.csv")) for name in ("train", "valid"))
    train = train[np.flatnonzero(train.meta["projection"] == "AP")]
    is_val = np.zeros(len(train.paths), bool)
    is_val[systematic(len(is_val), min(N_VAL, len(is_val)))] = True
    return join_views(
        BAHAROON_AP,
        base,
        [
            (TRAIN, train[np.flatnonzero(~is_val)]),
            (VAL, train[np.flatnonzero(is_val)]),
            (TEST, test),
        ],
        (*FIVE, "Uncertain"),
        (
            "AP frontal views, as the paper counts them; the last state of its code reads all frontal "
            f"ones: --data {BAHAROON_FRONTAL}",
            "train and val share patients, as in the paper's code",
        ),
    )


def _list_baharoon_frontal(root: Path) -> Listing:
    """The last state of the same file, 6595333: all frontal views in the owner's three sets.

    191 027, 202 and 518, the last those of the test set that came out later. Only train.csv has
    uncertain labels, so the sixth label has one class in val and test.

    Raises:
        MissingFiles: the test set isn't there.
    """
    base, tables = find_chexpert(root)
    test = find_test_table(base)
    if test is None:
        raise MissingFiles(TEST_TABLES[0])
    of_split = {TRAIN: tables / "train.csv", VAL: tables / "valid.csv", TEST: test}
    return join_views(
        BAHAROON_FRONTAL,
        base,
        [(split, _five(read_views(base, table))) for split, table in of_split.items()],
        (*FIVE, "Uncertain"),
        (
            "all frontal views, as the last state of the paper's code reads them; the paper counts AP "
            f"ones alone: --data {BAHAROON_AP}",
        ),
    )


def _five(views: Views) -> Views:
    """Frontal views only, with the paper's six labels."""
    views = views[np.flatnonzero(views.frontal)]
    five = views.labels[:, [LABELS.index(name) for name in FIVE]]
    uncertain = five == UNCERTAIN
    labels = np.column_stack([np.where(uncertain, 0, five), uncertain.any(axis=1)])
    return dataclasses.replace(views, labels=labels.astype(np.int64))


CHEXPERT_HUIX2024 = Recipe(
    HUIX,
    "CheXpert v1.0 as Huix et al. 2024 read it",
    TASK,
    223414,
    SIZE,
    LICENCE,
    URL,
    ACCESS,
    REFERENCE,
    "Huix et al. 2024, 80/10/10 of train.csv in order of paths",
    LAYOUT,
    _list_huix,
    origins=("CheXpert",),
    statistics=STATISTICS,
)

CHEXPERT_BAHAROON2023_AP = Recipe(
    BAHAROON_AP,
    "CheXpert v1.0, AP frontal views, as Baharoon et al. 2023 count them",
    TASK,
    161792,
    SIZE,
    LICENCE,
    URL,
    ACCESS,
    REFERENCE,
    "Baharoon et al. 2023: 10 000 evenly spaced views of train.csv are val, valid.csv is test",
    LAYOUT,
    _list_baharoon_ap,
    origins=("CheXpert",),
)

CHEXPERT_BAHAROON2023_FRONTAL = Recipe(
    BAHAROON_FRONTAL,
    "CheXpert v1.0, frontal views, as the last state of Baharoon et al.'s code reads it",
    TASK,
    191747,
    SIZE,
    LICENCE,
    URL,
    ACCESS,
    REFERENCE,
    "the owner's",
    (*LAYOUT, f"{TEST_TABLES[0]} and test/patient*/..."),
    _list_baharoon_frontal,
    origins=("CheXpert",),
)

# A name that was read as neither does: all frontal views, but split as the AP ones.
CHEXPERT_RETIRED = {
    "chexpert-baharoon2023": "chexpert-baharoon2023 was all frontal views (181 027 / 10 000 / 202), "
    f"which neither the paper nor its code has; --data {BAHAROON_AP} is the paper's count (151 590 / "
    f"10 000 / 202), {BAHAROON_FRONTAL} the code's last state (191 027 / 202 / 518). Features made "
    "under the old name can still be probed"
}
