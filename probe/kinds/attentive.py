"""Attentive probing of patch tokens: what a class token or their mean leaves out, learnt queries find.

The model is efficient probing (arXiv 2506.10178), see ``probe.solvers.attentive``; it reads token
files (``extract --tokens -1``). What differs from the paper:

* It trains on ImageNet by LARS, 90 epochs in batches of 4,096, on random crops whose tokens are made
  anew in each epoch, and reports the best epoch on the validation set that it reports. Here tokens are of one
  view, AdamW takes the steps, the last of them answers, and test is read once.
* Learning rate and weight decay are chosen by val or by folds of train and val, as of
  ``--kind fusion``: all start with one seed, the worse half is dropped three times, and the chosen
  one is trained with every seed. Compared is the log-loss at each setting's best temperature.
* Channels are standardised by the tokens of train; the paper takes them as they are.
* The release has 32 queries, and the paper names the best of several numbers. Here it is a setting.

Measured without test, by one seed, the best of eight settings, log-loss and AUC (a ViT-S/14 of width 384,
DINOv2's further trained for saliency). Val of PneumoniaMNIST at 112 px, 64 tokens: with 1, 8 and 32
queries .1744 .982, .1743 .982 and .1743 .983; 8 and tokens as they are .1803 .981. Five folds of
BreastMNIST at 224 px, 256 tokens: with 1 and 8 queries .466 .857 and .473 .852, as they are .473 .852; 32 weren't
tried there. So 8, which take a quarter of the time of 32. Dropped attention (0.3) changed nothing on
BreastMNIST, and isn't offered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from cache.commands.settings import setting
from cache.errors import RequestError
from probe.answer import Answer
from probe.arrays import Array, Indices, Singles
from probe.episodes.draw import FewShotConfig
from probe.kinds.adamw import SECTION
from probe.kinds.fusion_search import Asking, Found
from probe.kinds.fusion_settings import SEARCH_SEED, FusionSettings
from probe.kinds.kind import Problem
from probe.maps import Maps
from probe.places import TOKENS
from probe.questions.question import Question, Split
from probe.solvers.attentive import READ_BYTES, Moments, Patches, PatchTraining, Shape
from probe.solvers.epochs import check_device
from probe.solvers.side_by_side import Rate
from probe.solvers.standardise import Standard, chunks

MOST_HELD = 2**32  # bytes of tokens, as stored, that are read once and kept in memory
MOST_KEPT = 2**23  # numbers of attention that a row keeps: 16 MB
QUERIES = 8  # ep.py has 32, see above


@dataclass(frozen=True)
class Attentive(FusionSettings):
    """Learnt queries that attend to the patch tokens of a layer, and a linear head.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    lrs: tuple[float, ...] = setting(
        (1e-3, 3e-3, 1e-2, 3e-2), "", flag="--lr", above=0, unlike=True
    )
    weight_decays: tuple[float, ...] = setting(
        (1.0, 1e-2), "", flag="--weight-decay", least=0, unlike=True
    )
    dropouts: tuple[float, ...] = (0.0,)
    queries: int | None = setting(
        None,
        "of attentive, a divisor of the tokens' width",
        metavar="Q",
        least=1,
        shown=f"{QUERIES}, or the largest divisor below",
    )
    batch_size: int = setting(128, "", least=3)
    iterations: int = setting(400, "", least=1)
    epochs: int = setting(10, "", least=1)
    noise: float = 0.0

    name = "attentive"
    section = SECTION
    reads: ClassVar[str] = TOKENS
    joins_encoders = False
    own_scale = True
    takes_shots = False
    has_baselines = True

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        raise RequestError(
            "--kind attentive trains a hundred thousand weights and more, too many for a few shots; use "
            "--kind linear --pool cls"
        )

    def check_question(self, question: Question) -> None:
        super().check_question(question)
        if not question.rows_are_samples:
            raise RequestError(
                f"samples of {question.dataset} are several images, and --kind attentive attends to "
                "the patches of one; use --kind abmil, which attends to the images of a sample"
            )

    def n_queries(self, width: int) -> int:
        """Q for tokens of a width.

        Raises:
            RequestError: what was named is no divisor.
        """
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        wanted = self.queries
        if wanted is None:
            return max(n for n in divisors if n <= QUERIES)
        if wanted not in divisors:
            nearest = min(divisors, key=lambda n: abs(n - wanted))
            raise RequestError(
                f"--queries takes a divisor of the tokens' width {width}, as each query has its part of "
                f"the values; not {wanted} (the nearest is {nearest})"
            )
        return wanted

    def row_settings(self, widths: Sequence[int]) -> dict[str, Any]:
        aside = {"noise", "is_absolute", "noise_on_val", "pads_first", "chooses_inside"}
        aside |= {"dropouts", "seeds", "device"}
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in aside}
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
        found["queries"] = self.n_queries(sum(widths))
        return found | ({"search_seed": SEARCH_SEED} if len(self.candidates) > 1 else {})

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """One answer for each seed.

        Raises:
            RequestError: what can't be trained on.
            DivergedError: all settings, or the chosen one with some seed; after the others' answers.
        """
        check_device(self.device)
        self.n_queries(problem.maps.width)
        yield from _Looking(self, problem, problem.plan(len(self.candidates))).answers()


