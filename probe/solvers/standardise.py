"""Standardising features: each by its mean and standard deviation over the training images.

Features are read in blocks, so that a float16 matrix of any length never becomes a float64 one.

A few-shot episode has too few samples for that: of one image of each of two classes every feature
becomes 1 and -1, and what a test image has of it a hundred or a thousand. Train's images tell the
scale without their labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from probe.arrays import Array, Doubles, Floats, Singles

# Rows of features that are in work at one time, and numbers: 32 MB in float64. Up to 1024 features
# the rows count.
CHUNK_ROWS, CHUNK_CELLS = 4096, 2**22
SHORTEST = 64  # numbers of a row that are read together
UNLABELLED = "train-unlabelled"  # by the means and scales of train's images, labels unseen
# --standardise: by train's unlabelled images, by the episode's own, or not at all.
STANDARDISE = ("train", "episode", "none")
FEW = 30  # unlabelled images: of fewer, one scale for all features

Prepare = Callable[[Floats], Singles]  # of (..., D) features


def as_they_are(features: Floats) -> Singles:
    """A copy of the features."""
    return np.array(features, np.float32)


def of_one_length(features: Floats) -> Singles:
    """Each image's features divided by their length (L2), times the root of their number.

    The direction is all that counts; and the mean square of a feature is 1, as where they are
    standardised, so that a strength or a penalty means the same.
    """
    rows = features.astype(np.float64)
    length = np.sqrt(np.square(rows).mean(axis=-1, keepdims=True))
    if not np.isfinite(length).all():
        raise RequestError("features are finite, found inf or nan")
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


@dataclass(frozen=True)
class Standard:
    """What features are standardised by; calling it does so."""

    mean: Doubles  # (D,)
    scale: Doubles  # (D,), positive

    @staticmethod
    def of(features: Floats) -> Standard:
        """Each feature's own mean and standard deviation; 1 where a feature is constant.

        Args:
            features: (N, D); may be a float16 memmap, which is read twice.

        Raises:
            RequestError: features that are not finite.
        """
        mean = np.zeros(features.shape[1])
        for rows in row_blocks(features):
            mean += np.sum(features[rows], axis=0, dtype=np.float64) / len(features)
        refuse_infinite(mean)
        squares = np.zeros(len(mean))
        varies = np.zeros(len(mean), dtype=bool)
        for rows in row_blocks(features):
            block = np.asarray(features[rows])
            squares += np.square(block - mean).sum(axis=0)
            # By comparison, not by variance: the rounded mean of a constant leaves a variance of
            # 1e-32, and dividing by its root would blow rounding up to a feature.
            varies |= (block != features[0]).any(axis=0)
        return Standard(mean, np.where(varies, np.sqrt(squares / len(features)), 1.0))

    def __call__(self, features: Floats) -> Singles:
        found = np.empty(features.shape, np.float32)
        for rows in row_blocks(features):
            found[rows] = self.wide(features[rows])
        return found

    def wide(self, features: Floats) -> Doubles:
        """A block of features as solvers take them, in float64."""
        return (features - self.mean) / self.scale

    def columns(self, features: Floats) -> Iterator[tuple[slice, Doubles]]:
        """All images, some features at a time: where those stand, and (N, d) of them as solvers take.

        Args:
            features: (N, D), of which N are few.
        """
        n_rows, width = features.shape
        for part in chunks(width, max(SHORTEST, CHUNK_CELLS // n_rows)):
            yield part, Standard(self.mean[part], self.scale[part]).wide(features[:, part])

    def folded(self, weights: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """(..., D, O) weights and (..., O) intercept on features as they are, of those on these."""
        weights = weights / self.scale[:, None]
        return weights, intercept - self.mean @ weights


def unlabelled_standard(features: Floats) -> Standard:
    """The means and scales that train's images tell, whoever is labelled among them.

    Standard deviations of fewer than ``FEW`` images are off by a fifth and more, so that features
    would be weighted by chance: there one scale, the root of the mean variance, serves all.
    """
    own = Standard.of(features)
    if len(features) >= FEW:
        return own
    varies = (features != features[0]).any(axis=0)
    scale = float(np.sqrt(np.mean(np.square(own.scale[varies])))) if varies.any() else 1.0
    return Standard(own.mean, np.full(len(own.mean), scale))


@dataclass(frozen=True)
class PathFit:
    """One fit of a path: several strengths, or penalties, of one training set."""

    weights: Doubles  # (D, O) on standardised features
    intercept: Doubles  # (O,)
    standard: Standard  # of the training features, the same for all of the path


def path_outputs(fits: Sequence[PathFit], features: Floats) -> list[Doubles]:
    """The outputs of every fit of one path, reading the features once.

    Args:
        fits: of one path.
        features: (Q, D), not standardised; may be a memmap.

    Returns:
        (Q, O) for each fit.

    Raises:
        RequestError: features of another width than the training features.
    """
    standard = fits[0].standard
    check_width(features, len(standard.mean), "probe")
    weights = np.hstack([fit.weights for fit in fits])  # (D, fits * O)
    intercept = np.concatenate([fit.intercept for fit in fits])
    found = np.empty((len(features), len(intercept)))
    for rows in row_blocks(features):
        found[rows] = standard.wide(features[rows]) @ weights + intercept
    return np.split(found, len(fits), axis=1)


def refuse_infinite(of_columns: Floats) -> None:
    """Refuse sums (D,) over features that are not finite.

    Raises:
        RequestError: one isn't.
    """
    if not np.isfinite(of_columns).all():
        column = int(np.argmin(np.isfinite(of_columns)))
        raise RequestError(f"features are finite, found inf or nan in column {column}")


def check_rows(
    features: Floats, wanted: Array, what: str = "labels", each: str = "a label for each row"
) -> None:
    """Refuse training features that aren't (N, D), with a row for each label or target.

    Raises:
        RequestError: they aren't, or there are none.
    """
    if features.ndim != 2 or len(features) != len(wanted) or not len(wanted):
        raise RequestError(
            f"training needs (N, D) features and {each}, found features of shape "
            f"{features.shape} and {len(wanted)} {what}"
        )


def check_width(features: Floats, width: int, what: str) -> None:
    """Refuse features of another width than what was fitted has seen.

    Args:
        features: (Q, D).
        width: of the training features.
        what: was fitted, for the message: "probe" or "head".

    Raises:
        RequestError: they are.
    """
    if features.ndim != 2 or features.shape[1] != width:
        raise RequestError(
            f"the {what} was trained on {width} features, found shape {features.shape}: training "
            "and test features must come from one encoder, layer and pool"
        )


def row_blocks(features: Floats) -> Iterator[slice]:
    """Consecutive rows of features, so few that a block may be float64."""
    width = math.prod(features.shape[1:])
    return chunks(len(features), min(CHUNK_ROWS, max(1, CHUNK_CELLS // max(width, 1))))


def chunks(n_rows: int, size: int = CHUNK_ROWS) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` rows."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


@dataclass(frozen=True)
class Standardising:
    """What episodes' features go through before they are fitted."""

    word: str  # of the question; "": as they are stored
    prepare: Prepare | None  # None: by each episode's own samples
    mark: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """What the row's question holds."""
        return {"standardised": self.word} if self.word else {}

    @property
    def marks(self) -> list[str]:
        return [self.mark] if self.mark else []


AS_STORED = Standardising("", None)


def standardising(how: str, train: Floats) -> Standardising:
    """How few-shot episodes' features are standardised, and what the row says of it.

    Of train, never of val or test: a test image is met by itself.

    Args:
        how: one of ``STANDARDISE``.
        train: (S, D) features of all of train.
    """
    if how == "episode":
        return Standardising("by each episode", None)
    if how == "none":
        return Standardising("none (L2)", of_one_length, "standardised: none (L2)")
    one = ", one scale for all features" if len(train) < FEW else ""
    said = f"standardised: {UNLABELLED} (n {len(train):_}{one})"
    return Standardising(UNLABELLED, unlabelled_standard(train), said)
