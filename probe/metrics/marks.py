"""What a reader of an answer's numbers must know: why some are missing, or say little."""

from collections.abc import Sequence

import numpy as np

from cache.task import Task
from probe.arrays import Array, Bools, Ints
from probe.metrics import classification as metrics
from probe.metrics.intervals import COUNTS, ENOUGH, NONE, Estimates
from probe.metrics.prepared import METRICS

FEWEST = {metric.name: metric.fewest for metric in METRICS}
NAMED = 3  # labels that a mark names; the others are counted


def marks_of(found: Estimates, labels: Array, task: Task) -> list[str]:
    """What must be said of the numbers of test, but for an AUC that it hasn't."""
    if task.is_continuous:
        r2, marks = found.metrics["r2"].value, []
        if np.isnan(r2):
            marks = ["no R2 on test: all labels are one number there"]
        elif r2 <= 0:
            marks = ["no better than the mean of the test labels"]
        return [*marks, *_few_units_of_regression(found)]
    if task.is_dense:
        return _few_units(found, task)
    rate = metrics.larger_class_rate(labels, task.word)
    is_floor = abs(found.metrics["acc"].value - rate) < 1e-12
    marks = ["accuracy equals the larger-class rate"] if is_floor else []
    return [*marks, *_few_units(found, task)]


def _few_units(found: Estimates, task: Task) -> list[str]:
    """Which metrics have no interval, or one by counts alone, and why."""
    none: dict[str, list[str]] = {}
    counts: dict[str, list[str]] = {}
    for name, method in found.methods.items():
        support = found.supports.get(name)
        if support is None or method not in (NONE, COUNTS) or np.isnan(found.metrics[name].value):
            continue
        noun = "label" if task.has_several_labels else "class"
        who = "test" if support.who is None else f"{noun} {task.class_names[support.who]}"
        why = f"{who} has {_counted(support.weakest, found.unit)}"
        if task.is_dense and support.weakest >= FEWEST[name]:
            why = "nothing scatters"
        elif name == "detection_specificity":
            why += " without it"
        (none if method == NONE else counts).setdefault(why, []).append(name)
    return [
        *(f"no interval of {', '.join(names)}: {why}" for why, names in none.items()),
        *(
            f"intervals of {', '.join(names)} by counts alone: {why}"
            for why, names in counts.items()
        ),
    ]


def _few_units_of_regression(found: Estimates) -> list[str]:
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


def never_learnt(labels: Array, task: Task) -> list[str]:
    """Which classes, or values of several labels, training labels lack, as marks of the row."""
    if task.is_continuous:
        return []
    if task.is_dense:
        absent = labels.sum(axis=0) == 0
        said = "no training image has {}: nothing was learnt of it"
        return [said.format(_listed(absent, task.class_names))] if absent.any() else []
    lacking = _lacking(labels, task)
    absent = lacking.sum(axis=1) > 0
    said = "no training image is of class {}: nothing was learnt of it"
    if task.has_several_labels:
        said = "all training images have one value of {}: nothing was learnt of it"
    return [said.format(_listed(absent, task.class_names))] if absent.any() else []


def _lacking(labels: Ints, task: Task) -> Bools:
    """(C, 1) which classes nobody has, or (C, 2) which values, 0 or 1, of several labels."""
    if task.has_several_labels:
        return np.stack([(labels != value).all(axis=0) for value in (0, 1)], axis=1)
    return (np.bincount(labels, minlength=task.n_classes) == 0)[:, None]


def unlearnt(learnt: Ints, val: Ints, task: Task) -> str:
    """Why val has no log-loss: classes that training labels lack and val has; or nothing."""
    lacking, not_asked = (_lacking(labels, task) for labels in (learnt, val))
    found = (lacking & ~not_asked).sum(axis=1) > 0
    if not found.any():
        return ""
    what = "values of " if task.has_several_labels else "class "
    return f"val has {what}{_listed(found, task.class_names)} that training images lack"


def why_no_auc(split: str, labels: Ints, task: Task) -> str:
    """Which classes or labels of a split are why it has no AUC, by name."""
    names = task.class_names
    if not task.has_several_labels:
        absent = np.bincount(labels, minlength=task.n_classes) == 0
        return f"no AUC on {split}: none there is of class {_listed(absent, names)}"
    shares = metrics.label_shares(labels)
    if (unknown := np.isnan(shares)).any():
        return f"no numbers on {split}: nothing is known there of {_listed(unknown, names)}"
    return f"no AUC on {split}: one value only there of {_listed(shares % 1 == 0, names)}"


def _listed(is_meant: Bools, class_names: Sequence[str]) -> str:
    names = [name for name, meant in zip(class_names, is_meant, strict=True) if meant]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
