"""Any estimator as a probe: scikit-learn's, a package's, or one in a user's own file.

A new idea is one class in one file, here ``my_probe.py``:

    from dataclasses import dataclass

    import numpy as np


    @dataclass
    class NearestMean:
        power: float = 1.0  # what --set may change
        score_type = "margin"  # or "probability", which is meant where this line isn't there

        def fit(self, features, labels):
            classes = range(labels.max() + 1)
            self.means = np.stack([features[labels == c].mean(axis=0) for c in classes])

        def predict_scores(self, features):
            distances = np.linalg.norm(features[:, None] - self.means, axis=2)
            return -(distances**self.power)

and ``probe --kind my_probe.py:NearestMean --set power=0.5,1,2`` fits it with each power and takes
the best without test. A package offers its probes to every user under the entry point group
``medprobe.probes``.

``fit`` gets features (N, D) as they are stored, in float32, and labels: (N,) class numbers from 0; of
several labels (N, C) zeros, ones and -1 where nobody knows; of a regression (N,) float64.
``predict_scores`` gives (Q, C) for (Q, D): probabilities, or margins, which are larger for likelier
classes; of two classes (Q,) for the second one is enough; of a regression (Q,). Column c is class c:
where a class has a method ``predict`` as well, that gives class numbers (Q,), a few training images
are asked both, and columns in another order are refused. Whatever is random in it should be seeded:
the same question is expected to have the same answer.

Those of scikit-learn are named as they are imported: ``--kind sklearn.svm.LinearSVC --set
C=0.01,0.1,1``. They get standardised features, and of several labels each is fitted by itself to the
images of which it is known. Their scores are ``predict_proba``, else ``decision_function``.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.commands.names import first_line
from cache.commands.user_code import beside, where
from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_LABEL, REGRESSION
from probe.kinds.columns import CURE, check_columns, few_of_each
from probe.metrics.classification import MARGIN, PROBABILITY
from probe.metrics.losses import loss_of
from probe.solvers.standardise import Prepare, Standard, as_they_are

SEED = 0  # of scikit-learn's estimators that are random, unless --set says another random_state
PAIRWISE = "decision_function_shape"  # "ovo": a margin for each pair of classes
N_WARNED = 3  # warnings of an estimator that a row repeats
ROUNDING = 1e-3  # how far from 1 the sum of a row of probabilities may be: float16's


class Probe(Protocol):
    """What every estimator is turned into, or is; see above for shapes."""

    def fit(self, features: NDArray[np.float32], labels: NDArray[Any]) -> Any: ...

    def predict_scores(self, features: NDArray[np.float32]) -> NDArray[np.floating]: ...


@dataclass(frozen=True)
class Question:
    """What a probe is asked to tell apart."""

    task: str  # one of cache.task.TASKS
    n_classes: int  # C; 2 for a binary task, the number of labels for the multi-label task


@dataclass(frozen=True)
class EstimatorConfig:
    """An estimator, and the settings that are compared; see ``probe.kinds.custom.find_estimator``."""

    name: str  # for rows: no part of it is a folder
    make: Callable[[dict[str, Any], Question], Probe]
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # setting -> values
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the row: digest of its code...
    folder: Path | None = None  # of the user's file
    standardises: bool = False  # features before they are given to it, as for scikit-learn's

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the values, the last setting's changing fastest."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]

    def only(self, candidate: Mapping[str, Any]) -> EstimatorConfig:
        """The same with one candidate alone."""
        return replace(self, grid={name: (value,) for name, value in candidate.items()})


@dataclass(frozen=True)
class FittedProbes:
    """Each candidate of an estimator, fitted to the same samples. Satisfies choosing.Fitted."""

    config: EstimatorConfig
    question: Question
    probes: list[Probe]
    prepare: Prepare  # what features go through before a probe is asked
    warned: tuple[str, ...]  # what fitting them made Python warn of

    @property
    def score_type(self) -> str:
        """``PROBABILITY`` or ``MARGIN``.

        Raises:
            RequestError: another word, or both among the candidates.
        """
        found = sorted({getattr(probe, "score_type", PROBABILITY) for probe in self.probes})
        if len(found) > 1 or found[0] not in (PROBABILITY, MARGIN):
            raise RequestError(
                f"{self.config.name} should have one score_type, {PROBABILITY} or {MARGIN}; found "
                f"{' and '.join(map(repr, found))}"
            )
        return found[0]

    @property
    def n_candidates(self) -> int:
        return len(self.probes)

    @property
    def is_ranked(self) -> bool:
        return self.question.task != REGRESSION and self.score_type == MARGIN

    def loss(self, scores: NDArray[np.float64], y: NDArray[Any]) -> float:
        """Log-loss of probabilities, 1 - AUC of margins, squared error of a regression.

        Raises:
            RequestError: what ``probe.metrics.losses.loss_of`` refuses.
        """
        return loss_of(scores, y, self.question.task, score_type=self.score_type)

    def losses(self, x: NDArray[np.floating], y: NDArray[Any]) -> NDArray[np.float64]:
        """(candidates,) the loss of each.

        Raises:
            RequestError: what ``scores`` and ``loss`` refuse.
        """
        return np.array([self.loss(self.scores(x, i), y) for i in range(self.n_candidates)])

    def scores(self, x: NDArray[np.floating], place: int) -> NDArray[np.float64]:
        """(Q, C) scores of one candidate.

        Raises:
            RequestError: it fails, or answers something else.
        """
        n_outputs = 1 if self.question.task == REGRESSION else self.question.n_classes
        if not len(x):
            return np.empty((0, n_outputs))
        with running(self.config, "predict_scores"):
            found = self.probes[place].predict_scores(self.prepare(x))
            found = np.asarray(found, np.float64)
        return _checked(found, len(x), self.question, self.score_type, self.config.name)


def fit_all(
    config: EstimatorConfig,
    features: NDArray[np.floating],
    labels: NDArray[Any],
    question: Question,
    standard: Prepare | None = None,
) -> FittedProbes:
    """Fit every candidate.

    Args:
        config: the estimator and its grid.
        features: (N, D), float16 or wider.
        labels: (N,), or (N, C) of several labels.
        question: what they are labels of.
        standard: what standardises features, for an estimator that wants them so; None: these ones'
            own mean and scale.

    Raises:
        RequestError: it fails, in one line.
    """
    probes: list[Probe] = []
    prepare = as_they_are
    if config.standardises:
        prepare = standard or Standard.of(features)
    x = prepare(features)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for candidate in config.candidates:
            with running(config, "its constructor"):
                probe = config.make(candidate, question)
            with running(config, "fit"):
                # Copies: a probe that changes what it is given must not change the next one's.
                probe.fit(x.copy(), np.array(labels))
            with running(config, "predict"):
                _check_own_columns(config, probe, x, labels, question)
            probes.append(probe)
    told = [f"{w.category.__name__}: {first_line(w.message)}" for w in caught]  # type: ignore[arg-type]
    return FittedProbes(config, question, probes, prepare, tuple(dict.fromkeys(told)))


def _check_own_columns(
    config: EstimatorConfig,
    probe: Probe,
    features: NDArray[np.float32],
    labels: NDArray[Any],
    question: Question,
) -> None:
    """Refuse a user's probe that scores classes in another order than it predicts them.

    One that has no ``predict``, or whose ``predict`` gives no class numbers, can't be asked.
    """
    predict = getattr(probe, "predict", None)
    if not callable(predict) or question.task in (REGRESSION, MULTI_LABEL):
        return
    rows = few_of_each(labels)
    classes, predicted = np.arange(question.n_classes), np.asarray(predict(features[rows]))
    if predicted.shape != rows.shape or not np.isin(predicted, classes).all():
        return
    scores = np.asarray(probe.predict_scores(features[rows]), np.float64)
    are_margins = getattr(probe, "score_type", PROBABILITY) == MARGIN
    name = f"{config.name}, predict_scores"
    check_columns(scores, predicted, classes, name, are_margins=are_margins)


@contextmanager
def running(config: EstimatorConfig, what: str) -> Iterator[None]:
    """Other people's code: whatever it does wrong is one line, with the place in the user's file.

    Raises:
        RequestError: it did something wrong.
    """
    try:
        with beside(config.folder) if config.folder else nullcontext():
            yield
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        found = where(error, config.folder)
        raise RequestError(f"{config.name} fails in {what}: {found}") from error


def _checked(
    scores: NDArray[np.float64], n: int, question: Question, score_type: str, name: str
) -> NDArray[np.float64]:
    """Scores in the shape that metrics take: (n, C), of two classes' margins -m and m."""
    is_binary = question.task == BINARY
    if scores.ndim == 1:
        scores = scores[:, None]
    if is_binary and scores.shape == (n, 1):
        rest = 1 - scores if score_type == PROBABILITY else -scores
        scores = np.concatenate([rest, scores], axis=1)
    n_outputs = 1 if question.task == REGRESSION else question.n_classes
    if scores.shape != (n, n_outputs):
        raise RequestError(
            f"{name} should give scores of shape ({n}, {n_outputs}), found {scores.shape}"
        )
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise RequestError(
            f"{name} should give finite scores, found {scores[row, column]} in row {row}, column "
            f"{column}"
        )
    if question.task in (REGRESSION, MULTI_LABEL):
        return scores
    if score_type == MARGIN:
        if is_binary:  # what exceeds the other class decides, and is thresholded at 0
            margin = (scores[:, 1] - scores[:, 0]) / 2
            scores = np.stack([-margin, margin], axis=1)
        return scores
    sums = scores.sum(axis=1)
    if (off := np.abs(sums - 1)).max() > ROUNDING:
        raise RequestError(
            f"{name} should give probabilities, whose rows sum to 1; found a row of sum "
            f'{sums[off.argmax()]:.4g}: write score_type = "{MARGIN}" if they are none'
        )
    return scores


