"""Ridge probe: least squares with an L2 penalty, every penalty from one eigendecomposition.

The objective is scikit-learn's ``Ridge`` on standardised features: |Y - XW|^2 + alpha * |W|^2, the
intercept free, with alpha = penalty * N, so that a penalty means the same for few images and many.

With X'X / N = Q diag(e) Q' the weights are Q (Q'X'Y / N) / (e + penalty): after Q, each penalty
costs a division and a thin product. With fewer images than features XX' / N is decomposed instead;
its eigenvalues are the same, but for zeros. Either is summed up in blocks, in float64.

Y has a column for each output. Outputs share nothing but Q, so many cost little more than one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.commands.names import format_bytes
from cache.commands.settings import check, given, setting
from cache.errors import RequestError
from cache.task import BINARY, Task
from probe.answer import Answer
from probe.arrays import Array, Doubles, Floats, Indices
from probe.episodes.draw import FewShotConfig
from probe.kinds.kind import Episodes, Kind, Problem
from probe.metrics.classification import MARGIN
from probe.metrics.regression import check_targets
from probe.questions.question import Question, Split, n_to_fit
from probe.solvers.episodes import Heads, each_of, ridge_scores
from probe.solvers.head import IDENTITY, Head, of_episodes
from probe.solvers.standardise import (
    CHUNK_ROWS,
    PathFit,
    Standard,
    check_rows,
    path_outputs,
    row_blocks,
)
from probe.solvers.training_matrix import (
    MOST_ROTATED,
    back_to_features,
    eigenbasis_of_images,
)

# scikit-learn's alpha over the number of training images: the larger, the stronger. Two a
# decade. The mean eigenvalue of standardised features is 1, the largest at most their number D;
# those of deep features span nine decades. So 1e-6 is next to no penalty, and 1e6 leaves less
# than D / 1e6 of any weight: the prediction is the mean of the training labels.
PENALTIES = tuple(float(p) for p in 10 ** np.linspace(-6, 6, 25))


@dataclass(frozen=True)
class Ridge(Kind):
    """Least squares with an L2 penalty, of numbers as of classes (+1 and -1 for each).

    Raises:
        RequestError: penalties that are missing, not positive and finite, or named twice.
    """

    penalties: tuple[float, ...] = setting(
        PENALTIES,
        "scikit-learn's alpha over the number of training images, comma separated; the best on val "
        "is taken",
        metavar="P",
        above=0,
        unlike=True,
        shown=f"{len(PENALTIES)} from {min(PENALTIES):g} to {max(PENALTIES):g}",
    )
    # scikit-learn's alpha itself, however many images there are; in the place of all penalties.
    alpha: float | None = None

    name = "ridge"
    section = "kind ridge, for continuous labels"
    candidate = "penalty"
    is_ordered = True
    score_type = MARGIN  # outputs for +1 and -1 aren't probabilities
    takes_numbers = True
    standardises = True
    own_scale = True

    def at(self, n_images: int) -> tuple[float, ...]:
        """The penalties for so many training images."""
        return self.penalties if self.alpha is None else (self.alpha / n_images,)

    def __post_init__(self) -> None:
        check(self)
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            raise RequestError(f"alpha is positive and finite, found {self.alpha}")

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Ridge:
        typed = given(options, cls)
        if typed:
            base = {**base, "alpha": None}  # they are multiples of it, and stand in its place
        return cls(**{**base, **typed})

    @property
    def candidates(self) -> tuple[float, ...]:
        return self.at(1)

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        if few_shot.prior not in (None, "none"):
            raise RequestError(
                f"--prior {few_shot.prior} corrects probabilities, and --kind ridge has none; use "
                "--kind linear"
            )

    def describe_width(self, questions: Sequence[Question], width: int) -> str:
        n_images = max(map(n_to_fit, questions))
        least, most = sorted((n_images, width))
        if least <= MOST_ROTATED:
            return ""
        # The matrix, its eigenvectors, and LAPACK's room of two more (dsyevd). On one core one of 4,708
        # took 20 s, which grows with the cube; 30 thousand million products a second make it.
        n_bytes, seconds = 4 * 8 * least**2, 2e-10 * least**3 + most * least**2 / 3e10
        return (
            f"ridge on {questions[0].dataset}: {n_images:_} images x {width:_} features take about "
            f"{format_bytes(n_bytes)} beside the features, and {seconds / 3600:.1f} h a fit on one core. "
            "Fewer layers take less, as --layer 2+5+8+11"
        )

    def fit(self, train: Split, task: Task) -> Penalties:
        targets = ridge_targets(train.y, task)
        return Penalties(fit_path(train.x, targets, self), task)

    def settings(self, fitted: Penalties, task: Task) -> dict[str, Any]:
        which = {"penalties": [fit.penalty for fit in fitted.fits]}
        if self.alpha is not None:
            which = {"alpha": self.alpha}
        return {**which, "standardised": True}

    def value(self, fitted: Penalties, place: int) -> float:
        return fitted.fits[place].penalty

    def head(self, fitted: Penalties, place: int, task: Task) -> Head:
        fit = fitted.fits[place]
        folded = fit.standard.folded(fit.weights, fit.intercept)
        link = IDENTITY if task.is_continuous else MARGIN
        return Head(*folded, link, task, centre=fit.standard.mean)

    def left_out(
        self, fitted: Penalties, place: int, train: Split, fold: Indices, task: Task
    ) -> Doubles | None:
        if min(train.x.shape) > MOST_ROTATED:
            return None
        chosen = self
        if self.alpha is None:
            chosen = replace(self, penalties=(fitted.fits[place].penalty,))
        found = left_out_outputs(train.x, ridge_targets(train.y, task), fold, chosen)
        return as_scores(found, task.word)

    def loss_name(self, fitted: Penalties, task: Task) -> str:
        return "squared error"

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """All episodes in one solve, each at the penalty that answers its left-out samples best."""
        task, train, test = problem.task, problem.splits["train"], problem.splits["test"]
        targets = ridge_targets(train.y, task)
        lengths = np.array([len(rows) for rows in episodes])
        outputs = np.empty((len(episodes), len(test), targets.shape[1]))
        chosen = np.empty(len(episodes))
        how = problem.standardising()
        kept: Heads = [(np.empty(0), np.empty(0))] * len(episodes)
        for n in np.unique(lengths).tolist():  # a penalty may depend on it
            alike = np.flatnonzero(lengths == n)
            of_length: Heads = []
            outputs[alike], chosen[alike] = ridge_scores(
                train.x,
                targets,
                [episodes[i] for i in alike.tolist()],
                test.x,
                self.at(n),
                how.prepare,
                of_length if problem.keep_heads else None,
            )
            for i, head in zip(alike.tolist(), each_of(of_length), strict=False):
                kept[i] = head
        settings: dict[str, Any] = {"alpha": self.alpha, "chosen_by": "fixed"}
        if self.alpha is None:
            penalties = sorted(self.penalties, reverse=True)
            settings = {"penalties": penalties, "chosen_by": "leave-one-out squared error"}
        scored = {} if task.is_continuous else {"score_type": self.score_type}
        link = IDENTITY if task.is_continuous else MARGIN
        yield Answer(
            {**settings, **how.settings, **scored},
            {"penalty": float(np.median(chosen)), "penalties": chosen.tolist()},
            {"test": as_scores(outputs, task.word)},
            how.marks,
            head=problem.seen_by(of_episodes(kept, how, link, task))
            if problem.keep_heads
            else None,
        )


@dataclass(frozen=True)
class Penalties:
    """The path of a ridge probe as candidates."""

    fits: list[RidgeFit]
    task: Task

    def losses(self, x: Floats, y: Array) -> Doubles:
        targets = ridge_targets(y, self.task)
        return path_errors(self.fits, x, targets)

    def scores(self, x: Floats, place: int) -> Doubles:
        return as_scores(self.fits[place].predict(x), self.task.word)


@dataclass(frozen=True)
class RidgeFit(PathFit):
    """The weights at one penalty; the intercept is the mean of the training targets."""

    penalty: float  # scikit-learn's alpha over the number of training images

    def predict(self, features: Floats) -> Doubles:
        """Predict the targets of images.

        Args:
            features: (Q, D), not standardised; may be a memmap.

        Returns:
            (Q, O), in the targets' unit.

        Raises:
            RequestError: features of another width than the training features.
        """
        return path_outputs([self], features)[0]


def fit_path(features: Floats, targets: Floats, config: Ridge | None = None) -> list[RidgeFit]:
    """Fit every penalty, from one eigendecomposition.

    Features are standardised by their own mean and standard deviation; a feature that is constant
    keeps scale 1 and gets weight 0, but for rounding. Memory is one min(N, D)^2 matrix and a block
    of features.

    Args:
        features: (N, D) training features; may be a float16 memmap, which is read three times, or
            four where images are fewer.
        targets: (N, O) finite; each output is a problem of its own.
        config: the penalties; None for the defaults.

    Returns:
        One fit for each penalty, the strongest (largest) first.

    Raises:
        RequestError: features or targets that are not finite, or don't fit each other.
    """
    config = config or Ridge()
    targets = np.asarray(targets)
    check_targets(targets)
    check_rows(features, targets, "targets", "a row of targets for each")
    standard = Standard.of(features)
    intercept = targets.mean(axis=0, dtype=np.float64)
    penalties = sorted(config.at(len(features)), reverse=True)
    solve = _by_features if len(features) >= features.shape[1] else _by_images
    weights = solve(features, standard, targets - intercept, np.array(penalties))
    return [
        RidgeFit(part, intercept, standard, penalty)
        for penalty, part in zip(penalties, np.split(weights, len(penalties), axis=1), strict=True)
    ]


def path_errors(fits: list[RidgeFit], features: Floats, targets: Floats) -> Doubles:
    """The mean squared error of every fit, over images and outputs: what one is chosen by.

    Args:
        fits: from ``fit_path``.
        features: (Q, D), not standardised; may be a memmap.
        targets: (Q, O) finite.

    Raises:
        RequestError: no images, or targets that are not finite.
    """
    check_targets(targets)
    if not len(targets):
        raise RequestError("a penalty is chosen on val images, found none")
    found = path_outputs(fits, features)
    return np.array([float(np.square(predicted - targets).mean()) for predicted in found])


def left_out_outputs(features: Floats, targets: Doubles, fold: Indices, config: Ridge) -> Doubles:
    """Predict the targets of every image by a fit to the other folds, at one penalty.

    X'X of the others is that of all less the fold's own, which takes less time than five
    eigendecompositions. So features are standardised by the mean and standard deviation of all of
    train; targets of the fold itself aren't seen. Beside the features it holds six
    square matrices of min(N, D).

    Args:
        features: as of ``fit_path``.
        targets: as of ``fit_path``.
        fold: (N,) of each image, from 0.
        config: with the one penalty.

    Returns:
        (N, O).
    """
    standard, rotated = Standard.of(features), None
    width = features.shape[1]
    if len(features) < width:  # the weights lie in the span of the images
        eigenvalues, basis = eigenbasis_of_images(features, standard)
        rotated, width = basis * np.sqrt(eigenvalues), len(eigenvalues)

    def blocks(rows: Indices) -> Iterator[tuple[Indices, Doubles]]:
        for own in np.split(rows, range(CHUNK_ROWS, len(rows), CHUNK_ROWS)):
            yield own, standard.wide(features[own]) if rotated is None else rotated[own]

    def products(rows: Indices) -> Doubles:
        """X'X and X'Y, with a column of ones beside X: the sums of X and of Y."""
        total = np.zeros((width + 1 + targets.shape[1],) * 2)
        for own, x in blocks(rows):
            # One array with its own transpose, of which BLAS computes a half.
            beside = np.hstack([x, np.ones((len(own), 1)), targets[own]])
            total += beside.T @ beside
        return total[: width + 1]

    each = [np.flatnonzero(fold == part) for part in range(int(fold.max()) + 1)]
    parts, outputs = [products(rows) for rows in each], np.empty(targets.shape)
    whole = np.sum(parts, axis=0)
    for rows, part in zip(each, parts, strict=True):
        rest, n = whole - part, len(features) - len(rows)
        means = rest[-1] / n
        rest = rest[:-1] - n * np.outer(means[:width], means)  # centred
        gram = rest[:, :width] + config.at(n)[0] * n * np.eye(width)
        weights = np.linalg.solve(gram, rest[:, width + 1 :])
        for own, x in blocks(rows):
            outputs[own] = (x - means[:width]) @ weights + means[width + 1 :]
    return outputs


# The solver: X is (N, D) standardised, in blocks; Y (N, O) centred; p penalties.


def _by_features(
    features: Floats, standard: Standard, targets: Doubles, penalties: Doubles
) -> Doubles:
    """Weights (D, p * O) from X'X, (D, D)."""
    n_rows, width = features.shape
    gram, cross = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
    for rows in row_blocks(features):
        block = standard.wide(features[rows])
        gram += block.T @ block
        cross += block.T @ targets[rows]
    gram /= n_rows
    eigenvalues, basis = np.linalg.eigh(gram)
    return basis @ _shrunk(basis.T @ cross / n_rows, eigenvalues, penalties)


