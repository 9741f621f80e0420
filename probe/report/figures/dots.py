"""Numbers of classes, subgroups or encoders with intervals: what figures share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probe.arrays import Indices
from probe.report.rows.contenders import Contender
from probe.results import PATIENTS

PATIENT = "patient"


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
