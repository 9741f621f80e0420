"""Which contenders stand below another on a test set: all pairs tested, as one family.

    several trainings, or episodes   crossed bootstrap of each pair, Holm
    folds                            the corrected resampled t of each pair, Holm
    many units in every class        max-T over one bootstrap of units, the same for all
    fewer                            the paired test of each pair, Holm

Units are patients where one has several samples, else samples.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.commands.names import counted
from cache.errors import RequestError
from probe.arrays import Doubles
from probe.metrics.intervals import ENOUGH, clusters, supports_of
from probe.metrics.jackknife import MANY, MANY_OF_A_CLASS, Support
from probe.metrics.metric import CALIBRATION, MEDIANS, TEMPERED, Metric
from probe.metrics.prepared import METRICS, prepare
from probe.report.rows.answers import TestSet
from probe.report.statistics.families import Family, by_holm, by_max_t
from probe.report.statistics.folds import corrected_t
from probe.report.statistics.paired import LINEAR, N_RESAMPLES, differences
from probe.report.statistics.resampled import crossed, draw_units, resampled, student_p
from probe.report.statistics.swaps import EXHAUSTIVE, N_SWAPS

MOST = 40  # contenders: 780 pairs
NO_TEST = "no test holds for errors of calibration, or medians"
SITES = "sites are populations of their own: compare them one by one"
ALONE = "one alone is compared with nothing"
TOO_MANY = "{n} contenders are too many to test all pairs of (at most {most}): name fewer"


@dataclass(frozen=True)
class Untested:
    """Why contenders weren't tested."""

    why: str


def metric_of(name: str) -> Metric:
    """The record of a metric."""
    return next(metric for metric in METRICS if metric.name == name)


def stand(sets: Sequence[TestSet], name: str, level: float = 0.05) -> Family | Untested:
    """All-pairs tests of contenders on one data set.

    Args:
        sets: its test set, or one of each fold; K contenders.
        name: of the metric.
        level: the chance of any false difference.
    """
    metric, n = metric_of(name), len(sets[0].answers)
    if metric.needs in (CALIBRATION, TEMPERED, MEDIANS):
        return Untested(NO_TEST)
    if n > MOST:
        return Untested(TOO_MANY.format(n=n, most=MOST))
    if n < 2:
        return Untested(ALONE)
    if len(sets) > 1:
        return _by_folds(sets, metric, level)
    (test,) = sets
    if any(len(answers.runs) > 1 for answers in test.answers):
        few = _few(test, metric)
        return Untested(few) if few else _by_runs(test, metric, level)
    if has_many(test, metric):
        try:
            return _by_resamples(test, metric, level)
        except RequestError:  # draws that lack a class leave too few: pair by pair then
            pass
    hopeless = _hopeless(test, level)
    return Untested(hopeless) if hopeless else _by_pairs(test, metric, level)


def _hopeless(test: TestSet, level: float) -> str:
    """Why no pair can be told apart whatever the answers; "" where one can.

    Swaps of U units have 2^(U - 1) outcomes, or as many as are drawn, and Holm multiplies the
    smallest p by the number of pairs.
    """
    n, n_units = len(test.answers), int(cluster_of(test).max()) + 1
    n_pairs = n * (n - 1) // 2
    smallest = 2.0 ** (1 - n_units) if n_units <= EXHAUSTIVE else 1 / N_SWAPS
    if smallest * n_pairs <= level:
        return ""
    unit = test.samples.unit(n_units)
    return (
        f"{n_units} {unit}s can't separate {n} contenders: the smallest p of a pair is "
        f"{smallest:.2g}, above {level:g} / {n_pairs} whatever the answers"
    )


def _few(test: TestSet, metric: Metric) -> str:
    """Why units are too few for a bootstrap; "" where they aren't."""
    cluster = cluster_of(test)
    n_units, support = int(cluster.max()) + 1, _support(test, metric, cluster)
    weakest = n_units if support is None else support.weakest
    if weakest >= ENOUGH:
        return ""
    unit = test.samples.unit(n_units)
    return f"a class has {counted(weakest, unit)}, and {ENOUGH} are needed"


def has_many(test: TestSet, metric: Metric) -> bool:
    """Whether a bootstrap of units may be believed: ``MANY`` of them, and in each class some."""
    cluster = cluster_of(test)
    if int(cluster.max()) + 1 < MANY:
        return False
    support = _support(test, metric, cluster)
    return support is None or support.weakest >= MANY_OF_A_CLASS


