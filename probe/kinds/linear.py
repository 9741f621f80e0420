"""Linear probe: L2-regularised logistic regression over a whole path of strengths.

The objective is scikit-learn's ``LogisticRegression``: C * sum of log-losses + |w|^2 / 2 on
standardised features, the intercept free. DINO's and CLIP's linear probes by logistic regression
minimise the same; here one run serves every C, from the strongest regularisation to the weakest,
each starting where the one before ended.

Method: Newton's, with conjugate gradients for each step (Lin, Weng, Keerthi 2008,
https://www.jmlr.org/papers/v9/lin08b.html) in the eigenbasis of the features' correlations. In
that basis the Hessian is nearly diagonal, e_j * mean(p (1 - p)) + 1 / (C N), and dividing by this
diagonal takes away what makes deep features hard: their eigenvalues span nine decades.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.labels.columns import MISSING
from probe.metrics.classification import BINARY, MULTI_LABEL, check_labels, known_shares, validate
from probe.solvers.standardise import chunks, mean_and_scale

FORMS = ("multinomial", "ovr")
# Grids by name. DINOv2's (dinov2/eval/log_regression.py, C_POWER_RANGE) has 45 from 1e-6 to 1e5.
STRENGTHS = {"dinov2": tuple(float(c) for c in 10 ** np.linspace(-6, 5, 45))}

SINGLE_ABOVE = 2**20  # numbers in the training matrix; above, it is held in float32
BLOCK_CELLS, SHORTEST_BLOCK = 2**17, 256  # numbers in work at one time: 1 MB; images at least
CG_RESIDUAL = 0.2  # how well a Newton step is solved; 0.03 to 0.5 differ by 15 % in time
# Where it isn't solved by then, the answer is all but separable and the quadratic model a poor one:
# many short Newton steps fall faster than one that is solved. At C = 1e5, 200 steps of one Newton
# step left four times the objective that nine of 22 reached.
CG_STEPS = 50
NEGLIGIBLE = 1e-20  # a probability
HALVINGS = 40  # of a step that doesn't go downhill; seen: 0, now and then 1


@dataclass(frozen=True)
class LinearConfig:
    """Everything that changes the weights of a linear probe.

    Raises:
        RequestError: strengths that are missing, not positive and finite, or named twice; an
            unknown form; a tolerance or a number of iterations that isn't positive.
    """

    # scikit-learn's C: the smaller, the stronger the regularisation. Two a decade. Measured on
    # standardised ViT features and pixels (BreastMNIST, PneumoniaMNIST; all images, or 20 and more
    # a class) the validation loss is smallest at 0.01 to 0.1 and rises on both sides. With a
    # handful a class it may be flat at the strong end; where classes are separable it may still
    # fall, slowly, at the weak one.
    strengths: tuple[float, ...] = tuple(float(c) for c in 10 ** np.linspace(-6, 2, 17))
    form: str = "multinomial"  # or "ovr", one class against the rest; several classes only
    # Predicted distance from the smallest objective, relative to it. The prediction is a squared
    # gradient over the Hessian's diagonal; the true distance was 1 to 10 times that on features,
    # and 120 times on a nearly separable problem at C = 1000.
    tolerance: float = 1e-6
    max_iter: int = 100  # Newton steps for each strength; 2 to 6 are usual
    # Products with the Hessian for each strength, two of the training matrix each; 2 to 200 are
    # usual. Weak regularisation of a hard problem would take thousands, where the validation loss
    # has long been rising: the fit stops there and says so.
    max_products: int = 200

    def __post_init__(self) -> None:
        bad = [c for c in self.strengths if not (math.isfinite(c) and c > 0)]
        if bad or not self.strengths:
            raise RequestError(
                f"strengths are positive and finite, found {bad[0] if bad else 'none'}"
            )
        if len(set(self.strengths)) < len(self.strengths):
            raise RequestError("each strength may be named once, found one twice")
        if self.form not in FORMS:
            raise RequestError(f'unknown form "{self.form}": expected "multinomial" or "ovr"')
        if not self.tolerance > 0:
            raise RequestError(f"tolerance is positive, found {self.tolerance}")
        for name in ("max_iter", "max_products"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is 1 or more, found {getattr(self, name)}")


@dataclass(frozen=True)
class Head:
    """What all fits of one path share: standardising before the weights, scores after them."""

    mean: NDArray[np.float64]  # (D,) of the training features
    scale: NDArray[np.float64]  # (D,) their standard deviation; 1 where a feature is constant
    task: str
    form: str
    columns: NDArray[np.intp]  # (C',) the classes or labels that have weights
    constant: NDArray[np.float64]  # (C,) scores of those that have none

    def standardise(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        return (features - self.mean) / self.scale

    def scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (Q, C') logits into (Q, C) probabilities."""
        if self.task == BINARY:
            return np.hstack([_sigmoid(-logits), _sigmoid(logits)])
        scores = np.tile(self.constant, (len(logits), 1))
        if self.task == MULTI_LABEL:
            scores[:, self.columns] = _sigmoid(logits)
        elif self.form == "ovr":
            scores[:, self.columns] = _normalised(_sigmoid(logits))
        else:
            scores[:, self.columns] = _softmax(logits.T).T
        return scores


