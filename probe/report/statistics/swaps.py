"""Whether two models differ, by swapping their answers to whole patients.

If it made no difference which model answered, each patient's two sets of answers might as well be
exchanged: all of a patient's samples at once, as they are not independent. p is how often the
difference of the two models thus made is as large as the one that was seen. That needs no
distribution, and holds for any number of patients and any metric. Scores of two models aren't on one
scale, so that for metrics of ranks the ranks are swapped (Venkatraman and Begg 1996, Biometrika
83:835).

Patients whose answers are the same move nothing and aren't counted. Of D others all 2^D swaps are
made up to ``EXHAUSTIVE``; their mirror images differ in sign only, so that the smallest p is
2^(1 - D). Of more, swaps are drawn, and the one that was seen counts among them.

Of the AUC every swap costs one sum. A pair of a positive and a negative is in order or not by which
model's rank each of both has; what depends on both choices together is the same in the two models,
and cancels. So the difference is the sum over patients of +g or -g, with g from the placements of
both models' ranks among the ranks of both.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from probe.arrays import Array, Bools, Doubles, Floats, Indices
from probe.metrics.metric import RANKS, Metric, Prepared
from probe.metrics.ranking import Ranking, below

EXHAUSTIVE = 12  # patients: 2048 swaps and their mirror images
N_SWAPS, FEWEST = 10_000, 999  # to draw; the fewer give a p of .001 at least
AFFORDABLE = 2**30  # numbers to look at, about ten seconds
ROUNDING = 1e-9  # of a difference of metrics
CHUNK_CELLS = 2**22


class Swapping(NamedTuple):
    """What can be swapped, and what comes of it."""

    n: int  # units whose swap may move the difference
    difference: Callable[[Bools], Doubles]  # (R, n) which of them are swapped -> (R,)
    cost: int = 0  # numbers that one swap looks at, where they are many


def swapping(metric: Metric, a: Prepared, b: Prepared, cluster: Indices) -> Swapping:
    """Two models' answers to the same samples, ready to be swapped.

    Args:
        metric: one that both have, of sums or of ranks.
        a: one model's answers to N samples.
        b: the other's.
        cluster: (N,) number of each sample's unit, all from 0.
    """
    if metric.name == "auc":
        return _of_placements(a, b, cluster)
    return (
        _of_ranks(metric, a, b, cluster)
        if metric.needs == RANKS
        else _of_sums(metric, a, b, cluster)
    )


def swap_p(of: Swapping, n_swaps: int = N_SWAPS, seed: int = 0) -> float:
    """How often a swap makes the difference as large as it is, in either direction; two-sided.

    Args:
        of: see ``swapping``.
        n_swaps: to draw, where units are more than ``EXHAUSTIVE``; at times ``FEWEST``, of what is
            too costly for more.
        seed: of the draw.

    Returns:
        Above 0, up to 1; 1 where no unit moves anything.
    """
    if of.n == 0:
        return 1.0
    seen = abs(float(of.difference(np.zeros((1, of.n), np.bool_))[0]))
    if of.n <= EXHAUSTIVE:
        # The last one stays: the other half are mirror images.
        number = np.arange(2 ** (of.n - 1))[:, None]
        swapped = (number >> np.arange(of.n) & 1).astype(np.bool_)
        return float(_is_as_large(of.difference(swapped), seen).mean())
    if of.cost:
        n_swaps = min(n_swaps, max(FEWEST, AFFORDABLE // of.cost))
    found, rng = 1, np.random.default_rng(seed)
    for rows in _rows(n_swaps, of.n):
        swapped = rng.integers(2, size=(rows, of.n), dtype=np.uint8).astype(np.bool_)
        found += int(_is_as_large(of.difference(swapped), seen).sum())
    return found / (n_swaps + 1)


def _is_as_large(differences: Doubles, seen: float) -> Bools:
    """An undefined one is, to be on the safe side."""
    return np.logical_not(np.abs(differences) < seen - ROUNDING)


def _rows(n: int, width: int) -> Iterator[int]:
    """Sizes of consecutive chunks."""
    size = max(1, CHUNK_CELLS // width)
    yield from (min(size, n - start) for start in range(0, n, size))


def unit_sums(part: Array, cluster: Indices) -> Doubles:
    """(U, ...) sums of (N, ...) contributions over each unit's samples."""
    n_units = int(cluster.max()) + 1
    if n_units == len(part) and (np.diff(cluster) == 1).all():
        return part.astype(np.float64)
    sums = np.zeros((n_units, *part.shape[1:]))
    np.add.at(sums, cluster, part)
    return sums


