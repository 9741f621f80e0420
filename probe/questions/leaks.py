"""Leaks of a question: what its splits share is counted, refused with --strict, and done without."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.leak_memory import count_leaks, counted_leaks
from cache.leaks import describe_leaks
from cache.splits.make import LEFT_OUT
from probe.arrays import Floats
from probe.metrics import classification as metrics
from probe.metrics.metric import asked_for
from probe.metrics.patients import Scored, by_patient
from probe.metrics.prepared import METRICS, prepare
from probe.questions.laying import stored_split
from probe.questions.question import Question, Split

VAL = "val_"  # before a count that is of val against train; others are of test


def with_leaks(question: Question, read: Sequence[str], say: Callable[[str], None]) -> Question:
    """The question, its leaks counted.

    Args:
        question: the question.
        read: the splits that the probe fits on, chooses on or tests on, by word.
        say: told a line before a search that takes long.

    Raises:
        BrokenCache: the file is damaged.
    """
    train, trained_on = question.trained_on, None
    if train:
        fitted = [name for name in read if name != "test"]
        trained_on = train.features, _only(train.split, fitted)
    split = _only(question.split, read)
    leaks = count_leaks(question.features, split, trained_on=trained_on, say=say)
    counts = leaks.summary() if leaks else None if train else _counted_before(question, read)
    return dataclasses.replace(question, leaks=leaks, n_leaks=counts)


def _counted_before(question: Question, read: Sequence[str]) -> dict[str, int | None] | None:
    """What a file says of its own split that was made to share, and holds no pictures to search.

    None where it says nothing, where another split is asked about, or where twins in val were
    counted and val isn't read.
    """
    counts = counted_leaks(question.features)
    if counts is None or not np.array_equal(question.split, stored_split(question.features)):
        return None
    of_test = {name: n for name, n in counts.items() if not name.startswith(VAL)}
    of_val = {name: n for name, n in counts.items() if name.startswith(VAL)}
    if "val" not in read and any(of_test[name] for name in ("exact", "near", "groups")):
        if {"train", "test"} <= {*read}:
            return None
        of_test = {**_zeros(of_test), "n": of_test["n"]}  # nothing is fitted that could leak
    of_test = of_test if "test" in read else _zeros(of_test)
    return {**of_test, **(of_val if "val" in read else _zeros(of_val))}


def _zeros(counts: Mapping[str, int | None]) -> dict[str, int | None]:
    """Of a split that isn't read; what nobody knows stays unknown."""
    return {name: None if n is None else 0 for name, n in counts.items()}


def _only(split: NDArray[np.uint8], read: Sequence[str]) -> NDArray[np.uint8]:
    is_read = np.isin(split, [SPLITS.index(name) for name in read])
    return np.where(is_read, split, LEFT_OUT).astype(np.uint8)


def refuse_leaks(question: Question) -> None:
    """What --strict refuses: exact copies and patients in two splits, and not to know of them.

    Near twins are for a person to judge: they stay, counted.

    Raises:
        RequestError: there are some, or nobody counted.
    """
    if question.n_leaks is None:
        raise RequestError(
            f"--strict needs to know what the splits share, and {question.features.path.name} can't "
            "tell: it is of an earlier version, or was made to share; make it anew by adding "
            f"--overwrite to its command:\n  {question.features.header.cure}"
        )
    summary = question.n_leaks
    if any(summary[f"{of}{what}"] for of in ("", "val_") for what in ("exact", "groups")):
        raise RequestError(
            f"--strict refuses {question.title}, whose splits share samples: "
            f"{describe_leaks(summary)}; `extract data twins` lists them"
        )


def without_twins(
    question: Question,
    test: Split,
    scores: Floats,
    *,
    score_type: str = metrics.PROBABILITY,
    per_patient: bool = False,
    protocol: str = "",
) -> dict[str, Any]:
    """The metrics of the test samples that have no twin.

    Args:
        question: the question, its leaks counted.
        test: the split, n samples.
        scores: (n, C) of them; of episodes (E, n, C), and each metric is the mean over them.
        score_type: see ``probe.metrics.classification``.
        per_patient: whether patients are measured: those that have samples left, by these.
        protocol: whose metrics are asked for, beside those of all.

    Returns:
        "n", how many samples they are, and name -> value of every metric, none where n is 0. Empty where
        no test sample has a twin, or nobody knows.
    """
    if question.leaks is None or not len(test):
        return {}
    S = len(question.split)  # what follows are the samples of the training data
    twins = question.features.ids[question.leaks.twin[:S]]
    kept = ~np.isin(test.ids, twins)
    if kept.all():
        return {}
    if not kept.any():
        return {"n": 0}
    groups = None if test.groups is None else test.groups[kept]
    each = []
    for answers in scores if scores.ndim == 3 else [scores]:
        rest = Scored(answers[kept], test.y[kept], test.ids[kept], groups)
        rest = by_patient(rest, question.task.is_dense) if per_patient else rest
        each.append(prepare(rest.scores, rest.labels, question.task.word, score_type).evaluate())
    asked = asked_for(each[0], METRICS, protocol)
    means = {name: float(np.mean([values[name] for values in each])) for name in asked}
    return {"n": int(kept.sum()), **means}
