"""Candidates that were fitted to the same samples, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.commands.settings import check, setting
from cache.errors import RequestError
from probe.arrays import Doubles, Floats


class Choice(NamedTuple):
    """Which candidate it is, and how clear that was."""

    place: int
    losses: Doubles  # (candidates,) mean over all held-out samples
    wins: NDArray[np.int64]  # (candidates,) rounds in which each had the smallest loss


def choose(losses: Floats, sizes: Sequence[int]) -> Choice:
    """Take the candidate with the smallest mean loss, the first of equals.

    Args:
        losses: (K, candidates) mean loss of each candidate in each of K rounds, the strongest
            regularisation first.
        sizes: (K,) held-out samples of each round: what its mean weighs.

    Raises:
        RequestError: no candidates, or a loss that is nan.
    """
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 2 or not losses.size:
        raise RequestError(f"a choice needs losses (rounds, candidates), found {losses.shape}")
    if np.isnan(losses).any():
        raise RequestError(f"candidate {np.isnan(losses).any(axis=0).argmax()} has no loss")
    mean = np.average(losses, axis=0, weights=sizes)
    wins = np.bincount(losses.argmin(axis=1), minlength=losses.shape[1])
    return Choice(int(mean.argmin()), mean, wins)


class Fitted(Protocol):
    """Candidates that were fitted to the same samples, the strongest regularisation first."""

    def losses(self, x: Floats, y: NDArray[Any]) -> Doubles:
        """(candidates,) mean loss of each on (Q, D) features and their labels."""
        ...

    def scores(self, x: Floats, place: int) -> Doubles:
        """(Q, C) scores of one candidate."""
        ...


CHOOSE = ("auto", "val", "cv")
REFIT = ("train", "train+val")
FEW = 500  # val samples: with fewer, and
FEW_OF_A_CLASS = 50  # with fewer of some class, --choose auto takes folds


@dataclass(frozen=True)
class ChoosingConfig:
    """How candidates are compared, and what the chosen one is fitted on.

    Raises:
        RequestError: a word that is none of ``CHOOSE`` or ``REFIT``.
    """

    how: str = setting(
        "auto",
        "on val, or by five folds of train and val, no patient or copy divided; auto: folds where "
        f"val has under {FEW} samples, or under {FEW_OF_A_CLASS} of some class",
        flag="--choose",
        among=CHOOSE,
    )
    refit: str | None = setting(
        None,
        "what the chosen one is fitted on",
        among=REFIT,
        shown="train where val decides, train+val after folds",
    )

    def __post_init__(self) -> None:
        check(self)
