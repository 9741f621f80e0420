"""Dividing samples into parts of given shares: every class in its share, no group divided.

Numbers are whole, and chance is SHA-256 of seed and id, so that every machine and every version of
numpy divides alike, whatever the order of the rows. ``splits`` says which parts are wanted.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

N_BINS = 10  # of continuous labels: deciles


def divide(
    shares: Sequence[int],
    ids: NDArray[np.str_],
    labels: NDArray[np.number],
    groups: NDArray[np.str_] | None = None,
    seed: int = 0,
    given: NDArray[np.integer] | None = None,
) -> NDArray[np.intp]:
    """The part of each sample. S samples, P parts.

    Single labels without groups are divided exactly (see ``apportion``): each part has its share of
    S by largest remainder. Several labels at once, and groups, are divided greedily (see ``assign_units``): the
    parts are near their shares, as near as the largest groups allow.

    Args:
        shares: (P,) 1 and more each, of their sum; at least one sample or group for each.
        ids: (S,) unique.
        labels: (S,) class numbers, (S, C) of several labels where 1 counts, or (S,) floating,
            which are divided by deciles. What is missing is a class of its own.
        groups: (S,) what must stay together; an empty text is no group.
        seed: another one divides another way.
        given: (S,) the part of samples that have one already, else -1; the same for all of a group.
            The others are then divided greedily, so that the whole comes near the shares.

    Returns:
        (S,) 0 to P - 1.
    """
    units = name_units(ids, groups)
    names, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    order = np.argsort(_chance(names, seed))
    if labels.ndim == 1 and len(names) == len(ids) and given is None:
        strata = _strata(labels, len(shares))[np.argsort(unit_of)]
        return assign_classes(strata, shares, order)[unit_of]
    if labels.ndim == 1:
        strata = _strata(labels, len(shares))
        n_classes = int(strata.max()) + 1
        cells = np.bincount(unit_of * n_classes + strata, minlength=len(names) * n_classes)
        counts = cells.reshape(len(names), n_classes)
    else:
        counts = np.zeros((len(names), labels.shape[1]), np.int64)
        np.add.at(counts, unit_of, labels == 1)
    sizes = np.bincount(unit_of, minlength=len(names))
    of_units = None if given is None else given[first]
    return assign_units(sizes, counts, shares, order, of_units)[unit_of]


def count_units(ids: NDArray[np.str_], groups: NDArray[np.str_] | None) -> int:
    """How many things there are to divide: samples, or groups where they are known."""
    return len(np.unique(name_units(ids, groups)))


def name_units(ids: NDArray[np.str_], groups: NDArray[np.str_] | None) -> NDArray[np.str_]:
    """(S,) what is never divided; prefixed, as an id may equal the name of a group."""
    alone = np.char.add("sample ", ids)
    return alone if groups is None else np.where(groups == "", alone, np.char.add("group ", groups))


def _chance(names: NDArray[np.str_], seed: int) -> NDArray[np.bytes_]:
    """A fixed random text for each name: sorted by it, names are shuffled.

    Not numpy's generator, whose streams may change with its version, and for which a name's number
    would depend on all the names before it.
    """
    digests = [hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest() for name in names.tolist()]
    return np.array(digests, dtype="S64")


def _strata(labels: NDArray[np.number], n_parts: int) -> NDArray[np.int64]:
    """(S,) 0 to C - 1: classes as they are numbered, continuous labels by deciles."""
    if labels.dtype.kind != "f":
        return np.unique(labels, return_inverse=True)[1]
    known = np.sort(labels[~np.isnan(labels)])
    n_bins = max(1, min(N_BINS, len(known) // n_parts))
    # Order statistics, no interpolation: equal everywhere, and equal values share a bin.
    edges = known[[len(known) * i // n_bins for i in range(1, n_bins)]] if len(known) else known
    bins = np.searchsorted(edges, labels, side="right")
    return np.unique(np.where(np.isnan(labels), len(edges) + 1, bins), return_inverse=True)[1]


# ---------------------------------------------------------------------------- single labels


def assign_classes(
    strata: NDArray[np.int64], shares: Sequence[int], order: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The part of each sample of a known class: shares of S and of every class.

    Args:
        strata: (S,) classes from 0.
        shares: (P,) of their sum.
        order: (S,) the samples, shuffled.
    """
    quotas = apportion(np.bincount(strata), shares)
    part = np.empty(len(strata), np.intp)
    shuffled = strata[order]
    for stratum, quota in enumerate(quotas):
        part[order[shuffled == stratum]] = np.repeat(np.arange(len(shares)), quota)
    return part


