"""How often intervals hold the truth, on test sets whose truth is known.

    python benchmarks/interval_coverage.py            # five minutes; status 1 where the gate is shut
    python benchmarks/interval_coverage.py --cases "stress" --units 8,12 --compare

Each test set is drawn anew: patients of some class, or images of some class, with scores that are
normal, in part the patient's own. Every truth is measured on a set of 20 000 patients. 95 % is
right; more is allowed; under 92 % in any cell shuts the gate, as an interval without width does.
A cell is one metric of one kind of test set with one number of patients, or of images where each is
alone. "none" is how often too few units are of a class, so that there is no interval; what is
covered is counted among the others. In brackets the mean width. ``--compare`` adds the percentile
bootstrap of patients, as it was used before (of AUCs DeLong's stays beside it).
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

from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, SEGMENTATION
from probe.metrics.classification import rankings
from probe.metrics.delong import delong
from probe.metrics.intervals import NONE, clusters, estimate, percentiles
from probe.metrics.overlap import BACKGROUND
from probe.metrics.prepared import METRICS, prepare

GATE = 0.92
SPREAD = 2.0  # standard errors of a cell's share that the gate allows for chance
FEWEST = 50  # intervals, without which a cell says nothing
TRUTH = 20_000  # patients
UNEQUAL = (1, 1, 1, 2, 2, 3, 5, 12)  # images of a patient
RESAMPLES = 200  # of --compare
REGRESSION = "regression"


class Drawn(NamedTuple):
    """A test set of N images."""

    scores: NDArray[np.float64]  # (N, C), of masks (N, 6 C)
    labels: NDArray[Any]  # (N,) or (N, C); of regression floats
    groups: NDArray[np.str_]  # (N,)


@dataclass(frozen=True)
class Case:
    """A kind of test sets."""

    name: str
    task: str
    shares: tuple[float, ...]  # of the classes, or of each label's ones
    skill: (
        float  # how far classes lie apart, in standard deviations; of masks the usual Dice's logit
    )
    images: tuple[int, ...] = (1,)  # of a patient: each of these equally often
    own: float = 0.0  # correlation of a patient's images
    by_image: bool = False  # whether images of one patient may be of several classes

    def draw(self, rng: np.random.Generator, n_patients: int) -> Drawn:
        """Posterior probabilities, as far as images are told apart one by one."""
        n_classes = len(self.shares)
        patient = np.repeat(np.arange(n_patients), rng.choice(self.images, n_patients))
        n = len(patient) if self.by_image else n_patients
        shape = n_patients, n_classes
        noise = np.sqrt(self.own) * rng.normal(size=shape)[patient] + np.sqrt(
            1 - self.own
        ) * rng.normal(size=(len(patient), n_classes))
        groups = patient.astype(str)
        shares = np.array(self.shares)
        if self.task == REGRESSION:
            age = rng.normal(size=n_patients)[patient]
            return Drawn((age + noise[:, 0])[:, None], age, groups)
        if self.task == SEGMENTATION:
            return Drawn(*_masks(rng, noise, shares, self.skill), groups)
        if self.task == MULTI_LABEL:
            ones = (rng.random((n, n_classes)) < shares).astype(int)
            labels = ones if self.by_image else ones[patient]
            gap = self.skill * np.sqrt(2)
            logits = gap * (noise + gap * labels - gap / 2) + np.log(shares / (1 - shares))
            return Drawn(1 / (1 + np.exp(-logits)), labels, groups)
        labels = rng.choice(n_classes, n, p=shares)
        labels = labels if self.by_image else labels[patient]
        z = noise + self.skill * np.eye(n_classes)[labels]
        if self.task == ORDINAL:  # the neighbouring grades look alike
            z += 0.5 * self.skill * (np.abs(labels[:, None] - np.arange(n_classes)) == 1)
        powers = np.exp(self.skill * z + np.log(shares))
        return Drawn(powers / powers.sum(axis=1, keepdims=True), labels, groups)


def _masks(
    rng: np.random.Generator, noise: NDArray[np.float64], shares: NDArray[np.float64], skill: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What overlaps of a background and structures, each in its share of images; small ones are
    missed as often as not, and one of twelve is seen where it isn't.
    """
    shape = noise.shape
    has = rng.random(shape) < shares
    size = np.exp(rng.normal(6, 1, shape))  # pixels, of 65 536
    true = np.where(has, np.clip(size, 10, 20_000), 0).round()
    dice = 1 / (1 + np.exp(-skill - noise - 0.3 * (np.log(size) - 6)))
    missed = rng.random(shape) < 0.5 * (size < 150)
    predicted = np.where(missed, 0, true)
    alarm = (rng.random(shape) < 1 / 12) & ~has
    both, predicted = (dice * predicted).round(), predicted + 50 * alarm
    hd95 = np.where(has, np.where(missed, 362, np.exp(3 - noise - 2 * dice)), -1)
    nsd = np.where(has, np.where(missed, 0, dice**0.5), -1)
    rest = 65_536 - true.sum(axis=1)
    background = [rest - 60, rest, rest - 60, rest, np.full_like(rest, BACKGROUND)]
    each = [both, predicted, (0.9 * true).round(), true, hd95, nsd]
    columns = [
        np.column_stack([first, structures])
        for first, structures in zip([*background, background[-1]], each, strict=True)
    ]
    return np.concatenate(columns, axis=1), np.column_stack([rest, true]).astype(np.int64)


