"""What follows from its arguments alone, found out once for all tests."""

from collections.abc import Callable, Hashable
from typing import Any


def once(function: Callable[..., Any], asked: Callable[..., Hashable]) -> Callable[..., Any]:
    """The function, called once for each answer of ``asked``; None is answered anew each time.

    What it refuses is refused each time, too.
    """
    known: dict[Hashable, Any] = {}

    def find(*arguments: Any) -> Any:
        name = asked(*arguments)
        if name is None:
            return function(*arguments)
        if name not in known:
            known[name] = function(*arguments)
        return known[name]

    return find
