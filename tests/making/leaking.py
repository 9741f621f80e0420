"""A feature file whose splits share exact copies and near twins."""

import numpy as np
from features import Looks, make_features

N = (60, 20, 40)  # samples of train, val and test
FIRST_TEST = 80
COPIES = {FIRST_TEST: 0, FIRST_TEST + 1: 60}  # a test sample -> its exact copy in train or val
TWINS = {FIRST_TEST + i: i for i in (2, 3, 4)}  # -> its near twin in train
VAL_TWIN = {70: 5}


def make_file(root, dataset="toys", copies=COPIES, twins=TWINS, looks=True, slices=1, **more):
    """A file of two classes that are hard to tell; see ``make_features``."""
    shared = Looks(copies, {**twins, **(VAL_TWIN if twins else {})}, are_kept=looks)
    about = {
        "ids": np.array([f"{dataset}/{i:03d}" for i in range(sum(N))]),
        "row_sample": np.arange(sum(N)).repeat(slices),
        "n_classes": 2,
        "n_layers": 0,
        "class_names": ("age",) if more.get("task") == "regression" else ("a", "b"),
        "strength": 0.3,
        **more,
    }
    return make_features(root, dataset, n=N, looks=shared, **about)