def _by_images(
    features: Floats, standard: Standard, targets: Doubles, penalties: Doubles
) -> Doubles:
    """Weights (D, p * O) from XX', (N, N); they lie in the span of the images."""
    n_rows = len(features)
    eigenvalues, basis = eigenbasis_of_images(features, standard)
    shrunk = _shrunk(basis.T @ targets / n_rows, eigenvalues / n_rows, penalties)
    return back_to_features(features, standard, basis @ shrunk)


def _shrunk(rotated: Doubles, eigenvalues: Doubles, penalties: Doubles) -> Doubles:
    """Divide (r, O) by eigenvalue + penalty, for every penalty: (r, p * O)."""
    # Rounding leaves some eigenvalues of 0 below it, and a small penalty would become a negative.
    shrinkage = np.maximum(eigenvalues, 0)[:, None] + penalties  # (r, p)
    shape = len(rotated), rotated.shape[1] * len(penalties)
    return (rotated[:, None] / shrinkage[:, :, None]).reshape(shape)


def ridge_targets(labels: Array, task: Task) -> Doubles:
    """What the outputs are to be: continuous labels, or +1 and -1 for a class and the others.

    As big_vision's few-shot probe has it (evaluators/fewshot_lsr.py), but that two classes take one
    output.

    Args:
        labels: (N,) or (N, C).
        task: of C classes.

    Returns:
        (N, 1), of several classes or labels (N, C).

    Raises:
        RequestError: one of several labels is missing somewhere.
    """
    if task.is_continuous:
        return np.asarray(labels, np.float64)[:, None]
    if task.has_several_labels:
        if (labels < 0).any():
            raise RequestError(
                f"--kind ridge needs every label, and {int((labels < 0).sum()):_} are missing; use "
                "--kind linear"
            )
        return labels.astype(np.float64) * 2 - 1
    classes = [1] if task.word == BINARY else range(task.n_classes)
    return (labels[:, None] == np.array(classes)) * 2.0 - 1


def as_scores(outputs: Doubles, task: str) -> Doubles:
    """(..., N, O) outputs as (..., N, C) scores: of two classes one output is the margin of both."""
    return np.concatenate([-outputs, outputs], axis=-1) if task == BINARY else outputs
