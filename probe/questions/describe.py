"""What a question is, in words for people: the shares of its splits."""

from collections.abc import Sequence

import numpy as np

from cache.format.sample_tables import SPLITS
from cache.labels.target import warn_of_blanks
from cache.splits.make import LEFT_OUT
from probe.arrays import Floats, Ints
from probe.metrics import classification as metrics
from probe.questions.question import Question

LISTED = 14  # classes in a line; ChestMNIST has so many
N_TOLD = 10  # folds or sites whose shares are told


def describe_questions(questions: Sequence[Question]) -> list[str]:
    """The shares of every question's splits, of many folds those of the first.

    Raises:
        RequestError: labels that don't fit the task or the class names.
    """
    told = [question for q in questions[:N_TOLD] for question in (q.trained_on, q) if question]
    more = len(questions) - N_TOLD
    return [*map(describe_shares, told), *([f"... and {more} more splits"] if more > 0 else [])]


def describe_shares(question: Question) -> str:
    """How many images of which class each split has: they differ a lot in some sets.

    Of continuous labels their mean and standard deviation.

    Raises:
        RequestError: labels that don't fit the task or the class names.
    """
    task = question.task
    is_continuous, n_classes = task.is_continuous, task.n_classes
    parts = []
    for name in SPLITS:
        labels = question.labels[question.is_in(name)]
        if task.is_dense:
            listed = _pixels(labels)
        else:
            if not is_continuous:
                metrics.check_labels(labels, task.word, n_classes)
            listed = _spread(labels) if is_continuous else _shares(labels, n_classes)
        is_told = name != "val" and len(labels)
        parts.append(f"{name} {len(labels):_}" + (f" ({listed})" if is_told else ""))
    if n_left_out := int((question.split == LEFT_OUT).sum()):
        parts.append(f"{n_left_out:_} left out")
    names = [name if len(name) <= 24 else name[:22] + ".." for name in question.task.class_names]
    what = "labels" if is_continuous else "classes of pixels" if task.is_dense else "classes"
    if len(names) > LISTED:
        names = [*names[:LISTED], f"... ({len(names)})"]
    between = "; " if any("," in name for name in names) else ", "  # "normal, benign" is one class
    shares = f"{question.title}: {' · '.join(parts)} · {what}: {between.join(names)}"
    return "; ".join([shares, *warn_of_blanks(question.task.class_names)])


def _shares(labels: Ints, n_classes: int) -> str:
    """The share of each class, or of each label's ones among what is known; "?" where nothing is."""
    if labels.ndim == 2:
        shares = metrics.label_shares(labels)
    else:
        shares = np.bincount(labels, minlength=n_classes) / max(len(labels), 1)
    listed = ["?" if np.isnan(share) else f"{share:.0%}" for share in shares]
    return " ".join(listed[:LISTED] + (["..."] if len(listed) > LISTED else []))


def _pixels(counts: Ints) -> str:
    """The share of each class of all pixels, and in brackets how many samples have it."""
    shares = counts.sum(axis=0) / max(int(counts.sum()), 1)
    listed = [
        f"{share:.1%} in {n}" for share, n in zip(shares, (counts > 0).sum(axis=0), strict=True)
    ]
    return ", ".join(listed[:LISTED] + (["..."] if len(listed) > LISTED else []))


def _spread(labels: Floats) -> str:
    """Mean and standard deviation of continuous labels."""
    return f"{labels.mean():.4g} ± {labels.std():.4g}" if len(labels) else "none"