@dataclass(frozen=True)
class LinearFit:
    """The weights at one strength."""

    strength: float  # scikit-learn's C
    weights: NDArray[np.float64]  # (D, C') on standardised features
    intercept: NDArray[np.float64]  # (C',)
    objective: float  # C * sum of log-losses + |weights|^2 / 2
    n_iter: int  # Newton steps
    converged: bool  # whether the tolerance was reached
    head: Head

    def predict_scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Score images.

        Args:
            features: (Q, D), not standardised.

        Returns:
            (Q, C) probabilities; rows sum to 1, except for the multi-label task.

        Raises:
            RequestError: features of another width than the training features.
        """
        return path_scores([self], features)[0]


def fit_path(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    task: str,
    n_classes: int,
    config: LinearConfig | None = None,
) -> list[LinearFit]:
    """Fit every strength of the path.

    Multi-class and ordinal tasks get one softmax, or with form "ovr" one sigmoid for each class; a
    binary task one sigmoid, the multi-label task one for each label.

    A class without training images gets no weights and the score 0, a label that is the same in
    all of them that value as its score: a free intercept would run to infinity for them.

    Where one of several labels is missing, that label's sum of log-losses goes over the images of
    which it is known, as if they were all; standardising goes over every image.

    Features are standardised by their own mean and standard deviation; a feature that is constant
    keeps scale 1 and gets weight 0. Up to ``SINGLE_ABOVE`` numbers the training matrix is held in
    float64, larger ones in float32; sums over images, and all that decides about convergence, are
    float64 at any size. Memory is that one matrix and a few (N, C) arrays: with 165,466 x 768
    features of float16, 242 MB of them, a whole command takes 0.9 GB (benchmarks/probe_memory.py).

    Args:
        features: (N, D) training features; may be a float16 memmap, which is read four times.
        labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task.
        task: one of ``probe.metrics.classification.TASKS``.
        n_classes: C; 2 for a binary task, the number of labels for the multi-label task.
        config: the strengths and the form; None for the defaults.

    Returns:
        One fit for each strength, the strongest regularisation (smallest C) first. A fit that ran
        out of iterations says so in ``converged``.

    Raises:
        RequestError: labels that don't fit the task or the features, fewer than two classes among
            them, one of several labels known of no image, or features that are not finite.
    """
    config = config or LinearConfig()
    labels = np.asarray(labels)
    check_labels(labels, task, n_classes)
    if features.ndim != 2 or len(features) != len(labels) or len(labels) == 0:
        raise RequestError(
            "training needs (N, D) features and a label for each row, found features of shape "
            f"{features.shape} and {len(labels)} labels"
        )
    targets, columns, constant = _targets(labels, task, n_classes)
    head = Head(*mean_and_scale(features), task, config.form, columns, constant)
    coupled = task not in (BINARY, MULTI_LABEL) and config.form == "multinomial"
    is_known = labels[:, columns].T != MISSING if task == MULTI_LABEL else None
    problem, basis = _rotated(features, head, targets, is_known, coupled)

    fits = []
    solved: list[tuple[float, NDArray[np.float64]]] = []
    for strength in sorted(config.strengths):
        penalty = 1 / (strength * len(labels))
        start = _ahead(solved, math.log(strength)) if solved else problem.start()
        weights, objective, n_iter, converged = _minimise(problem, start, penalty, config)
        solved = [*solved[-1:], (math.log(strength), weights)]
        slopes, intercept = basis @ weights[:, :-1].T, weights[:, -1].copy()
        objective *= strength * len(labels)
        fits.append(LinearFit(strength, slopes, intercept, objective, n_iter, converged, head))
    return fits


def path_scores(fits: list[LinearFit], features: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """Score images by every fit of one path, reading them once.

    Args:
        fits: from one call of ``fit_path``.
        features: (Q, D), not standardised; may be a memmap.

    Returns:
        (Q, C) probabilities for each fit.

    Raises:
        RequestError: features of another width than the training features.
    """
    head = fits[0].head
    if features.ndim != 2 or features.shape[1] != len(head.mean):
        raise RequestError(
            f"the probe was trained on {len(head.mean)} features, found shape {features.shape}: "
            "training and test features must come from one encoder, layer and pool"
        )
    weights = np.hstack([fit.weights for fit in fits])  # (D, fits * C')
    intercept = np.concatenate([fit.intercept for fit in fits])
    scores = [np.empty((len(features), len(head.constant))) for _ in fits]
    for rows in chunks(len(features)):
        logits = head.standardise(features[rows]) @ weights + intercept
        for out, part in zip(scores, np.split(logits, len(fits), axis=1), strict=True):
            out[rows] = head.scores(part)
    return scores


def log_loss(scores: NDArray[np.floating], labels: NDArray[np.integer], task: str) -> float:
    """Mean negative log-probability of the truth, in nats.

    For the multi-label task, the mean over labels of each label's mean over the images of which it
    is known; a label that is known of none has no say.

    Probabilities are kept a float64 epsilon (2.2e-16) away from 0 and 1, as in scikit-learn, so
    one sure and wrong answer costs 36 nats and not infinity.

    Raises:
        RequestError: nothing is known; see also ``probe.metrics.classification.validate``.
    """
    validate(scores, labels, task)
    if task != MULTI_LABEL:
        return float(_nats(scores[np.arange(len(labels)), labels]).mean())
    is_known = labels != MISSING
    n_known = is_known.sum(axis=0)
    if not n_known.any():
        raise RequestError(f"a log-loss needs known labels, found none of {labels.size}")
    nats = _nats(np.where(labels == 1, scores, 1 - scores))
    sums = np.where(is_known, nats, 0).sum(axis=0)
    return float((sums[n_known > 0] / n_known[n_known > 0]).mean())


def _nats(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    return -np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1))


def path_losses(
    fits: list[LinearFit], features: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> NDArray[np.float64]:
    """The log-loss of every fit of one path on other images: what one is chosen by.

    Args:
        fits: from ``fit_path``.
        features: (Q, D), not standardised; may be a memmap.
        labels: (Q,), or (Q, C) for the multi-label task, where some may be MISSING.
        task: one of ``probe.metrics.classification.TASKS``.
    """
    scores = path_scores(fits, features)
    return np.array([log_loss(answers, labels, task) for answers in scores])


# Before the solver: what to fit, and the matrix to fit it to.


def _targets(
    labels: NDArray[np.integer], task: str, n_classes: int
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
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


def _rotated(
    features: NDArray[np.floating],
    head: Head,
    targets: NDArray[np.bool_],
    is_known: NDArray[np.bool_] | None,
    coupled: bool,
) -> tuple[_Problem, NDArray[np.float64]]:
    """The problem in the eigenbasis of the standardised features, and that basis (D, r).

    With fewer images than features the weights lie in the span of the images, so nothing is lost
    in going there first. The basis is orthonormal to the last digit in both cases: the solution
    doesn't depend on how exact the eigenvalues are.
    """
    n_rows, width = features.shape
    span = None
    if n_rows < width:
        span = np.linalg.qr(head.standardise(features[:]).T)[0]  # (D, N)
    gram = np.zeros((min(n_rows, width),) * 2)
    for rows in chunks(n_rows):
        block = head.standardise(features[rows])
        block = block if span is None else block @ span
        gram += block.T @ block
    eigenvalues, basis = np.linalg.eigh(gram / n_rows)
    basis = basis if span is None else span @ basis  # (D, r)

    rank = basis.shape[1]
    dtype = np.float64 if n_rows * rank <= SINGLE_ABOVE else np.float32
    # Images are columns, and the last row is the intercept's: both matrix products of a step are
    # then twice as fast as the other way round, and sums over classes run along memory.
    matrix = np.ones((rank + 1, n_rows), dtype=dtype)
    for rows in chunks(n_rows):
        matrix[:-1, rows] = (head.standardise(features[rows]) @ basis).T
    curvatures = np.append(np.maximum(eigenvalues, 0), 1.0)
    if is_known is not None and is_known.all():
        is_known = None
    return _Problem(matrix, curvatures, targets, is_known, coupled), basis


# The solver. W is (C', r + 1), logits and probabilities are (C', N).


@dataclass(frozen=True)
class _Problem:
    """Mean log-loss of W @ matrix against the targets.

    Coupled, the rows of W are one softmax. Otherwise each row is a problem of its own, and every
    inner product, step length and stop below is one number for each row.

    A target that isn't known adds nothing to its row's loss. The mean stays one over N images,
    which divides loss and penalty alike, so that one matrix serves rows that know different images.
    """

    matrix: NDArray[np.floating]  # (r + 1, N)
    curvatures: NDArray[np.float64]  # (r + 1,) mean square of each row of the matrix
    targets: NDArray[np.bool_]  # (C', N)
    is_known: NDArray[np.bool_] | None  # (C', N); None: every target is, as always when coupled
    coupled: bool

    def start(self) -> NDArray[np.float64]:
        """No slopes, and the intercepts that give the classes' own shares."""
        share = self.targets.mean(axis=1, where=True if self.is_known is None else self.is_known)
        weights = np.zeros((len(share), len(self.matrix)))
        weights[:, -1] = np.log(share) - (0 if self.coupled else np.log1p(-share))
        return weights

    def blocks(self) -> Iterator[slice]:
        """Consecutive images, so few that (C', b) numbers stay in a processor's cache.

        Of 1,000 classes and 20,000 images one array of all is 160 MB: asked for, filled and read
        again for each of ten operations it took four fifths of the time.
        """
        size = max(SHORTEST_BLOCK, BLOCK_CELLS // len(self.targets))
        return (slice(start, start + size) for start in range(0, self.matrix.shape[1], size))

    def over_known(self, values: NDArray[np.float64], images: slice) -> NDArray[np.float64]:
        """(C', b) values, in place 0 where the target isn't known."""
        if self.is_known is not None:
            values *= self.is_known[:, images]
        return values

    def inner(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inner product, (1, 1) coupled or (C', 1)."""
        products = np.einsum("cj,cj->c", a, b)[:, None]
        return products.sum(axis=0, keepdims=True) if self.coupled else products

    def logits(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return (weights.astype(self.matrix.dtype) @ self.matrix).astype(np.float64, copy=False)

    def loss(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean log-loss, (1, 1) coupled or (C', 1)."""
        total = np.zeros(1 if self.coupled else len(logits))
        for images in self.blocks():
            part, truth = logits[:, images], self.targets[:, images]
            if self.coupled:
                top = part.max(axis=0)
                partition = np.log(np.exp(part - top).sum(axis=0)) + top  # (b,)
                total += np.sum(partition - part.sum(axis=0, where=truth))
            else:
                losses = np.logaddexp(0, part) - part * truth
                total += self.over_known(losses, images).sum(axis=1)
        return total[:, None] / logits.shape[1]

    def look(self, logits: NDArray[np.float64]) -> _Look:
        """What Newton's method asks of a place."""
        probabilities = np.empty_like(logits)
        gradient, spread = np.zeros((len(logits), len(self.matrix))), np.zeros((len(logits), 1))
        for images in self.blocks():
            part = _softmax(logits[:, images]) if self.coupled else _sigmoid(logits[:, images])
            # Sure answers leave probabilities whose float32 products are denormal numbers, on which
            # processors are slow: without this, a path up to C = 1e5 took more than twice as long.
            # They weigh nothing.
            part[part < NEGLIGIBLE] = 0
            probabilities[:, images] = part
            bends = self.over_known(part * (1 - part), images)
            spread += bends.sum(axis=1, keepdims=True)
            part -= self.targets[:, images]
            gradient += self._pull(self.over_known(part, images), images)
        n_images = logits.shape[1]
        return _Look(probabilities, gradient / n_images, spread / n_images)

    def bend(
        self, probabilities: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The loss's second derivative, applied to weights: (C', r + 1)."""
        found = np.zeros(weights.shape)
        narrow = weights.astype(self.matrix.dtype)
        for images in self.blocks():
            moved = (narrow @ self.matrix[:, images]).astype(np.float64, copy=False)
            # How the probabilities move with the logits.
            share = probabilities[:, images]
            moved *= share
            moved -= share * (moved.sum(axis=0) if self.coupled else moved)
            found += self._pull(self.over_known(moved, images), images)
        return found / self.matrix.shape[1]

    def _pull(self, residuals: NDArray[np.float64], images: slice) -> NDArray[np.floating]:
        """Sum over a block's images of residual times matrix column, (C', r + 1)."""
        return residuals.astype(self.matrix.dtype, copy=False) @ self.matrix[:, images].T


@dataclass(frozen=True)
class _Look:
    """The loss at one place."""

    probabilities: NDArray[np.float64]  # (C', N)
    gradient: NDArray[np.float64]  # (C', r + 1)
    spread: NDArray[np.float64]  # (C', 1) mean of p (1 - p)


def _ahead(
    solved: list[tuple[float, NDArray[np.float64]]], log_strength: float
) -> NDArray[np.float64]:
    """Where to start: on the line through the last two solutions, over the log of the strength.

    Saves 20 to 40 % of the matrix products against starting at the last solution.
    """
    if len(solved) < 2:
        return solved[-1][1]
    (earlier, before), (later, weights) = solved
    # A step far longer than the one it is drawn from is a guess, not an extrapolation.
    stride = min(1.0, (log_strength - later) / (later - earlier))
    return weights + stride * (weights - before)


def _minimise(
    problem: _Problem, weights: NDArray[np.float64], penalty: float, config: LinearConfig
) -> tuple[NDArray[np.float64], float, int, bool]:
    """Minimise loss + penalty / 2 * |slopes|^2, from the given weights.

    Returns:
        The weights (C', r + 1), the objective, the number of Newton steps, and whether the
        objective's predicted fall is below ``config.tolerance`` of itself.
    """
    ridge = np.full(len(problem.curvatures), penalty)
    ridge[-1] = 0  # the intercept is free
    logits = problem.logits(weights)
    objective = problem.loss(logits) + problem.inner(weights, ridge * weights) / 2
    n_left = config.max_products
    for n_iter in range(config.max_iter + 1):
        look = problem.look(logits)
        gradient = look.gradient + ridge * weights
        # Nearly the Hessian's diagonal; tiny keeps 0 / 0 away where every answer is sure.
        diagonal = problem.curvatures * look.spread + ridge + np.finfo(np.float64).tiny
        fall = problem.inner(gradient, gradient / diagonal) / 2
        converged = bool((fall <= config.tolerance * objective).all())
        if converged or n_iter == config.max_iter or not n_left:
            break
        enough = np.maximum(CG_RESIDUAL**2 * 2 * fall, config.tolerance * objective)
        n_most = min(CG_STEPS, n_left)
        step, n_products = _newton_step(
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


def _newton_step(
    problem: _Problem,
    probabilities: NDArray[np.float64],
    gradient: NDArray[np.float64],
    diagonal: NDArray[np.float64],
    ridge: NDArray[np.float64],
    enough: NDArray[np.float64],
    n_most: int,
) -> tuple[NDArray[np.float64], int]:
    """Solve Hessian @ step = -gradient by preconditioned conjugate gradients.

    ``enough`` is the squared residual, in the metric of 1 / diagonal, at which to stop, and
    ``n_most`` the products with the Hessian; a step cut short still goes downhill.

    Returns:
        The step, and how many products it took.
    """
    step = np.zeros_like(gradient)
    residual = -gradient
    direction = residual / diagonal
    size = problem.inner(residual, direction)
    n_products = 0
    while n_products < n_most:
        n_products += 1
        image = problem.bend(probabilities, direction) + ridge * direction
        length = _ratio(size, problem.inner(direction, image))
        step += length * direction
        residual -= length * image
        scaled = residual / diagonal
        new_size = problem.inner(residual, scaled)
        if (new_size <= enough).all():
            break
        direction = scaled + _ratio(new_size, size) * direction
        size = new_size
    return step, n_products


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """a / b, and 0 where b isn't positive: a row that is solved stands still."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -logits))  # neither overflows nor loses small probabilities


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the first axis."""
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def _normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1; where every class is refused outright, all alike, as in scikit-learn."""
    sums = scores.sum(axis=1, keepdims=True)
    equal = np.full_like(scores, 1 / scores.shape[1])
    return np.divide(scores, sums, out=equal, where=sums > 0)
