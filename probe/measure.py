"""From answers to numbers: every metric of the task, and what must be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.labels import REGRESSION
from probe import metrics, regression_metrics
from probe.intervals import Interval, bootstrap, bootstrap_regression

NAMED = 3  # labels that a mark names; the others are counted


class Measured(NamedTuple):
    """The numbers of one answer."""

    val: dict[str, float]  # empty where val has no samples
    test: dict[str, Interval]  # empty where test wasn't read
    marks: list[str]  # what a reader of them must know


def measure(
    scores: Mapping[str, NDArray[np.floating]],
    labels: Mapping[str, NDArray[Any]],
    task: str,
    class_names: Sequence[str],
    n_resamples: int,
    seed: int,
) -> Measured:
    """Evaluate val, and test with intervals.

    Args:
        scores: "val" and "test" -> (n, C) probabilities, of regression (n, 1) predictions; n may
            be 0.
        labels: "val" and "test" -> (n,), or (n, C) for the multi-label task.
        task: one of ``probe.metrics.TASKS``, or "regression".
        class_names: C.
        n_resamples: of the bootstrap over test.
        seed: of the bootstrap.

    Raises:
        RequestError: what ``probe.metrics.validate`` or ``probe.regression_metrics.validate``
            refuses.
    """
    val, test = {}, {}
    if task == REGRESSION:
        if len(labels["val"]):
            val = regression_metrics.evaluate(scores["val"], labels["val"])
        if len(labels["test"]):
            test = bootstrap_regression(scores["test"], labels["test"], n_resamples, seed)
        return Measured(val, test, _marks_of_regression(test))
    if len(labels["val"]):
        val = metrics.evaluate(scores["val"], labels["val"], task)
    marks = []
    if len(labels["test"]):
        test = bootstrap(scores["test"], labels["test"], task, n_resamples, seed)
        rate = metrics.larger_class_rate(labels["test"], task)
        if abs(test["acc"].value - rate) < 1e-12:
            marks.append("accuracy equals the larger-class rate")
    undefined = [
        name
        for name, auc in (("val", val.get("auc", 0.0)), ("test", test["auc"].value if test else 0))
        if np.isnan(auc)
    ]
    if undefined and task != metrics.MULTI_LABEL:
        marks.append(f"no AUC on {' and '.join(undefined)}: a class is absent there")
    elif undefined:
        marks += [_one_sided(name, labels[name], class_names) for name in undefined]
    return Measured(val, test, marks)


def _marks_of_regression(test: Mapping[str, Interval]) -> list[str]:
    if not test:
        return []
    if np.isnan(test["r2"].value):
        return ["no R2 on test: all labels are one number there"]
    return [] if test["r2"].value > 0 else ["no better than the mean of the test labels"]


def _one_sided(split: str, labels: NDArray[np.integer], class_names: Sequence[str]) -> str:
    """Why a split with several labels has no AUC, by name."""
    shares = metrics.label_shares(labels)
    if (unknown := np.isnan(shares)).any():
        return f"no numbers on {split}: nothing is known there of {_listed(unknown, class_names)}"
    return f"no AUC on {split}: one value only there of {_listed(shares % 1 == 0, class_names)}"


def _listed(is_meant: NDArray[np.bool_], class_names: Sequence[str]) -> str:
    names = [name for name, meant in zip(class_names, is_meant, strict=True) if meant]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
