"""The settings of attentive fusion, see ``probe.kinds.fusion``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from cache.commands.settings import check, setting
from probe.kinds.kind import Kind
from probe.solvers.side_by_side import Rate

BALANCED, ALIKE = "balanced", "none"  # of --class-weights
SEARCH_SEED = 0  # of the search, whatever --seeds says: a row depends on no other's


@dataclass(frozen=True)
class FusionSettings(Kind):
    """What is searched among, and how it trains.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    lrs: tuple[float, ...] = setting(
        (1e-4, 1e-3, 1e-2),
        "fusion, abmil and attentive choose one",
        flag="--lr",
        above=0,
        unlike=True,
    )
    weight_decays: tuple[float, ...] = setting(
        (1.0, 1e-2),
        "of fusion, abmil and attentive, some to choose from",
        flag="--weight-decay",
        least=0,
        unlike=True,
    )
    dropouts: tuple[float, ...] = setting(
        (0.3, 0.0),
        "of fusion's attention; one is chosen",
        flag="--dropout",
        metavar="P",
        least=0,
        below=1,
        unlike=True,
    )
    # Fewer where an epoch would have less than five; of two the last batch might be one sample,
    # whose batch norm is nothing.
    batch_size: int = setting(2048, "", least=3)
    iterations: int = setting(200, "of fusion and attentive at least", least=1)
    epochs: int = setting(10, "of fusion and attentive at least", least=1)
    noise: float = setting(
        0.0,
        "that fusion adds to half of a batch: its length in shares of a vector's",
        metavar="SHARE",
        least=0,
    )
    is_absolute: bool = False  # noise is each number's deviation, whatever the vectors' width
    noise_on_val: bool = False
    # Each number by its mean and scale in train, before vectors are brought to one length.
    standardised: bool = True
    pads_first: bool = False  # narrow vectors are filled up with zeros before they are normed
    class_weights: str = setting(
        BALANCED,
        "of the loss of fusion and attentive: classes weigh alike, or as they come",
        among=(BALANCED, ALIKE),
    )
    halves: bool = True  # drop the worse half of the settings three times
    # On a fifth of train by balanced accuracy, val unread; then fitted on all of train.
    chooses_inside: bool = False
    seeds: tuple[int, ...] = setting(
        (0, 1, 2), "", least=0, unlike=True, takes="different numbers from 0 up"
    )
    device: str = setting("cpu", "", shown="")

    def __post_init__(self) -> None:
        check(self)

    @property
    def candidates(self) -> tuple[Rate, ...]:
        """In the order in which the first of equals is taken."""
        grid = itertools.product(self.dropouts, self.lrs, self.weight_decays)
        return tuple(Rate(lr, decay, dropout) for dropout, lr, decay in grid)

    def row_settings(self, widths: Sequence[int]) -> dict[str, Any]:
        """What a row's question holds: all but what doesn't change its numbers."""
        aside = ["seeds", "device"]
        aside += ["pads_first"] if len(set(widths)) == 1 else []
        aside += [] if self.noise else ["is_absolute", "noise_on_val"]
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in aside}
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
        return found | ({"search_seed": SEARCH_SEED} if len(self.candidates) > 1 else {})