def _of_sums(metric: Metric, a: Prepared, b: Prepared, cluster: Indices) -> Swapping:
    of_a, of_b = (unit_sums(answers.parts[metric.needs], cluster) for answers in (a, b))
    moved = (of_b - of_a).reshape(len(of_a), -1)
    differs = moved != 0
    moved = moved[differs.any(axis=1)]
    columns = differs.any(axis=0)  # what is labelled is the same for both
    moved, base_a, base_b = moved[:, columns], of_a.sum(axis=0), of_b.sum(axis=0)

    def difference(swapped: Bools) -> Doubles:
        shift = np.zeros((len(swapped), columns.size))
        shift[:, columns] = swapped.astype(np.float64) @ moved
        shift = shift.reshape(-1, *base_a.shape)
        return metric.of(base_a + shift, a.task) - metric.of(base_b - shift, a.task)

    return Swapping(len(moved), difference)


def ranked(problem: Ranking) -> Doubles:
    """(N,) ranks of one column's scores, ties in the middle; 0 of samples whose label is missing."""
    known = np.concatenate([problem.positives, problem.negatives])
    ascending = np.sort(problem.scores[known])
    less, less_or_same = below(problem.scores[known], ascending)
    ranks = np.zeros(problem.n_samples)
    ranks[known] = (less + less_or_same + 1) / 2
    return ranks


def _both(a: Ranking, b: Ranking) -> tuple[Ranking, Floats]:
    """Both models' ranks as one problem of 2 N samples, and those ranks, (2, N)."""
    ranks = np.stack([ranked(a), ranked(b)])
    positive, negative = np.zeros(a.n_samples, np.bool_), np.zeros(a.n_samples, np.bool_)
    positive[a.positives], negative[a.negatives] = True, True
    return Ranking(ranks.ravel(), np.tile(positive, 2), np.tile(negative, 2)), ranks


def _of_placements(a: Prepared, b: Prepared, cluster: Indices) -> Swapping:
    moves = np.zeros(len(cluster))
    for of_a, of_b in zip(a.problems, b.problems, strict=True):
        problem, _ = _both(of_a, of_b)
        both = np.zeros(2 * len(cluster))
        for where, placements in zip(
            (problem.positives, problem.negatives), problem.placements(), strict=True
        ):
            both[where] = placements / (len(where) / 2)
        moves += (both[: len(cluster)] - both[len(cluster) :]) / len(a.problems)
    of_units = np.bincount(cluster, moves)
    of_units = of_units[np.abs(of_units) > ROUNDING / len(cluster)]
    return Swapping(len(of_units), lambda swapped: (1 - 2.0 * swapped) @ of_units)


def _of_ranks(metric: Metric, a: Prepared, b: Prepared, cluster: Indices) -> Swapping:
    found = [_both(*pair) for pair in zip(a.problems, b.problems, strict=True)]
    differs = np.any([ranks[0] != ranks[1] for _, ranks in found], axis=0)
    units = np.unique(cluster[differs])
    place = np.searchsorted(units, cluster)
    place[~np.isin(cluster, units)] = len(units)  # never swapped

    def difference(swapped: Bools) -> Doubles:
        each = []
        for rows in np.array_split(swapped, -(-len(swapped) * len(cluster) // CHUNK_CELLS)):
            wide = np.pad(rows, np.array([[0, 0], [0, 1]]))[:, place].astype(np.int32)
            of_a, of_b = np.hstack([1 - wide, wide]), np.hstack([wide, 1 - wide])
            moved = [metric.of(problem, of_a) - metric.of(problem, of_b) for problem, _ in found]
            each.append(np.mean(moved, axis=0))
        return np.concatenate(each)

    return Swapping(len(units), difference, 2 * len(cluster) * len(found))
