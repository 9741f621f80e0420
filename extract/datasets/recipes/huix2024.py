"""How Huix et al. 2024 split sets without public test labels.

https://github.com/joanaapa/Foundation-Medical, defaults/bases.py: get_validation_ids. Their code
keeps the numbers it drew in ``val_ids.json`` beside the images, and a file that stands there wins;
here they are drawn each time.
"""

import random

import numpy as np
from numpy.typing import NDArray

from cache.splits.make import TEST, TRAIN, VAL

SEED = 42


def shuffled_split(n: int, share: float) -> NDArray[np.uint8]:
    """The first ``share`` of the shuffled rows is halved: val, then test; the others train.

    Args:
        n: rows of the owner's table, in its order.
        share: of val and test together.

    Returns:
        (n,) index into SPLITS.
    """
    rows = list(range(n))
    random.Random(SEED).shuffle(rows)  # the same on every machine and in every Python 3
    held_out = rows[: int(n * share)]
    split = np.full(n, TRAIN, np.uint8)
    split[held_out[: len(held_out) // 2]] = VAL
    split[held_out[len(held_out) // 2 :]] = TEST
    return split
