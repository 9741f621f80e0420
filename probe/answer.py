"""What a kind of probe answers to one question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probe.arrays import Array
from probe.metrics.calibration import Votes
from probe.metrics.classification import PROBABILITY
from probe.solvers.head import Head


@dataclass(frozen=True)
class Answer:
    """One answer, before anything is measured of it."""

    settings: dict[str, Any]  # what the row's question holds
    chosen: dict[str, Any]  # what val, folds or episodes chose
    # "val", or ``probe.choosing.plan.HELD_OUT``, and "test" -> (n, C), of episodes (E, n, C).
    scores: dict[str, Array]
    marks: list[str]  # what a reader of the numbers must know
    votes: Votes | None = None  # where the scores are shares of neighbours' votes
    head: Head | None = None  # the one model whose test scores these are, where it is linear
    extras: Mapping[str, Array] = field(default_factory=dict)  # more arrays for the .npz

    @property
    def score_type(self) -> str:
        """What its scores of classes are, see ``probe.metrics.classification``."""
        return self.settings.get("score_type", PROBABILITY)