EVEN, RARE = (0.5, 0.5), (0.73, 0.27)
FOUR, SKEWED = (0.25,) * 4, (0.4, 0.3, 0.2, 0.1)
SIX = (0.3, 0.3, 0.2, 0.1, 0.05, 0.05)
THREE_LABELS = (0.5, 0.3, 0.2)
AUC_80 = NormalDist().inv_cdf(0.8)  # the skill that makes a binary AUC of .80
CASES = (
    Case("2 classes, label of patient", BINARY, EVEN, AUC_80, (2,), 0.5),
    Case("same, 27 % positive", BINARY, RARE, AUC_80, (2,), 0.5),
    Case("same, good", BINARY, RARE, 2.0, (2,), 0.5),
    Case("2 classes, label of image", BINARY, EVEN, AUC_80, (2,), 0.5, True),
    Case("2 classes, unequal numbers of images", BINARY, EVEN, AUC_80, UNEQUAL, 0.5),
    Case("stress", BINARY, RARE, AUC_80, (8,), 0.8),
    Case("4 grades, label of patient", ORDINAL, FOUR, 1.2, (2,), 0.5),
    Case("4 grades, label of image, unequal", ORDINAL, SKEWED, 1.2, UNEQUAL, 0.5, True),
    Case("6 classes, label of patient", MULTI_CLASS, SIX, 2.2, (4,), 0.5),
    Case("3 labels of patient", MULTI_LABEL, THREE_LABELS, AUC_80, (2,), 0.5),
    Case("3 labels of image, unequal", MULTI_LABEL, THREE_LABELS, AUC_80, UNEQUAL, 0.5, True),
    Case("regression, unequal", REGRESSION, (1.0,), 0.0, (1, 2, 2, 3), 0.3),
    Case("masks", SEGMENTATION, (0.9, 0.5), 1.0, UNEQUAL, 0.5),
    Case("masks of images, good", SEGMENTATION, (1.0, 0.3), 2.5),
    Case("images, 27 % positive", BINARY, RARE, AUC_80),
    Case("images, 10 % positive, good", BINARY, (0.9, 0.1), 2.0),
    Case("images, 4 grades", ORDINAL, SKEWED, 1.8),
    Case("images, 3 labels", MULTI_LABEL, (0.5, 0.3, 0.1), 1.2),
)


@dataclass(frozen=True)
class Cell:
    """One metric of one kind of test sets of one size."""

    name: str
    truth: float
    ends: NDArray[np.float64]  # (n, 2) intervals
    methods: Counter[str]

    @property
    def held(self) -> float:
        return float(((self.ends[:, 0] <= self.truth) & (self.truth <= self.ends[:, 1])).mean())

    @property
    def width(self) -> float:
        return float((self.ends[:, 1] - self.ends[:, 0]).mean())

    @property
    def is_shut(self) -> bool:
        """Whether the gate is: too little is held, by more than chance, or a width is 0."""
        if not len(self.ends):
            return False
        if (self.ends[:, 1] - self.ends[:, 0]).min() <= 1e-9:
            return True
        chance = SPREAD * np.sqrt(GATE * (1 - GATE) / len(self.ends))
        return len(self.ends) >= FEWEST and self.held < GATE - chance

    def __str__(self) -> str:
        n = self.methods.total()
        used = ", ".join(f"{m} {k / n:.0%}" for m, k in self.methods.most_common())
        if not len(self.ends):
            return f"{self.name:18} {self.truth:6.3f}    -            {used}"
        return f"{self.name:18} {self.truth:6.3f}  {self.held:6.1%} ({self.width:.3f})  {used}"


