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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_LABEL
from probe.metrics.classification import check_labels
from probe.metrics.losses import log_loss
from probe.solvers.logistic import Head, _ahead, _minimise, _rotated, _targets
from probe.solvers.standardise import chunks, mean_and_scale

FORMS = ("multinomial", "ovr")
# Grids by name. DINOv2's (dinov2/eval/log_regression.py, C_POWER_RANGE) has 45 from 1e-6 to 1e5.
STRENGTHS = {"dinov2": tuple(float(c) for c in 10 ** np.linspace(-6, 5, 45))}


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
        task: one of ``cache.task.CLASSIFICATION``.
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
        weights, objective, n_iter, converged = _minimise(
            problem, start, penalty, config.tolerance, config.max_iter, config.max_products
        )
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


def path_losses(
    fits: list[LinearFit], features: NDArray[np.floating], labels: NDArray[np.integer], task: str
) -> NDArray[np.float64]:
    """The log-loss of every fit of one path on other images: what one is chosen by.

    Args:
        fits: from ``fit_path``.
        features: (Q, D), not standardised; may be a memmap.
        labels: (Q,), or (Q, C) for the multi-label task, where some may be MISSING.
        task: one of ``cache.task.CLASSIFICATION``.
    """
    scores = path_scores(fits, features)
    return np.array([log_loss(answers, labels, task) for answers in scores])


# Before the solver: what to fit, and the matrix to fit it to.


# The solver. W is (C', r + 1), logits and probabilities are (C', N).
