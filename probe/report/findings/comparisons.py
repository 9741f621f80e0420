"""Paired comparisons of contenders: kernels of ``statistics`` on the scores of stored rows.

one test set       differences of the two models' answers to its samples
trainings          the mean of their metrics; the mean of their scores is a line of its own
folds              the mean of the folds' differences, by the corrected resampled t
sites              each by itself, and the mean without interval
data sets          the exact signed-rank test over units, by Holm over metrics
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.task import MULTI_LABEL, NEVER_WRONG, ORDINAL, REGRESSION, SEGMENTATION
from probe.arrays import Doubles
from probe.metrics.prepared import prepare
from probe.report.findings.standing import metric_of
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.contenders import sharing
from probe.report.rows.people import People, count_patients
from probe.report.rows.sides import FITTED, Pair, asked
from probe.report.statistics.across import (
    SHARED,
    SignedRank,
    mean_of_units,
    pseudomedian,
    signed_rank,
    undecidable,
    units_of,
)
from probe.report.statistics.families import holm
from probe.report.statistics.folds import corrected_t
from probe.report.statistics.paired import (
    TOST_LEVEL,
    Answers,
    ClassMove,
    Difference,
    Disagreement,
    Equivalence,
    class_moves,
    differences,
    disagreement,
)

ENSEMBLE = "ensemble"  # the mean of the trainings' scores
CORRECTED_T = "corrected resampled t of folds"
USUAL: Mapping[str, tuple[str, ...]] = {
    MULTI_LABEL: ("auc", "average_precision"),
    ORDINAL: ("auc", "acc", "kappa"),
    REGRESSION: ("mae", "r2"),
    SEGMENTATION: ("dice",),
}
OTHERWISE = ("auc", "acc")
SITES = "a mean over sites has no interval: they are few, and nobody drew them by chance"
FOLD = "fold"


@dataclass(frozen=True)
class Asking:
    """What is wanted of a comparison."""

    metrics: tuple[str, ...] = ()  # by the names of rows; (): those that are usual for the task
    level: float = 0.95
    margin: float | None = None


@dataclass(frozen=True)
class Part:
    """A line of a comparison: of the whole test set, of a site, of a mean."""

    name: str  # "", ENSEMBLE, a site, "mean of 5 folds"
    differences: Mapping[str, Difference]  # by metric


@dataclass(frozen=True)
class Shift:
    """Who answers what otherwise, on one test set."""

    name: str  # "", or the site
    disagreement: Disagreement
    moves: tuple[ClassMove, ...]
    n_units: int
    unit: str


@dataclass(frozen=True)
class Comparison:
    """A pair, compared."""

    pair: Pair
    parts: tuple[Part, ...]  # at least one; the first is what counts
    shifts: tuple[Shift, ...] = ()  # of numbers and masks, none
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> Part:
        """Of all test samples: not a site's, nor of averaged scores."""
        return next((part for part in self.parts if part.name.startswith("mean")), self.parts[0])


@dataclass(frozen=True)
class AcrossSets:
    """A difference over several data sets."""

    metric: str
    values: tuple[tuple[str, float], ...]  # data set, A less B
    units: tuple[tuple[str, ...], ...]  # data sets that share patients are one
    middle: float  # pseudomedian of the units' differences
    test: SignedRank
    adjusted: float  # p by Holm, over metrics
    why_not: str  # why no p could have been small enough; "": it could


def metrics_for(task: str, asking: Asking) -> tuple[str, ...]:
    """The metrics that are compared."""
    return asking.metrics or USUAL.get(task, OTHERWISE)


def compare(pair: Pair, people: People, asking: Asking) -> Comparison:
    """Compare a pair.

    Raises:
        RequestError: as ``rows.answers.test_sets``; a level or margin out of range.
    """
    sets = test_sets([pair.a, pair.b], people)
    rule = str(sets[0].rows[0].row.posed.split.get("rule", ""))
    if not (pair.a.is_of_folds or pair.b.is_of_folds):
        (test,) = sets
        return Comparison(pair, (*_of_set("", test, asking),), _shifts("", test))
    is_of_sites = rule.startswith("site-out")
    left_out = _not_common(pair, sets, "sites" if is_of_sites else "folds")
    if len(sets) == 1:
        (test,) = sets
        parts = _of_set(test.fold, test, asking)[:1]
        return Comparison(pair, tuple(parts), _shifts(test.fold, test), left_out)
    if is_of_sites:
        parts = [p for test in sets for p in _of_set(test.fold, test, asking)[:1]]
        parts.append(_over_sites(parts, asking))
        shifts = [shift for test in sets for shift in _shifts(test.fold, test)]
        return Comparison(pair, tuple(parts), tuple(shifts), (SITES, *left_out))
    return Comparison(pair, (_over_folds(sets, asking),), _pooled_shift(sets), left_out)


