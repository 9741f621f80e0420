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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cache.errors import RequestError
from probe.answer import Answer
from probe.choosing.plan import ChoosingConfig, Plan
from probe.episodes.draw import FewShotConfig
from probe.kinds.adamw import SECTION
from probe.kinds.fusion_search import Asking
from probe.kinds.fusion_settings import FusionSettings
from probe.kinds.kind import Problem
from probe.places import name_places
from probe.solvers.epochs import check_device

USE_LINEAR = "--kind linear --layer all+ --pool cls+mean"


@dataclass(frozen=True)
class Fusion(FusionSettings):
    """Attention over the vectors of all layers and pools, its settings chosen.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    name = "fusion"
    section = SECTION
    own_scale = True
    usual_places: ClassVar[Mapping[str, Any]] = {"layer": "all+", "pools": ("cls+mean",)}
    takes_shots = False
    has_baselines = True

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
        yield from Asking(self, problem, self._plan(problem)).answers()

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
