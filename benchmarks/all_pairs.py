"""How often all-pairs tests put a model below another that isn't worse, and ranks hold the truth.

    python benchmarks/all_pairs.py            # a minute; status 1 where the gate is shut

Models answer n independent images; two of them disagree on a tenth. Each test set is tested by the
max-T bootstrap and by Holm over mid-p McNemar (Fagerland, Lydersen and Laake 2013). "false": test
sets in which some model is put below another that isn't better. "ranks": test sets in which every
model's set of ranks holds its true ones. "marked": models that are not separated from the best. The
gate: false at most 6 %, ranks at least 94 %, but for two standard errors of chance.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field

import numpy as np

from probe.arrays import Bools, Doubles
from probe.report.statistics.discordant import discordance, mid_p
from probe.report.statistics.families import HOLM, MAX_T, Family, by_holm, by_max_t, gains_of

BEST, DISAGREE = 0.85, 0.1  # accuracy; share of images that two equal models disagree on
GATE = 0.06
DRAWS = 500
CASES = [  # models, images, how far each model is below the one before it
    *((6, 156, 0.0), (12, 156, 0.0), (12, 50, 0.0), (6, 400, 0.0), (12, 400, 0.0)),
    *((6, 156, 0.002), (12, 156, 0.002), (6, 400, 0.02)),
]


@dataclass
class Counts:
    """What one method found."""

    false: int = 0
    held: int = 0
    marked: list[float] = field(default_factory=list)

    def add(self, family: Family, truth: Doubles) -> None:
        """Count one test set."""
        self.false += bool((family.above & (truth[:, None] <= truth[None, :])).any())
        lows = 1 + (truth[:, None] < truth[None, :]).sum(axis=1)
        highs = len(truth) - (truth[:, None] > truth[None, :]).sum(axis=1)
        self.held += all(
            ranks.low <= high and ranks.high >= low
            for ranks, low, high in zip(family.ranks, lows, highs, strict=True)
        )
        self.marked.append(float(family.not_separated.mean()))


def mcnemar(answers: Bools) -> Doubles:
    """(K, K) p of each pair, from (K, N) right answers."""
    p = np.full((len(answers), len(answers)), np.nan)
    for j, k in zip(*np.triu_indices(len(answers), 1), strict=True):
        one, other = answers[j], answers[k]
        p[j, k] = p[k, j] = mid_p(discordance(one, other))
    return p


def simulate(n_models: int, n: int, step: float, n_sets: int, seed: int) -> dict[str, Counts]:
    """Count what both methods find in so many test sets."""
    rng = np.random.default_rng([seed, n_models, n])
    truth = BEST - step * np.arange(n_models, dtype=np.float64)
    alike = 1 - DISAGREE / (2 * BEST * (1 - BEST))  # share of images that all find equally hard
    counts = {MAX_T: Counts(), HOLM: Counts()}
    for _ in range(n_sets):
        hard = np.where(rng.random(n) < alike, rng.random(n), rng.random((n_models, n)))
        answers = hard < truth[:, None]
        values = np.asarray(answers.mean(axis=1), np.float64)
        drawn = rng.multinomial(n, np.full(n, 1 / n), DRAWS) @ answers.T / n
        counts[MAX_T].add(by_max_t([values], [drawn])[0], truth)
        counts[HOLM].add(by_holm([gains_of(values)], [mcnemar(answers)])[0], truth)
    return counts


def main() -> int:
    """Print a line a case; 1 where the gate is shut."""
    parser = argparse.ArgumentParser(description="How often all-pairs tests are wrong.")
    parser.add_argument("--sets", type=int, default=400, help="test sets a case (400)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = 2 * math.sqrt(GATE * (1 - GATE) / options.sets)
    is_shut = False
    print("models  images  step   method            false  ranks  marked")
    for n_models, n, step in CASES:
        for method, found in simulate(n_models, n, step, options.sets, options.seed).items():
            false, held = found.false / options.sets, found.held / options.sets
            is_shut |= false > GATE + chance or held < 1 - GATE - chance
            print(
                f"{n_models:6}  {n:6}  {step:<5g}  {method:16}  {false:5.1%}  {held:5.1%}  "
                f"{np.mean(found.marked):.0%}",
                flush=True,
            )
    return int(is_shut)


if __name__ == "__main__":
    raise SystemExit(main())
