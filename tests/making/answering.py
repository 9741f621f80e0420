"""A result row as `probe` would write it, without having asked anything."""

import math

from probe.metrics.intervals import Interval
from probe.results import Row


def make_row(kind="linear", dataset="toys", seed=0, auc=0.8, **probe):
    return Row(
        features={
            "model": "toy",
            "encoder": "toy.full",
            "size": 32,
            "dataset": dataset,
            "task": "binary-class",
            "digest": "d" * 64,
            "key": {},
            "samples": {"labels": 1, "split": 2},
        },
        probe={"kind": kind, "layer": 3, "pool": "cls", **probe},
        seed=seed,
        metrics={"acc": Interval(0.7, 0.6, 0.8), "auc": Interval(auc, math.nan, 0.9)},
        val_metrics={"acc": 0.75, "auc": math.nan},
        n={"train": 10, "val": 5, "test": 5},
        seconds=0.1,
        versions={},
        marks=("a mark",),
        leaks={"n": 5, "exact": 1, "near": 2, "groups": None},
        without_twins={"n": 3, "acc": 0.5, "auc": math.nan},
        intervals={"acc": "wilson", "auc": "delong"},
        episodes={"acc": [0.6, math.nan]},
        chosen={"ddof": 1},
    )
