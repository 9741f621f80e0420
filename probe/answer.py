"""What a kind of probe answers to one question."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.errors import RequestError
from cache.task import Task
from probe.arrays import Array
from probe.metrics.calibration import Votes
from probe.metrics.classification import PROBABILITY, THRESHOLD
from probe.solvers.head import Head

OF_ROWS = re.compile(r"(train|val|test)_(scores|labels|ids)|class_names|head(_\w+)?")  # in the .npz


@dataclass(frozen=True)
class Answer:
    """One answer, before anything is measured of it."""

    settings: dict[str, Any]  # what the row's question holds
    chosen: dict[str, Any]  # what val, folds or episodes chose
    # "val", or ``probe.choosing.plan.HELD_OUT``, and "test" -> (n, C), of episodes (E, n, C).
    # Of masks what overlaps, (n, 6 C): see ``probe.metrics.overlap``.
    scores: dict[str, Array]
    marks: list[str]  # what a reader of the numbers must know
    votes: Votes | None = None  # where the scores are shares of neighbours' votes
    head: Head | None = None  # the one model whose test scores these are, where it is linear
    # (n, C) of train, each sample by what was fitted without it: see ``probe.choosing.left_out``.
    left_out: Array | None = None
    trained_parameters: int | None = None  # where no head tells
    extras: Mapping[str, Array] = field(default_factory=dict)  # more arrays for the .npz

    @property
    def score_type(self) -> str:
        """What its scores of classes are, see ``probe.metrics.classification``."""
        return self.settings.get("score_type", PROBABILITY)


def check_answer(answer: Answer, name: str, task: Task, n_test: int) -> None:
    """Refuse what no row can hold; a user's own kind may say anything.

    Args:
        answer: of one question.
        name: the kind's.
        task: the question's.
        n_test: samples of test that were given; 0: it isn't read.

    Raises:
        RequestError: settings or choices that JSON hasn't, marks that are no text, scores of
            another shape or that aren't finite, further arrays of objects or by the names of a row's.
    """
    for what, said in (("settings", answer.settings), ("choice", answer.chosen)):
        try:
            json.dumps(said, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RequestError(
                f"{name}: a row holds numbers, texts and lists of them, and its {what} something "
                f"else ({error})"
            ) from error
    if not all(isinstance(mark, str) for mark in answer.marks):
        raise RequestError(f"{name}: marks are texts, found {answer.marks!r}")
    has_classes = not (task.is_continuous or task.is_dense)
    if has_classes and answer.score_type not in THRESHOLD:
        raise RequestError(
            f"{name}: score_type is one of {', '.join(THRESHOLD)}, not {answer.score_type!r}"
        )
    if n_test and "test" not in answer.scores:
        raise RequestError(f"{name}: its answer has no scores of test")
    for split, found in answer.scores.items():
        scores = np.asarray(found)
        n = n_test if split == "test" else scores.shape[-2] if scores.ndim > 1 else 0
        n_axes = 3 if "few_shot" in answer.settings else 2
        is_array = isinstance(found, np.ndarray) and scores.dtype.kind == "f"
        if not is_array or scores.ndim != n_axes or scores.shape[-2:] != (n, task.n_outputs):
            raise RequestError(
                f"{name} should give an array of floating scores of shape ({n}, {task.n_outputs}) on "
                f"{split}, found {scores.dtype} {scores.shape}"
            )
        if not np.isfinite(scores).all():
            raise RequestError(f"{name} should give finite scores on {split}")
    for word, array in answer.extras.items():
        if np.asarray(array).dtype.hasobject or OF_ROWS.fullmatch(word):
            raise RequestError(f"{name}: a row's file can't hold the further array {word!r}")
