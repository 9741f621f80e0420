"""The settings of an estimator that ``--set`` lists, and their values."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from cache.commands.names import near_names
from cache.errors import RequestError


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