def _support(test: TestSet, metric: Metric, cluster: np.ndarray) -> Support | None:
    of = test.answers[0].runs[0], test.samples.labels, test.samples.task, cluster
    return supports_of(*of).get(metric.name)


def cluster_of(test: TestSet) -> np.ndarray:
    """(N,) the number of each sample's unit."""
    groups = test.samples.groups
    return np.arange(len(test.ids)) if groups is None else clusters(groups)


def _by_resamples(test: TestSet, metric: Metric, level: float) -> Family:
    cluster, sign = cluster_of(test), -1.0 if metric.is_loss else 1.0
    drawn = draw_units(int(cluster.max()) + 1, N_RESAMPLES, 0)
    is_linear = drawn.shape[1] >= LINEAR
    values, columns = [], []
    for answers in test.answers:
        labels, task = test.samples.labels, test.samples.task
        prepared = prepare(answers.scores, labels, task, answers.score_type)
        values.append(sign * prepared.evaluate()[metric.name])
        columns.append(sign * resampled(metric, prepared, drawn, cluster, is_linear=is_linear))
    return by_max_t([np.array(values)], [np.stack(columns, axis=1)], level)[0]


def _by_pairs(test: TestSet, metric: Metric, level: float) -> Family:
    def p_of(i: int, j: int) -> tuple[float, float]:
        a, b = test.answers[i], test.answers[j]
        found = differences(a, b, test.samples, [metric.name])[metric.name]
        return found.value, found.p

    return _holm(len(test.answers), p_of, metric, level)


def _by_runs(test: TestSet, metric: Metric, level: float) -> Family:
    """Each training's metric on the same resamples is made once, not once a pair."""
    cluster = cluster_of(test)
    drawn = draw_units(int(cluster.max()) + 1, N_RESAMPLES, 0)
    is_linear = drawn.shape[1] >= MANY  # nothing but the spread is taken of them
    values: list[Doubles] = []
    moved: list[list[Doubles]] = []
    for answers in test.answers:
        labels, task = test.samples.labels, test.samples.task
        runs = [prepare(scores, labels, task, answers.score_type) for scores in answers.runs]
        values.append(np.array([run.evaluate()[metric.name] for run in runs]))
        moved.append([resampled(metric, r, drawn, cluster, is_linear=is_linear) for r in runs])

    def p_of(i: int, j: int) -> tuple[float, float]:
        value = float(values[i].mean() - values[j].mean())
        together = test.is_together and len(values[i]) == len(values[j])
        pair = values[i], values[j]
        spread = crossed(moved[i], moved[j], pair, drawn.shape[1], together=together)
        if not spread.se > 0:
            return value, 1.0 if value == 0 else math.nan
        return value, student_p(value, spread)

    return _holm(len(test.answers), p_of, metric, level)


def _by_folds(sets: Sequence[TestSet], metric: Metric, level: float) -> Family | Untested:
    if not str(sets[0].rows[0].row.posed.split.get("rule", "")).startswith("kfold"):
        return Untested(SITES)
    each = []
    for test in sets:
        labels, task = test.samples.labels, test.samples.task
        each.append(
            [
                np.mean(
                    [prepare(s, labels, task, a.score_type).evaluate()[metric.name] for s in a.runs]
                )
                for a in test.answers
            ]
        )
    values = np.array(each)  # (F, K), of several trainings their mean
    lacking = {f for f, k in np.argwhere(np.isnan(values))}  # a fold may lack a class
    sets = [test for f, test in enumerate(sets) if f not in lacking]
    values = np.delete(values, list(lacking), axis=0)
    if len(sets) < 2:
        return Untested("fewer than two folds have the metric")
    sizes = np.array([len(test.ids) for test in sets]), np.array([test.n_train for test in sets])

    def p_of(i: int, j: int) -> tuple[float, float]:
        found = corrected_t(values[:, i] - values[:, j], *sizes)
        return found.value, found.p

    return _holm(values.shape[1], p_of, metric, level)


def _holm(
    n: int, p_of: Callable[[int, int], tuple[float, float]], metric: Metric, level: float
) -> Family:
    gains, p = np.zeros((n, n)), np.full((n, n), np.nan)
    for i, j in itertools.combinations(range(n), 2):
        value, p[i, j] = p_of(i, j)
        p[j, i] = p[i, j]
        gains[i, j], gains[j, i] = value, -value
    return by_holm([-gains if metric.is_loss else gains], [p], level)[0]
