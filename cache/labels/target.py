"""What is to be predicted: a task, its classes, a label for each sample."""

import difflib
import itertools
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.labels.tables import is_number
from cache.task import BINARY, MISSING, MULTI_LABEL, REGRESSION, UNCERTAIN

EXACT = 2**53  # whole numbers below it are exact as floats
UNCERTAIN_RULES = ("ignore", "zeros", "ones")  # --uncertain
N_DESCRIBED = 20  # classes
UNLABELLED = "unlabelled"  # the label's name, of images that have none
# Cells that may mean that nobody knows, in lower case: what pandas.read_csv takes for that by default
# and isn't always missing here, and what people write.
LOOKS_MISSING = frozenset(
    (
        "#n/a",
        "#n/a n/a",
        "#na",
        "-nan",
        "<na>",
        "n/a",
        "n.a.",
        "none",
        "missing",
        "-",
        "--",
        "?",
        ".",
    )
)


@dataclass(frozen=True)
class Target:
    """What is to be predicted, for S samples."""

    task: str  # one of cache.task.TASKS
    class_names: tuple[str, ...]  # of regression: the one column's name
    # int64 (S,) or (S, C), of regression float64 (S,); with MISSING, UNCERTAIN, NaN
    labels: NDArray[Any]

    @property
    def positive_class(self) -> str | None:
        """The name of label 1 of a binary task."""
        return self.class_names[1] if self.task == BINARY else None

    @property
    def is_unlabelled(self) -> bool:
        """Whether it only holds the place of labels; see ``unlabelled``."""
        is_named = self.class_names == (UNLABELLED,) and self.task == MULTI_LABEL
        return is_named and bool((self.labels == MISSING).all())


def unlabelled(n_samples: int) -> Target:
    """What is to be predicted where nobody knows any label: a single one, which all of them lack."""
    return Target(MULTI_LABEL, (UNLABELLED,), np.full((n_samples, 1), MISSING, np.int64))


def apply_uncertain(labels: NDArray[np.int64], how: str) -> NDArray[np.int64]:
    """Decide what UNCERTAIN means.

    Args:
        labels: (S, C) of 0, 1, MISSING, UNCERTAIN.
        how: "ignore" makes it MISSING; "zeros" and "ones" are U-Zeros and U-Ones of Irvin et al.
            2019 (https://arxiv.org/abs/1901.07031), section 3.1.

    Returns:
        (S, C), a copy of 0, 1 and MISSING.

    Raises:
        RequestError: unknown ``how``.
    """
    if how not in UNCERTAIN_RULES:
        raise RequestError(f"--uncertain takes {', '.join(UNCERTAIN_RULES)}, not {how!r}")
    value = {"ignore": MISSING, "zeros": 0, "ones": 1}[how]
    return np.where(labels == UNCERTAIN, value, labels)


def select_label(target: Target, name: str) -> Target:
    """One label of a multi-label target, as a binary task of its own.

    Args:
        target: of several labels, none of them UNCERTAIN.
        name: the label.

    Returns:
        Classes ("no Edema", "Edema").

    Raises:
        RequestError: no such label, it is always the same, or it is UNCERTAIN somewhere.
    """
    if target.task != MULTI_LABEL:
        raise RequestError(f"{name!r} can be chosen among several labels; here is {target.task}")
    if name not in target.class_names:
        near = difflib.get_close_matches(name, target.class_names, n=2, cutoff=0.5)
        cure = f"did you mean {' or '.join(near)}" if near else ", ".join(target.class_names)
        raise RequestError(f"no label {name!r} among {len(target.class_names)}; {cure}")
    labels = target.labels[:, target.class_names.index(name)]
    if (labels == UNCERTAIN).any():
        raise RequestError(
            f"{name}: {int((labels == UNCERTAIN).sum()):_} labels are uncertain; say --uncertain "
            f"{'|'.join(UNCERTAIN_RULES)}"
        )
    if len(np.unique(labels[labels != MISSING])) < 2:
        raise RequestError(f"{name}: one class only; no probe can be fitted or measured")
    return Target(BINARY, (f"no {name}", name), labels.copy())


