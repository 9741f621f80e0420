"""Numbers of classes, subgroups or encoders with intervals: what figures share."""

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
    n: int  # samples; 0: unknown
    n_units: int  # patients, or samples
    unit: str  # which of the two
    perfect: float = math.nan  # a line in its panel
    is_published: bool = False  # by a paper, of unknown n
