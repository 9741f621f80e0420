"""Numbers of classes or subgroups with intervals: what two figures share."""

import math
from dataclasses import dataclass


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
    n: int  # samples
    n_units: int  # patients, or samples
    unit: str  # which of the two
    perfect: float = math.nan  # a line in its panel
