"""What can go wrong with features, as one small tree.

    CacheError
    ├── CacheMiss     no stored features for what was asked
    ├── StaleCache    features are stored, but under another key
    └── BrokenCache   the file is damaged, incomplete or not one of ours
    ValueError
    └── RequestError  a wish that can't be fulfilled as it was put

Each message says what was expected, what was found and the next command. The command lines turn
these (and ``OSError``) into one line and status 1; any other exception is a bug and keeps its
traceback.
"""

from typing import NamedTuple


class CacheError(Exception):
    """Something about stored features; the parent of the three below."""


class CacheMiss(CacheError):
    """No features are stored for what was asked."""


class StaleCache(CacheError):
    """Features are stored, but made under another key."""


class BrokenCache(CacheError):
    """A feature file is damaged, incomplete, or not a feature file at all."""


class RequestError(ValueError):
    """A wish that can't be fulfilled as it was put: unknown names, sizes that don't divide...

    A subclass of ``ValueError`` so that a user's mistake and a bug of ours in some array
    operation don't look the same to the command line.
    """


class Failure(NamedTuple):
    """What couldn't be done among many, and why: the others went on."""

    what: str
    why: str