# ---------------------------------------------------------------------------- scikit-learn


@dataclass
class SklearnProbe:
    """An estimator of scikit-learn; features are standardised before."""

    make: Callable[[], Any]  # a new estimator
    question: Question

    def fit(self, features: NDArray[np.float32], labels: NDArray[Any]) -> None:
        if self.question.task == REGRESSION:
            self.estimators = [self.make().fit(features, labels)]
        elif self.question.task != MULTI_LABEL:
            self.estimators = [self._fit_classes(features, labels)]
        else:
            known = labels.T != MISSING
            self.estimators = [
                self._fit_label(features[rows], column[rows])
                for column, rows in zip(labels.T, known, strict=True)
            ]

    def _fit_label(self, x: NDArray[np.float32], labels: NDArray[np.integer]) -> Any:
        """An estimator of one label; where it has one value in train, that value."""
        return self._fit_classes(x, labels) if np.ptp(labels) else int(labels[0])

    def _fit_classes(self, x: NDArray[np.float32], labels: NDArray[np.integer]) -> Any:
        """An estimator, whose columns are its classes.

        Raises:
            RequestError: they aren't.
        """
        estimator = self.make().fit(x, labels)
        name, n_classes = f"{type(estimator).__name__}.{self._method}", len(estimator.classes_)
        are_margins = self.score_type == MARGIN
        # Where one class alone is predicted, three margins of pairs contradict nothing.
        if are_margins and n_classes > 2 and vars(estimator).get(PAIRWISE) == "ovo":
            raise RequestError(f"{name} gives margins of pairs of classes; {CURE}")
        few = x[few_of_each(labels)]
        check_columns(
            self._scores(few, estimator),
            estimator.predict(few),
            estimator.classes_,
            name,
            are_margins=are_margins,
        )
        return estimator

    @property
    def score_type(self) -> str:
        made = self.make()
        return PROBABILITY if hasattr(made, "predict_proba") else MARGIN

    @property
    def _method(self) -> str:
        return "predict_proba" if self.score_type == PROBABILITY else "decision_function"

    def predict_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.question.task == REGRESSION:
            return self.estimators[0].predict(features)
        if self.question.task == MULTI_LABEL:
            return np.stack([self._of_label(features, one) for one in self.estimators], axis=1)
        (estimator,) = self.estimators
        scores = self._scores(features, estimator)
        if len(estimator.classes_) == self.question.n_classes:
            return scores
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], axis=1)
        # A class without training images is never likely, and no image's more than another's.
        never = 0 if self.score_type == PROBABILITY else scores.min() - 1
        full = np.full((len(features), self.question.n_classes), never, np.float64)
        full[:, estimator.classes_] = scores
        return full

    def _of_label(self, x: NDArray[np.float32], estimator: Any) -> NDArray[np.float64]:
        """(Q,) scores of one label's ones."""
        if isinstance(estimator, int):
            sure = float(estimator)
            return np.full(len(x), sure if self.score_type == PROBABILITY else 2 * sure - 1)
        scores = self._scores(x, estimator)
        return scores[:, 1] if scores.ndim == 2 else scores

    def _scores(self, x: NDArray[np.float32], estimator: Any) -> NDArray[np.float64]:
        return np.asarray(getattr(estimator, self._method)(x), np.float64)
