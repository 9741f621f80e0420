"""Linear probe: L2-regularised logistic regression over a whole path of strengths.

The objective is scikit-learn's ``LogisticRegression``: C * sum of log-losses + |w|^2 / 2 on
standardised features, the intercept free. DINO's and CLIP's linear probes by logistic regression
minimise the same; here one run serves every C, from the strongest regularisation to the weakest,
each starting where the one before ended.
The method is in ``probe.solvers.logistic``.
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
from cache.commands.terminal import split_words
from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, Task
from probe.answer import Answer
from probe.arrays import Array, Doubles, Floats, Indices, Ints
from probe.episodes.draw import FewShotConfig
from probe.kinds.kind import Episodes, Kind, Problem
from probe.metrics.classification import check_labels
from probe.metrics.losses import log_loss
from probe.questions.question import Question, Split, n_to_fit
from probe.solvers.episodes import STRENGTH, TOLERANCE, Heads, logistic_scores
from probe.solvers.head import OVR, SIGMOID, SOFTMAX, Head, of_episodes
from probe.solvers.logistic import Shared, ahead, learnable, minimise
from probe.solvers.standardise import PathFit, Standard, check_rows, path_outputs
from probe.solvers.training_matrix import Rotated, hours_as_stored, is_rotated, training_matrix

FORMS = ("multinomial", "ovr")
# Grids by name. DINOv2's (dinov2/eval/log_regression.py, C_POWER_RANGE) has 45 from 1e-6 to 1e5.
STRENGTHS = {"dinov2": tuple(float(c) for c in 10 ** np.linspace(-6, 5, 45))}

# scikit-learn's C: the smaller, the stronger the regularisation. Two a decade. Measured on
# standardised ViT features and pixels (BreastMNIST, PneumoniaMNIST; all images, or 20 and more
# a class) the validation loss is smallest at 0.01 to 0.1 and rises on both sides. With a
# handful a class it may be flat at the strong end; where classes are separable it may still
# fall, slowly, at the weak one.
USUAL = tuple(float(c) for c in 10 ** np.linspace(-6, 2, 17))


def read_strengths(text: str) -> tuple[float, ...]:
    """Strengths of --strengths: a grid by name, or numbers."""
    return STRENGTHS.get(text) or tuple(float(word) for word in split_words("--strengths", text))


@dataclass(frozen=True)
class Linear(Kind):
    """L2-regularised logistic regression on standardised features, its strength chosen.

    Raises:
        RequestError: strengths that are missing, not positive and finite, or named twice; an
            unknown form; a tolerance or a number of iterations that isn't positive.
    """

    strengths: tuple[float, ...] = setting(
        USUAL,
        "scikit-learn's C, comma separated, or dinov2: 45 from 1e-6 to 1e5; one is chosen",
        metavar="C",
        above=0,
        unlike=True,
        read=read_strengths,
        shown=f"{','.join(f'{c:g}' for c in USUAL)}; with --shots {STRENGTH:g}",
    )
    # "ovr" is one class against the rest.
    form: str = setting("multinomial", "for several classes", among=FORMS)
    # Predicted distance from the smallest objective, relative to it. The prediction is a squared
    # gradient over the Hessian's diagonal; the true distance was 1 to 10 times that on features,
    # and 120 times on a nearly separable problem at C = 1000.
    tolerance: float = 1e-6
    max_iter: int = 100  # Newton steps for each strength; 2 to 6 are usual
    # Products with the Hessian for each strength, two of the training matrix each; 2 to 200 are
    # usual. Weak regularisation of a hard problem would take thousands, where the validation loss
    # has long been rising: the fit stops there and says so.
    max_products: int = 200

    name = "linear"
    section = "kinds linear, stack and segment"
    candidate = "strength"
    is_ordered = True
    standardises = True
    own_scale = True

    def __post_init__(self) -> None:
        check(self)
        if not self.tolerance > 0:
            raise RequestError(f"tolerance is positive, found {self.tolerance}")
        for name in ("max_iter", "max_products"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is 1 or more, found {getattr(self, name)}")

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Linear:
        # Nothing is there to choose a strength on in an episode.
        of_episodes = {"strengths": (STRENGTH,)} if options.shots else {}
        return cls(**{**base, **of_episodes, **given(options, cls)})

    @property
    def candidates(self) -> tuple[float, ...]:
        return self.strengths

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        if len(self.strengths) > 1:
            raise RequestError(
                f"an episode has nothing to choose one of {len(self.strengths)} strengths on: name "
                "one with --strengths, or use --kind ridge, which leaves one sample out"
            )

    def describe_width(self, questions: Sequence[Question], width: int) -> str:
        shape = max(map(n_to_fit, questions)), width
        if is_rotated(shape):
            return ""
        return (
            f"linear on {questions[0].dataset}: {shape[0]:_} images x {width:_} features are too many "
            f"to rotate; read as stored ({format_bytes(2 * shape[0] * width)} of float16), a path takes "
            f"about {hours_as_stored(shape):.1f} h on one core. Fewer layers take less, as "
            "--layer 2+5+8+11"
        )

    def fit(self, train: Split, task: Task) -> Strengths:
        return Strengths(fit_path(train.x, train.y, task.word, task.n_classes, self), task)

    def settings(self, fitted: Strengths, task: Task) -> dict[str, Any]:
        # Of several classes only: two have one form, and several labels no other.
        several = task.word in (MULTI_CLASS, ORDINAL)
        return {
            "strengths": [float(fit.strength) for fit in fitted.fits],
            **({"form": self.form} if several else {}),
            "tolerance": self.tolerance,
            "max_iter": self.max_iter,
            "max_products": self.max_products,
            "standardised": True,
        }

    def value(self, fitted: Strengths, place: int) -> float:
        return float(fitted.fits[place].strength)

    def marks(self, fitted: Strengths, place: int) -> list[str]:
        fit = fitted.fits[place]
        if fit.converged:
            return []
        return [f"the solver stopped after {fit.n_iter} steps, short of its tolerance"]

    def head(self, fitted: Strengths, place: int, task: Task) -> Head:
        fit, shared = fitted.fits[place], fitted.fits[place].head
        folded, centre = fit.standard.folded(fit.weights, fit.intercept), fit.standard.mean
        if task.word == BINARY:
            return Head(*folded, SIGMOID, task, centre=centre)
        link = SIGMOID if task.has_several_labels else OVR if self.form == "ovr" else SOFTMAX
        columns = tuple(shared.columns.tolist())
        return Head(*folded, link, task, columns, tuple(shared.constant.tolist()), centre=centre)

    def left_out(
        self, fitted: Strengths, place: int, train: Split, fold: Indices, task: Task
    ) -> Doubles | None:
        if not is_rotated(train.x.shape):
            return None
        strength = fitted.fits[place].strength
        return left_out_scores(
            train.x, train.y, fold, task.word, task.n_classes, replace(self, strengths=(strength,))
        )

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """All episodes in one solve, at the one strength."""
        task, train, test = problem.task, problem.splits["train"], problem.splits["test"]
        (strength,), how = self.strengths, problem.standardising()
        kept: Heads | None = [] if problem.keep_heads else None
        asked = test.x, task.word, task.n_classes, strength, how.prepare, kept
        scores = logistic_scores(train.x, train.y, episodes, *asked)
        is_single = task.word == BINARY or task.has_several_labels
        link = SIGMOID if is_single else SOFTMAX
        yield Answer(
            {
                "strengths": [strength],
                "tolerance": TOLERANCE,
                **how.settings,
                "chosen_by": "fixed",
            },
            {"strength": strength},
            {"test": scores},
            how.marks,
            head=problem.seen_by(of_episodes(kept, how, link, task)),
        )


@dataclass(frozen=True)
class Strengths:
    """The path of a linear probe as candidates."""

    fits: list[LinearFit]
    task: Task

    def losses(self, x: Floats, y: Array) -> Doubles:
        return path_losses(self.fits, x, y, self.task.word)

    def scores(self, x: Floats, place: int) -> Doubles:
        return self.fits[place].predict_scores(x)


@dataclass(frozen=True)
class LinearFit(PathFit):
    """The weights at one strength, an output for each class that has any."""

    strength: float  # scikit-learn's C
    objective: float  # C * sum of log-losses + |weights|^2 / 2
    n_iter: int  # Newton steps
    converged: bool  # whether the tolerance was reached
    head: Shared

    def predict_scores(self, features: Floats) -> Doubles:
        """Score images.

        Args:
            features: (Q, D), not standardised.

        Returns:
            (Q, C) probabilities; rows sum to 1, except for the multi-label task.

        Raises:
            RequestError: features of another width than the training features.
        """
        return next(path_scores([self], features))


def fit_path(
    features: Floats, labels: Ints, task: str, n_classes: int, config: Linear | None = None
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
    config = config or Linear()
    labels = np.asarray(labels)
    check_labels(labels, task, n_classes)
    check_rows(features, labels)
    targets, columns, constant = learnable(labels, task, n_classes)
    standard, head = Standard.of(features), Shared(task, config.form, columns, constant)
    coupled = task not in (BINARY, MULTI_LABEL) and config.form == "multinomial"
    is_known = labels[:, columns].T != MISSING if task == MULTI_LABEL else None
    problem, unrotate = training_matrix(features, standard, targets, is_known, coupled)

    found: list[tuple[float, float, int, bool]] = []
    paths: list[Doubles] = []  # (C', r + 1) of each strength
    solved: list[tuple[float, Doubles]] = []
    for strength in sorted(config.strengths):
        penalty = 1 / (strength * len(labels))
        start = ahead(solved, math.log(strength)) if solved else problem.start()
        weights, objective, n_iter, converged = minimise(
            problem, start, penalty, config.tolerance, config.max_iter, config.max_products
        )
        solved = [*solved[-1:], (math.log(strength), weights)]
        paths.append(weights)
        found.append((strength, objective * strength * len(labels), n_iter, converged))
    # All at once: features are read once for them.
    slopes = unrotate(np.vstack([weights[:, :-1] for weights in paths]).T)
    return [
        LinearFit(own, weights[:, -1].copy(), standard, *one, head)
        for own, weights, one in zip(
            np.split(slopes, len(paths), axis=1), paths, found, strict=True
        )
    ]


def left_out_scores(
    features: Floats, labels: Ints, fold: Indices, task: str, n_classes: int, config: Linear
) -> Doubles:
    """Score every image by a fit to the other folds, at one strength.

    All fits share what takes the time, the rotated training matrix (see
    ``probe.solvers.training_matrix.is_rotated``). So features are standardised by
    the mean and standard deviation of all of train; labels of the fold itself aren't seen.

    Args:
        features: as of ``fit_path``.
        labels: as of ``fit_path``.
        fold: (N,) of each image, from 0.
        task: as of ``fit_path``.
        n_classes: C.
        config: with the one strength.

    Returns:
        (N, C) probabilities.

    Raises:
        RequestError: see ``fit_path``, of what any fold leaves.
    """
    (strength,) = config.strengths
    coupled = task not in (BINARY, MULTI_LABEL) and config.form == "multinomial"
    targets, _, _ = learnable(labels, task, n_classes)
    whole, _ = training_matrix(features, Standard.of(features), targets, None, coupled)
    assert isinstance(whole, Rotated)
    scores = np.empty((len(labels), n_classes))
    for part in range(int(fold.max()) + 1):
        own, rest = fold == part, fold != part
        targets, columns, constant = learnable(labels[rest], task, n_classes)
        is_known = labels[rest][:, columns].T != MISSING if task == MULTI_LABEL else None
        problem = replace(whole, matrix=whole.at(rest), targets=targets, is_known=is_known)
        weights, *_ = minimise(
            problem,
            problem.start(),
            1 / (strength * int(rest.sum())),
            config.tolerance,
            config.max_iter,
            config.max_products,
        )
        logits = weights @ whole.at(own)
        scores[own] = Shared(task, config.form, columns, constant).scores(logits.T)
    return scores


def path_scores(fits: Sequence[LinearFit], features: Floats) -> Iterator[Doubles]:
    """(Q, C) probabilities of each fit of one path; arguments and errors as ``path_outputs``."""
    for fit, logits in zip(fits, path_outputs(fits, features), strict=True):
        yield fit.head.scores(logits)


def path_losses(fits: list[LinearFit], features: Floats, labels: Ints, task: str) -> Doubles:
    """The log-loss of every fit of one path on other images: what one is chosen by.

    Args:
        fits: from ``fit_path``.
        features: (Q, D), not standardised; may be a memmap.
        labels: (Q,), or (Q, C) for the multi-label task, where some may be MISSING.
        task: one of ``cache.task.CLASSIFICATION``.
    """
    each = path_scores(fits, features)
    return np.array([log_loss(scores, labels, task) for scores in each])
