"""Finding what ``--kind`` names beyond our own kinds.

Code is imported only where its user names it: a class of the installed scikit-learn by its dotted
name, a class in a file, or an entry point of an installed package. Nothing that a feature file or a
result row holds is ever imported.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from cache.commands.user_code import Wanted, user_code
from cache.errors import RequestError
from cache.task import Task
from probe.answer import Answer
from probe.choosing.candidates import Fitted
from probe.kinds.estimator import SKLEARN, Estimator, Probe, running
from probe.kinds.grid import check_settings, read_grid
from probe.kinds.kind import Episodes, Kind, Problem
from probe.kinds.sklearn import sklearn_kind

WANTED = Wanted("--kind", "class", "medprobe.probes")


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
    if inspect.isclass(found) and issubclass(found, Kind):
        check_settings(found, grid, name)
        return _of_user(found, grid, name, facts, folder)
    missing = [m for m in ("fit", "predict_scores") if not callable(getattr(found, m, None))]
    if not inspect.isclass(found) or missing:
        lacks = f"has no {missing[0]}" if inspect.isclass(found) else "is no class"
        raise RequestError(
            f"{name} {lacks}: a probe is a class with fit(features, labels) and "
            "predict_scores(features)"
        )
    check_settings(found, grid, name)
    return Estimator(name, partial(_make, found), grid, facts, folder, standardises=False)


def _make(of: type, settings: dict[str, Any], task: Task) -> Probe:
    return of(**settings)


def _of_user(
    of: type[Kind],
    grid: Mapping[str, tuple[Any, ...]],
    name: str,
    facts: Mapping[str, Any],
    folder: Path | None,
) -> Kind:
    """A user's own kind: as it is, but named by where it is, and what it does wrong is one line."""
    lists = {field.name for field in fields(of) if isinstance(field.default, tuple)}  # type: ignore
    values: dict[str, Any] = dict(grid)
    for setting, found in grid.items():
        if setting not in lists and len(found) == 1:
            (values[setting],) = found

    class Own(of):
        def settings(self, fitted: Fitted, task: Task) -> dict[str, Any]:
            return {**super().settings(fitted, task), **facts}

        def answer(self, problem: Problem) -> Iterator[Answer]:
            with running(name, folder, "answer"):
                yield from super().answer(problem)

        def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
            with running(name, folder, "answer_episodes"):
                yield from super().answer_episodes(problem, episodes)

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
