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

import ast
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cache.commands.names import first_line, near_names, version_of
from cache.errors import CacheError, RequestError
from cache.task import BINARY, MULTI_LABEL, REGRESSION, Task
from probe.arrays import Array, Doubles, Floats, Singles
from probe.episodes.draw import FewShotConfig
from probe.kinds.columns import check_columns, few_of_each
from probe.kinds.kind import N_TOLD, Kind
from probe.metrics.classification import MARGIN, PROBABILITY
from probe.metrics.losses import loss_of
from probe.questions.question import Split
from probe.solvers.standardise import Prepare, Standard, as_they_are

SKLEARN = "sklearn."  # what names of its estimators begin with
ROUNDING = 1e-3  # how far from 1 the sum of a row of probabilities may be: float16's


class Probe(Protocol):
    """What every estimator is turned into, or is; see above for shapes."""

    def fit(self, features: Singles, labels: Array) -> Any: ...

    def predict_scores(self, features: Singles) -> Floats: ...


@dataclass(frozen=True)
class Estimator(Kind):
    """An estimator, and the settings that are compared; see ``probe.kinds.custom.find_kind``."""

    name: str  # for rows: no part of it is a folder
    make: Callable[[dict[str, Any], Task], Probe]
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # setting -> values
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the row: digest of its code...
    folder: Path | None = None  # of the user's file
    # Features before they are given to it, as for scikit-learn's. Its class takes the flag.
    standardises: bool = True

    candidate = "settings"
    takes_numbers = True
    name_one = "name one value with each --set"

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the values, the last setting's changing fastest."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]

    @property
    def versions(self) -> dict[str, str]:
        is_sklearn = self.name.startswith(SKLEARN)
        return {"scikit-learn": version_of("scikit-learn")} if is_sklearn else {}

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        if few_shot.standardise and not self.standardises:
            raise RequestError(
                f"{self.name} gets features as they are stored; standardise them in its fit, and "
                "leave --standardise out"
            )

    def fit(self, train: Split, task: Task) -> FittedProbes:
        return fit_all(self, train.x, train.y, task)

    def fit_part(self, part: Split, task: Task, prepare: Prepare | None) -> FittedProbes:
        return fit_all(self, part.x, part.y, task, prepare)

    def fit_one(
        self, place: int, part: Split, task: Task, prepare: Prepare | None
    ) -> tuple[FittedProbes, int]:
        grid = {name: (value,) for name, value in self.candidates[place].items()}
        return replace(self, grid=grid).fit_part(part, task, prepare), 0

    def settings(self, fitted: FittedProbes, task: Task) -> dict[str, Any]:
        scored = {} if task.is_continuous else {"score_type": fitted.score_type}
        return {
            "settings": {name: list(values) for name, values in self.grid.items()},
            **self.facts,
            **scored,
        }

    def scores_of(self, fitted: FittedProbes) -> str:
        return fitted.score_type

    def marks(self, fitted: FittedProbes, place: int) -> list[str]:
        return [f"{self.name} warns: {text}" for text in fitted.warned[:N_TOLD]]


@dataclass(frozen=True)
class FittedProbes:
    """Each candidate of an estimator, fitted to the same samples. Satisfies Fitted."""

    estimator: Estimator
    task: Task
    probes: list[Probe]
    prepare: Prepare  # what features go through before a probe is asked
    warned: tuple[str, ...]  # what fitting them made Python warn of

    @property
    def score_type(self) -> str:
        """``PROBABILITY`` or ``MARGIN``; of numbers of no meaning.

        Raises:
            RequestError: another word, or both among the candidates.
        """
        found = sorted({getattr(probe, "score_type", PROBABILITY) for probe in self.probes})
        if len(found) > 1 or found[0] not in (PROBABILITY, MARGIN):
            raise RequestError(
                f"{self.estimator.name} should have one score_type, {PROBABILITY} or {MARGIN}; "
                f"found {' and '.join(map(repr, found))}"
            )
        return found[0]

    def losses(self, x: Floats, y: Array) -> Doubles:
        """(candidates,) log-loss of each, 1 - AUC of margins, squared error of numbers.

        Raises:
            RequestError: what ``scores`` and ``probe.metrics.losses.loss_of`` refuse.
        """
        loss = partial(loss_of, labels=y, task=self.task.word, score_type=self.score_type)
        return np.array([loss(self.scores(x, i)) for i in range(len(self.probes))])

    def scores(self, x: Floats, place: int) -> Doubles:
        """(Q, C) scores of one candidate.

        Raises:
            RequestError: it fails, or answers something else.
        """
        if not len(x):
            return np.empty((0, self.task.n_outputs))
        with running(self.estimator.name, self.estimator.folder, "predict_scores"):
            found = self.probes[place].predict_scores(self.prepare(x))
            found = np.asarray(found, np.float64)
        return _checked(found, len(x), self.task, self.score_type, self.estimator.name)


