"""Families of tests: which of K models are below another, all pairs tested together.

Six models that are all equal have 15 pairs, and some pair is "significant" far more often than 5 %
of the time. Testing each against the best doesn't help, for the best was picked on the same test
set. So every pair counts, in one of two ways that keep the chance of any false difference at the
level:

    Holm (1979)    over p-values of any test, paired ones say; assumes nothing of them
    max-T          over resamples of the metrics, the same resample for all models (Romano and Wolf
                   2005): knows that differences go together, and so tells more apart

A model that no test puts below another is *not separated from the best*: that isn't a tie, for
with more patients it may be. Counted the other way round, the same tests give each model a set of
ranks, and all K sets hold the true ranks at once, as often as the level says (Mogstad, Romano,
Shaikh and Wilhelm 2024). The percentile bootstrap of ranks doesn't: of 12 near-equal models it held
the true ranks 23 times of 100.

Simulated (benchmarks/all_pairs.py; accuracy .85, pairs that disagree on a tenth of images): of 6 or
12 models that are all equal, max-T puts some model below another in 4 to 5 % of test sets of 156 to
2000 images, Holm over mid-p McNemar in 2 to 5; of models .002 apart all sets of ranks hold in 99 %.
Of 50 images neither ever does: they are too few to tell anything apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cache.errors import RequestError
from probe.arrays import Bools, Doubles, Indices

HOLM, MAX_T = "Holm", "max-T bootstrap"
CHUNK_CELLS = 2**22  # statistics of resamples in work at one time
ROUNDING = 1e-12  # of a spread, as a share of the metric


class Ranks(NamedTuple):
    """The ranks that a model may have, both ends among them; 1 is the best."""

    low: int
    high: int


@dataclass(frozen=True)
class Family:
    """All-pairs tests of K models by one metric on one test set, or on several.

    ``p`` is nan on the diagonal, and where two models weren't tested.
    """

    gains: Doubles  # (K, K) how much the row's model is above the column's
    p: Doubles  # (K, K) two-sided, adjusted for all tests of the family
    level: float
    method: str  # HOLM or MAX_T
    n_tests: int  # of the whole family: pairs, times test sets and metrics where it spans several
    low: Doubles | None = None  # (K, K) simultaneous intervals of the gains, of MAX_T alone
    high: Doubles | None = None

    @property
    def above(self) -> Bools:
        """(K, K) whether a test puts the row's model above the column's."""
        return (self.p <= self.level) & (self.gains > 0)

    @property
    def not_separated(self) -> Bools:
        """(K,) models that were tested, and that no test puts below another."""
        is_tested = np.isfinite(self.p).any(axis=1) | (len(self.p) == 1)  # one alone needs none
        return np.asarray(~self.above.any(axis=0) & is_tested)

    @property
    def ranks(self) -> list[Ranks]:
        """Each model's; together they hold all true ranks as often as 1 - level, or more."""
        n_better, n_worse = self.above.sum(axis=0), self.above.sum(axis=1)
        return [
            Ranks(1 + int(better), len(self.p) - int(worse))
            for better, worse in zip(n_better, n_worse, strict=True)
        ]

    def describe(self) -> str:
        """The family, in words: "Holm over all 15 pairs, level 0.05"."""
        n_pairs = int(np.isfinite(self.p[np.triu_indices(len(self.p), 1)]).sum())
        whole = "one pair" if n_pairs == 1 else f"all {n_pairs} pairs"
        if n_pairs < self.n_tests:
            whole += f", {self.n_tests} tests with those of other columns"
        return f"{self.method} over {whole}, level {self.level:g}"


def holm(p: Doubles) -> Doubles:
    """Adjusted p-values: each may be read against the level as if it were alone (Holm 1979).

    Args:
        p: (T,), nan where there was no test; those aren't counted.

    Returns:
        (T,) in 0..1, nan where there was no test.
    """
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return adjusted


def better_than_all(gains: Doubles, p: Doubles) -> float:
    """p that one is better than each of several others (intersection-union test, Berger 1982).

    The largest of the p, whose level is each test's own; it needs no correction for their number, nor
    does it matter which of the others looks best on test. 1 where one of them isn't behind.

    Args:
        gains: (T,) how much better it is than each, above 0 where it is.
        p: (T,) two-sided, of each difference.

    Returns:
        nan where a difference has no p.
    """
    if np.isnan(p).any() or np.isnan(gains).any():
        return math.nan
    return float(np.max(p)) if (gains > 0).all() else 1.0


def by_holm(
    gains: Sequence[Doubles], p: Sequence[Doubles], level: float = 0.05
) -> tuple[Family, ...]:
    """A family of tests that were made pair by pair, on one test set or on several.

    Args:
        gains: (K, K) of each test set, see ``gains_of``; K may differ.
        p: (K, K) of each, two-sided, symmetric; nan where two models weren't tested.
        level: the chance of any false difference, in the whole family.

    Returns:
        One for each test set, adjusted for the tests of all.
    """
    places = [np.triu_indices(len(each), 1) for each in p]
    flat = [each[place] for each, place in zip(p, places, strict=True)]
    adjusted = holm(np.concatenate(flat)) if flat else np.empty(0)
    n_tests = int(np.isfinite(adjusted).sum())
    ends = np.cumsum([len(each) for each in flat])[:-1]
    found = []
    for gain, place, part in zip(gains, places, np.split(adjusted, ends), strict=True):
        whole = np.full_like(gain, np.nan, dtype=np.float64)
        whole[place] = whole.T[place] = part
        found.append(Family(gain, whole, level, HOLM, n_tests))
    return tuple(found)


