"""Linear heads trained by AdamW on frozen features, as papers without a closed grid train them.

The default is Wu & Papiez 2025 (FupingWu90/FMMIC at 4119c3b, Common_Trainer.py:127-299): 15,000
iterations of batches of 64, the best of about ten checkpoints by accuracy on val. Doerrich et al.
2024 (train.py of their release) is ``AdamW`` with a cosine, whole epochs and early stopping:
see protocols.py.

Every seed of every matrix (layers and pools of one encoder) is a head, and all heads of one width
take their steps in one loop. AdamW works on each weight by itself, so H heads side by side in one
tensor are H optimisers; the gradient of a linear head is written down, not traced. One step is then
a dozen calls for all heads, where a head by itself costs a loader, a graph and an optimiser. The
loop is one work: its rows come at its end, and an interrupted one leaves none.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from cache.commands.settings import check, given, setting
from cache.commands.terminal import split_words
from cache.errors import RequestError
from probe.answer import Answer
from probe.arrays import Floats, Indices, Ints
from probe.kinds.kind import DivergedError, Episodes, Kind, Problem
from probe.solvers.adamw import Course, Diverged, Draw, EpisodeDraw, HeadFit, Watch, take_steps
from probe.solvers.epochs import MAX_BYTES, check_device, count_epochs, stepping_together
from probe.solvers.outputs import Outputs, check_finite, check_training

SCHEDULES = ("decay", "cosine")
CHOSEN_BY = ("acc", "loss")
SECTION = (
    "kinds adamw, heads, fusion, abmil, attentive and decoder, trained step by step; heads is a grid over "
    "--lr and the last layers, fusion attends to every layer, attentive to patch tokens, decoder segments"
)


def _read_rate(text: str) -> float:
    rates = split_words("--lr", text)
    if len(rates) > 1:
        raise RequestError(
            f"--kind adamw takes one learning rate, not {text!r}; --kind heads chooses among several"
        )
    return float("".join(rates))


@dataclass(frozen=True)
class AdamW(Course, Kind):
    """Linear heads trained step by step by AdamW; val chooses each one's checkpoint.

    Raises:
        RequestError: a number out of its range, an unknown word, or both of iterations and epochs.
    """

    lr: float = setting(  # Common_Trainer.py:127
        1e-3,
        "learning rates, comma separated; adamw takes one",
        metavar="RATES",
        above=0,
        read=_read_rate,
    )
    # Of weights and intercept alike, as torch's default group has it.
    weight_decay: float = setting(1e-2, "of adamw", metavar="W", least=0)
    batch_size: int = setting(64, "images in a batch", metavar="N", least=1)  # Common_Main.py:288
    # Common_Main.py:259; as many whole epochs as fit
    iterations: int | None = setting(15_000, "of adamw in all", metavar="N", least=1)
    epochs: int | None = setting(
        None, "passes over them", metavar="N", least=1, shown="as many as fit"
    )
    # "decay": x 0.9 after every 200 iterations (Common_Main.py:250-251). "cosine": by epoch, to 0.
    schedule: str = "decay"
    drop_last: bool = True  # leave out an epoch's last batch where it is short
    n_checks: int | None = 10  # on val, see ``check_epochs``; None: after each epoch
    patience: int | None = None  # checks without improvement that end the training; None: none do
    # The highest accuracy, or the lowest loss; the earlier of two.
    choose_by: str = setting("acc", "what val decides by", among=CHOSEN_BY)
    loss_batch: int | None = (
        None  # val loss as the mean over batches of this size; None: over images
    )
    one_logit: bool = True  # two classes: one logit, or two
    seeds: tuple[int, ...] = setting(
        (0, 1, 2),
        "of first weights and order, comma separated: a row each; heads takes one",
        metavar="SEEDS",
        least=0,
        unlike=True,
        takes="different numbers from 0 up",
    )
    ddof: int = 1  # of the standard deviation over seeds
    device: str = setting("cpu", "where to train, e.g. cuda")

    name = "adamw"
    section = SECTION
    told = (
        "All seeds and layers of a file are one loop of adamw, and its rows one work: interrupted, it "
        "leaves none of them. Heads that diverge are named after the rows of the others."
    )
    is_chosen = False
    refits = False
    bytes_together = MAX_BYTES

    def __post_init__(self) -> None:
        check(self)
        for name in ("n_checks", "patience", "loss_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} is 1 or more, found {value}")
        if (self.iterations is None) == (self.epochs is None):
            raise RequestError("training lasts for iterations or for epochs, and not for both")
        if self.schedule not in SCHEDULES:
            raise RequestError(f"schedule is {' or '.join(SCHEDULES)}, found {self.schedule!r}")

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> AdamW:
        typed = given(options, cls)
        if "iterations" in typed or "epochs" in typed:  # of a pair, one of which is None
            typed = {"iterations": None, "epochs": None, **typed}
        return cls(**{**base, **typed})

    def plan(self, n_images: int) -> tuple[int, int]:
        """How many epochs, and how many batches each.

        Raises:
            RequestError: not one batch, or not one epoch.
        """
        size, drop = self.batch_size, self.drop_last
        return count_epochs(n_images, size, drop, self.iterations, self.epochs)

    def rate(self, epoch: int, iteration: int, n_epochs: int) -> float:
        """The learning rate of a step; epochs and iterations count from 0, iterations over all."""
        if self.schedule == "decay":
            return self.lr * 0.9 ** (iteration // 200)
        # train.py:183 of Doerrich et al. tells timm's scheduler the epoch that has just ended, so
        # that each epoch gets the rate of the one before it, and the first two the full one.
        return self.lr * (1 + math.cos(math.pi * max(epoch - 1, 0) / n_epochs)) / 2

    # ------------------------------------------------------------ answers

    @property
    def row_settings(self) -> dict[str, Any]:
        """What a row's question holds: all but what doesn't change its numbers."""
        aside = ("seeds", "ddof", "device")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in aside}

    def answer(self, problem: Problem) -> Iterator[Answer]:
        return self.answer_together([problem])[0]

    def answer_together(self, problems: Sequence[Problem]) -> list[Iterator[Answer]]:
        """For each problem one answer for each seed, from one loop over all of them.

        That loop is one work: interrupted, none of its answers is there. Each raises
        ``DivergedError`` after its last where heads did.
        """
        first = problems[0]
        first.val_to_choose("a checkpoint")
        fits = fit_heads(
            [problem.splits["train"].x for problem in problems],
            first.splits["train"].y,
            [problem.splits["val"].x for problem in problems],
            first.splits["val"].y,
            first.task.word,
            first.task.n_classes,
            self,
            check_device(self.device),
        )
        return [self._of_seeds(own, p) for own, p in zip(fits, problems, strict=True)]

    def _of_seeds(self, fits: list[HeadFit | Diverged], problem: Problem) -> Iterator[Answer]:
        splits = problem.splits
        for fit in fits:
            if isinstance(fit, Diverged):
                continue
            at_end = fit.iteration == fit.checks[-1][0]
            is_rising = at_end and len(fit.checks) > 1 and self.patience is not None
            yield Answer(
                {**self.row_settings, "standardised": False, "training_seed": fit.seed},
                {
                    "iteration": fit.iteration,
                    f"val_{self.choose_by}": [[at, value] for at, value in fit.checks],
                    "ddof": self.ddof,
                },
                {name: fit.predict_scores(splits[name].x) for name in ("val", "test")},
                ["val was still improving when training ended"] if is_rising else [],
                head=problem.seen_by(fit.outputs.head(fit.weights, fit.intercept, problem.task)),
            )
        if diverged := [fit for fit in fits if isinstance(fit, Diverged)]:
            seeds = [f"seed {fit.seed} after {fit.iteration} iterations" for fit in diverged]
            raise DivergedError(", ".join(seeds), f"try --lr {self.lr / 10:g}")

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """One answer for each seed.

        The last step is taken, for val isn't read; but papers choose a checkpoint on val, and under
        their protocol so does this: the row says on how many images.
        """
        train, test = problem.splits["train"], problem.splits["test"]
        val = problem.val_of_paper("a checkpoint")
        fits = fit_episodes(
            train.x,
            train.y,
            episodes,
            problem.task.word,
            problem.task.n_classes,
            self,
            (val.x, val.y) if val else None,
            check_device(self.device),
        )
        diverged: list[str] = []
        for number, seed in enumerate(self.seeds):
            own = [of_episode[number] for of_episode in fits]
            finite = [fit for fit in own if isinstance(fit, HeadFit)]
            if len(finite) < len(own):
                diverged.append(f"{len(own) - len(finite)} of {len(own)} heads of seed {seed}")
                continue
            iterations = [fit.iteration for fit in finite]
            how = f"val {self.choose_by}" if val else "the last step"
            mark = "the last step is taken: val isn't read"
            head = None
            if problem.keep_heads:
                each = [(fit.weights, fit.intercept) for fit in finite]
                weights, intercepts = map(np.stack, zip(*each, strict=True))
                head = problem.seen_by(finite[0].outputs.head(weights, intercepts, problem.task))
            yield Answer(
                {
                    **self.row_settings,
                    "standardised": False,
                    "training_seed": seed,
                    "chosen_by": how,
                },
                {
                    "iteration": int(np.median(iterations)),
                    "iterations": iterations,
                    "ddof": self.ddof,
                },
                {"test": np.stack([fit.predict_scores(test.x) for fit in finite])},
                [self.chosen_on_val("checkpoints are", val) if val else mark],
                head=head,
            )
        if diverged:
            raise RequestError(
                f"training diverged: {', '.join(diverged)}; try --lr {self.lr / 10:g}"
            )


def fit_heads(
    train: Sequence[Floats],
    labels: Ints,
    val: Sequence[Floats],
    val_labels: Ints,
    task: str,
    n_classes: int,
    config: AdamW | None = None,
    device: str = "cpu",
) -> list[list[HeadFit | Diverged]]:
    """Train a head for each matrix and seed; those of one width take their steps together.

    A head's numbers don't depend on the others, but for the last digits of sums. Features are taken
    as they are, in float32: neither paper standardises. Loss: cross-entropy; binary
    cross-entropy for one logit, and as the mean over labels for several, of which a missing one
    counts nothing.

    Args:
        train: M matrices (N, D), D may differ; of the same images in the same order.
        labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task.
        val: M matrices (V, D).
        val_labels: (V,) or (V, C).
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C.
        config: the settings; None for the defaults.
        device: where to train, as torch names it.

    Returns:
        For each matrix, the heads in the order of ``config.seeds``; where one diverged, at which
        check that was seen.

    Raises:
        RequestError: what can't be trained on (see ``check_training``), no val images, or fewer
            training images than a batch holds.
    """
    config = config or AdamW()
    if not len(val_labels):
        raise RequestError("checkpoints are chosen on val images, found none")
    for features in train:
        check_training(features, labels)
    outputs = Outputs(task, n_classes, config.one_logit)
    found: list[list[HeadFit | Diverged]] = [[] for _ in train]
    for group in _groups(train):
        draw = Draw([train[i] for i in group], outputs.targets(labels), config, device)
        own_val = [val[i] for i in group]
        watch = Watch(outputs, config, len(group), device, own_val, val_labels)
        heads = take_steps(draw, watch, len(group), outputs, config, device)
        for i, of_seeds in zip(group, heads, strict=True):
            found[i] = of_seeds
    return found


def fit_episodes(
    features: Floats,
    labels: Ints,
    episodes: Sequence[Indices],
    task: str,
    n_classes: int,
    config: AdamW | None = None,
    val: tuple[Floats, Ints] | None = None,
    device: str = "cpu",
) -> list[list[HeadFit | Diverged]]:
    """Train a head for each few-shot episode and seed; those of as many images step together.

    As ``fit_heads`` of each episode's samples, one after the other; but an episode of fewer images
    than a batch has batches of all of them.

    Args:
        features: (S, D) of the training samples.
        labels: (S,), or (S, C) for the multi-label task.
        episodes: for each its rows of ``features``, one and more.
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C.
        config: the settings; None for the defaults.
        val: (V, D) and labels to choose checkpoints on, as some papers do; None: the last step's
            weights are taken, and nothing is chosen.
        device: where to train, as torch names it.

    Returns:
        For each episode, the heads in the order of ``config.seeds``.

    Raises:
        RequestError: see ``fit_heads``; an episode of one class can be trained on.
    """
    config = config or AdamW()
    outputs = Outputs(task, n_classes, config.one_logit)
    used = np.unique(np.concatenate(episodes))  # of train so many rows are read
    check_finite(features[used])
    x, targets = features[used], outputs.targets(labels[used])
    found: list[list[HeadFit | Diverged]] = [[] for _ in episodes]

    def n_cells(n_images: int) -> int:
        batch_size = min(config.batch_size, n_images)
        return batch_size * (features.shape[1] + 1) * len(config.seeds)

    for part, rows in stepping_together(episodes, used, device, n_cells):
        own = replace(config, batch_size=min(config.batch_size, rows.shape[1]))
        draw = EpisodeDraw(x, targets, rows, own, device)
        of_val = val and [val[0]], val and val[1]
        watch = Watch(outputs, own, len(part), device, *of_val)
        heads = take_steps(draw, watch, len(part), outputs, own, device)
        for i, of_seeds in zip(part, heads, strict=True):
            found[i] = of_seeds
    return found


# The loop. M matrices, S seeds, H = M * S heads, matrices first; the intercept is the weight of a
# feature 1. Weights are (H, O, D'), D' being D + 1 and zeros up to whole cache lines: with logits
# before features both products of a step are twice as fast as the other way round.


def _groups(matrices: Sequence[Floats]) -> list[list[int]]:
    """Places of matrices of one width, as many together as ``MAX_BYTES`` allows."""
    groups: list[list[int]] = []
    open_groups: dict[int, list[int]] = {}
    for i, matrix in enumerate(matrices):
        n_rows, width = matrix.shape
        limit = max(1, MAX_BYTES // (4 * n_rows * (width + 1)))
        if width not in open_groups or len(open_groups[width]) == limit:
            open_groups[width] = []
            groups.append(open_groups[width])
        open_groups[width].append(i)
    return groups