def describe_target(target: Target) -> list[str]:
    """What was understood, one line each: task, classes, positive class, gaps, warnings."""
    if target.is_unlabelled:
        return ["labels: none"]
    lines = [f"task: {target.task}"]
    if target.task == REGRESSION:
        known = target.labels[~np.isnan(target.labels)]
        lines.append(
            f"{target.class_names[0]}: {known.min():g} to {known.max():g}, mean {known.mean():.4g}, "
            f"sd {known.std():.4g}"
        )
        return lines + _count_gaps(np.isnan(target.labels), np.zeros(0, bool))
    counts = count_classes(target)
    known = (target.labels >= 0).sum(axis=0)  # () of classes, (C,) of labels
    shares = counts / np.maximum(known, 1)
    facts = zip(target.class_names, counts, shares, strict=True)
    shown = [
        f"{name} ({n:_}, {share:.1%})" for name, n, share in itertools.islice(facts, N_DESCRIBED)
    ]
    more = len(counts) - len(shown)
    kind = "labels" if target.task == MULTI_LABEL else "classes"
    lines.append(f"{kind}: {', '.join(shown)}{f', and {more:_} more' if more else ''}")
    if target.positive_class is not None:
        lines.append(f"positive: {target.positive_class} (label 1)")
    lines += _count_gaps(target.labels == MISSING, target.labels == UNCERTAIN)
    if target.task == MULTI_LABEL and is_one_hot(target.labels).all():
        lines.append(
            "each sample has just one of these labels: --task multi-class makes them classes"
        )
    return lines + warn_of_classes(target)


def count_classes(target: Target) -> NDArray[np.int64]:
    """(C,) samples of each class, or those that have each label."""
    if target.task == MULTI_LABEL:
        return (target.labels == 1).sum(axis=0)
    return np.bincount(target.labels[target.labels >= 0], minlength=len(target.class_names))


def warn_of_classes(target: Target) -> list[str]:
    """Classes that no split can have in two parts, and names that look like one class twice."""
    if target.task == REGRESSION or target.is_unlabelled:
        return []
    counts = count_classes(target)
    rare = [n for n, count in zip(target.class_names, counts, strict=True) if count < 2]
    by_case = Counter(name.casefold() for name in target.class_names)
    twice = [name for name in target.class_names if by_case[name.casefold()] > 1]
    warnings = warn_of_blanks(target.class_names)
    if alike := same_numbers(target.class_names):
        warnings.append(f"classes that are the same number: {', '.join(alike)}")
    if rare:
        names = ", ".join(rare[:3]) + (" ..." if len(rare) > 3 else "")
        warnings.append(f"fewer than 2 samples, so train or test has none: {names}")
    if twice:
        warnings.append(f"classes that differ only in upper and lower case: {', '.join(twice[:4])}")
    return warnings


def warn_of_blanks(class_names: Sequence[str]) -> list[str]:
    """Classes that may be cells in which nobody said anything; at most one line."""
    blanks = [name for name in class_names if name.lower() in LOOKS_MISSING]
    if not blanks:
        return []
    return [
        f"classes that look like missing labels: {', '.join(blanks)}; of a table, "
        f"{name_missing(*blanks)} says that they are"
    ]


def name_missing(*words: str) -> str:
    """The flag by which words are missing values."""
    return f"--missing={shlex.quote(','.join(words))}"


def same_numbers(names: Sequence[str]) -> list[str]:
    """The first few names that are one number with another's: 01 and 1."""
    values = {name: float(name) for name in names if is_number(name)}
    counts = Counter(values.values())
    # As floats two codes of 20 digits would be one, whose digits differ.
    alike = [n for n, value in values.items() if counts[value] > 1 and abs(value) < EXACT]
    return alike[:4]


def _count_gaps(missing: NDArray[np.bool_], uncertain: NDArray[np.bool_]) -> list[str]:
    gaps = {"missing": missing, "uncertain": uncertain}
    return [
        f"{word}: {int(marks.sum()):_} of {marks.size:_} labels"
        for word, marks in gaps.items()
        if marks.any()
    ]


def is_one_hot(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(S,) rows with one 1 and else zeros; UNCERTAIN and MISSING are no zeros."""
    return (labels >= 0).all(axis=1) & (labels.sum(axis=1) == 1)
