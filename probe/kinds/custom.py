"""Finding what ``--kind`` names beyond our own kinds.

Code is imported only where its user names it: a class of the installed scikit-learn by its dotted
name, a class in a file, or an entry point of an installed package. Nothing that a feature file or a
result row holds is ever imported. Estimators of scikit-learn are wrapped here, too.
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache.commands.names import near_names
from cache.commands.user_code import Wanted, user_code
from cache.errors import RequestError
from cache.task import MISSING, MULTI_LABEL, REGRESSION, Task
from probe.arrays import Array, Doubles, Ints, Singles
from probe.choosing.plan import Fitted
from probe.kinds.columns import CURE, check_columns, few_of_each
from probe.kinds.estimator import SKLEARN, Estimator, Probe, check_settings, read_grid, running
from probe.kinds.kind import Kind
from probe.metrics.classification import MARGIN, PROBABILITY

WANTED = Wanted("--kind", "class", "medprobe.probes")
Again = tuple[Callable[..., Kind], tuple[Any, ...]]  # what a pickle calls, as of ``__reduce__``


def find_kind(kind: str, settings: Sequence[str] = (), known: Sequence[str] = ()) -> Kind:
    """The kind that a word beyond our own names, with its settings.

    Args:
        kind: "sklearn.MODULE.CLASS", "FILE.py:CLASS" or the name of an entry point. The class is a
            ``Kind``, or a probe with fit and predict_scores, see ``probe.kinds.estimator``.
        settings: "NAME=VALUE,VALUE" each, as of ``--set``.
        known: names of our own kinds, for messages.

    Raises:
        RequestError: there is no such class, it can't be imported, or it has no such setting.
    """
    grid = read_grid(settings)
    if kind.startswith(SKLEARN):
        return sklearn_kind(kind, grid)
    path, colon, attribute = kind.rpartition(":")
    if not (colon and path.endswith(".py")):
        _check_entry_point(kind, known)
    with user_code(kind, WANTED) as (found, facts, folder):
        pass  # facts are complete, and its methods are called later
    name = f"{Path(path).name}:{attribute}" if colon else kind
    again = find_kind, (kind, tuple(settings), tuple(known))
    if inspect.isclass(found) and issubclass(found, Kind):
        return _of_user(found, grid, name, facts, folder, again)
    missing = [m for m in ("fit", "predict_scores") if not callable(getattr(found, m, None))]
    if not inspect.isclass(found) or missing:
        lacks = f"has no {missing[0]}" if inspect.isclass(found) else "is no class"
        raise RequestError(
            f"{name} {lacks}: a probe is a class with fit(features, labels) and "
            "predict_scores(features)"
        )
    check_settings(found, grid, name)
    made = partial(_make, found)
    return UserEstimator(name, made, grid, facts, folder, standardises=False, again=again)


@dataclass(frozen=True)
class UserEstimator(Estimator):
    """One whose class another process has to find again, in the user's file."""

    again: Again | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        assert self.again
        return *self.again, {"grid": self.grid}


def _make(of: type, settings: dict[str, Any], task: Task) -> Probe:
    return of(**settings)


def _of_user(
    of: type[Kind],
    grid: Mapping[str, tuple[Any, ...]],
    name: str,
    facts: Mapping[str, Any],
    folder: Path | None,
    again: Again,
) -> Kind:
    """A user's own kind: as it is, but named by where it is, and what it does wrong is one line.

    Raises:
        RequestError: it is no dataclass, has no such setting, or fails when it is made.
    """
    own = [
        n for n, of_ in vars(of).get("__annotations__", {}).items() if "ClassVar" not in str(of_)
    ]
    declared = {}
    if dataclasses.is_dataclass(of):
        declared = {field.name: field.default for field in fields(of)}
    if not dataclasses.is_dataclass(of) or not {*own} <= declared.keys():
        raise RequestError(f"{name}: a kind is a dataclass of its settings, see probe/KINDS.md")
    if taken := sorted(declared.keys() & Kind.__annotations__.keys()):
        raise RequestError(
            f"{name}: {taken[0]} says what it is and is no setting; leave its type out"
        )
    check_settings(of, grid, name)
    values: dict[str, Any] = dict(grid)
    for setting, found in grid.items():
        if isinstance(declared[setting], tuple):
            continue
        if len(found) != 1:
            raise RequestError(
                f"{name} takes one {setting}: of a setting whose default is a tuple it takes several"
            )
        values[setting] = found[0]

    class Own(of):
        def running(self) -> AbstractContextManager[None]:
            return running(name, folder, "answer")

        def settings(self, fitted: Fitted, task: Task) -> dict[str, Any]:
            return {**super().settings(fitted, task), **facts}

        def __reduce__(self) -> tuple[Any, ...]:
            return *again, dict(vars(self))  # as it is now: of one that replaced another, too

    Own.name = name
    with running(name, folder, "its constructor"):
        return Own(**values)


