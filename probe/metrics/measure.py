"""From answers to numbers: every metric of the task, and what must be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.task import MISSING, MULTI_LABEL, REGRESSION
from probe.metrics import classification as metrics
from probe.metrics import regression as regression_metrics
from probe.metrics.calibration import N_FOLDS, Votes
from probe.metrics.intervals import (
    COUNTS,
    ENOUGH,
    NONE,
    Estimates,
    Interval,
    clusters,
    estimate,
    estimate_regression,
)
from probe.metrics.per_class import per_class

NAMED = 3  # labels that a mark names; the others are counted


@dataclass(frozen=True)
class Measuring:
    """How answers are measured, whoever gave them."""

    n_resamples: int = 1000  # of episodes and test, for their intervals
    seed: int = 0  # of these
    per_patient: bool = False  # by the mean of a patient's scores


@dataclass(frozen=True)
class Measured:
    """The numbers of one answer."""

    val: Mapping[str, float]  # empty where val has no samples; where folds decided, out of fold
    test: Mapping[str, Interval]  # empty where test wasn't read; of episodes the means over them
    # What a reader of them must know; a stored row has all in one list.
    marks: Sequence[str] = ()
    # How each interval of test was made: "wilson", "delong"..., see probe.metrics.intervals.
    intervals: Mapping[str, str] = field(default_factory=dict)
    # Lists over classes, on test: class, n, recall, auc...; see probe.metrics.per_class.
    per_class: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    temperature: float | None = None  # fitted on val, of ece_tempered; None: nothing to fit
    # Few-shot: name -> each episode's metric; see probe.metrics.episodes.
    episodes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # n and every metric of the test samples that have no twin; empty where all have none.
    without_twins: Mapping[str, float] = field(default_factory=dict)


def measure(
    scores: Mapping[str, NDArray[np.floating]],
    labels: Mapping[str, NDArray[Any]],
    task: str,
    class_names: Sequence[str],
    *,
    score_type: str = metrics.PROBABILITY,
    groups: Mapping[str, NDArray[np.str_] | None] | None = None,
    votes: Votes | None = None,
) -> Measured:
    """Evaluate val, and test with intervals.

    Args:
        scores: "val" and "test" -> (n, C) probabilities or margins, of regression (n, 1)
            predictions; n may be 0. Those of val must be of a probe that wasn't fitted to val:
            the temperature is.
        labels: "val" and "test" -> (n,), or (n, C) for the multi-label task; and "train", what the
            answers to val learnt from, where they learnt.
        task: one of ``cache.task.TASKS``.
        class_names: C.
        score_type: ``probe.metrics.classification.PROBABILITY``, ``MARGIN`` or ``UNNORMALISED``; only of
            probabilities there are figures of calibration.
        groups: "val" and "test" -> (n,) patients, where known.
        votes: what smooths the scores before they are tempered, where they are shares of votes.

    Raises:
        RequestError: what ``probe.metrics.classification.validate`` or ``probe.metrics.regression.validate``
            refuses.
    """
    groups = groups or {}
    if task == REGRESSION:
        return _measure_regression(scores, labels, groups.get("test"))
    val, test, methods, by_class, temperature = {}, {}, {}, {}, None
    if len(labels["val"]):
        val = metrics.evaluate(scores["val"], labels["val"], task, score_type)
    marks = [*metrics.SCORE_MARKS[score_type]]
    if val and score_type == metrics.PROBABILITY and (labels["val"] != MISSING).any():
        unlearnt = _unlearnt(labels, task, class_names)
        if not unlearnt:
            patients = groups.get("val")
            temperature = metrics.fit_temperature(
                scores["val"],
                labels["val"],
                task,
                votes=votes,
                fold=None if patients is None else clusters(patients) % N_FOLDS,
            )
        if temperature is None:
            why = unlearnt or "the truth of a val sample has the probability 0"
            marks.append(f"no temperature: {why}")
    if len(labels["test"]):
        answers = scores["test"], labels["test"], task
        found = estimate(
            *answers,
            score_type=score_type,
            temperature=temperature,
            votes=votes,
            groups=groups.get("test"),
        )
        test, methods = found.metrics, found.methods
        by_class = per_class(*answers, class_names, score_type)
        rate = metrics.larger_class_rate(labels["test"], task)
        if abs(test["acc"].value - rate) < 1e-12:
            marks.append("accuracy equals the larger-class rate")
        marks += few_units(found, task, class_names)
    undefined = [
        name
        for name, auc in (("val", val.get("auc", 0.0)), ("test", test["auc"].value if test else 0))
        if np.isnan(auc)
    ]
    marks += [why_no_auc(name, labels[name], task, class_names) for name in undefined]
    return Measured(val, test, marks, methods, by_class, temperature)


def _measure_regression(
    scores: Mapping[str, NDArray[np.floating]],
    labels: Mapping[str, NDArray[Any]],
    groups: NDArray[np.str_] | None,
) -> Measured:
    val, test, methods, marks = {}, {}, {}, []
    if len(labels["val"]):
        val = regression_metrics.evaluate(scores["val"], labels["val"])
    if len(labels["test"]):
        answers = scores["test"], labels["test"]
        found = estimate_regression(*answers, groups=groups)
        test, methods = found.metrics, found.methods
        marks = [*marks_of_regression(test), *few_units_of_regression(found)]
    return Measured(val, test, marks, methods, {}, None)


def marks_of_regression(test: Mapping[str, Interval]) -> list[str]:
    """What a reader of R2 must know."""
    if np.isnan(test["r2"].value):
        return ["no R2 on test: all labels are one number there"]
    return [] if test["r2"].value > 0 else ["no better than the mean of the test labels"]


def few_units(found: Estimates, task: str, class_names: Sequence[str]) -> list[str]:
    """Which metrics have no interval, or one by counts alone, and why."""
    none: dict[str, list[str]] = {}
    counts: dict[str, list[str]] = {}
    for name, method in found.methods.items():
        support = found.supports.get(name)
        if support is None or method not in (NONE, COUNTS) or np.isnan(found.metrics[name].value):
            continue
        noun = "label" if task == MULTI_LABEL else "class"
        who = "test" if support.who is None else f"{noun} {class_names[support.who]}"
        why = f"{who} has {_counted(support.weakest, found.unit)}"
        (none if method == NONE else counts).setdefault(why, []).append(name)
    return [
        *(f"no interval of {', '.join(names)}: {why}" for why, names in none.items()),
        *(
            f"intervals of {', '.join(names)} by counts alone: {why}"
            for why, names in counts.items()
        ),
    ]


def few_units_of_regression(found: Estimates) -> list[str]:
    """Which metrics of continuous labels have no interval, and why."""
    without = [
        name
        for name, method in found.methods.items()
        if method == NONE and not np.isnan(found.metrics[name].value)
    ]
    if not without:
        return []
    is_few = found.n_units < ENOUGH
    why = f"test has {_counted(found.n_units, found.unit)}" if is_few else "nothing scatters"
    return [f"no interval of {', '.join(without)}: {why}"]


def _counted(n: int, unit: str) -> str:
    return f"{n} {unit}{'' if n == 1 else 's'}"


def never_learnt(labels: NDArray[Any], task: str, class_names: Sequence[str]) -> list[str]:
    """Which classes, or values of several labels, training labels lack, as marks of the row."""
    if task == REGRESSION:
        return []
    lacking = _lacking(labels, task, len(class_names))
    absent = lacking.sum(axis=1) > 0
    said = "no training image is of class {}: nothing was learnt of it"
    if task == MULTI_LABEL:
        said = "all training images have one value of {}: nothing was learnt of it"
    return [said.format(_listed(absent, class_names))] if absent.any() else []


def _lacking(labels: NDArray[np.integer], task: str, n_classes: int) -> NDArray[np.bool_]:
    """(C, 1) which classes nobody has, or (C, 2) which values, 0 or 1, of several labels."""
    if task == MULTI_LABEL:
        return np.stack([(labels != value).all(axis=0) for value in (0, 1)], axis=1)
    return (np.bincount(labels, minlength=n_classes) == 0)[:, None]


def _unlearnt(
    labels: Mapping[str, NDArray[np.integer]], task: str, class_names: Sequence[str]
) -> str:
    """Why val has no log-loss: classes that training labels lack and val has; or nothing."""
    if "train" not in labels:
        return ""
    lacking, not_asked = (_lacking(labels[n], task, len(class_names)) for n in ("train", "val"))
    found = (lacking & ~not_asked).sum(axis=1) > 0
    if not found.any():
        return ""
    what = "values of " if task == MULTI_LABEL else "class "
    return f"val has {what}{_listed(found, class_names)} that training images lack"


def why_no_auc(
    split: str, labels: NDArray[np.integer], task: str, class_names: Sequence[str]
) -> str:
    """Which classes or labels of a split are why it has no AUC, by name."""
    say = _one_sided if task == MULTI_LABEL else _absent
    return say(split, labels, class_names)


def _absent(split: str, labels: NDArray[np.integer], class_names: Sequence[str]) -> str:
    """Why a split has no AUC, by the names of the classes that it lacks."""
    absent = np.bincount(labels, minlength=len(class_names)) == 0
    return f"no AUC on {split}: none there is of class {_listed(absent, class_names)}"


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
