"""Scores of training samples by what was fitted without them: to look for wrong labels among them.

Where folds decide, train is answered out of fold anyway. Where val decides, or nothing is chosen,
train is scored once more with the settings that answer: kNN leaves each sample's own patient and
copies out, other kinds five folds of train, the same that would choose. No number is made of them.
"""

from collections.abc import Callable

import numpy as np

from cache.errors import RequestError
from probe.arrays import Doubles, Indices, Singles
from probe.choosing.plan import make_folds
from probe.questions.question import Question, Split

# Training samples. Of more it would take longer than all else: kNN's search grows with their square.
MOST = 10_000


def has_room(question: Question, train: Split, n_test: int) -> bool:
    """Whether a row should keep such scores.

    Not one that reads no test: places are compared, and most rows are never looked at. Not one of a
    fold or site among several: the others' tests are scored without it.
    """
    return bool(n_test) and not question.name and len(train) <= MOST


def by_folds(
    question: Question, train: Split, answer: Callable[[Indices], Doubles | None]
) -> Singles | None:
    """(n, C) scores of train, each by the other folds.

    Args:
        question: whose train it is.
        train: the split.
        answer: takes (n,) the fold of each sample, and gives these scores, or None.

    Returns:
        None: train can't be divided, or not be fitted to without some fold.
    """
    try:
        found = answer(make_folds(question, train))
    except RequestError:
        return None
    return None if found is None else found.astype(np.float32)