def _of_set(name: str, test: TestSet, asking: Asking) -> list[Part]:
    """Lines of one test set: of the models, and of their ensembles where trainings are several."""
    a, b = test.answers
    metrics = metrics_for(test.samples.task, asking)
    level, margin = asking.level, asking.margin
    together = test.is_together and len(a.runs) == len(b.runs)
    found = differences(a, b, test.samples, metrics, level=level, margin=margin, together=together)
    parts = [Part(name, found)]
    # Counts of what overlaps have no mean that a model would answer.
    has_trainings = test.samples.task != SEGMENTATION and any(
        len(x.runs) > 1 and "few_shot" not in of.row.answered.settings
        for x, of in zip(test.answers, test.rows, strict=True)
    )
    if has_trainings:
        one, other = (x.ensemble() if len(x.runs) > 1 else x for x in (a, b))
        found = differences(one, other, test.samples, metrics, level=level, margin=margin)
        parts.append(Part(ENSEMBLE, found))
    return parts


def _shifts(name: str, test: TestSet) -> tuple[Shift, ...]:
    if test.samples.task in NEVER_WRONG:
        return ()
    a, b = test.answers
    n = len(test.ids)
    groups = test.samples.groups
    n_units = n if groups is None else count_patients(groups)
    return (
        Shift(
            name,
            disagreement(a, b, test.samples),
            tuple(class_moves(a, b, test.samples)),
            n_units,
            test.samples.unit(n_units),
        ),
    )


def _pooled_shift(sets: Sequence[TestSet]) -> tuple[Shift, ...]:
    if sets[0].samples.task in NEVER_WRONG:
        return ()
    return _shifts(f"{len(sets)} folds", pooled(sets))


def pooled(sets: Sequence[TestSet]) -> TestSet:
    """All folds, or sites, together: answers may be pooled, scores may not."""
    if len(sets) == 1:
        return sets[0]
    answers = []
    for side in range(len(sets[0].answers)):
        runs = [test.answers[side].runs[:1] for test in sets]
        answers.append(Answers(np.concatenate(runs, axis=1)[0], sets[0].answers[side].score_type))
    labels = np.concatenate([test.samples.labels for test in sets])
    each = [test.samples.groups for test in sets]
    groups = (
        None if any(g is None for g in each) else np.concatenate([g for g in each if g is not None])
    )
    samples = replace(sets[0].samples, labels=labels, groups=groups)
    return replace(
        sets[0], ids=np.concatenate([t.ids for t in sets]), samples=samples, answers=tuple(answers)
    )


def _not_common(pair: Pair, sets: Sequence[TestSet], what: str) -> tuple[str, ...]:
    """Which folds or sites are left out, for they weren't asked of both."""
    each = {name: c for name, c in (("A", pair.a), ("B", pair.b))}
    folds = {name: {of.row.posed.fold for of in c.rows} for name, c in each.items()}
    # Rows of several training seeds are of one fold.
    of_both = len(folds["A"] | folds["B"])
    n_asked = [
        c.n_asked // len({of.row.answered.training_seed for of in c.rows}) for c in each.values()
    ]
    n = max(of_both, *n_asked)
    if len(sets) == n:
        return ()
    alone = [
        f"{', '.join(sorted(folds[one] - folds[other]))} of {one} alone"
        for one, other in (("A", "B"), ("B", "A"))
        if folds[one] - folds[other]
    ]
    if n > of_both:
        alone.append(f"{n - of_both} of neither")
    said = f"of {n} {what} {len(sets)} {'was' if len(sets) == 1 else 'were'} asked of both"
    return (f"{pair.dataset}: {said}; {', '.join(alone)}",)


def _over_folds(sets: Sequence[TestSet], asking: Asking) -> Part:
    """The mean over folds, of each metric."""
    each = [_values(test) for test in sets]
    found = {}
    for name in metrics_for(sets[0].samples.task, asking):
        if name not in each[0][0] or name not in each[0][1]:
            continue
        values = np.array([[side[name] for side in fold] for fold in each])  # (F, 2)
        found[name] = _fold_mean(name, values, sets, asking)
    return Part(f"mean of {len(sets)} folds", found)


