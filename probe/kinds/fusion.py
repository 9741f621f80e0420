"""Attentive fusion: one learned query attends to the vectors of every layer and pool.

The model is that of arXiv 2601.09322 (lciernik/attentive-layer-fusion at ef86a87); how it trains, and
why that is fast, is in ``probe.solvers.fusion``. The default is another procedure than the paper's:

* Settings (learning rate, weight decay, dropped attention) are compared by val or by folds of train
  and val, as all kinds' are. With one seed all of them start, and the worse half is dropped
  after an eighth, a quarter and half of the steps. The chosen one is trained with every seed.
* Compared is the log-loss at each setting's best temperature, see ``probe.solvers.temperature``:
  its answers are divided by it. Classes weigh alike in the loss, so scores are those of equally
  frequent classes.
* The release's noise is longer than the vectors that it is added to, in validation too. Here it is a
  share of their length, and val has none.

``--protocol ciernik2026`` is the paper's: 63 fits to 80 % of train, balanced accuracy on the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from cache.commands.settings import check, setting
from cache.errors import RequestError
from probe.answer import Answer
from probe.choosing.plan import ChoosingConfig, Plan
from probe.episodes.draw import FewShotConfig
from probe.kinds.adamw import SECTION
from probe.kinds.fusion_search import BALANCED, SEARCH_SEED, Asking
from probe.kinds.kind import DivergedError, Kind, Problem
from probe.places import name_places
from probe.solvers.epochs import check_device
from probe.solvers.fusion import Rate

ALIKE = "none"  # of --class-weights, beside BALANCED
USE_LINEAR = "--kind linear --layer all+ --pool cls+mean"


@dataclass(frozen=True)
class Fusion(Kind):
    """Attention over the vectors of all layers and pools, its settings chosen.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    lrs: tuple[float, ...] = setting(
        (1e-4, 1e-3, 1e-2), "fusion and abmil choose one", flag="--lr", above=0, unlike=True
    )
    weight_decays: tuple[float, ...] = setting(
        (1.0, 1e-2),
        "of fusion and abmil, some to choose from",
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
    iterations: int = setting(200, "of fusion at least", least=1)
    epochs: int = setting(10, "of fusion at least", least=1)
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
        BALANCED, "of fusion's loss: classes weigh alike, or as they come", among=(BALANCED, ALIKE)
    )
    halves: bool = True  # drop the worse half of the settings three times
    # On a fifth of train by balanced accuracy, val unread; then fitted on all of train.
    chooses_inside: bool = False
    seeds: tuple[int, ...] = setting(
        (0, 1, 2), "", least=0, unlike=True, takes="different numbers from 0 up"
    )
    device: str = setting("cpu", "", shown="")

    name = "fusion"
    section = SECTION
    own_scale = True
    usual_places: ClassVar[Mapping[str, Any]] = {"layer": "all+", "pools": ("cls+mean",)}
    takes_shots = False

    def __post_init__(self) -> None:
        check(self)

    @property
    def candidates(self) -> tuple[Rate, ...]:
        """In the order in which the first of equals is taken."""
        grid = itertools.product(self.dropouts, self.lrs, self.weight_decays)
        return tuple(Rate(lr, decay, dropout) for dropout, lr, decay in grid)

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        raise RequestError(
            f"--kind fusion trains a million weights and more, too many for a few shots; use {USE_LINEAR}"
        )

    # ------------------------------------------------------------ answers

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """One answer for each seed.

        Raises:
            RequestError: one place, or what can't be trained on.
            DivergedError: all settings, or the chosen one with some seed; after the others' answers.
        """
        if len(problem.places) < 2:
            raise RequestError(
                f"attention over one place has nothing to choose; name several, as --layer all+ "
                f"--pool cls+mean, or use --kind linear (asked was {name_places(problem.places)})"
            )
        check_device(self.device)
        asking = Asking(self, problem, self._plan(problem))
        found, diverged = asking.search(), []
        for seed in self.seeds:
            try:
                yield asking.answer(found, seed)
            except DivergedError as error:
                diverged.append(error.what)
        if diverged:
            raise DivergedError(", ".join(diverged), f"try --lr {min(self.lrs) / 10:g}")

    def _plan(self, problem: Problem) -> Plan:
        if not self.chooses_inside:
            return problem.plan(len(self.candidates))
        if problem.choosing != ChoosingConfig():
            raise RequestError(
                "the protocol chooses on a fifth of train and leaves val alone; leave out --choose "
                "and --refit"
            )
        train = problem.splits["train"]
        return Plan(train, problem.splits["val"], None, "train")

    def row_settings(self, widths: Sequence[int]) -> dict[str, Any]:
        """What a row's question holds: all but what doesn't change its numbers."""
        aside = ["seeds", "device"]
        aside += ["pads_first"] if len(set(widths)) == 1 else []
        aside += [] if self.noise else ["is_absolute", "noise_on_val"]
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in aside}
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
        return found | ({"search_seed": SEARCH_SEED} if len(self.candidates) > 1 else {})
