"""How often paired intervals hold the true difference of two models, and how often p is wrong.

    python benchmarks/paired_coverage.py --sets 1000      # a quarter of an hour
    python benchmarks/paired_coverage.py --cases "patient" --units 12,30

Each test set is drawn anew, as in ``interval_coverage.py``: images of some class, alone or several of
a patient, and the scores of two models whose errors are in part the same. The models are equally
good, or one is better; what is true is measured on a set of 20 000 patients, of equals it is 0. A
cell is one metric of one kind of test set of one size:

    wrong     of equals: how often p is under .05; 5 % is right, less is allowed, over 6 % shuts the
              gate, where that is more than chance
    held      how often the interval holds the truth, of those that there are; under 94 % shuts it
    below,    how often the truth lies under, or over, the interval
    above
    apart     how often p and interval say other things of 0
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL
from probe.report.statistics.paired import Answers, Difference, Samples, differences

WRONG, HELD = 0.06, 0.94
SPREAD = 2.0  # standard errors of a cell's share that the gate allows for chance
FEWEST = 50  # intervals, without which a cell says nothing
TRUTH = 20_000  # patients
TRUE_SETS = 3  # sets of so many, whose mean is the truth
METRICS: tuple[str, ...] = ("auc", "acc", "balanced_accuracy", "f1_macro")
UNEQUAL = (1, 1, 1, 2, 2, 3, 5, 12)  # images of a patient


class Drawn(NamedTuple):
    """Two models' answers to a test set of N images."""

    a: Answers
    b: Answers
    test: Samples


