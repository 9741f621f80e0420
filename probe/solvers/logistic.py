"""The solver of logistic regression at one strength after the other.

Method: Newton's, with conjugate gradients for each step (Lin, Weng, Keerthi 2008,
https://www.jmlr.org/papers/v9/lin08b.html) in the eigenbasis of the features' correlations, see
``probe.solvers.training_matrix``. In that basis the Hessian is nearly diagonal,
e_j * mean(p (1 - p)) + 1 / (C N), and dividing by this diagonal takes away what makes deep features
hard: their eigenvalues span nine decades.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from cache.errors import RequestError
from cache.task import BINARY, MULTI_LABEL
from probe.arrays import Array, Bools, Doubles, Floats, Indices, Ints
from probe.metrics.classification import known_shares

BLOCK_CELLS, SHORTEST_BLOCK = 2**17, 256  # numbers in work at one time: 1 MB; images at least
CG_RESIDUAL = 0.2  # how well a Newton step is solved; 0.03 to 0.5 differ by 15 % in time
# Where it isn't solved by then, the answer is all but separable and the quadratic model a poor one:
# many short Newton steps fall faster than one that is solved. At C = 1e5, 200 steps of one Newton
# step left four times the objective that nine of 22 reached.
CG_STEPS = 50
NEGLIGIBLE = 1e-20  # a probability
HALVINGS = 40  # of a step that doesn't go downhill; seen: 0, now and then 1


@dataclass(frozen=True)
class Shared:
    """What the logits of all fits of one path mean."""

    task: str
    form: str
    columns: Indices  # (C',) the classes or labels that have weights
    constant: Doubles  # (C,) scores of those that have none

    def scores(self, logits: Doubles) -> Doubles:
        """Turn (Q, C') logits into (Q, C) probabilities."""
        if self.task == BINARY:
            return np.hstack([sigmoid(-logits), sigmoid(logits)])
        scores = np.tile(self.constant, (len(logits), 1))
        if self.task == MULTI_LABEL:
            scores[:, self.columns] = sigmoid(logits)
        elif self.form == "ovr":
            scores[:, self.columns] = normalised(sigmoid(logits))
        else:
            scores[:, self.columns] = softmax(logits.T).T
        return scores


def learnable(labels: Ints, task: str, n_classes: int) -> tuple[Bools, Indices, Doubles]:
    """Zeros and ones to fit (C', N), which columns they are (C',), scores of the others (C,)."""
    if task == MULTI_LABEL:
        share = known_shares(labels)
        columns = np.flatnonzero((share > 0) & (share < 1))
        if len(columns) == 0:
            raise RequestError(
                f"none of the {n_classes} labels has both values among the {len(labels)} training "
                "images: train on more of them"
            )
        return labels[:, columns].T == 1, columns, share.round()
    present = np.unique(labels)
    if len(present) < 2:
        raise RequestError(
            f"a linear probe needs two classes, found only class {present[0]} among the "
            f"{len(labels)} training images: train on more of them"
        )
    columns = np.array([1]) if task == BINARY else present.astype(np.intp)
    return labels == columns[:, None], columns, np.zeros(n_classes)


# W is (C', r + 1), logits and probabilities are (C', N).


@dataclass(frozen=True)
class Problem(ABC):
    """Mean log-loss of W @ matrix against the targets; the matrix is (r + 1, N).

    Coupled, the rows of W are one softmax. Otherwise each row is a problem of its own, and every
    inner product, step length and stop below is one number for each row.

    A target that isn't known adds nothing to its row's loss. The mean stays one over N images,
    which divides loss and penalty alike, so that one matrix serves rows that know different images.

    Targets may be soft: shares of the classes in an image, or patch, that sum to its mass. It counts
    as if it were there once for each class, weighted by the share.
    """

    targets: Bools | Doubles  # (C', N)
    is_known: Bools | None  # (C', N); None: every target is, as always when coupled
    coupled: bool
    curvatures: Doubles  # mean squares of the matrix along the directions of ``scaled``
    mass: Doubles | None = field(default=None, kw_only=True)  # (N,) of soft targets

    # ------------------------------------------------------------ what a subclass writes

    @property
    @abstractmethod
    def width(self) -> int:
        """r + 1: rows of the matrix, the last one the intercept's."""

    @abstractmethod
    def at(self, images: slice) -> Floats:
        """(r + 1, b) the matrix of some images."""

    @abstractmethod
    def logits(self, weights: Doubles) -> Doubles: ...

    @abstractmethod
    def scaled(self, gradient: Doubles, diagonal: Doubles) -> Doubles:
        """The gradient divided by the Hessian, nearly: ``diagonal`` is of ``curvatures``."""

    # ------------------------------------------------------------ the loss

    def start(self) -> Doubles:
        """No slopes, and the intercepts that give the classes' own shares."""
        share = self.targets.mean(axis=1, where=True if self.is_known is None else self.is_known)
        weights = np.zeros((len(share), self.width))
        weights[:, -1] = np.log(share) - (0 if self.coupled else np.log1p(-share))
        return weights

    def blocks(self) -> Iterator[slice]:
        """Consecutive images, so few that (C', b) numbers stay in a processor's cache.

        Of 1,000 classes and 20,000 images one array of all is 160 MB: asked for, filled and read
        again for each of ten operations it took four fifths of the time.
        """
        size = max(SHORTEST_BLOCK, BLOCK_CELLS // len(self.targets))
        return (slice(start, start + size) for start in range(0, self.targets.shape[1], size))

    def over_known(self, values: Doubles, images: slice) -> Doubles:
        """(C', b) values, in place 0 where the target isn't known."""
        if self.is_known is not None:
            values *= self.is_known[:, images]
        return values

    def weighed(self, values: Doubles, images: slice) -> Doubles:
        """(..., b) values, in place times the images' mass."""
        if self.mass is not None:
            values *= self.mass[images]
        return values

    def said(self, logits: Doubles, images: slice) -> Doubles:
        """Sum over classes of target times logit, (b,)."""
        truth: Array = self.targets[:, images]
        if truth.dtype == bool:
            return logits.sum(axis=0, where=truth)
        return np.einsum("cb,cb->b", logits, truth)

    def inner(self, a: Doubles, b: Doubles) -> Doubles:
        """Inner product, (1, 1) coupled or (C', 1)."""
        products = np.einsum("cj,cj->c", a, b)[:, None]
        return products.sum(axis=0, keepdims=True) if self.coupled else products

    def loss(self, logits: Doubles) -> Doubles:
        """Mean log-loss, (1, 1) coupled or (C', 1)."""
        total = np.zeros(1 if self.coupled else len(logits))
        for images in self.blocks():
            part = logits[:, images]
            if self.coupled:
                top = part.max(axis=0)
                partition = np.log(np.exp(part - top).sum(axis=0)) + top  # (b,)
                total += np.sum(self.weighed(partition, images) - self.said(part, images))
            else:
                losses = (
                    self.weighed(np.logaddexp(0, part), images) - part * self.targets[:, images]
                )
                total += self.over_known(losses, images).sum(axis=1)
        return total[:, None] / logits.shape[1]

    def look(self, logits: Doubles) -> Look:
        """What Newton's method asks of a place."""
        probabilities = np.empty_like(logits)
        gradient, spread = np.zeros((len(logits), self.width)), np.zeros((len(logits), 1))
        for images in self.blocks():
            part = softmax(logits[:, images]) if self.coupled else sigmoid(logits[:, images])
            # Sure answers leave probabilities whose float32 products are denormal numbers, on which
            # processors are slow: without this, a path up to C = 1e5 took more than twice as long.
            # They weigh nothing.
            part[part < NEGLIGIBLE] = 0
            probabilities[:, images] = part
            bends = self.over_known(self.weighed(part * (1 - part), images), images)
            spread += bends.sum(axis=1, keepdims=True)
            part = self.weighed(part, images)
            part -= self.targets[:, images]
            gradient += _pull(self.over_known(part, images), self.at(images))
        n_images = logits.shape[1]
        return Look(probabilities, gradient / n_images, spread / n_images)

    def bend(self, probabilities: Doubles, weights: Doubles) -> Doubles:
        """The loss's second derivative, applied to weights: (C', r + 1)."""
        found = np.zeros(weights.shape)
        for images in self.blocks():
            block = self.at(images)
            moved = (weights.astype(block.dtype) @ block).astype(np.float64, copy=False)
            # How the probabilities move with the logits.
            share = probabilities[:, images]
            moved *= share
            moved -= share * (moved.sum(axis=0) if self.coupled else moved)
            found += _pull(self.over_known(self.weighed(moved, images), images), block)
        return found / self.targets.shape[1]


def _pull(residuals: Doubles, block: Floats) -> Floats:
    """Sum over a block's images of residual times matrix column, (C', r + 1)."""
    return residuals.astype(block.dtype, copy=False) @ block.T


@dataclass(frozen=True)
class Look:
    """The loss at one place."""

    probabilities: Doubles  # (C', N)
    gradient: Doubles  # (C', r + 1)
    spread: Doubles  # (C', 1) mean of p (1 - p)


def ahead(solved: list[tuple[float, Doubles]], log_strength: float) -> Doubles:
    """Where to start: on the line through the last two solutions, over the log of the strength.

    Saves 20 to 40 % of the matrix products against starting at the last solution.
    """
    if len(solved) < 2:
        return solved[-1][1]
    (earlier, before), (later, weights) = solved
    # A step far longer than the one it is drawn from is a guess, not an extrapolation.
    stride = min(1.0, (log_strength - later) / (later - earlier))
    return weights + stride * (weights - before)


def minimise(
    problem: Problem,
    weights: Doubles,
    penalty: float,
    tolerance: float,
    max_iter: int,
    max_products: int,
) -> tuple[Doubles, float, int, bool]:
    """Minimise loss + penalty / 2 * |slopes|^2, from the given weights.

    Returns:
        The weights (C', r + 1), the objective, the number of Newton steps, and whether the
        objective's predicted fall is below ``tolerance`` of itself.
    """
    ridge = np.append(np.full(problem.width - 1, penalty), 0)  # the intercept is free
    bent = np.append(np.full(len(problem.curvatures) - 1, penalty), 0)
    logits = problem.logits(weights)
    objective = problem.loss(logits) + problem.inner(weights, ridge * weights) / 2
    n_left = max_products
    for n_iter in range(max_iter + 1):
        look = problem.look(logits)
        gradient = look.gradient + ridge * weights
        # Nearly the Hessian's diagonal; tiny keeps 0 / 0 away where every answer is sure.
        diagonal = problem.curvatures * look.spread + bent + np.finfo(np.float64).tiny
        fall = problem.inner(gradient, problem.scaled(gradient, diagonal)) / 2
        converged = bool((fall <= tolerance * objective).all())
        if converged or n_iter == max_iter or not n_left:
            break
        enough = np.maximum(CG_RESIDUAL**2 * 2 * fall, tolerance * objective)
        n_most = min(CG_STEPS, n_left)
        step, n_products = newton_step(
            problem, look.probabilities, gradient, diagonal, ridge, enough, n_most
        )
        n_left -= n_products
        slope = problem.inner(gradient, step)
        moved = problem.logits(step)
        # The logits move in a line, so trying a length costs no matrix product.
        length = np.ones_like(slope)
        for _ in range(HALVINGS):
            new_weights, new_logits = weights + length * step, length * moved
            new_logits += logits
            new = problem.loss(new_logits) + problem.inner(new_weights, ridge * new_weights) / 2
            # The last term: at the bottom, rounding decides which of two objectives is larger.
            uphill = new > objective + 1e-4 * length * slope + 1e-14 * objective
            if not uphill.any():
                break
            length = np.where(uphill, length / 2, length)
        weights, logits, objective = new_weights, new_logits, new
    return weights, float(objective.sum()), n_iter, converged


def newton_step(
    problem: Problem,
    probabilities: Doubles,
    gradient: Doubles,
    diagonal: Doubles,
    ridge: Doubles,
    enough: Doubles,
    n_most: int,
) -> tuple[Doubles, int]:
    """Solve Hessian @ step = -gradient by preconditioned conjugate gradients.

    ``enough`` is the squared residual, in the metric of 1 / diagonal, at which to stop, and
    ``n_most`` the products with the Hessian; a step cut short still goes downhill.

    Returns:
        The step, and how many products it took.
    """
    step = np.zeros_like(gradient)
    residual = -gradient
    direction = problem.scaled(residual, diagonal)
    size = problem.inner(residual, direction)
    n_products = 0
    while n_products < n_most:
        n_products += 1
        image = problem.bend(probabilities, direction) + ridge * direction
        length = ratio(size, problem.inner(direction, image))
        step += length * direction
        residual -= length * image
        scaled = problem.scaled(residual, diagonal)
        new_size = problem.inner(residual, scaled)
        if (new_size <= enough).all():
            break
        direction = scaled + ratio(new_size, size) * direction
        size = new_size
    return step, n_products


def ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b isn't positive: what is solved stands still."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def sigmoid(logits: Array) -> Array:
    with np.errstate(invalid="ignore"):  # of a head that diverged: NaN stays NaN
        return np.exp(-np.logaddexp(0, -logits))  # neither overflows nor loses small probabilities


def softmax(logits: Array, axis: int = 0) -> Array:
    """Softmax over the axis of the classes."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def normalised(scores: Doubles) -> Doubles:
    """Rows that sum to 1; where every class is refused outright, all alike, as in scikit-learn."""
    sums = scores.sum(axis=1, keepdims=True)
    equal = np.full_like(scores, 1 / scores.shape[1])
    return np.divide(scores, sums, out=equal, where=sums > 0)
