"""Ridge probe: least squares with an L2 penalty, every penalty from one eigendecomposition.

The objective is scikit-learn's ``Ridge`` on standardised features: |Y - XW|^2 + alpha * |W|^2, the
intercept free, with alpha = penalty * N, so that a penalty means the same for few images and many.

With X'X / N = Q diag(e) Q' the weights are Q (Q'X'Y / N) / (e + penalty): after Q, each penalty
costs a division and a thin product. With fewer images than features XX' / N is decomposed instead;
its eigenvalues are the same, but for zeros. Either is summed up in blocks, in float64.

Y has a column for each output. Outputs share nothing but Q, so many cost little more than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import BINARY, MULTI_LABEL, REGRESSION
from probe.metrics.regression import check_targets
from probe.solvers.standardise import chunks, mean_and_scale


@dataclass(frozen=True)
class RidgeConfig:
    """Everything that changes the weights of a ridge probe.

    Raises:
        RequestError: penalties that are missing, not positive and finite, or named twice.
    """

    # scikit-learn's alpha over the number of training images: the larger, the stronger. Two a
    # decade. The mean eigenvalue of standardised features is 1, the largest at most their number D;
    # those of deep features span nine decades. So 1e-6 is next to no penalty, and 1e6 leaves less
    # than D / 1e6 of any weight: the prediction is the mean of the training labels.
    penalties: tuple[float, ...] = tuple(float(p) for p in 10 ** np.linspace(-6, 6, 25))
    # scikit-learn's alpha itself, however many images there are; in the place of all penalties.
    alpha: float | None = None

    def at(self, n_images: int) -> tuple[float, ...]:
        """The penalties for so many training images."""
        return self.penalties if self.alpha is None else (self.alpha / n_images,)

    def __post_init__(self) -> None:
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            raise RequestError(f"alpha is positive and finite, found {self.alpha}")
        bad = [p for p in self.penalties if not (math.isfinite(p) and p > 0)]
        if bad or not self.penalties:
            raise RequestError(
                f"penalties are positive and finite, found {bad[0] if bad else 'none'}"
            )
        if len(set(self.penalties)) < len(self.penalties):
            raise RequestError("each penalty may be named once, found one twice")


@dataclass(frozen=True)
class RidgeFit:
    """The weights at one penalty."""

    penalty: float  # scikit-learn's alpha over the number of training images
    weights: NDArray[np.float64]  # (D, O) on standardised features
    intercept: NDArray[np.float64]  # (O,) the mean of the training targets
    mean: NDArray[np.float64]  # (D,) of the training features
    scale: NDArray[np.float64]  # (D,) their standard deviation; 1 where a feature is constant

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predict the targets of images.

        Args:
            features: (Q, D), not standardised; may be a memmap.

        Returns:
            (Q, O), in the targets' unit.

        Raises:
            RequestError: features of another width than the training features.
        """
        return path_predictions([self], features)[0]


def fit_path(
    features: NDArray[np.floating],
    targets: NDArray[np.floating],
    config: RidgeConfig | None = None,
) -> list[RidgeFit]:
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
    config = config or RidgeConfig()
    targets = np.asarray(targets)
    check_targets(targets)
    if features.ndim != 2 or len(features) != len(targets) or len(targets) == 0:
        raise RequestError(
            "training needs (N, D) features and a row of targets for each, found features of shape "
            f"{features.shape} and {len(targets)} targets"
        )
    standard = mean_and_scale(features)
    intercept = targets.mean(axis=0, dtype=np.float64)
    penalties = sorted(config.at(len(features)), reverse=True)
    solve = _by_features if len(features) >= features.shape[1] else _by_images
    weights = solve(features, *standard, targets - intercept, np.array(penalties))
    return [
        RidgeFit(penalty, part, intercept, *standard)
        for penalty, part in zip(penalties, np.split(weights, len(penalties), axis=1), strict=True)
    ]


