"""Averaged scores of one linear probe a place: with equal weights, and with weights chosen without test.

Each place is fitted by itself, at its own strength, as ``--kind linear`` does there. The weights of the
second answer are those of the smallest log-loss on the samples that chose the strengths: val, or train
and val out of fold (stacking, ``probe.solvers.mixture``). Its own val numbers are by weights that
other folds chose, so that no sample has a say in its own score; test's by those of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from cache.errors import RequestError
from probe.answer import Answer
from probe.arrays import Doubles, Floats, Indices
from probe.choosing.plan import Plan, make_folds
from probe.kinds.kind import N_TOLD, Episodes, Problem
from probe.kinds.linear import Linear
from probe.places import name_places
from probe.questions.question import Question
from probe.solvers.mixture import stacking_weights

EQUAL, STACKED = "equal", "stacked"


@dataclass(frozen=True)
class Stack(Linear):
    """The mean of linear probes, one a place: equal weights, and weights chosen without test.

    Raises:
        RequestError: see ``Linear``.
    """

    name = "stack"
    usual_places: ClassVar[Mapping[str, Any]] = {"layer": "all+", "pools": ("cls+mean",)}
    has_baselines = True

    def describe_width(self, questions: Sequence[Question], width: int) -> str:
        return ""  # nothing is fitted to all places at once

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """Two answers: of equal weights, and of stacked ones.

        Raises:
            RequestError: one place; or what ``Linear`` refuses.
        """
        each = [next(super(Stack, self).answer(part)) for part in _parts(problem)]
        plan = _without_features(problem).plan(2)
        n, name, task = len(each), plan.held_out_name, problem.task.word
        strengths = [answer.chosen["strength"] for answer in each]
        losses = {
            key: [min(answer.chosen[key]) for answer in each]
            for key in each[0].chosen
            if key.endswith("log_loss")
        }
        scores = {split: _gathered(each, split) for split in each[0].scores}
        parts = [answer.left_out for answer in each if answer.left_out is not None]
        left_out = np.stack(parts) if len(parts) == n else None
        equal = np.full(n, 1 / n)
        stacked = stacking_weights(scores[name], plan.held_out.y, task)
        fold = _folds(problem, plan)
        nested = _average(scores[name], stacked)
        for part in range(0 if fold is None else int(fold.max()) + 1):
            rest, own = fold != part, fold == part
            weights = stacking_weights(scores[name][:, rest], plan.held_out.y[rest], task)
            nested[own] = _average(scores[name][:, own], weights)
        how = "val numbers are by weights of the other folds"
        if fold is None:
            how = "val numbers are by weights that were chosen on them, as no folds can be made"
        n_there = f"{int((stacked > 0).sum())} of {n} places have a weight"
        for word, weights, held_out, more in (
            (EQUAL, equal, _average(scores[name], equal), []),
            (STACKED, stacked, nested, [n_there, how]),
        ):
            yield Answer(
                {**each[0].settings, "weights": word},
                {"strengths": strengths, "weights": weights.tolist(), **losses},
                {
                    **{split: _average(found, weights) for split, found in scores.items()},
                    name: held_out,
                },
                [*_marks(each), *more],
                left_out=None if left_out is None else _average(left_out, weights),
            )

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """One answer, of equal weights: an episode has nothing to choose others on."""
        parts = _parts(replace(problem, keep_heads=False))
        first, *others = (next(super(Stack, self).answer_episodes(p, episodes)) for p in parts)
        total = first.scores["test"].astype(np.float64)
        for answer in others:
            total += answer.scores["test"]
        scores = (total / len(parts)).astype(np.float32)
        settings = {**first.settings, "weights": EQUAL}
        yield Answer(settings, first.chosen, {"test": scores}, _marks([first, *others]))


def _parts(problem: Problem) -> list[Problem]:
    """The problem at each place by itself.

    Raises:
        RequestError: there is only one.
    """
    if len(problem.places) < 2:
        raise RequestError(
            f"--kind stack averages probes of several places, found {name_places(problem.places)} alone; name "
            "more, as --layer all+ or --pool cls+mean, or use --kind linear"
        )
    ends = np.cumsum([0, *problem.widths]).tolist()
    return [
        replace(problem, places=(place,), splits=_columns(problem, slice(*part)), is_compared=True)
        for place, part in zip(problem.places, pairwise(ends), strict=True)
    ]


def _columns(problem: Problem, part: slice) -> Mapping[str, Any]:
    return {name: replace(split, x=split.x[:, part]) for name, split in problem.splits.items()}


def _without_features(problem: Problem) -> Problem:
    return replace(problem, splits=_columns(problem, slice(0)))


def _folds(problem: Problem, plan: Plan) -> Indices | None:
    """(n,) of what the plan holds out; None: val can't be divided."""
    if plan.fold is not None:
        return plan.fold
    try:
        return make_folds(problem.fitted_on, plan.val)
    except RequestError:
        return None


def _gathered(each: Sequence[Answer], split: str) -> Floats:
    return np.stack([answer.scores[split] for answer in each])


def _average(scores: Floats, weights: Doubles) -> Doubles:
    """(n, C) of (T, n, C)."""
    return np.einsum("t,tnc->nc", weights, scores, dtype=np.float64)


def _marks(each: Sequence[Answer]) -> list[str]:
    """What is said of all places, then of how many of them."""
    counts = Counter(mark for answer in each for mark in answer.marks)
    of_all = [mark for mark, n in counts.items() if n == len(each)]
    of_some = [f"{mark} (at {n} of {len(each)} places)" for mark, n in counts.items()]
    of_some = [m for m, n in zip(of_some, counts.values(), strict=True) if n < len(each)]
    return [*of_all, *of_some[:N_TOLD]]
