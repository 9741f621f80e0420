"""A user's own encoder: the function that ``--model`` names, and its call."""

import inspect
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from cache import RequestError
from cache.commands.user_code import Facts, Function, Wanted, user_code, where
from extract.encoders.table.entry import ENTRY_POINTS


def user_function(name: str) -> AbstractContextManager[tuple[Function, Facts, Path]]:
    """See ``cache.commands.user_code.user_code``.

    Raises:
        RequestError: it can't be had.
    """
    return user_code(name, Wanted("--model", "function", ENTRY_POINTS))


def call(function: Function, size: int | None, name: str, folder: Path) -> Any:
    """What the function returns; it may take ``size``, and nothing else that has no default."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = {}
    own = parameters.pop("size", None)
    options = {"size": size} if own and size is not None else {}
    if own and size is None and own.default is own.empty:
        raise RequestError(f"{name} has no size of its own; give --size, or write size=224 there")
    for parameter in parameters.values():
        some = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not some:
            raise RequestError(
                f"{name} asks for {parameter.name!r}; it is called with size, or with nothing"
            )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a part that stays random is the same in every run
            return function(**options)
    except (Exception, SystemExit) as error:  # the user's code, failing in any way
        raise RequestError(f"{name} fails: {where(error, folder)}") from error