@dataclass(frozen=True)
class Case:
    """A kind of test sets."""

    name: str
    task: str
    shares: tuple[float, ...]  # of the classes, or of each label's ones
    skills: tuple[float, float]  # how far classes lie apart, in standard deviations
    shared: float = 0.5  # correlation of the two models' noise
    images: tuple[int, ...] = (1,)  # of a patient: each of these equally often
    own: float = 0.0  # correlation of a patient's images
    by_image: bool = False  # whether images of one patient may be of several classes
    n_runs: int = 1  # trainings of each model
    run_sd: float = 0.0  # standard deviation of their skill
    tilt: float = 0.0  # b's scores of the first class lie so much higher: another operating point

    def draw(self, rng: np.random.Generator, n_patients: int) -> Drawn:
        """Posterior probabilities, as far as each model tells images apart."""
        patient = np.repeat(np.arange(n_patients), rng.choice(self.images, n_patients))
        n, n_classes = len(patient), len(self.shares)
        n_drawn = n if self.by_image else n_patients
        shares = np.array(self.shares)
        if self.task == MULTI_LABEL:
            labels = (rng.random((n_drawn, n_classes)) < shares).astype(int)
        else:
            labels = rng.choice(n_classes, n_drawn, p=shares)
        labels = labels if self.by_image else labels[patient]

        def noise() -> NDArray[np.float64]:
            of_patient = rng.normal(size=(n_patients, n_classes))[patient]
            of_image = rng.normal(size=(n, n_classes))
            return np.sqrt(self.own) * of_patient + np.sqrt(1 - self.own) * of_image

        common = noise()
        found = []
        for model, skill in enumerate(self.skills):
            of_model = noise()
            z = np.sqrt(self.shared) * common + np.sqrt(1 - self.shared) * of_model
            runs = [
                self._scores(z, labels, skill + self.run_sd * rng.normal(), model * self.tilt)
                for _ in range(self.n_runs)
            ]
            found.append(Answers(np.stack(runs) if self.n_runs > 1 else runs[0]))
        return Drawn(found[0], found[1], Samples(labels, self.task, patient.astype(str)))

    def _scores(
        self, z: NDArray[np.float64], labels: NDArray[Any], skill: float, tilt: float
    ) -> NDArray[np.float64]:
        shares = np.array(self.shares)
        if self.task == MULTI_LABEL:
            gap = skill * np.sqrt(2)
            logits = gap * (z + gap * labels - gap / 2) + np.log(shares / (1 - shares)) + tilt
            return 1 / (1 + np.exp(-logits))
        powers = np.log(shares) + skill * (z + skill * np.eye(len(shares))[labels])
        powers[:, 0] += tilt
        powers = np.exp(powers - powers.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def skill(auc: float) -> float:
    """What makes a binary AUC."""
    return NormalDist().inv_cdf(auc)


EVEN, RARE, FOUR = (0.5, 0.5), (0.73, 0.27), (0.4, 0.3, 0.2, 0.1)
THREE_LABELS = (0.5, 0.3, 0.2)
S80, S85, S95, S99 = (skill(auc) for auc in (0.80, 0.85, 0.95, 0.99))
CASES = (
    Case("images, equal", BINARY, RARE, (S80, S80)),
    Case("images, equal, good", BINARY, RARE, (S95, S95)),
    Case("images, equal, nearly perfect", BINARY, EVEN, (S99, S99)),
    Case("images, equal, other threshold", BINARY, RARE, (S80, S80), tilt=1.5),
    Case("images, nearly the same", BINARY, RARE, (S85, S85), 0.95),
    Case("images, one better", BINARY, RARE, (S85, S80)),
    Case("images, one much better", BINARY, RARE, (S95, S80)),
    Case("images, 4 classes, equal", MULTI_CLASS, FOUR, (1.5, 1.5)),
    Case("images, 4 classes, one better", MULTI_CLASS, FOUR, (1.8, 1.5)),
    Case("images, 3 labels, one better", MULTI_LABEL, THREE_LABELS, (S85, S80)),
    Case("patients, equal", BINARY, EVEN, (S80, S80), 0.5, (2,), 0.5),
    Case("patients, equal, unequal numbers", BINARY, RARE, (S80, S80), 0.5, UNEQUAL, 0.5),
    Case("patients, one better", BINARY, EVEN, (S85, S80), 0.5, (2,), 0.5),
    Case("patients, 8 images, one better", BINARY, RARE, (S85, S80), 0.5, (8,), 0.8),
    Case("patients, labels of images", BINARY, EVEN, (S85, S80), 0.5, UNEQUAL, 0.5, True),
    Case("patients, 4 classes, equal", MULTI_CLASS, FOUR, (1.5, 1.5), 0.5, (2,), 0.5),
    Case("trainings, 3, equal", BINARY, EVEN, (S80, S80), n_runs=3, run_sd=0.1),
    Case("trainings, 5, one better", BINARY, EVEN, (S85, S80), n_runs=5, run_sd=0.1),
    Case("trainings, 3, of patients", BINARY, EVEN, (S85, S80), 0.5, (2,), 0.5, False, 3, 0.1),
)


@dataclass(frozen=True)
class Cell:
    """One metric of one kind of test sets of one size."""

    truth: float
    is_null: bool
    found: list[Difference]

    @property
    def wrong(self) -> float:
        return float(np.mean([d.p < 0.05 for d in self.found]))

    @property
    def ends(self) -> NDArray[np.float64]:
        """(n, 2) the intervals that there are."""
        ends = np.array([(d.low, d.high) for d in self.found]).reshape(-1, 2)
        return ends[~np.isnan(ends[:, 0])]

    @property
    def held(self) -> float:
        low, high = self.ends.T
        return float(((low <= self.truth) & (self.truth <= high)).mean())

    @property
    def is_shut(self) -> bool:
        """Whether the gate is: too often wrong, or too little held, by more than chance."""
        n = len(self.ends)
        wrong = self.is_null and self.wrong > WRONG + _chance(WRONG, len(self.found))
        return wrong or (n >= FEWEST and self.held < HELD - _chance(HELD, n))

    def __str__(self) -> str:
        n = len(self.ends)
        told = f"wrong {self.wrong:6.1%}" if self.is_null else f"power {self.wrong:6.1%}"
        if n:
            low, high = self.ends.T
            told += (
                f"  held {self.held:6.1%} ({np.mean(high - low):.3f}), "
                f"below {np.mean(self.truth < low):.1%}, above {np.mean(self.truth > high):.1%}"
            )
            told += f", apart {np.mean([not d.agrees for d in self.found]):.1%}"
        methods = Counter(f"{d.test}; {d.method}" for d in self.found)
        used = ", ".join(f"{m} {k / len(self.found):.0%}" for m, k in methods.most_common())
        return f"{told}  [{used}]"


def _chance(share: float, n: int) -> float:
    return SPREAD * np.sqrt(share * (1 - share) / n)


def measure(
    case: Case, n_patients: int, n_sets: int, n_resamples: int, n_swaps: int
) -> Iterator[tuple[str, Cell]]:
    """The cells of one kind of test sets of one size."""
    is_null = case.skills[0] == case.skills[1] and not case.tilt
    truth = dict.fromkeys(METRICS, 0.0)
    rng = np.random.default_rng(1)
    for _ in range(0 if is_null else TRUE_SETS * case.n_runs):
        # Of trainings, too, many sets of each: a few don't know the mean of all.
        large = case.draw(rng, TRUTH)
        for name in METRICS:
            truth[name] += _value(large, name) / (TRUE_SETS * case.n_runs)
    if case.tilt:
        truth["auc"] = 0.0
    rng = np.random.default_rng(0)
    found: dict[str, list[Difference]] = {name: [] for name in METRICS}
    for k in range(n_sets):
        drawn = case.draw(rng, n_patients)
        of = differences(*drawn, METRICS, n_resamples=n_resamples, n_swaps=n_swaps, seed=k)
        for name, difference in of.items():
            if not np.isnan(difference.value):
                found[name].append(difference)
    for name, each in found.items():
        if len(each) >= FEWEST:
            yield name, Cell(truth[name], is_null or truth[name] == 0, each)


def _value(drawn: Drawn, name: str) -> float:
    """A difference, without all that is around it."""
    from probe.metrics.prepared import prepare

    values = [
        np.mean([prepare(s, drawn.test.labels, drawn.test.task).evaluate()[name] for s in x.runs])
        for x in (drawn.a, drawn.b)
    ]
    return float(values[0] - values[1])


def main() -> int:
    """Print every cell; returns 1 where the gate is shut."""
    parser = argparse.ArgumentParser(description="How often paired intervals hold the truth.")
    parser.add_argument("--sets", type=int, default=500, help="test sets of a cell (%(default)s)")
    parser.add_argument(
        "--units", default="12,30,60,150,400", help="patients, or single images (%(default)s)"
    )
    parser.add_argument("--cases", help="only those with this text in their name")
    parser.add_argument("--resamples", type=int, default=400, help="of the bootstrap (%(default)s)")
    parser.add_argument("--swaps", type=int, default=1000, help="that are drawn (%(default)s)")
    options = parser.parse_args()
    shut, n_cells = [], 0
    for case in CASES:
        if options.cases and options.cases not in case.name:
            continue
        for n_patients in map(int, options.units.split(",")):
            print(f"\n{case.name}: {n_patients}, {options.sets} test sets")
            asked = options.sets, options.resamples, options.swaps
            for name, cell in measure(case, n_patients, *asked):
                n_cells += 1
                shut += [f"{case.name}, {n_patients}, {name}: {cell}"] if cell.is_shut else []
                print(
                    f"  {name:18} {cell.truth:6.3f}  {cell}{'   <- gate' if cell.is_shut else ''}"
                )
    print(f"\n{n_cells} cells, {len(shut)} shut the gate")
    print("\n".join(shut))
    return 1 if shut or not n_cells else 0


if __name__ == "__main__":
    raise SystemExit(main())
