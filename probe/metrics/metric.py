"""What a metric is: one record, from which rows, intervals, episodes and tables have it.

A new one is an entry of ``METRICS`` of ``probe.metrics.classification``, ``regression`` or ``overlap``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cache.commands.settings import check, setting
from probe.arrays import Array, Doubles, Indices
from probe.metrics.ranking import Ranking

# What a metric needs to know of answers. Sums over samples, see ``classification.sample_parts``
# and ``regression.sample_moments``:
COUNTS, ARGMAX, EXPECTED, BRIER, MOMENTS = "counts", "argmax", "expected", "brier", "moments"
AREAS = "areas"  # the same, see ``overlap.sample_sums``
# what no single sample has a part of, see ``classification.calibration_sums`` and
# ``overlap.medians``; or the order.
CALIBRATION, TEMPERED, MEDIANS, RANKS = "calibration", "tempered", "medians", "ranks"
OF_PROBABILITIES = (EXPECTED, BRIER, CALIBRATION, TEMPERED)

# What an interval of few units goes by, see ``jackknife.supports``.
SHARES, LOSSES, RECALLS, F1, PAIRS, POSITIVES = (
    *("shares", "losses", "recalls", "f1", "pairs", "positives"),
)
STRUCTURES, CLASSES, LACKING = "structures", "classes", "lacking"  # see ``overlap.supports``
Span = tuple[float, float]
INTERVAL, VAL, SD, REST = "{} [95 %]", "val {}", "{} sd", "{} w/o"  # a table's further columns


@dataclass(frozen=True)
class Metric:
    """A number that tells how good answers are."""

    name: str  # in rows
    # Sums (..., as the part has them) and the task's word -> (...): leading axes stay, be they of
    # resamples, of test sets less a patient, or of images. Of RANKS: a ``Ranking`` and (R, N)
    # multiplicities -> (R,).
    of: Callable[[Any, Any], Doubles]
    needs: str
    tasks: tuple[str, ...]
    stands_on: str | None = SHARES  # None: it has no interval; of MOMENTS a scale tells
    span: Span = (0.0, 1.0)  # the least and the largest value
    is_share: bool = False  # of right answers: has Wilson's interval where samples are independent
    # RANKS: a ``Ranking`` and each sample's unit -> (U,) without each.
    without: Callable[[Ranking, Indices], Doubles] | None = None
    # Of no shares: onto the scale where it is nearest to a normal distribution, and back.
    scale: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    column: str = ""  # of a table; empty: it has none
    also: tuple[str, ...] = ()  # further columns: INTERVAL (in the place of its own), VAL, SD, REST
    has_unit: bool = False  # the labels' own, or mm
    is_loss: bool = False  # smaller is better
    fewest: int = 5  # units of a class, without which there is no interval on a scale
    protocol: str = ""  # whose rows alone have it; empty: all

    @property
    def has_interval(self) -> bool:
        return bool(self.stands_on or self.scale)


class Prepared(NamedTuple):
    """Answers, looked at once: what every metric and every resample of them is computed of."""

    task: str
    metrics: tuple[Metric, ...]
    parts: dict[str, Array]  # each sample's: any weighted sum over N is what metrics take
    wholes: dict[str, Doubles]  # sums that no single sample has a part of
    problems: list[Ranking]  # for metrics of ranks, which are means over them

    def evaluate(self) -> dict[str, float]:
        """Every metric; nan where it is undefined."""
        n = len(next(iter(self.parts.values())))
        sums = {name: part.sum(axis=0)[None] for name, part in self.parts.items()}
        sums |= {name: whole[None] for name, whole in self.wholes.items()}
        whole = np.ones((1, n), np.int32)
        found = metrics_of(sums, self.metrics, self.task)
        for metric in self.metrics:
            if metric.needs == RANKS:
                found[metric.name] = np.mean([metric.of(p, whole) for p in self.problems], axis=0)
        return {metric.name: float(found[metric.name][0]) for metric in self.metrics}


def metrics_of(
    sums: Mapping[str, Array], metrics: Collection[Metric], task: str
) -> dict[str, Doubles]:
    """Every metric whose sums are there; their leading axes stay."""
    return {m.name: m.of(sums[m.needs], task) for m in metrics if m.needs in sums}


def asked_for(names: Iterable[str], metrics: Collection[Metric], protocol: str) -> list[str]:
    """Those of the names that rows of a protocol have; "" is none."""
    others = {m.name for m in metrics if m.protocol not in ("", protocol)}
    return [name for name in names if name not in others]


@dataclass(frozen=True)
class Measuring:
    """How answers are measured, whoever gave them."""

    # Of episodes and test, for their intervals.
    n_resamples: int = setting(1000, "of few-shot episodes' bootstrap", flag="--resamples", least=1)
    seed: int = setting(0, "of few-shot episodes' bootstrap", least=0)  # of these
    nsd_tolerance: float = setting(
        1.0, "of segmentation: mm that surfaces may be apart", metavar="MM", above=0
    )
    per_patient: bool = False  # by the mean of a patient's scores

    def __post_init__(self) -> None:
        check(self)
