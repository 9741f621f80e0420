"""Choosing inside a few-shot episode: by its own samples alone, for val has far more labels.

k by leaving one out (see ``left_out``), an estimator's settings by folds. What is left out, or
divided, is a patient where patients are known.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cache.errors import RequestError
from cache.splits.strata import divide, name_units
from cache.task import MISSING, MULTI_LABEL, REGRESSION
from probe.arrays import Array, Doubles, Floats, Indices
from probe.choosing.plan import FOLD_SEED, N_FOLDS, Fitted
from probe.metrics.losses import loss_of
from probe.questions.question import Question, Split, has_groups, pick

NAME_ONE = "name one value"


class TooFewError(RequestError):
    """Episodes of one number of shots are too small for what is asked; others may not be."""


def units_of(samples: Split) -> Indices:
    """(n,) number of each sample's unit, from 0: a patient, or a sample by itself."""
    return np.unique(name_units(samples.ids, samples.groups), return_inverse=True)[1]


def count_units(samples: Split, task: str) -> list[int]:
    """Units of each class that there is; of several labels, or continuous ones, of all."""
    units = units_of(samples)
    if task in (MULTI_LABEL, REGRESSION):
        return [int(units.max()) + 1]
    return [len(np.unique(units[samples.y == c])) for c in np.unique(samples.y)]


def make_episode_folds(samples: Split, task: str, cure: str = NAME_ONE) -> Indices:
    """The fold of each sample: stratified, no unit divided, as many as a class has units.

    At most ``N_FOLDS``, and as many as the rarest class that can be divided. A class of one unit
    can't: it is always learnt from, and never asked. Chance is of ids and ``FOLD_SEED``, the same
    for every encoder.

    Returns:
        (n,) from 0; -1 where a sample is in none.

    Raises:
        TooFewError: no class has two units, or without some fold a class would be missing.
    """
    counts = count_units(samples, task)
    n_folds = min([N_FOLDS, *(n for n in counts if n > 1)])
    if max(counts) < 2:
        raise TooFewError(
            f"an episode has one sample, or patient, of each class, and none to choose on; {cure}"
        )
    fold = np.full(len(samples), -1, np.intp)
    rows = np.arange(len(samples))
    if min(counts) < 2:
        single = np.unique(samples.y)[np.array(counts) < 2]
        rows = np.flatnonzero(~np.isin(samples.y, single))
    divided = pick(samples, rows)
    fold[rows] = divide([1] * n_folds, divided.ids, divided.y, divided.groups, FOLD_SEED)
    for held_out in range(n_folds):
        if _known(samples.y[fold != held_out], task) != _known(samples.y, task):
            raise TooFewError(
                f"without one fold of an episode nothing is left of some class; {cure}"
            )
    return fold


def _known(labels: Array, task: str) -> set[int]:
    """The classes, or of several labels those that are known of some sample."""
    if task == REGRESSION:
        return set()
    if task == MULTI_LABEL:
        return set(np.flatnonzero((labels != MISSING).any(axis=0)).tolist())
    return set(labels.tolist())


def choose_by_folds(
    fit: Callable[[Split], Fitted],
    n_candidates: int,
    samples: Split,
    task: str,
    score_type_of: Callable[[Any], str],
    cure: str,
) -> int:
    """The place of the candidate with the smallest loss out of fold, of equals the first.

    The folds' answers are pooled before the loss is taken: a fold of a few samples has no AUC to
    speak of.

    Args:
        fit: fits every candidate to a part of the samples, in the same order.
        n_candidates: how many there are.
        samples: of the episode.
        task: what is asked of them.
        score_type_of: of what was fitted.
        cure: see ``make_episode_folds``.

    Raises:
        TooFewError: see ``make_episode_folds``.
        RequestError: a candidate fails, or margins have no AUC.
    """
    fold = make_episode_folds(samples, task, cure)
    parts: list[list[Doubles]] = []
    score_type = ""
    for held_out in range(int(fold.max()) + 1):
        fitted = fit(pick(samples, fold != held_out))
        own = samples.x[fold == held_out]
        parts.append([fitted.scores(own, i) for i in range(n_candidates)])
        score_type = score_type_of(fitted)
    return best_of_folds(parts, fold, samples.y, task, score_type)


def best_of_folds(
    parts: Sequence[Sequence[Floats | None]],
    fold: Indices,
    labels: Array,
    task: str,
    score_type: str,
) -> int:
    """The place of the candidate with the smallest loss of all folds' answers, of equals the first.

    Args:
        parts: for each fold every candidate's scores of its samples; None: it has none.
        fold: (n,) of each sample; -1: of none, and not asked.
        labels: (n,) or (n, C).
        task: one of ``cache.task.TASKS``.
        score_type: see ``probe.metrics.losses.loss_of``.
    """
    order = np.concatenate([np.flatnonzero(fold == held_out) for held_out in range(len(parts))])
    losses = []
    for each in zip(*parts, strict=True):
        loss, there = np.inf, [scores for scores in each if scores is not None]
        if len(there) == len(parts):
            loss = loss_of(np.concatenate(there), labels[order], task, score_type=score_type)
        losses.append(loss)
    return int(np.argmin(losses))


def by_patient_settings(question: Question, train: Split) -> dict[str, Any]:
    """What the question holds of patients that are left out, or kept in one fold, whole."""
    if not has_groups(train):
        return {}
    return {"groups": (question.trained_on or question).features.header.tables["samples/groups"]}


def said_of(name: str, candidates: Sequence[Any], places: Sequence[int]) -> dict[str, Any]:
    """What the row says of choices in many episodes: the most frequent, and how often each won."""
    wins = Counter(places)
    often = max(range(len(candidates)), key=lambda place: (wins[place], -place))
    return {
        name: candidates[often],
        "wins": [wins[place] for place in range(len(candidates))],
        "of_episodes": list(places),
    }


def mark_of(what: str, how: str, said: dict[str, Any]) -> str:
    """Which candidate won most often, for the reader of a table that has room for one."""
    n, most = len(said["of_episodes"]), max(said["wins"])
    return f"{what} chosen in each episode, by {how}; shown is that of {most} of {n}"
