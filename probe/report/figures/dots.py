"""Numbers of classes, subgroups or encoders with intervals: what figures share."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from probe.arrays import Indices
from probe.report.rows.contenders import Contender
from probe.results import PATIENTS

PATIENT = "patient"
FAR, EDGE = 2, 0.05


@dataclass(frozen=True)
class Dot:
    """One number."""

    panel: str
    name: str  # of the class or subgroup
    of: str  # what answered
    metric: str
    value: float
    low: float  # ends of its 95 % interval; nan: it has none
    high: float
    n: int  # samples; 0: unknown
    n_units: int  # patients, or samples
    unit: str  # which of the two
    perfect: float = math.nan  # a line in its panel
    is_published: bool = False  # by a paper, of unknown n

    @property
    def size(self) -> str:
        """Behind its name: "n 11, 5 patients"; "" where it is unknown."""
        if not self.n:
            return ""
        if self.unit == PATIENT and self.n == self.n_units:  # they are what is measured
            return f"n {self.n} patient" + "s" * (self.n != 1)
        more = f", {self.n_units} patient" + "s" * (self.n_units != 1)
        return f"n {self.n}" + more * (self.unit == PATIENT)


def unit_of(of: Contender, cluster: Indices) -> str:
    """What is drawn again: patients where they are measured or one has several samples.

    Args:
        of: whose test samples.
        cluster: (N,) number of each sample's unit.
    """
    are_patients = of.field("measured") == PATIENTS or int(cluster.max()) + 1 < len(cluster)
    return PATIENT if are_patients else "sample"


def room_of(dots: Sequence[Dot]) -> tuple[float, float] | None:
    """Ends of the axis of a panel with a line of perfect ones, where few would leave others no room.

    They are FAR times the median dot's distance from perfect away, with its interval, and at least 1.

    Returns:
        None: all have room, with their intervals.
    """
    perfect = dots[0].perfect
    if math.isnan(perfect):
        return None
    each = [[e for e in (dot.value, dot.low, dot.high) if not math.isnan(e)] for dot in dots]
    far = max(1.0, FAR * statistics.median(max(abs(e - perfect) for e in of) for of in each))
    low, high = min(map(min, each)), max(map(max, each))
    if perfect - far <= low and high <= perfect + far:
        return None
    edge = EDGE * far
    return max(low - edge, perfect - far), min(high + edge, perfect + far)


def n_said(dots: Sequence[Dot]) -> str:
    """What numbers behind names are."""
    units = {dot.unit for dot in dots}
    several = any(dot.unit == PATIENT and dot.n > dot.n_units for dot in dots)
    if units == {PATIENT} and not several:
        return "n: patients."
    return "n: samples, and of how many patients." if several else "n: samples."


def units_said(dots: Sequence[Dot]) -> str:
    """What is drawn again: "samples, or patients"."""
    return ", or ".join(f"{unit}s" for unit in sorted({dot.unit for dot in dots}, reverse=True))