def _check_entry_point(kind: str, known: Sequence[str]) -> None:
    """Refuse a word that names nothing, with all that a kind may be."""
    points = {point.name for point in importlib.metadata.entry_points(group=WANTED.group)}
    if kind not in points:
        raise RequestError(
            f"--kind takes {', '.join((*known, *sorted(points)))}, {SKLEARN}MODULE.CLASS or "
            f"FILE.py:CLASS; not {kind!r}"
        )


SEED = 0  # of estimators that are random, unless --set says another random_state
PAIRWISE = "decision_function_shape"  # "ovo": a margin for each pair of classes


def sklearn_kind(kind: str, grid: Mapping[str, tuple[Any, ...]]) -> Estimator:
    """The kind that a dotted name of scikit-learn means.

    Raises:
        RequestError: there is none, or it is no classifier and no regression.
    """
    found = _import_sklearn(kind)
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    if not (inspect.isclass(found) and issubclass(found, BaseEstimator)) or not issubclass(
        found, ClassifierMixin | RegressorMixin
    ):
        raise RequestError(f"{kind} is no classifier and no regression of scikit-learn")
    check_settings(found, grid, kind)

    return Estimator(kind, partial(_make_sklearn, kind, found), grid, {"standardised": True})


def _make_sklearn(kind: str, found: Any, settings: dict[str, Any], task: Task) -> Probe:
    from sklearn.base import RegressorMixin

    if (task.word == REGRESSION) != issubclass(found, RegressorMixin):
        is_one = "a regression" if issubclass(found, RegressorMixin) else "a classifier"
        labels = "continuous labels" if task.word == REGRESSION else "classes"
        raise RequestError(f"{kind} is {is_one}, and asked of {labels}")
    takes_seed = "random_state" in inspect.signature(found).parameters
    seed = {"random_state": SEED} if takes_seed else {}
    probe = SklearnProbe(partial(found, **{**seed, **settings}), task)
    made = probe.make()
    if task.word != REGRESSION and not any(
        hasattr(made, method) for method in ("predict_proba", "decision_function")
    ):
        raise RequestError(
            f"{kind} has neither predict_proba nor decision_function: it gives classes alone, "
            "and no score to rank them by"
        )
    return probe


def _import_sklearn(kind: str) -> Any:
    """What a dotted name below sklearn means, and nothing elsewhere.

    Raises:
        RequestError: nothing.
    """
    module_name, _, name = kind.rpartition(".")
    if not all(part.isidentifier() for part in kind.split(".")):
        raise RequestError(f"--kind takes {SKLEARN}MODULE.CLASS, not {kind!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise RequestError(f"the installed scikit-learn has no module {module_name}") from None
    if not hasattr(module, name):
        classes = [n for n, value in vars(module).items() if inspect.isclass(value)]
        near = near_names(name, classes, f"it has {', '.join(sorted(classes)[:6])}...")
        raise RequestError(f"{module_name} has no {name}; {near}")
    return getattr(module, name)


@dataclass
class SklearnProbe:
    """An estimator of scikit-learn; features are standardised before."""

    make: Callable[[], Any]  # a new estimator
    task: Task

    def fit(self, features: Singles, labels: Array) -> None:
        if self.task.word == REGRESSION:
            self.estimators = [self.make().fit(features, labels)]
        elif self.task.word != MULTI_LABEL:
            self.estimators = [self._fit_classes(features, labels)]
        else:
            known = labels.T != MISSING
            self.estimators = [
                self._fit_label(features[rows], column[rows])
                for column, rows in zip(labels.T, known, strict=True)
            ]

    def _fit_label(self, x: Singles, labels: Ints) -> Any:
        """An estimator of one label; where it has one value in train, that value."""
        return self._fit_classes(x, labels) if np.ptp(labels) else int(labels[0])

    def _fit_classes(self, x: Singles, labels: Ints) -> Any:
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

    def predict_scores(self, features: Singles) -> Doubles:
        if self.task.word == REGRESSION:
            return self.estimators[0].predict(features)
        if self.task.word == MULTI_LABEL:
            return np.stack([self._of_label(features, one) for one in self.estimators], axis=1)
        (estimator,) = self.estimators
        scores = self._scores(features, estimator)
        if len(estimator.classes_) == self.task.n_classes:
            return scores
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], axis=1)
        # A class without training images is never likely, and no image's more than another's.
        never = 0 if self.score_type == PROBABILITY else scores.min() - 1
        full = np.full((len(features), self.task.n_classes), never, np.float64)
        full[:, estimator.classes_] = scores
        return full

    def _of_label(self, x: Singles, estimator: Any) -> Doubles:
        """(Q,) scores of one label's ones."""
        if isinstance(estimator, int):
            sure = float(estimator)
            return np.full(len(x), sure if self.score_type == PROBABILITY else 2 * sure - 1)
        scores = self._scores(x, estimator)
        return scores[:, 1] if scores.ndim == 2 else scores

    def _scores(self, x: Singles, estimator: Any) -> Doubles:
        return np.asarray(getattr(estimator, self._method)(x), np.float64)
