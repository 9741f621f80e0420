"""Leaks of a question: what its splits share is counted, refused with --strict, and done without."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.labels import REGRESSION
from cache.layout import SPLITS
from cache.leak_memory import count_leaks
from cache.leaks import describe_leaks
from cache.splits import LEFT_OUT
from probe import metrics, regression_metrics
from probe.features import Split
from probe.overlay import Asked
from probe.patients import Scored, by_patient


def with_leaks(asked: Asked, read: Sequence[str], say: Callable[[str], None]) -> Asked:
    """The question, its leaks counted.

    Args:
        asked: the question.
        read: the splits that the probe fits on, chooses on or tests on, by word.
        say: told a line before a search that takes long.

    Raises:
        BrokenCache: the file is damaged.
    """
    train, trained_on = asked.trained_on, None
    if train:
        fitted = [name for name in read if name != "test"]
        trained_on = train.features, _only(train.split, fitted)
    split = _only(asked.split, read)
    leaks = count_leaks(asked.features, split, trained_on=trained_on, say=say)
    return dataclasses.replace(asked, leaks=leaks)


def _only(split: NDArray[np.uint8], read: Sequence[str]) -> NDArray[np.uint8]:
    is_read = np.isin(split, [SPLITS.index(name) for name in read])
    return np.where(is_read, split, LEFT_OUT).astype(np.uint8)


def refuse_leaks(asked: Asked) -> None:
    """What --strict refuses: exact copies and patients in two splits, and not to know of them.

    Near twins are for a person to judge: they stay, counted.

    Raises:
        RequestError: there are some, or nobody counted.
    """
    if asked.leaks is None:
        raise RequestError(
            f"--strict needs to know what the splits share, and {asked.features.path.name} can't "
            "tell: it is of an earlier version, or was made to share; make it anew by adding "
            f"--overwrite to its command:\n  {asked.features.header.cure}"
        )
    summary = asked.leaks.summary()
    if any(summary[f"{of}{what}"] for of in ("", "val_") for what in ("exact", "groups")):
        raise RequestError(
            f"--strict refuses {asked.title}, whose splits share samples: "
            f"{describe_leaks(summary)}; `extract data twins` lists them"
        )


def without_twins(
    asked: Asked,
    test: Split,
    scores: NDArray[np.floating],
    *,
    score_type: str = metrics.PROBABILITY,
    per_patient: bool = False,
) -> dict[str, Any]:
    """The metrics of the test samples that have no twin.

    Args:
        asked: the question, its leaks counted.
        test: the split, n samples.
        scores: (n, C) of them.
        score_type: see ``probe.metrics``.
        per_patient: whether patients are measured: those that have samples left, by these.

    Returns:
        "n", how many samples they are, and name -> value of every metric, none where n is 0. Empty where
        no test sample has a twin, or nobody knows.
    """
    if asked.leaks is None or not len(test):
        return {}
    S = len(asked.split)  # what follows are the samples of the training data
    twins = asked.features.ids[asked.leaks.twin[:S]]
    kept = ~np.isin(test.ids, twins)
    if kept.all():
        return {}
    if not kept.any():
        return {"n": 0}
    groups = None if test.groups is None else test.groups[kept]
    rest = Scored(scores[kept], test.y[kept], test.ids[kept], groups)
    if per_patient:
        rest = by_patient(rest)
    if asked.task == REGRESSION:
        values = regression_metrics.evaluate(rest.scores, rest.labels)
    else:
        values = metrics.evaluate(rest.scores, rest.labels, asked.task, score_type)
    return {"n": int(kept.sum()), **values}