class _Stored:
    """(n, h * w, D) tokens of some rows, in memory where that is wished and they fit."""

    def __init__(self, maps: Maps, rows: Indices, is_kept: bool) -> None:
        h, w = maps.grid
        self.shape = len(rows), h * w, maps.width
        self._maps, self._rows, self._kept = maps, rows, None
        dtype = self[[]].dtype
        if is_kept and math.prod(self.shape) * dtype.itemsize <= MOST_HELD:
            kept = np.empty(self.shape, dtype)
            for part in chunks(len(rows), max(1, READ_BYTES // (4 * h * w * maps.width))):
                kept[part] = self[part]
            self._kept = kept

    def __getitem__(self, rows: Any, /) -> Array:
        if self._kept is not None:
            return self._kept[rows]
        return self._maps.stored(self._rows[rows]).reshape(-1, *self.shape[1:])


class _Looking(Asking):
    """One problem, whose tokens are read from its file, of external validation from two."""

    kind: Attentive

    def _read(self) -> None:
        self._learnt = Maps.of(self.problem.fitted_on, self.problem.places)
        self._stored = _Stored(self._learnt, self._learnt.rows_of(self._pool), is_kept=True)
        self._moments = Moments.of(self._stored)

    def _standard(self, rows: Indices) -> Standard | None:
        return self._moments.standard(rows) if self.kind.standardised else None

    def _tokens_of(self, split: Split, standard: Standard | None) -> Patches:
        stored = self._stored
        if split is not self._pool:
            is_test = split is self.problem.splits["test"]
            maps = self.problem.maps if is_test else self._learnt
            stored = _Stored(maps, maps.rows_of(split), is_kept=False)
        return Patches(stored, standard, self.kind.device)

    def _shape(self) -> Shape:
        width = self._learnt.width
        return Shape(self.kind.n_queries(width), width, self._outputs.n_logits)

    def _train(self, *given: Any) -> PatchTraining:
        return PatchTraining(self._shape().n_queries, *given)

    def _named(self, rate: Rate) -> dict[str, float]:
        return {"lr": rate.lr, "weight_decay": rate.weight_decay}

    def _marks(self, found: Found) -> list[str]:
        n = len(self.problem.splits["test"])
        kept = min(n, self._most_kept)
        left_out = (
            [] if kept == n else [f"attention is kept of the first {kept} of {n} test images"]
        )
        return [*super()._marks(found), *left_out]

    @property
    def _most_kept(self) -> int:
        return max(1, MOST_KEPT // math.prod(self.problem.maps.grid))

    def _extras(self, attention: Singles, test: Split) -> dict[str, Array]:
        """(n, h, w) attention of test images to their patches, the mean over queries, and their ids."""
        kept = attention[: self._most_kept].astype(np.float16)
        maps = kept.reshape(-1, *self.problem.maps.grid)
        return {"attention_maps": maps, "attention_ids": test.ids[: len(kept)]}