def fit_all(
    estimator: Estimator,
    features: Floats,
    labels: Array,
    task: Task,
    standard: Prepare | None = None,
) -> FittedProbes:
    """Fit every candidate.

    Args:
        estimator: with its grid.
        features: (N, D), float16 or wider.
        labels: (N,), or (N, C) of several labels.
        task: what they are labels of.
        standard: what standardises features, for an estimator that wants them so; None: these ones'
            own mean and scale.

    Raises:
        RequestError: it fails, in one line.
    """
    probes: list[Probe] = []
    prepare = as_they_are
    if estimator.standardises:
        prepare = standard or Standard.of(features)
    x = prepare(features)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for candidate in estimator.candidates:
            with running(estimator.name, estimator.folder, "its constructor"):
                probe = estimator.make(candidate, task)
            with running(estimator.name, estimator.folder, "fit"):
                # Copies: a probe that changes what it is given must not change the next one's.
                probe.fit(x.copy(), np.array(labels))
            with running(estimator.name, estimator.folder, "predict"):
                _check_own_columns(estimator, probe, x, labels, task)
            probes.append(probe)
    told = [f"{w.category.__name__}: {first_line(w.message)}" for w in caught]  # type: ignore[arg-type]
    return FittedProbes(estimator, task, probes, prepare, tuple(dict.fromkeys(told)))


def _check_own_columns(
    estimator: Estimator, probe: Probe, features: Singles, labels: Array, task: Task
) -> None:
    """Refuse a user's probe that scores classes in another order than it predicts them.

    One that has no ``predict``, or whose ``predict`` gives no class numbers, can't be asked.
    """
    predict = getattr(probe, "predict", None)
    if not callable(predict) or task.word in (REGRESSION, MULTI_LABEL):
        return
    rows = few_of_each(labels)
    classes, predicted = np.arange(task.n_classes), np.asarray(predict(features[rows]))
    if predicted.shape != rows.shape or not np.isin(predicted, classes).all():
        return
    scores = np.asarray(probe.predict_scores(features[rows]), np.float64)
    are_margins = getattr(probe, "score_type", PROBABILITY) == MARGIN
    name = f"{estimator.name}, predict_scores"
    check_columns(scores, predicted, classes, name, are_margins=are_margins)


@contextmanager
def running(name: str, folder: Path | None, what: str) -> Iterator[None]:
    """Other people's code: whatever it does wrong is one line, with the place in the user's file.

    Raises:
        RequestError: it did something wrong.
    """
    from cache.commands.user_code import beside, where  # importlib.metadata: late, for --help

    try:
        with beside(folder) if folder else nullcontext():
            yield
    except (RequestError, CacheError, BrokenPipeError):
        raise  # a question's, a feature file's, and of a reader who left
    except (Exception, SystemExit) as error:
        found = where(error, folder)
        raise RequestError(f"{name} fails in {what}: {found}") from error


def _checked(scores: Doubles, n: int, task: Task, score_type: str, name: str) -> Doubles:
    """Scores in the shape that metrics take: (n, C), of two classes' margins -m and m."""
    is_binary = task.word == BINARY
    if scores.ndim == 1:
        scores = scores[:, None]
    if is_binary and scores.shape == (n, 1):
        rest = 1 - scores if score_type == PROBABILITY else -scores
        scores = np.concatenate([rest, scores], axis=1)
    n_outputs = task.n_outputs
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
    if task.word in (REGRESSION, MULTI_LABEL):
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


def read_grid(settings: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """["C=0.1,1", "dual=False"] as {"C": (0.1, 1), "dual": (False,)}.

    A value is a number, True, False or None, or else a text.

    Raises:
        RequestError: another form, or one named twice.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in settings:
        name, equals, values = text.partition("=")
        words = [word.strip() for word in values.split(",")]
        if not (name.isidentifier() and equals and all(words)):
            raise RequestError(f"--set takes NAME=VALUE,VALUE as in C=0.1,1,10; not {text!r}")
        if name in grid:
            raise RequestError(f"--set {name} is given twice; list its values: {name}=A,B")
        grid[name] = tuple(map(_value, words))
        if len(set(map(repr, grid[name]))) < len(words):
            raise RequestError(f"each value of --set {name} may be named once, found {values}")
    return grid


def _value(word: str) -> Any:
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return value if isinstance(value, int | float | bool | str | None) else word


def check_settings(of: type, grid: Mapping[str, Any], name: str) -> None:
    """Refuse settings that a class doesn't take.

    Raises:
        RequestError: it doesn't take one.
    """
    try:
        parameters = inspect.signature(of).parameters.values()
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    for setting in grid:
        if setting not in known:
            near = near_names(setting, known, f"it has {', '.join(known) or 'none'}")
            raise RequestError(f"{name} has no setting {setting!r}; {near}")
