"""What two models' answers to the same test set say of their difference, with its interval and p.

    accuracy, samples are independent     p: mid-p McNemar; interval: Newcombe's method 10
    AUC, samples are independent and      both: DeLong, DeLong, Clarke-Pearson (1988), paired
      of each side are many
    every other                           p: swaps within whole units; interval: bootstrap of units
    several trainings, or episodes        both: crossed bootstrap of units and trainings
    a class has few units                 p alone
    errors of calibration                 neither

Units are patients where one has several samples, else samples. The difference is always A's metric
less B's. Choices of training (k, a strength) are held fixed; trainings are drawn only where there
are several.

The paired AUC is that of ``probe.metrics.delong``: each sample's deviation in one model less that in
the other, averaged over columns, squared and added. For two classes, and for columns that share
their positives, this is DeLong's estimate exactly (pROC's numbers are in the tests). It isn't for
models that were fitted to these very samples.

Measured (benchmarks/paired_coverage.py, 300 to 1500 test sets a cell): of equally good models p is below
.05 for 0.2 to 6 % of test sets of 60 to 200 images (AUC from 100 images, of .80 and .95: 3.5 to 5; the
least are of models that hardly differ), of the AUC for 3.5 to 6.5 % of 12 to 40 patients, of what goes by
counts for 0.5 to 5, and for 3 to 6 % of 3 or 5 trainings. The intervals hold the truth 93 to 99.5 %, 92 to
98.6 and 93.5 to 99 % of the time; plain percentiles of 12 patients did 78 to 95, see
``resampled.widened``. Swaps ask whether two models answer alike: where one has another operating point,
p is larger than need be for metrics of counts by class, and the interval may exclude 0 where p doesn't
say so (6 to 8 % of the time with 60 images); notes then say it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from cache.errors import RequestError
from cache.task import MISSING, MULTI_LABEL
from probe.arrays import Array, Bools, Doubles, Floats, Ints, Texts
from probe.metrics import classification
from probe.metrics.classification import PROBABILITY
from probe.metrics.delong import mean_deviations
from probe.metrics.intervals import ENOUGH, NO_ENDS, NONE, clusters, supports_of, unit_of
from probe.metrics.jackknife import MANY, MANY_OF_A_CLASS, worth
from probe.metrics.metric import MEDIANS, RANKS, Metric, Prepared
from probe.metrics.prepared import prepare
from probe.report.statistics.discordant import Discordance, discordance, mid_p, newcombe
from probe.report.statistics.resampled import (
    by_student,
    crossed,
    draw_units,
    resampled,
    student_p,
    widened,
)
from probe.report.statistics.swaps import N_SWAPS, ROUNDING, swap_p, swapping

MCNEMAR, NEWCOMBE, DELONG = "mid-p McNemar", "Newcombe's method 10", "paired DeLong"
SWAPS, BOOTSTRAP, CROSSED = "swaps of {}s", "paired bootstrap of {}s", "crossed bootstrap"
N_RESAMPLES = 2000
LINEAR = 1000  # units, from which the bootstrap of an AUC goes by its deviations
TOST_LEVEL = 0.90  # of the interval: two one-sided tests at 5 % each (Schuirmann 1987)


@dataclass(frozen=True)
class Answers:
    """One model's answers to N test samples."""

    scores: (
        Floats  # (N, C), of S trainings or episodes (S, N, C); of regression C is 1, of masks 6 C
    )
    score_type: str = PROBABILITY  # see probe.metrics.classification

    @property
    def runs(self) -> Floats:
        """(S, N, C)."""
        return self.scores if self.scores.ndim == 3 else self.scores[None]

    def ensemble(self) -> "Answers":
        """The mean of the trainings' scores: one model more, which is none of them."""
        return replace(self, scores=self.runs.mean(axis=0))


@dataclass(frozen=True)
class Samples:
    """The test samples that two models are compared on. N of them."""

    labels: Array  # (N,), or (N, C) for the multi-label task; of regression floats
    task: str  # one of cache.task.TASKS, or SEGMENTATION
    groups: Texts | None = None  # (N,) patients, where known; an empty text is nobody
    class_names: Sequence[str] = ()  # for words; empty: their numbers
    are_patients: bool = False  # each is a patient, whose samples' scores were averaged

    def unit(self, n_units: int) -> str:
        """What counts as one, of so many: "patient" or "sample"."""
        return unit_of(self.are_patients or n_units < len(self.labels))


