"""Finding what ``--kind`` names beyond our own kinds.

Code is imported only where its user names it: a class of the installed scikit-learn by its dotted
name, a class in a file, or an entry point of an installed package. Nothing that a feature file or a
result row holds is ever imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache.commands.names import near_names
from cache.commands.user_code import Wanted, user_code
from cache.errors import RequestError
from cache.task import REGRESSION
from probe.config import KINDS
from probe.kinds.estimator import SEED, EstimatorConfig, Probe, Question, SklearnProbe

SKLEARN = "sklearn."
WANTED = Wanted("--kind", "class", "medprobe.probes")


def find_estimator(kind: str, settings: Sequence[str] = ()) -> EstimatorConfig:
    """The estimator that a kind names, with the settings to compare.

    Args:
        kind: "sklearn.MODULE.CLASS", "FILE.py:CLASS" or the name of an entry point.
        settings: "NAME=VALUE,VALUE" each, as of ``--set``.

    Raises:
        RequestError: there is no such estimator, it can't be imported, or it has no such setting.
    """
    grid = read_grid(settings)
    if kind.startswith(SKLEARN):
        return _of_sklearn(kind, grid)
    path, colon, attribute = kind.rpartition(":")
    if not (colon and path.endswith(".py")):
        _check_entry_point(kind)
    with user_code(kind, WANTED) as (found, facts, folder):
        pass  # facts are complete, and its methods are called later
    name = f"{Path(path).name}:{attribute}" if colon else kind
    missing = [m for m in ("fit", "predict_scores") if not callable(getattr(found, m, None))]
    if not inspect.isclass(found) or missing:
        lacks = f"has no {missing[0]}" if inspect.isclass(found) else "is no class"
        raise RequestError(
            f"{name} {lacks}: a probe is a class with fit(features, labels) and "
            "predict_scores(features)"
        )
    _check_settings(found, grid, name)
    return EstimatorConfig(name, partial(_make, found), grid, facts, folder)


def _make(of: type, settings: dict[str, Any], question: Question) -> Probe:
    return of(**settings)


def _check_entry_point(kind: str) -> None:
    """Refuse a word that names nothing, with all that a kind may be."""
    points = {point.name for point in importlib.metadata.entry_points(group=WANTED.group)}
    if kind not in points:
        raise RequestError(
            f"--kind takes {', '.join((*KINDS, *sorted(points)))}, {SKLEARN}MODULE.CLASS or "
            f"FILE.py:CLASS; not {kind!r}"
        )


# ---------------------------------------------------------------------------- scikit-learn


def _of_sklearn(kind: str, grid: Mapping[str, tuple[Any, ...]]) -> EstimatorConfig:
    found = _import_sklearn(kind)
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    if not (inspect.isclass(found) and issubclass(found, BaseEstimator)) or not issubclass(
        found, ClassifierMixin | RegressorMixin
    ):
        raise RequestError(f"{kind} is no classifier and no regression of scikit-learn")
    _check_settings(found, grid, kind)

    def make(settings: dict[str, Any], question: Question) -> Probe:
        if (question.task == REGRESSION) != issubclass(found, RegressorMixin):
            is_one = "a regression" if issubclass(found, RegressorMixin) else "a classifier"
            labels = "continuous labels" if question.task == REGRESSION else "classes"
            raise RequestError(f"{kind} is {is_one}, and asked of {labels}")
        takes_seed = "random_state" in inspect.signature(found).parameters
        probe = SklearnProbe(
            partial(found, **({"random_state": SEED} if takes_seed else {}), **settings)
            if "random_state" not in settings
            else partial(found, **settings),
            question,
        )
        made = probe.make()
        if question.task != REGRESSION and not any(
            hasattr(made, method) for method in ("predict_proba", "decision_function")
        ):
            raise RequestError(
                f"{kind} has neither predict_proba nor decision_function: it gives classes alone, "
                "and no score to rank them by"
            )
        return probe

    return EstimatorConfig(kind, make, grid, {"standardised": True}, standardises=True)


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


# ---------------------------------------------------------------------------- settings


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


def _check_settings(of: type, grid: Mapping[str, Any], name: str) -> None:
    """Refuse settings that a class doesn't take."""
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
