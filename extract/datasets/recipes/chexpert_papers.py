"""CheXpert as two papers' released code reads it."""

import dataclasses
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.labels import UNCERTAIN
from cache.splits import TEST, TRAIN, VAL, systematic
from extract.datasets.listing import Listing
from extract.datasets.recipes.chexpert import (
    ACCESS,
    LABELS,
    LAYOUT,
    LICENCE,
    REFERENCE,
    SIZE,
    TASK,
    URL,
    Views,
    find_chexpert,
    join_views,
    read_views,
)
from extract.datasets.recipes.recipe import Recipe

HUIX = "chexpert-huix2024"
BAHAROON = "chexpert-baharoon2023"

FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
N_VAL = 10_000  # of 191 027 frontal views


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


def _list_baharoon(root: Path) -> Listing:
    """MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/chexpert.py.

    Frontal views and five labels; uncertain is 0 and a sixth label, "Uncertain", says that one of
    the five was. val is every so many of train.csv's frontal views (make_val_set), patients or not;
    valid.csv, which radiologists labelled, is test. It has no uncertain label, so the sixth label
    has one class there.

    The paper and the states of its code disagree on the counts. The paper prints 161 792 views: that
    fits AP views alone (161 590 and 202), a filter that is commented out in the last state. That
    state counts 191 027, 202 and 518, the owner's own three sets: ``--data chexpert``.
    """
    base, tables = find_chexpert(root)
    train, test = (_five(read_views(base, tables / f"{name}.csv")) for name in ("train", "valid"))
    is_val = np.zeros(len(train.paths), bool)
    is_val[systematic(len(is_val), min(N_VAL, len(is_val)))] = True
    return join_views(
        BAHAROON,
        base,
        [
            (TRAIN, train[np.flatnonzero(~is_val)]),
            (VAL, train[np.flatnonzero(is_val)]),
            (TEST, test),
        ],
        (*FIVE, "Uncertain"),
        ("train and val share patients, as in the paper's code",),
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
)

CHEXPERT_BAHAROON2023 = Recipe(
    BAHAROON,
    "CheXpert v1.0, frontal views, as Baharoon et al. 2023 read it",
    TASK,
    191229,
    SIZE,
    LICENCE,
    URL,
    ACCESS,
    REFERENCE,
    "Baharoon et al. 2023: 10 000 evenly spaced views of train.csv are val, valid.csv is test",
    LAYOUT,
    _list_baharoon,
)
