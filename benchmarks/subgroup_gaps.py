"""How large the gap of subgroups is where nothing differs, and how often its p is small.

    python benchmarks/subgroup_gaps.py        # two minutes; status 1 where the gate is shut

Subgroups differ in nothing: of 2 or 5 subgroups of 50 or 200 samples (accuracy .85, so an AUC of about
.93; half are positive), alone or as two samples a patient that are answered alike (correlation .5).
"gap": the plain gap's mean; "null": the mean of its permutation null; "corrected": the mean of the
corrected gap; "p", "behind": share of test sets in which the gap's p, or that of the worst against the
rest, is .05 or less. The gate: 6 %, but for two standard errors of chance.
"""

from __future__ import annotations

import argparse

import numpy as np

from cache.task import BINARY
from probe.arrays import Doubles
from probe.metrics.classification import MARGIN
from probe.report.statistics.paired import Answers, Samples
from probe.report.statistics.subgroups import subgroups

SEPARATION = 2 * 1.0364  # of two normal distributions, whose accuracy is then .85
GATE = 0.06
CASES = [(2, 50), (5, 50), (5, 200)]  # subgroups, samples of each


def found_of(k: int, n: int, per_patient: int, draws: int, seed: int) -> dict[str, Doubles]:
    """Metric -> (sets, 5) gap, mean of its null, corrected, and both p."""
    rng = np.random.default_rng([seed, k, n, per_patient])
    found: dict[str, list[list[float]]] = {"acc": [], "auc": []}
    order = [f"group {number}" for number in range(k)]
    patient = np.arange(k * n) // per_patient
    labels = (patient % 2).astype(np.int64)
    names = np.array(order)[patient // 2 % k]  # as many of each class in each
    groups = np.char.add("p", patient.astype(str))
    for draw in range(draws):
        own = rng.normal(size=k * n)
        shared = rng.normal(size=int(patient.max()) + 1)[patient]
        noise = own if per_patient == 1 else np.sqrt(0.5) * (own + shared)
        score = SEPARATION * (labels - 0.5) + noise
        answers = Answers(np.stack([-score, score], axis=1), MARGIN)
        of = subgroups(
            answers, Samples(labels, BINARY, groups), names, order, n_permutations=199, seed=draw
        )
        for metric, gap in of.gaps.items():
            found[metric].append([gap.value, gap.null_mean, gap.corrected, gap.p, gap.p_behind])
    return {metric: np.array(each) for metric, each in found.items()}


def main() -> int:
    """Print the table; 1 where p is small too often."""
    parser = argparse.ArgumentParser(description="Gaps of subgroups where nothing differs.")
    parser.add_argument("--draws", type=int, default=600, help="test sets a cell (600)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bound = GATE + 2 * np.sqrt(0.05 * 0.95 / options.draws)
    print("subgroups  samples  a patient  metric    gap   null  corrected      p  behind")
    is_shut = False
    for k, n in CASES:
        for per_patient in (1, 2):
            of = found_of(k, n, per_patient, options.draws, options.seed)
            for metric, each in of.items():
                gap, null, corrected = each[:, :3].mean(axis=0)
                sizes = (each[:, 3:] <= 0.05).mean(axis=0)
                is_shut |= bool((sizes > bound).any())
                print(
                    f"{k:>9}  {n:>7}  {per_patient:>9}  {metric:>6}  {gap:.3f}  {null:.3f}  "
                    f"{corrected:>9.3f}  {sizes[0]:.3f}  {sizes[1]:>6.3f}"
                )
    return int(is_shut)


if __name__ == "__main__":
    raise SystemExit(main())