def _fold_mean(name: str, values: Doubles, sets: Sequence[TestSet], asking: Asking) -> Difference:
    known = ~np.asarray(np.isnan(values).any(axis=1), bool)
    notes: tuple[str, ...] = ()
    if lost := [test.fold for test, k in zip(sets, known, strict=True) if not k]:
        notes = (f"{name} isn't defined in {', '.join(lost)}, where a class has no test sample",)
    kept = [test for test, k in zip(sets, known, strict=True) if k]
    a, b = (float(x) for x in values[known].mean(axis=0)) if kept else (math.nan, math.nan)
    n = sum(len(test.ids) for test in sets)
    bare = Difference(
        name, a, b, a - b, n=n, n_units=len(kept), unit=FOLD, level=asking.level, notes=notes
    )
    if asking.margin is not None:
        bare = replace(bare, equivalence=Equivalence(asking.margin, math.nan, math.nan))
    if not kept:
        return bare
    moved = values[known, 0] - values[known, 1]
    sizes = np.array([len(t.ids) for t in kept]), np.array([t.n_train for t in kept])
    over = corrected_t(moved, *sizes, asking.level)
    bare = replace(
        bare, p=over.p, test=CORRECTED_T, low=over.low, high=over.high, method=CORRECTED_T
    )
    if asking.margin is not None:
        ends = corrected_t(moved, *sizes, TOST_LEVEL)
        bare = replace(bare, equivalence=Equivalence(asking.margin, ends.low, ends.high))
    return bare


def _values(test: TestSet) -> tuple[dict[str, float], dict[str, float]]:
    """Both models' metrics, of several trainings their mean."""
    sides = []
    for answers in test.answers:
        runs = [
            prepare(scores, test.samples.labels, test.samples.task, answers.score_type).evaluate()
            for scores in answers.runs
        ]
        sides.append({name: float(np.mean([run[name] for run in runs])) for name in runs[0]})
    return sides[0], sides[1]


def _over_sites(parts: Sequence[Part], asking: Asking) -> Part:
    """The mean of the sites' metrics, without interval."""
    found = {}
    for name, first in parts[0].differences.items():
        each = [part.differences[name] for part in parts]
        a, b = float(np.mean([d.a for d in each])), float(np.mean([d.b for d in each]))
        n = sum(d.n for d in each)
        found[name] = Difference(
            name,
            a,
            b,
            a - b,
            n=n,
            n_units=len(each),
            unit="site",
            level=first.level,
            notes=(SITES,),
        )
    return Part(f"mean of {len(parts)} sites", found)


def over_sets(comparisons: Sequence[Comparison], level: float = 0.05) -> list[AcrossSets]:
    """Test each metric over data sets; those that share patients are one unit.

    Args:
        comparisons: one a data set, of pairs that were asked alike.
        level: that a p must reach.

    Returns:
        By metric, of those that two data sets have or more.
    """
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for of in comparisons:
        for name, found in of.whole.differences.items():
            if not math.isnan(found.value):
                values[name][of.pair.dataset] = found.value
    shared = (*SHARED, *sharing([of.pair.a for of in comparisons]))
    tested = []
    for name, each in values.items():
        if len(each) < 2:
            continue
        units = units_of(each, shared)
        means = mean_of_units(np.array(list(each.values())), list(each), units)
        tested.append((name, each, units, pseudomedian(means), signed_rank(means)))
    adjusted = holm(np.array([test.p for *_, test in tested]))
    return [
        AcrossSets(
            name,
            tuple(each.items()),
            tuple(units),
            middle,
            test,
            float(p),
            undecidable(test.n_units - test.n_zeros, 2, level),
        )
        for (name, each, units, middle, test), p in zip(tested, adjusted, strict=True)
    ]


def asked_alike(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Comparisons of several data sets in groups of pairs that were asked alike, each set once.

    What val or folds decided is no other way of asking, but where a data set was asked in both.
    """
    groups = _grouped(comparisons, (FITTED, "size", "layer", "pool"))
    divided = [_grouped(g, ()) if _has_twice(g) else [g] for g in groups]
    return [g for part in divided for g in part if len(g) > 1 and not _has_twice(g)]


def _grouped(comparisons: Sequence[Comparison], without: Sequence[str]) -> list[list[Comparison]]:
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for of in comparisons:
        each = [asked(c) for c in (of.pair.a, of.pair.b)]
        words = [{n: v for n, v in found.items() if n not in without} for found in each]
        groups[repr(words)].append(of)
    return list(groups.values())


def _has_twice(comparisons: Sequence[Comparison]) -> bool:
    """Whether a data set is there twice."""
    return len({of.pair.dataset for of in comparisons}) < len(comparisons)


def is_loss(metric: str) -> bool:
    """Whether less of it is better."""
    return metric_of(metric).is_loss
