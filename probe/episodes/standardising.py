"""How few-shot episodes' features are standardised, and what the row says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.task import Task
from probe.episodes.draw import FewShotConfig
from probe.solvers.episodes import Heads
from probe.solvers.head import Head, unstandardised
from probe.solvers.standardise import (
    FEW,
    UNLABELLED,
    Prepare,
    Standard,
    of_one_length,
    unlabelled_standard,
)


@dataclass(frozen=True)
class Standardising:
    """What episodes' features go through before they are fitted."""

    word: str  # of the question; "": as they are stored
    prepare: Prepare | None  # None: by each episode's own samples
    mark: str = ""

    def folded(self, kept: Heads | None, link: str, task: Task) -> Head | None:
        """Kept episodes' heads as one, on features as they are.

        None where none are kept, or each sample is divided by its length, which no weights can say.
        """
        if not kept or self.prepare is of_one_length:
            return None
        weights, intercept = map(np.concatenate, zip(*kept, strict=True))
        if isinstance(self.prepare, Standard):
            folding = self.prepare.mean, self.prepare.scale
            weights, intercept = unstandardised(weights, intercept, *folding)
        return Head(weights, intercept, link, task)

    @property
    def settings(self) -> dict[str, str]:
        """What the row's question holds."""
        return {"standardised": self.word} if self.word else {}

    @property
    def marks(self) -> list[str]:
        return [self.mark] if self.mark else []


AS_STORED = Standardising("", None)


def standardising(config: FewShotConfig, train: NDArray[np.floating]) -> Standardising:
    """As the flag, or the protocol, has it.

    Of train, never of val or test: a test image is met by itself.

    Args:
        config: the wish.
        train: (S, D) features of all of train.
    """
    how = config.standardise_word
    if how == "episode":
        return Standardising("by each episode", None)
    if how == "none":
        return Standardising("none (L2)", of_one_length, "standardised: none (L2)")
    one = ", one scale for all features" if len(train) < FEW else ""
    said = f"standardised: {UNLABELLED} (n {len(train):_}{one})"
    return Standardising(UNLABELLED, unlabelled_standard(train), said)
