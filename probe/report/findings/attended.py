"""Which of a sample's rows decided, where its probe learnt to attend to some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.aggregate import RowsOfSamples
from probe.arrays import Array, Doubles, Indices, Texts

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while


@dataclass(frozen=True)
class Attended:
    """The row of a sample with the largest attention."""

    row: int  # of the feature file
    number: int  # among the sample's rows, from 1
    n: int  # rows of the sample
    weight: float  # 0 to 1; all rows' sum to 1

    def __str__(self) -> str:
        equal = f"{1 / self.n:.3f} if equal"
        return f"row {self.number} of {self.n}: attention {self.weight:.3f} ({equal})"


@dataclass(frozen=True)
class Attention:
    """Of all rows of test, the mean of trainings. R rows."""

    weights: Doubles  # (R,)
    ids: Texts  # (R,) the rows' own

    @staticmethod
    def of(trainings: Sequence[Mapping[str, Array]]) -> Attention | None:
        """What rows' arrays hold; None: not all of them have it, or it is of other rows."""
        first = trainings[0].get("rows_ids")
        if first is None or not all(
            np.array_equal(own.get("rows_ids", ()), first) for own in trainings
        ):
            return None
        weights = [own["rows_attention"] for own in trainings if "rows_attention" in own]
        if len(weights) < len(trainings) or any(own.shape != first.shape for own in weights):
            return None
        return Attention(np.stack(weights).astype(np.float64).mean(axis=0), first)

    def largest(self, features: Features, samples: Indices) -> list[Attended] | None:
        """Of some samples of a feature file; None: it has other samples or rows."""
        from cache.format.read import read_table  # h5py takes a while

        names, rows = read_table(features.header, "rows/ids"), []
        of_samples = RowsOfSamples(features.row_sample, len(features.ids))
        order = np.argsort(self.ids)
        for sample in samples.tolist():
            own = of_samples.of(sample)
            spots = np.searchsorted(self.ids, names[own], sorter=order)
            place = order[np.minimum(spots, len(order) - 1)]
            if not np.array_equal(self.ids[place], names[own]):
                return None
            best = int(self.weights[place].argmax())
            weight = float(self.weights[place][best])
            rows.append(Attended(int(own[best]), best + 1, len(own), weight))
        return rows
