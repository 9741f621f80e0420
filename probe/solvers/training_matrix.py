"""The standardised training images as logistic regression takes them: rotated, or as they are stored.

Rotated into the eigenbasis of their correlations, the Hessian is nearly diagonal, and the matrix is
min(N, D) high. With fewer images than features the weights lie in the span of the images, so nothing
is lost in going there first: with XX' = U diag(e) U' the rotated images are U diag(e)^1/2, and
weights w there are X'U diag(e)^-1/2 w. So X is read in columns, for XX' and once more for all
weights of a path; neither a (D, D) nor a (D, N) array is made.

Where both are large, the matrix stays as it is stored and its blocks are standardised anew for each
product. What is nearly the Hessian's inverse comes from some of the images then, and is exact in
nothing but being positive definite: the solution doesn't depend on it, only the number of products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from probe.arrays import Array, Bools, Doubles, Floats, Singles
from probe.solvers.logistic import Problem
from probe.solvers.standardise import Standard, chunks, row_blocks

SINGLE_ABOVE = 2**20  # numbers in the rotated matrix; above, it is held in float32
# Of more images and more features than this, or of a rotated matrix of more numbers (2 GB), nothing
# is rotated. An eigenbasis of 4,708 took 20 s on one core and 0.9 GB, and it grows with the cube.
MOST_ROTATED, MOST_CELLS = 8192, 2**29
STORED_CELLS = 2**19  # numbers in work: 2 MB, of which ten times as many took twice the time
N_DRAWN = 2048  # images that tell the largest eigenvalues then; half as many directions are kept

Unrotate = Callable[[Doubles], Doubles]  # (r, k) slopes -> (D, k), on standardised features


def is_rotated(shape: tuple[int, ...]) -> bool:
    """Whether (N, D) features are."""
    least = min(shape)
    return least <= MOST_ROTATED and least * shape[0] <= MOST_CELLS


def hours_as_stored(shape: tuple[int, int]) -> float:
    """About how long a path takes (N, D) features that are not rotated, on one core.

    A product takes 5 ns a number (BreastMNIST's ViT-S, 24 places, and generated features of nine
    classes); a path of 17 strengths took 300 to 470.
    """
    return 400 * 5e-9 * shape[0] * shape[1] / 3600


def training_matrix(
    features: Floats, standard: Standard, targets: Bools, is_known: Bools | None, coupled: bool
) -> tuple[Problem, Unrotate]:
    """The problem of (N, D) features, and what takes its slopes back to the features."""
    if is_known is not None and is_known.all():
        is_known = None
    asked = targets, is_known, coupled
    if not is_rotated(features.shape):
        return Stored.of(features, standard, *asked), lambda slopes: slopes
    n_rows, width = features.shape
    if n_rows < width:
        eigenvalues, basis = eigenbasis_of_images(features, standard)
        lengths = np.sqrt(eigenvalues)
        matrix = _empty(len(eigenvalues), n_rows)
        matrix[:-1] = (basis * lengths).T
        unrotate: Unrotate = lambda slopes: back_to_features(  # noqa: E731
            features, standard, basis @ (slopes / lengths[:, None])
        )
        return Rotated(*asked, np.append(eigenvalues / n_rows, 1.0), matrix), unrotate
    gram = np.zeros((width, width))
    for rows in row_blocks(features):
        block = standard.wide(features[rows])
        gram += block.T @ block
    eigenvalues, basis = np.linalg.eigh(gram / n_rows)
    matrix = _empty(width, n_rows)
    for rows in row_blocks(features):
        matrix[:-1, rows] = (standard.wide(features[rows]) @ basis).T
    curvatures = np.append(np.maximum(eigenvalues, 0), 1.0)
    return Rotated(*asked, curvatures, matrix), lambda slopes: basis @ slopes


def eigenbasis_of_images(features: Floats, standard: Standard) -> tuple[Doubles, Doubles]:
    """The positive eigenvalues of XX' (r,), and their vectors (N, r).

    Positive is what rounding can't make of 0: above N times float64's precision, relative to the
    largest. Centred images have one that is 0, and equal images more. Features that are stored in
    float16 are themselves rounded by 1e-3.5, so that they have none between.
    """
    gram = np.zeros((len(features),) * 2)
    for _, block in standard.columns(features):
        gram += block @ block.T
    eigenvalues, basis = np.linalg.eigh(gram)
    least = eigenvalues[-1] * len(gram) * np.finfo(np.float64).eps
    there = eigenvalues > max(least, 0)
    return eigenvalues[there], basis[:, there]


def back_to_features(features: Floats, standard: Standard, of_images: Doubles) -> Doubles:
    """X'A (D, k) of A (N, k)."""
    found = np.empty((features.shape[1], of_images.shape[1]))
    for part, block in standard.columns(features):
        found[part] = block.T @ of_images
    return found


