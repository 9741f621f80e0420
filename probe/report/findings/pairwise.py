"""Each two lines of a contest beside each other over data sets: the multi-comparison matrix.

Ismail-Fawaz et al. 2023 (arXiv 2305.11921) show of each pair the mean difference, wins, ties, losses
and the signed-rank p, none of which depends on who else is compared; a critical-difference diagram's
ranks do. Here a set is won where the all-pairs tests of that set put one line above the other, and else
can't be told: a number that is larger alone wins nothing. There are no cliques.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from probe.report.findings.contest import Contest, Line
from probe.report.statistics.across import mean_of_units, pseudomedian, signed_rank

WON, LOST, OPEN = "won", "lost", "can't tell"


@dataclass(frozen=True)
class OnSet:
    """Two lines on one data set."""

    dataset: str
    gain: float  # how much better A is: of a loss B less A
    verdict: str  # WON, LOST or OPEN, of A by the tests of all pairs on this set


@dataclass(frozen=True)
class Duel:
    """Two lines over the data sets that both have."""

    a: Line
    b: Line
    gain: float  # how much better A is, the mean over units; nan where they share no set
    middle: float  # the pseudomedian over units, as `report compare` says it
    won: int  # sets
    open: int  # sets that can't tell, those without a test among them
    lost: int
    p: float  # exact signed-rank over units, of this pair alone
    adjusted: float  # by Holm over all pairs of the table
    n_units: int  # data sets that share patients are one
    sets: tuple[OnSet, ...]

    def turned(self) -> "Duel":
        """B beside A."""
        verdicts = {WON: LOST, LOST: WON, OPEN: OPEN}
        return replace(
            self,
            a=self.b,
            b=self.a,
            gain=-self.gain,
            middle=-self.middle,
            won=self.lost,
            lost=self.won,
            sets=tuple(OnSet(of.dataset, -of.gain, verdicts[of.verdict]) for of in self.sets),
        )


def pairwise(contest: Contest) -> list[Duel]:
    """Every pair of lines, each once, in the order of the lines.

    Args:
        contest: whose columns are data sets.
    """
    lines, columns = contest.lines, contest.columns
    better = -contest.values if contest.metric.is_loss else contest.values
    above = {column: contest.above(column) for column in columns}
    units = contest.units or tuple((column,) for column in columns)
    found = []
    for j, k in itertools.combinations(range(len(lines)), 2):
        gains = better[:, j] - better[:, k]
        sets = []
        for column, gain in zip(columns, gains, strict=True):
            if not math.isnan(gain):
                won, lost = above[column][j, k], above[column][k, j]
                sets.append(OnSet(column, float(gain), WON if won else LOST if lost else OPEN))
        means = mean_of_units(gains, columns, units)
        means = means[~np.isnan(means)]
        verdicts = [of.verdict for of in sets]
        found.append(
            Duel(
                a=lines[j],
                b=lines[k],
                gain=float(means.mean()) if len(means) else math.nan,
                middle=pseudomedian(means),
                won=verdicts.count(WON),
                open=verdicts.count(OPEN),
                lost=verdicts.count(LOST),
                p=signed_rank(means).p if len(sets) > 1 else math.nan,
                adjusted=float(contest.over.p[j, k]) if contest.over else math.nan,
                n_units=len(means),
                sets=tuple(sets),
            )
        )
    return found