@dataclass(frozen=True)
class Equivalence:
    """Whether a difference is shown to be less than a margin (two one-sided tests)."""

    margin: float  # named before anything was read
    low: float  # of the 90 % paired interval
    high: float

    @property
    def holds(self) -> bool:
        """False also where nothing is known: not shown isn't shown to differ."""
        return -self.margin < self.low and self.high < self.margin


@dataclass(frozen=True)
class Difference:
    """One metric of two models, A's less B's."""

    metric: str
    a: float  # of several trainings their mean
    b: float
    value: float
    low: float = math.nan  # both nan where nothing that we know holds the truth as promised
    high: float = math.nan
    p: float = math.nan  # two-sided
    test: str = NONE  # how p was made
    method: str = NONE  # how the interval was
    n: int = 0  # samples
    n_units: int = 0
    unit: str = "sample"  # or "patient"
    level: float = 0.95
    equivalence: Equivalence | None = None  # with a margin only
    notes: tuple[str, ...] = ()  # what a reader must know

    @property
    def agrees(self) -> bool:
        """Whether p and the interval say the same of 0; where either is lacking nothing disagrees."""
        if math.isnan(self.low) or math.isnan(self.p):
            return True
        return (self.p < 1 - self.level) == (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Disagreement:
    """How many of N samples two models answer differently; of several trainings the first."""

    n: int
    differ: int  # other answers; of several labels, any
    right: Discordance  # who is right, of several labels in all of them


@dataclass(frozen=True)
class ClassMove:
    """What happens to one class, or one label's ones."""

    name: str
    n: int
    recalls: tuple[float, float]  # A's and B's; nan where no sample is of the class
    alone: tuple[int, int]  # samples of the class that A alone answers rightly, and B


def differences(
    a: Answers,
    b: Answers,
    test: Samples,
    metrics: Sequence[str] = ("auc", "acc"),
    *,
    level: float = 0.95,
    margin: float | None = None,
    together: bool = False,
    n_resamples: int = N_RESAMPLES,
    n_swaps: int = N_SWAPS,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two models, metric by metric.

    Args:
        a: one model's answers to N samples.
        b: the other's, in the same order.
        test: the samples.
        metrics: by the names of rows; what the task or the scores don't have is left out.
        level: of the intervals.
        margin: in the metric's unit, above 0: adds ``Equivalence``.
        together: whether training i of one belongs to training i of the other, as few-shot episodes
            of the same samples do; seeds don't.
        n_resamples: of the bootstrap.
        n_swaps: that are drawn where units are many.
        seed: of both.

    Returns:
        name -> difference, in the order asked.

    Raises:
        RequestError: a level or margin out of range, trainings that go together and aren't as many,
            or what ``probe.metrics.prepared.prepare`` refuses.
    """
    if not 0 < level < 1:
        raise RequestError(f"level lies between 0 and 1, such as 0.95; found {level}")
    if margin is not None and not margin > 0:
        raise RequestError(f"a margin is above 0, in the metric's unit; found {margin}")
    if together and len(a.runs) != len(b.runs):
        raise RequestError(
            f"trainings that go together are as many; found {len(a.runs)} and {len(b.runs)}"
        )
    pair = _Pair(a, b, test, together, n_resamples, n_swaps, seed)
    known = {metric.name: metric for metric in pair.metrics}
    return {name: pair.difference(known[name], level, margin) for name in metrics if name in known}


def disagreement(a: Answers, b: Answers, test: Samples) -> Disagreement:
    """Count what two models answer differently; of classes only."""
    task, labels = test.task, test.labels
    found = [classification.predict(x.runs[0], task, x.score_type) for x in (a, b)]
    right: list[Bools] = [np.equal(answers, labels) for answers in found]
    differs = found[0] != found[1]
    if task == MULTI_LABEL:
        unknown = labels == MISSING
        differs = (differs & ~unknown).any(axis=1)
        right = [(hits | unknown).all(axis=1) for hits in right]
    return Disagreement(len(labels), int(differs.sum()), discordance(right[0], right[1]))


def class_moves(a: Answers, b: Answers, test: Samples) -> list[ClassMove]:
    """Each class's recall by both models, of several labels that of the ones; the first trainings'."""
    task, labels = test.task, test.labels
    right = [classification.predict(x.runs[0], task, x.score_type) == labels for x in (a, b)]
    moves = []
    for c in range(a.runs.shape[2]):
        of_class = labels[:, c] == 1 if task == MULTI_LABEL else labels == c
        hits = [(r[:, c] if task == MULTI_LABEL else r)[of_class] for r in right]
        recall_a, recall_b = (float(h.mean()) if len(h) else math.nan for h in hits)
        alone = int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())
        moves.append(ClassMove(_name(test, c), len(hits[0]), (recall_a, recall_b), alone))
    return moves


def _name(test: Samples, c: int) -> str:
    return str(test.class_names[c]) if len(test.class_names) else str(c)


def delong_difference(a: Prepared, b: Prepared) -> tuple[float, float, bool]:
    """The difference of two AUCs of the same independent samples.

    Returns:
        Its value; its standard error; and whether a column of either is perfect, constant or has one
        sample of a side, whose own scatter can't be seen.
    """
    of_a, moved_a, is_blind = mean_deviations(a.problems)
    of_b, moved_b, is_blind_too = mean_deviations(b.problems)
    se = float(np.sqrt(((moved_a - moved_b) ** 2).sum()))
    return of_a - of_b, se, is_blind or is_blind_too


class _Pair:
    """Two models on one test set, looked at once."""

    def __init__(
        self,
        a: Answers,
        b: Answers,
        test: Samples,
        together: bool,
        n_resamples: int,
        n_swaps: int,
        seed: int,
    ) -> None:
        self.test, self.together, self.seed = test, together, seed
        self.n_swaps, self.n_resamples = n_swaps, n_resamples
        self.a, self.b = (
            [prepare(scores, test.labels, test.task, side.score_type) for scores in side.runs]
            for side in (a, b)
        )
        of_b = {metric.name for metric in self.b[0].metrics}
        self.metrics = [metric for metric in self.a[0].metrics if metric.name in of_b]
        self.values = [[x.evaluate() for x in side] for side in (self.a, self.b)]
        n = len(test.labels)
        self.cluster = np.arange(n) if test.groups is None else clusters(test.groups)
        self.n_units = int(self.cluster.max()) + 1
        self.unit = test.unit(self.n_units)
        self.supports = supports_of(a.runs[0], test.labels, test.task, self.cluster)
        self._drawn: Ints | None = None

    @property
    def drawn(self) -> Ints:
        """(R, U) the same resamples for every metric."""
        if self._drawn is None:
            self._drawn = draw_units(self.n_units, self.n_resamples, self.seed)
        return self._drawn

    def difference(self, metric: Metric, level: float, margin: float | None) -> Difference:
        a, b = (np.array([found[metric.name] for found in side]) for side in self.values)
        bare = Difference(
            metric.name,
            float(a.mean()),
            float(b.mean()),
            float(a.mean() - b.mean()),
            n=len(self.cluster),
            n_units=self.n_units,
            unit=self.unit,
            level=level,
            equivalence=None if margin is None else Equivalence(margin, *NO_ENDS),
        )
        levels = (level,) if margin is None else (level, TOST_LEVEL)
        if why := self._why_not(metric, bare.value):
            return replace(bare, notes=(why,))
        found, ends = self._tested(metric, bare, levels, (a, b))
        (low, high), *of_margin = ends
        if margin is not None:
            found = replace(found, equivalence=Equivalence(margin, *of_margin[0]))
        found = replace(found, low=low, high=high, method=NONE if math.isnan(low) else found.method)
        if not found.agrees:
            found = replace(found, notes=(*found.notes, "p and interval disagree about 0"))
        return found

    def _why_not(self, metric: Metric, value: float) -> str:
        """Why there is nothing to say at all; empty where there is."""
        if metric.needs != RANKS and metric.needs not in self.a[0].parts:
            what = "a median" if metric.needs == MEDIANS else "an error of calibration"
            return f"no interval and no test holds for {what}"
        if math.isnan(value):
            return "a class has no samples, or the metric isn't defined"
        return ""

    def _few(self, metric: Metric) -> str:
        """Why units are too few for an interval; empty where they aren't."""
        support = self.supports.get(metric.name)
        weakest = self.n_units if support is None else support.weakest
        if weakest >= ENOUGH:
            return ""
        units = f"{weakest} {self.unit}{'s' if weakest != 1 else ''}"
        if support is None or support.who is None:
            return f"no interval: there are {units}, and {ENOUGH} are needed"
        name = _name(self.test, support.who)
        what = f"class {name} has {units}"
        if self.test.task == MULTI_LABEL:
            what = f"label {name} has {units} on its smaller side"
        return f"no interval: {what}, and {ENOUGH} are needed"

    def _tested(
        self,
        metric: Metric,
        bare: Difference,
        levels: Sequence[float],
        values: tuple[Doubles, Doubles],
    ) -> tuple[Difference, list[tuple[float, float]]]:
        """The difference with p and its making, and the ends at each level."""
        if len(self.a) > 1 or len(self.b) > 1:
            return self._of_runs(metric, bare, levels, values)
        a, b, is_alone = self.a[0], self.b[0], self.n_units == len(self.cluster)
        if is_alone and metric.name == "acc" and a.task != MULTI_LABEL:
            right = [np.any(x.parts[metric.needs][:, 0], axis=1) for x in (a, b)]
            found = discordance(right[0], right[1])
            ends = [newcombe(found, level) for level in levels]
            return replace(bare, p=mid_p(found), test=MCNEMAR, method=NEWCOMBE), ends
        support = self.supports.get(metric.name)
        is_many = support is not None and support.weakest >= MANY_OF_A_CLASS
        if is_alone and metric.name == "auc" and is_many:
            value, se, is_blind = delong_difference(a, b)
            if se > ROUNDING and not is_blind:
                normal = NormalDist()
                p = 2 * normal.cdf(-abs(value) / se)
                z = [normal.inv_cdf((1 + level) / 2) for level in levels]
                ends = [(value - x * se, value + x * se) for x in z]
                return replace(bare, p=p, test=DELONG, method=DELONG), ends
        return self._by_units(metric, bare, levels)

    def _by_units(
        self, metric: Metric, bare: Difference, levels: Sequence[float]
    ) -> tuple[Difference, list[tuple[float, float]]]:
        a, b = self.a[0], self.b[0]
        swaps = swapping(metric, a, b, self.cluster)
        p = swap_p(swaps, self.n_swaps, self.seed)
        found = replace(bare, p=p, test=SWAPS.format(self.unit))
        nothing = [NO_ENDS for _ in levels]
        if why := self._few(metric):
            return replace(found, notes=(why,)), nothing
        if swaps.n < ENOUGH:
            units = f"{swaps.n} of {self.n_units} {self.unit}s"
            why = f"no interval: {units} move the difference, and {ENOUGH} are needed"
            return replace(found, notes=(why,)), nothing
        is_linear = self.n_units >= LINEAR
        drawn = [
            resampled(metric, x, self.drawn, self.cluster, is_linear=is_linear) for x in (a, b)
        ]
        moved = drawn[0] - drawn[1]
        found = replace(found, method=BOOTSTRAP.format(self.unit), notes=_lost(moved))
        support = self.supports.get(metric.name)
        df = worth(self.cluster) - 1 if support is None else support.df
        df = max(1.0, min(df, swaps.n - 1))
        return found, [widened(bare.value, moved, level, df) for level in levels]

    def _of_runs(
        self,
        metric: Metric,
        bare: Difference,
        levels: Sequence[float],
        values: tuple[Doubles, Doubles],
    ) -> tuple[Difference, list[tuple[float, float]]]:
        notes = tuple(
            f"{name} was trained once: what another training would change isn't counted"
            for name, side in (("A", self.a), ("B", self.b))
            if len(side) == 1
        )
        bare = replace(bare, notes=notes)
        nothing = [NO_ENDS for _ in levels]
        if why := self._few(metric):
            return replace(bare, notes=(*notes, why)), nothing
        is_linear = self.n_units >= MANY  # nothing but the spread is taken of them
        of_a, of_b = (
            [resampled(metric, x, self.drawn, self.cluster, is_linear=is_linear) for x in side]
            for side in (self.a, self.b)
        )
        bare = replace(bare, notes=(*notes, *_lost(of_a[0] - of_b[0])))
        spread = crossed(of_a, of_b, values, self.n_units, together=self.together, seed=self.seed)
        if not spread.se > ROUNDING:
            p = 1.0 if abs(bare.value) < ROUNDING else math.nan
            why = "no interval: neither patients nor trainings move the difference"
            return replace(bare, p=p, test=CROSSED, notes=(*bare.notes, why)), nothing
        ends = [by_student(bare.value, spread, level) for level in levels]
        p = student_p(bare.value, spread)
        return replace(bare, p=p, test=CROSSED, method=CROSSED), ends


def _lost(moved: Doubles) -> tuple[str, ...]:
    lost = int(np.isnan(moved).sum())
    return (f"{lost} of {len(moved)} resamples lack a class and are left out",) if lost else ()