def path_predictions(
    fits: list[RidgeFit], features: NDArray[np.floating]
) -> list[NDArray[np.float64]]:
    """Predict by every fit of one path, reading the features once.

    Args:
        fits: from one call of ``fit_path``.
        features: (Q, D), not standardised; may be a memmap.

    Returns:
        (Q, O) predictions for each fit, in the targets' unit.

    Raises:
        RequestError: features of another width than the training features.
    """
    first = fits[0]
    if features.ndim != 2 or features.shape[1] != len(first.mean):
        raise RequestError(
            f"the probe was trained on {len(first.mean)} features, found shape {features.shape}: "
            "training and test features must come from one encoder, layer and pool"
        )
    weights = np.hstack([fit.weights for fit in fits])  # (D, fits * O)
    found = np.empty((len(features), weights.shape[1]))
    for rows in chunks(len(features)):
        found[rows] = (features[rows] - first.mean) / first.scale @ weights
    return [part + first.intercept for part in np.split(found, len(fits), axis=1)]


def path_errors(
    fits: list[RidgeFit], features: NDArray[np.floating], targets: NDArray[np.floating]
) -> NDArray[np.float64]:
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
    found = path_predictions(fits, features)
    return np.array([float(np.square(predicted - targets).mean()) for predicted in found])


# The solver: X is (N, D) standardised, in blocks; Y (N, O) centred; p penalties.


def _by_features(
    features: NDArray[np.floating],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    targets: NDArray[np.float64],
    penalties: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights (D, p * O) from X'X, (D, D)."""
    n_rows, width = features.shape
    gram, cross = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
    for rows in chunks(n_rows):
        block = (features[rows] - mean) / scale
        gram += block.T @ block
        cross += block.T @ targets[rows]
    eigenvalues, basis = np.linalg.eigh(gram / n_rows)
    return basis @ _shrunk(basis.T @ cross / n_rows, eigenvalues, penalties)


def _by_images(
    features: NDArray[np.floating],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    targets: NDArray[np.float64],
    penalties: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights (D, p * O) from XX', (N, N); they lie in the span of the images."""
    n_rows, width = features.shape
    gram = np.zeros((n_rows, n_rows))
    for columns in chunks(width):
        block = (features[:, columns] - mean[columns]) / scale[columns]
        gram += block @ block.T
    eigenvalues, basis = np.linalg.eigh(gram / n_rows)
    of_images = basis @ _shrunk(basis.T @ targets / n_rows, eigenvalues, penalties)  # (N, p * O)
    weights = np.empty((width, of_images.shape[1]))
    for columns in chunks(width):
        block = (features[:, columns] - mean[columns]) / scale[columns]
        weights[columns] = block.T @ of_images
    return weights


def _shrunk(
    rotated: NDArray[np.float64], eigenvalues: NDArray[np.float64], penalties: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Divide (r, O) by eigenvalue + penalty, for every penalty: (r, p * O)."""
    # Rounding leaves some eigenvalues of 0 below it, and a small penalty would become a negative.
    shrinkage = np.maximum(eigenvalues, 0)[:, None] + penalties  # (r, p)
    return (rotated[:, None] / shrinkage[:, :, None]).reshape(len(rotated), -1)


def ridge_targets(labels: NDArray[Any], task: str, n_classes: int) -> NDArray[np.float64]:
    """What the outputs are to be: continuous labels, or +1 and -1 for a class and the others.

    As big_vision's few-shot probe has it (evaluators/fewshot_lsr.py), but that two classes take one
    output.

    Args:
        labels: (N,) or (N, C).
        task: one of cache.task.TASKS.
        n_classes: C.

    Returns:
        (N, 1), of several classes or labels (N, C).

    Raises:
        RequestError: one of several labels is missing somewhere.
    """
    if task == REGRESSION:
        return np.asarray(labels, np.float64)[:, None]
    if task == MULTI_LABEL:
        if (labels < 0).any():
            raise RequestError(
                f"--kind ridge needs every label, and {int((labels < 0).sum()):_} are missing; use "
                "--kind linear"
            )
        return labels.astype(np.float64) * 2 - 1
    classes = [1] if task == BINARY else range(n_classes)
    return (labels[:, None] == np.array(classes)) * 2.0 - 1


def as_scores(outputs: NDArray[np.float64], task: str) -> NDArray[np.float64]:
    """(..., N, O) outputs as (..., N, C) scores: of two classes one output is the margin of both."""
    return np.concatenate([-outputs, outputs], axis=-1) if task == BINARY else outputs
