"""Whether the columns of an estimator's scores are its classes, in their order.

scikit-learn promises a column for each of ``classes_``, and some estimators may be told to give
one for each pair of classes instead: of three classes as many. So it isn't believed: a few training
images are scored and predicted, and the scores must say what ``predict`` says.
"""

import numpy as np

from cache.errors import RequestError
from probe.arrays import Array, Floats, Indices, Ints

MOST_OF_A_CLASS, MOST = 16, 2048  # training images that are asked: of each class, and about in all
ENOUGH = 0.5  # of the predictions are the largest margin; but for ties, all
UNCLEAR = 0.1  # of probability: what an exchange may gain by chance
CURE = (
    "expected one column for each class: name a setting that gives these, as --set "
    "decision_function_shape=ovr, or ask it from a class of your own, --kind FILE.py:CLASS"
)
APART = (
    "either they aren't its classes in their order, or its probabilities are fitted apart from its "
    "decisions, and to noise: leave probability=True out, and margins are taken"
)


def few_of_each(labels: Ints) -> Indices:
    """Places of the first few images of each class, ascending; two and more where there are."""
    _, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(of_class, kind="stable")
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    most = max(2, min(MOST_OF_A_CLASS, MOST // len(counts)))
    return np.sort(order[rank < most])


def check_columns(
    scores: Floats, predicted: Array, classes: Array, name: str, *, are_margins: bool
) -> None:
    """Refuse scores whose columns aren't the classes. n images, C classes.

    Args:
        scores: (n, C), or of two classes (n,) or (n, 1) for the second.
        predicted: (n,) what ``predict`` gives.
        classes: (C,) which class each column should be.
        name: of the estimator and its method, for messages.
        are_margins: the largest decides, but for ties. Of probabilities it needn't: Platt's are
            fitted apart from the decisions.

    Raises:
        RequestError: another number of columns, or another order.
    """
    n_classes = len(classes)
    if scores.ndim == 1 or (n_classes == 2 and scores.shape[1] == 1):
        second = scores.reshape(len(scores))
        scores = np.stack([-second, second], axis=1)
    if scores.shape != (len(predicted), n_classes):
        pairs = n_classes * (n_classes - 1) // 2
        what = ", one for each pair" if scores.shape[1] == pairs else ""
        raise RequestError(
            f"{name} gives {scores.shape[1]} columns for {n_classes} classes{what}; {CURE}"
        )
    said = scores
    if are_margins:
        largest = scores.argmax(axis=1)
        agreed = float((classes[largest] == predicted).mean())
        if agreed < ENOUGH:
            raise RequestError(
                f"{name} contradicts predict: columns are the largest where that says their class "
                f"for {agreed:.0%} of {len(predicted)} training images; {CURE}"
            )
        said = np.eye(n_classes)[largest]
    if which := _exchanged(said, predicted, classes):
        raise RequestError(
            f"{name} contradicts predict: columns {which} say better what that says when they are "
            f"exchanged; {CURE if are_margins else APART}"
        )


def _exchanged(scores: Floats, predicted: Array, classes: Array) -> str:
    """Two classes whose columns say better what is predicted when they are exchanged, if any do.

    By the mean scores of what is predicted as each, of margins the share in which a column is the
    largest. Of any order but the right one two classes are such; and a score that is off, but
    larger where it should be, makes none.
    """
    groups = predicted == classes[:, None]  # (C, n)
    seen = np.flatnonzero(groups.any(axis=1))
    means = (groups[seen] @ scores / groups[seen].sum(axis=1, keepdims=True))[:, seen]
    own = np.diag(means)
    gain = means + means.T - own[:, None] - own
    if gain.max() <= UNCLEAR:
        return ""
    a, b = sorted(np.unravel_index(gain.argmax(), gain.shape))
    return f"{classes[seen[a]]} and {classes[seen[b]]}"