def apportion(
    counts: Sequence[int] | NDArray[np.integer], shares: Sequence[int]
) -> list[list[int]]:
    """How many samples of each class go to each part. C classes, P parts.

    Class after class, the smallest first, by largest remainder; what rounding owes to a part is
    handed on to the next class. So the last class makes the parts' sizes those of the largest
    remainder of all samples. A class of P samples and more is in every part that is large enough to
    hold one of each such class; of a handful of samples, that may cost a part's size one or two.

    Returns:
        (C, P) counts; row c sums to ``counts[c]``.
    """
    whole, n_parts, n = sum(shares), len(shares), int(sum(counts))
    n_large = sum(count >= n_parts for count in counts)
    holds_each = [share * n // whole >= n_large for share in shares]
    quotas = [[0] * n_parts for _ in counts]
    owed = [0] * n_parts  # in 1 / whole of a sample, so that nothing is ever rounded
    for c in sorted(range(len(counts)), key=lambda c: (counts[c], c)):
        count = int(counts[c])
        wanted = [share * count + debt for share, debt in zip(shares, owed, strict=True)]
        least = [int(holds and count >= n_parts) for holds in holds_each]
        quota = [max(want // whole, low) for want, low in zip(wanted, least, strict=True)]
        while sum(quota) > count:  # rare: many small classes have filled a part
            spare = [p for p in range(n_parts) if quota[p] > least[p]]
            quota[max(spare, key=lambda p: quota[p] * whole - wanted[p])] -= 1
        while sum(quota) < count:
            quota[max(range(n_parts), key=lambda p: wanted[p] - quota[p] * whole)] += 1
        owed = [want - got * whole for want, got in zip(wanted, quota, strict=True)]
        quotas[c] = quota
    return quotas


# ---------------------------------------------------------------------------- several, and groups


def assign_units(
    sizes: NDArray[np.integer],
    counts: NDArray[np.integer],
    shares: Sequence[int],
    order: NDArray[np.intp],
    given: NDArray[np.integer] | None = None,
) -> NDArray[np.intp]:
    """The part of each unit (a group, or a sample of several labels), greedily. U units, P parts.

    The idea of Sechidis et al. 2011, for units of any size: the largest first, among equals the one
    with the rarest class, each to the part that lacks most of what it brings, in shares of the
    whole. A part that has no room for it takes it only where none has. Before that every part gets
    a unit of each class that has one for each, the smallest there is.

    Args:
        sizes: (U,) samples of each unit.
        counts: (U, C) how many samples of each class it brings.
        shares: (P,) of their sum.
        order: (U,) the units, shuffled: decides among equals.
        given: (U,) the part of units that have one already, else -1; they stay.
    """
    whole, parts = sum(shares), range(len(shares))
    brings = [
        [(0, int(size)), *((int(c) + 1, int(row[c])) for c in np.flatnonzero(row))]
        for size, row in zip(sizes, counts, strict=True)
    ]
    totals = [int(sizes.sum()), *(int(n) for n in counts.sum(axis=0))]
    # Squared distances from the shares: of each class in parts of the class, of each part in parts
    # of its share. Scaled to whole numbers, which sum up alike everywhere.
    weight = [(1 << 64) // max(total, 1) ** 2 for total in totals]
    scale = [math.lcm(*shares) // share for share in shares]
    lack = [[share * total for total in totals] for share in shares]
    part = np.full(len(sizes), -1, np.intp)

    def give(unit: int, p: int) -> None:
        part[unit] = p
        for c, n in brings[unit]:
            lack[p][c] -= whole * n

    def gain(unit: int, p: int) -> int:
        """By how much the squared distance shrinks."""
        nearer = (weight[c] * n * (2 * lack[p][c] - whole * n) for c, n in brings[unit])
        return scale[p] * sum(nearer)

    def has_room(unit: int, p: int) -> bool:
        return lack[p][0] >= whole * int(sizes[unit])

    if given is not None:
        for unit in np.flatnonzero(given >= 0).tolist():
            give(unit, int(given[unit]))
    place = np.argsort(order)
    rarest = np.array(
        [min((totals[c] for c, _ in brought[1:]), default=totals[0]) for brought in brings]
    )
    for c in sorted(range(1, len(totals)), key=lambda c: (totals[c], c)):
        holders = np.flatnonzero(counts[:, c - 1])
        if len(holders) < len(shares):
            continue
        smallest = iter(holders[np.lexsort((place[holders], sizes[holders]))].tolist())
        for p in sorted(parts, key=lambda p: shares[p]):
            if lack[p][c] < shares[p] * totals[c]:
                continue  # has one already
            unit = next((unit for unit in smallest if part[unit] < 0), None)
            if unit is not None and has_room(unit, p):
                give(unit, p)
    for unit in np.lexsort((place, rarest, -sizes)).tolist():
        if part[unit] < 0:
            gains = [gain(unit, p) for p in parts]
            fitting = [p for p in parts if has_room(unit, p)]
            give(unit, max(fitting or parts, key=gains.__getitem__))
    return part