def _empty(rank: int, n_rows: int) -> Floats:
    """(rank + 1, N) to be filled; the last row is the intercept's.

    Images are columns: both matrix products of a step are then twice as fast as the other way round,
    and sums over classes run along memory.
    """
    return np.ones((rank + 1, n_rows), np.float64 if n_rows * rank <= SINGLE_ABOVE else np.float32)


@dataclass(frozen=True)
class Rotated(Problem):
    """In the eigenbasis of the features' correlations."""

    matrix: Floats  # (r + 1, N)

    @property
    def width(self) -> int:
        return len(self.matrix)

    def at(self, images: slice | Array) -> Floats:
        return self.matrix[:, images]

    def logits(self, weights: Doubles) -> Doubles:
        return (weights.astype(self.matrix.dtype) @ self.matrix).astype(np.float64, copy=False)

    def scaled(self, gradient: Doubles, diagonal: Doubles) -> Doubles:
        return gradient / diagonal


@dataclass(frozen=True)
class Stored(Problem):
    """Features as they are stored; their blocks are standardised in float32 for each product."""

    features: Floats  # (N, D)
    mean: Singles  # (D,)
    per_scale: Singles  # one over each feature's
    basis: Singles  # (D, k) directions of the largest eigenvalues, nearly orthonormal

    @staticmethod
    def of(
        features: Floats,
        standard: Standard,
        targets: Bools,
        is_known: Bools | None,
        coupled: bool,
    ) -> Stored:
        """The problem, whose curvatures (k + 2,) are of the basis, of all else, of the intercept.

        The images that tell them are evenly spread: an order by class or patient is no chance, but
        takes some of each.
        """
        drawn = features[np.unique(np.linspace(0, len(features) - 1, N_DRAWN).astype(int))]
        eigenvalues, basis = eigenbasis_of_images(drawn, standard)
        kept = slice(-max(len(drawn) // 2, 1), None)
        top = eigenvalues[kept]
        directions = back_to_features(drawn, standard, basis[:, kept] / np.sqrt(top))
        rest = (eigenvalues.sum() - top.sum()) / max(features.shape[1] - len(top), 1)
        return Stored(
            targets,
            is_known,
            coupled,
            np.array([*top, rest, len(drawn)]) / len(drawn),
            features,
            standard.mean.astype(np.float32),
            (1 / standard.scale).astype(np.float32),
            directions.astype(np.float32),
        )

    @property
    def width(self) -> int:
        return self.features.shape[1] + 1

    def blocks(self) -> Iterator[slice]:
        return chunks(len(self.features), max(1, STORED_CELLS // self.width))

    def at(self, images: slice) -> Floats:
        rows = self.features[images]
        block = np.empty((len(rows), self.width), np.float32)
        block[:, :-1], block[:, -1] = rows, 1
        block[:, :-1] -= self.mean
        block[:, :-1] *= self.per_scale
        return block.T

    def logits(self, weights: Doubles) -> Doubles:
        found, narrow = np.empty(self.targets.shape), weights.astype(np.float32)
        for images in self.blocks():
            found[:, images] = narrow @ self.at(images)
        return found

    def scaled(self, gradient: Doubles, diagonal: Doubles) -> Doubles:
        """By the curvatures along the basis, and across it by one for all else.

        What lies across is taken twice, so that rounding of the basis leaves a positive form.
        """
        *_, last = diagonal.T
        within, across = diagonal[:, :-2], diagonal[:, -2:-1]
        slopes = gradient[:, :-1].astype(np.float32)
        along = slopes @ self.basis
        outside = (slopes - along @ self.basis.T) / across
        along = along / within - outside @ self.basis
        return np.column_stack([outside + along @ self.basis.T, gradient[:, -1] / last])
