"""Two models' right and wrong answers to the same independent samples: who wins where they differ.

Samples that both answer rightly, or neither, say nothing of which is better: McNemar's test counts
the others. Its mid-p form lies nearest to the level it promises; the exact one is below it, and the
chi-squared one at times above (Fagerland, Lydersen, Laake 2013, BMC Med Res Methodol 13:91). For the
difference of the two accuracies the same authors (2014, Stat Med 33:2850) recommend both intervals
that are here. Of 40 to 2000 samples with 4 to 30 % discordant ones Newcombe's held the truth 94 to 99.9 %
of the time and Tango's 94 to 99, at the same width, and Newcombe's says other things of 0 than the
test does less often (up to 4 % of the time, Tango's up to 8): it is the one that is printed. Where patients have several samples none of it holds: see ``swaps.py``.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from probe.arrays import Bools
from probe.metrics.jackknife import wilson

STEPS = 60  # of bisection: an interval of 2 is then under 1e-17


@dataclass(frozen=True)
class Discordance:
    """How many samples are answered rightly by whom."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def value(self) -> float:
        """A's accuracy less B's."""
        return (self.only_a - self.only_b) / self.n


def discordance(a: Bools, b: Bools) -> Discordance:
    """Count.

    Args:
        a: (N,) whether the first model's answer is right.
        b: (N,) whether the second's is.
    """
    return Discordance(
        int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())
    )


def mid_p(found: Discordance) -> float:
    """Two-sided mid-p McNemar: twice the smaller tail, less the chance of what was seen.

    1 where the models differ nowhere, or win equally often.
    """
    n, fewer = found.only_a + found.only_b, min(found.only_a, found.only_b)
    if n == 2 * fewer:
        return 1.0
    seen = math.exp(
        math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2)
    )
    won = np.arange(fewer, 0, -1)
    below = float(np.cumprod(won / (n - won + 1)).sum())  # as multiples of what was seen
    return min(1.0, seen * (1 + 2 * below))


def newcombe(found: Discordance, level: float = 0.95) -> tuple[float, float]:
    """Newcombe's (1998, Stat Med 17:2635) method 10 for the difference of two paired shares.

    Each end goes by Wilson's intervals of both shares, squared and added, less what the answers'
    correlation takes; it is corrected for continuity where it is positive.
    """
    n = found.n
    of_a, of_b = found.both + found.only_a, found.both + found.only_b
    a, b = of_a / n, of_b / n
    (low_a, high_a), (low_b, high_b) = wilson(a, n, level), wilson(b, n, level)
    spread = math.sqrt(of_a * (n - of_a) * of_b * (n - of_b))
    moment = found.both * found.neither - found.only_a * found.only_b
    if moment > 0:
        moment = max(moment - n / 2, 0)
    phi = moment / spread if spread else 0.0

    def reach(own: float, other: float) -> float:
        return math.sqrt(max(own**2 - 2 * phi * own * other + other**2, 0))

    return found.value - reach(a - low_a, high_b - b), found.value + reach(high_a - a, b - low_b)


def tango(found: Discordance, level: float = 0.95) -> tuple[float, float]:
    """Tango's (1998, Stat Med 17:891) score interval for the difference of two paired shares.

    It holds each difference that the score test doesn't reject at 1 - level; at the difference 0
    that is McNemar's test without correction.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)

    def end(wanted: float) -> float:
        low, high = -1.0, 1.0  # the score falls from one to the other
        for _ in range(STEPS):
            middle = (low + high) / 2
            if _score(found, middle) > wanted:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return end(z), end(-z)


def _score(found: Discordance, difference: float) -> float:
    """How many standard errors what was seen lies above a difference; it falls with that."""
    n, b, c = found.n, found.only_a, found.only_b
    # The likeliest share of samples that B alone answers rightly, given the difference: of a
    # quadratic equation the larger root.
    half = (2 * n - b + c) * difference - b - c
    q = (math.sqrt(max(half**2 + 8 * n * c * difference * (1 - difference), 0)) - half) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    above = b - c - n * difference
    if variance <= 0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(variance)
