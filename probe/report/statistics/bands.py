"""From a column of metadata to the subgroup of each sample: its values, or bands of numbers.

Edges of bands are the user's, or tertiles of train and val: never of test, whose numbers would then
have chosen what they are looked at by.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from cache.labels.columns import MISSING_WORDS
from probe.arrays import Array, Bools, Doubles, Texts

UNKNOWN = "unknown"
PREFIX = "meta:"
MANY_VALUES = 10  # numbers with more distinct values than this are put in bands


@dataclass(frozen=True)
class By:
    """What ``--by meta:COLUMN`` or ``--by meta:COLUMN:EDGES`` asks for."""

    column: str
    edges: tuple[float, ...] = ()  # ascending; empty: none were named


@dataclass(frozen=True)
class Divided:
    """Samples divided by one column."""

    names: Texts  # (N,) each sample's subgroup; UNKNOWN where the column says nothing
    order: tuple[str, ...]  # the names that are met, in the order to show; UNKNOWN isn't among them
    rule: str  # how they were made, in words


def parse_by(text: str) -> By:
    """What a flag's word asks for: "meta:sex", "meta:age", "meta:age:40,60".

    Raises:
        RequestError: it doesn't begin with "meta:", or edges aren't numbers that ascend.
    """
    column, _, listed = text.removeprefix(PREFIX).partition(":")
    if not text.startswith(PREFIX) or not column:
        raise RequestError(
            f"--by takes a stored column, as in meta:sex or meta:age:40,60; found {text!r}"
        )
    try:
        edges = tuple(float(word) for word in listed.split(",")) if listed else ()
    except ValueError:
        edges = (np.nan,)
    if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        raise RequestError(
            f"edges of bands are numbers that ascend, as in meta:age:40,60; found {listed!r}"
        )
    return By(column, edges)


def divide(values: Array, by: By, earlier: Array | None = None) -> Divided:
    """Name each sample's subgroup.

    Args:
        values: (N,) the column, texts or numbers, of test.
        by: which column it is, and the edges of its bands.
        earlier: (M,) the column of train and val, which tertiles are taken of; None or empty: a
            column of many numbers needs edges.

    Raises:
        RequestError: edges, and the column holds texts; many numbers, and neither edges nor samples
            of train and val.
    """
    missing, numbers = missing_of(values), numbers_of(values)
    if by.edges:
        if numbers is None:
            text = str(values[~missing][0])
            raise RequestError(
                f"edges are of numbers, and meta:{by.column} holds texts such as {text!r}: leave "
                "them out"
            )
        edges, rule = by.edges, "edges as asked"
    elif numbers is None or _n_distinct(numbers, earlier) <= MANY_VALUES:
        names = np.where(missing, UNKNOWN, _texts(values, numbers))
        return Divided(names, _sorted(names[~missing]), f"by the values of meta:{by.column}")
    else:
        edges, rule = _tertiles(by, earlier), "tertiles of train and val"
    words = _band_names(edges)
    place = np.searchsorted(edges, numbers, side="right")  # an edge begins the band above it
    names = np.where(missing, UNKNOWN, np.array(words)[np.where(missing, 0, place)])
    order = tuple(word for word in words if (names == word).any())
    return Divided(names, order, f"bands of meta:{by.column}, {rule}")


def _n_distinct(numbers: Doubles, earlier: Array | None) -> int:
    known = None if earlier is None else numbers_of(earlier)
    every = numbers if known is None else np.r_[numbers, known]
    return len(np.unique(every[~np.isnan(every)]))


def _tertiles(by: By, earlier: Array | None) -> tuple[float, ...]:
    known = None if earlier is None else numbers_of(earlier)
    if earlier is None or known is None or missing_of(earlier).all():
        raise RequestError(
            f"meta:{by.column} holds many numbers, and train and val say nothing of how to divide "
            f"them: name edges, as in --by meta:{by.column}:40,60"
        )
    known = known[~missing_of(earlier)]
    # Values that occur, so that their names are as short as they.
    return tuple(np.unique(np.quantile(known, [1 / 3, 2 / 3], method="inverted_cdf")).tolist())


def _band_names(edges: tuple[float, ...]) -> list[str]:
    words = [f"{edge:g}" for edge in edges]
    between = [f"{low}-{high}" for low, high in itertools.pairwise(words)]
    return [f"<{words[0]}", *between, f">={words[-1]}"]


def missing_of(values: Array) -> Bools:
    """(N,) where a column says nothing."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "iub":
        return np.zeros(len(values), np.bool_)
    return np.isin(np.char.lower(np.char.strip(values)), MISSING_WORDS)


def numbers_of(values: Array) -> Doubles | None:
    """(N,) the values as numbers, nan where missing; None where they are texts."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    missing = missing_of(values)
    found = np.full(len(values), np.nan)
    try:
        found[~missing] = values[~missing].astype(np.float64)
    except ValueError:
        return None
    return found if not missing.all() else None


def _texts(values: Array, numbers: Doubles | None) -> Texts:
    if numbers is None:
        return np.char.strip(values)
    return np.array([f"{number:g}" for number in numbers])


def _sorted(names: Texts) -> tuple[str, ...]:
    """Distinct names; numbers by their size."""
    distinct = [str(name) for name in np.unique(names)]
    numbers = numbers_of(np.array(distinct)) if distinct else None
    if numbers is None:
        return tuple(distinct)
    return tuple(distinct[place] for place in np.argsort(numbers, kind="stable"))