def by_max_t(
    values: Sequence[Doubles], resampled: Sequence[Doubles], level: float = 0.05
) -> tuple[Family, ...]:
    """A family of paired tests by the largest studentised difference over resamples, stepwise.

    Each ordered pair is a hypothesis, "the first isn't above the second". Those with large t go
    first; each is held against the largest t* that resamples, moved to no difference, give among
    itself and those that follow (Romano and Wolf 2005, with Westfall and Young's 1993 minima).

    Args:
        values: (K,) metrics of each test set, larger is better (negate a loss); K may differ.
        resampled: (R, K) of each, of the same R. A resample is one draw of patients for all models
            of a test set; test sets that share patients are drawn together.
        level: the chance of any false difference, in the whole family.

    Returns:
        One for each test set, adjusted for the tests of all. No p is below 1 / (R + 1). Two models
        whose difference no resample moves aren't tested unless it is 0, where p is 1. Intervals
        are simultaneous over the family, single-step.

    Raises:
        RequestError: a value isn't finite (leave the model out), or fewer than 100 resamples are
            defined in every column (a metric may be undefined where a draw lacks a class).
    """
    if any(not np.isfinite(each).all() for each in values):
        raise RequestError("a model without a value is in no family: leave it out")
    defined = np.logical_and.reduce([np.isfinite(each).all(axis=1) for each in resampled])
    if defined.sum() < 100:
        raise RequestError(
            f"{int(defined.sum())} of {len(defined)} resamples are defined: tests need 100; test "
            "pair by pair instead"
        )
    parts = [_moved(value, drawn[defined]) for value, drawn in zip(values, resampled, strict=True)]
    t = np.concatenate([part.t for part in parts])
    p, largest = _step_down(t, np.concatenate([part.drawn for part in parts], axis=1))
    n_tests = int(np.isfinite(p).sum())
    n_draws = len(largest)
    place = min(int(np.ceil((1 - level) * (n_draws + 1))), n_draws) - 1
    wide = float(np.sort(largest)[place])
    found, first = [], 0
    for value, part in zip(values, parts, strict=True):
        gain, whole = gains_of(value), np.full((len(value), len(value)), np.nan)
        half = whole.copy()
        one, other = part.pairs
        whole[one, other] = whole[other, one] = p[first : first + len(one)]
        half[one, other] = half[other, one] = wide * part.spread
        first += len(one)
        found.append(Family(gain, whole, level, MAX_T, n_tests, gain - half, gain + half))
    return tuple(found)


def gains_of(values: Doubles) -> Doubles:
    """(K, K) how much each model is above each other, from (K,) values of which larger is better."""
    return values[:, None] - values[None, :]


class _Moved(NamedTuple):
    """Studentised differences of all P pairs of a test set."""

    pairs: tuple[Indices, Indices]
    spread: Doubles  # (P,) over resamples; nan where nothing moves a difference
    t: Doubles  # (P,); 0 where there is no difference and nothing moves it
    drawn: Doubles  # (R, P), moved to no difference


def _moved(values: Doubles, drawn: Doubles) -> _Moved:
    pairs = np.triu_indices(len(values), 1)
    gain = values[pairs[0]] - values[pairs[1]]
    moved = drawn[:, pairs[0]] - drawn[:, pairs[1]]
    spread = moved.std(axis=0, ddof=1)
    is_still = spread <= ROUNDING * np.maximum(1, np.abs(gain))
    is_equal = is_still & (np.abs(gain) <= ROUNDING)
    scale = np.where(is_still, 1, spread)
    t = np.where(is_equal, 0, np.where(is_still, np.nan, gain / scale))
    centred = np.where(is_still, 0, (moved - gain) / scale)
    return _Moved(pairs, np.where(is_equal, 0, np.where(is_still, np.nan, spread)), t, centred)


def _step_down(t: Doubles, drawn: Doubles) -> tuple[Doubles, Doubles]:
    """Adjusted p of each pair, nan where t is, and (R,) the largest |t*| of each resample.

    Both directions of a pair are hypotheses. That of t < 0 is never rejected, so it stays among
    those that every other one is held against.
    """
    tested = np.flatnonzero(~np.isnan(t))
    order = tested[np.argsort(-np.abs(t[tested]), kind="stable")]
    size, sign = np.abs(t[order]), np.where(t[order] < 0, -1.0, 1.0)
    n_draws = len(drawn)
    counts, largest = np.zeros(len(order)), np.zeros(n_draws)
    step = max(1, CHUNK_CELLS // max(1, len(order)))
    for first in range(0, n_draws if len(order) else 0, step):
        part = drawn[first : first + step, order] * sign
        following = np.maximum.accumulate(part[:, ::-1], axis=1)[:, ::-1]
        others = (-part).max(axis=1)
        rivals = np.maximum(following, others[:, None])
        largest[first : first + step] = rivals[:, 0]
        counts += (rivals >= size - ROUNDING).sum(axis=0)
    p = np.full(len(t), np.nan)
    if len(order):
        p[order] = np.maximum.accumulate((1 + counts) / (n_draws + 1))
    return p, largest
