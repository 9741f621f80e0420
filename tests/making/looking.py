"""What keeps a test from passing on nothing."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def some(things: Iterable[T]) -> list[T]:
    """The things, of which there must be one or more: a loop over none checks nothing.

    For what the code under test returns; what a test makes itself needs no such look.
    """
    found = list(things)
    assert found, "nothing to look at"
    return found