def measure(case: Case, n_patients: int, n_sets: int) -> Iterator[Cell]:
    """The cells of one kind of test sets of one size."""
    scores, labels, _ = case.draw(np.random.default_rng(1), TRUTH)
    truth = prepare(scores, labels, case.task).evaluate()
    rng = np.random.default_rng(0)
    ends: dict[str, list[tuple[float, float]]] = {name: [] for name in truth}
    methods: dict[str, Counter[str]] = {name: Counter() for name in truth}
    for _ in range(n_sets):
        scores, labels, groups = case.draw(rng, n_patients)
        found = estimate(scores, labels, case.task, groups=groups)
        for name, (_, low, high) in found.metrics.items():
            methods[name][found.methods[name]] += 1
            if found.methods[name] != NONE:
                ends[name].append((low, high))
    without = {metric.name for metric in METRICS if not metric.has_interval}
    for name, value in truth.items():
        if name not in without:
            yield Cell(name, value, np.array(ends[name]).reshape(-1, 2), methods[name])


def compare(case: Case, n_patients: int, n_sets: int) -> str:
    """What the percentile bootstrap of patients holds of the AUC, and DeLong's of single images."""
    scores, labels, _ = case.draw(np.random.default_rng(1), TRUTH)
    truth = prepare(scores, labels, case.task).evaluate()["auc"]
    rng = np.random.default_rng(0)
    drawn, of_images = [], []
    for _ in range(n_sets):
        scores, labels, groups = case.draw(rng, n_patients)
        problems = rankings(scores, labels, case.task)
        if any(not (len(p.positives) and len(p.negatives)) for p in problems):
            continue
        cluster = clusters(groups)
        times = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), RESAMPLES)
        weights = times[:, cluster].astype(np.int32)
        resampled = np.mean([problem.auc(weights) for problem in problems], axis=0)
        drawn.append(percentiles(resampled, 0.95))
        of_images.append(delong(scores, labels, case.task))
    told = {"bootstrap": drawn, "DeLong, of images": of_images}
    cells = [Cell(name, truth, np.array(ends), Counter()) for name, ends in told.items()]
    return "auc by " + ", by ".join(f"{c.name} {c.held:.1%} ({c.width:.3f})" for c in cells)


def main() -> int:
    """Print every cell; returns 1 where the gate is shut."""
    parser = argparse.ArgumentParser(description="How often intervals hold the truth.")
    parser.add_argument("--sets", type=int, default=500, help="test sets of a cell (%(default)s)")
    parser.add_argument(
        "--units", default="6,8,12,22,50,150", help="patients, or single images (%(default)s)"
    )
    parser.add_argument("--cases", help="only those with this text in their name")
    parser.add_argument("--compare", action="store_true", help="beside the bootstrap's, of AUCs")
    options = parser.parse_args()
    shut, n_cells = [], 0
    for case in CASES:
        if options.cases and options.cases not in case.name:
            continue
        for n_patients in map(int, options.units.split(",")):
            print(f"\n{case.name}: {n_patients}, {options.sets} test sets")
            for cell in measure(case, n_patients, options.sets):
                n_cells += len(cell.ends) > 0
                shut += [f"{case.name}, {n_patients}: {cell}"] if cell.is_shut else []
                print(f"  {cell}{'   <- gate' if cell.is_shut else ''}", flush=True)
            if options.compare and case.task != REGRESSION:
                print(f"  {compare(case, n_patients, options.sets)}", flush=True)
    print(f"\n{n_cells} cells, {len(shut)} under {GATE:.0%} or without width")
    print("\n".join(shut))
    return 1 if shut or not n_cells else 0


if __name__ == "__main__":
    raise SystemExit(main())
