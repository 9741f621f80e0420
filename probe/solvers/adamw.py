"""AdamW steps of many linear heads at once, and checkpoints chosen on val."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import RequestError
from probe.arrays import Doubles, Floats, Indices, Ints, Singles
from probe.metrics.classification import accuracy
from probe.solvers.epochs import check_epochs, epoch_orders, first_weights
from probe.solvers.outputs import Outputs
from probe.solvers.standardise import check_width

if TYPE_CHECKING:
    import torch


BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's, which both papers leave as they are


ALIGNED = 16  # numbers that rows are padded to: whole cache lines


class Course:
    """What a training needs to know; ``probe.kinds.adamw.AdamW`` says what each is."""

    weight_decay: float
    batch_size: int
    n_checks: int | None
    patience: int | None
    choose_by: str
    loss_batch: int | None
    seeds: tuple[int, ...]
    plan: Callable[[int], tuple[int, int]]
    rate: Callable[[int, int, int], float]


@dataclass(frozen=True)
class HeadFit:
    """One head: the checkpoint of one seed that val chose."""

    seed: int
    weights: Singles  # (D, O) on features as they are
    intercept: Singles  # (O,)
    iteration: int  # steps that the chosen checkpoint has seen
    checks: tuple[tuple[int, float], ...]  # iteration, and accuracy or loss on val there
    outputs: Outputs

    def predict_scores(self, features: Floats) -> Doubles:
        """Score images.

        Args:
            features: (Q, D); may be a memmap.

        Returns:
            (Q, C) probabilities; rows sum to 1, except for the multi-label task.

        Raises:
            RequestError: features of another width than the training features.
        """
        check_width(features, len(self.weights), "head")
        return self.outputs.answers(features, self.weights, self.intercept)


@dataclass(frozen=True)
class Diverged:
    """A head that has no answer: what it computes overflowed. The heads beside it go on."""

    seed: int
    iteration: int  # steps taken when val was looked at and this was seen


def take_steps(
    draw: Draw | EpisodeDraw,
    watch: Watch,
    n_repeats: int,
    outputs: Outputs,
    config: Course,
    device: str,
) -> list[list[HeadFit | Diverged]]:
    """Train a head for each seed, ``n_repeats`` times: for each matrix, or each episode."""
    import torch

    n_epochs, n_batches = config.plan(draw.n_images)
    seeds = [first_weights(draw.width, outputs.n_logits, seed) for seed in config.seeds]
    first = _padded(np.tile(np.stack(seeds), (n_repeats, 1, 1)))
    weights = torch.from_numpy(first).to(device)  # (H, O, D')
    gradient = torch.empty_like(weights)
    step = _AdamW(weights, config.weight_decay)
    checked = watch.epochs(n_epochs)
    for epoch in range(n_epochs):
        for batch, (images, wanted) in enumerate(draw.epoch(n_batches)):
            logits = torch.bmm(weights, images.transpose(1, 2))  # (H, O, B)
            aside = logits.view(-1, *wanted.shape)  # (M, S, O, B)
            of_logits = outputs.gradient(aside, wanted).view(logits.shape)
            share = 1 / images.shape[1]
            torch.baddbmm(gradient, of_logits, images, beta=0, alpha=share, out=gradient)
            step(gradient, config.rate(epoch, epoch * n_batches + batch, n_epochs))
        if epoch in checked and watch.look(weights, (epoch + 1) * n_batches):
            break
    return watch.fits(draw.width)


class Draw:
    """Takes each seed's batches from every matrix."""

    def __init__(self, train: list[Floats], targets: Singles, config: Course, device: str) -> None:
        import torch

        self.n_images, self.width = train[0].shape
        self._features = torch.from_numpy(_with_ones(train)).to(device)  # (M, N, D')
        self._targets = torch.from_numpy(targets).to(device)  # (N, O)
        self._orders = [epoch_orders(len(targets), seed) for seed in config.seeds]
        self._size = config.batch_size

    def epoch(self, n_batches: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batch after batch: images (H, B, D') and targets (S, O, B).

        The images are overwritten by the next batch: half a megabyte that is asked for anew at
        each step costs as much as filling it.
        """
        import torch

        n_seeds, (n_matrices, _, width) = len(self._orders), self._features.shape
        orders = torch.from_numpy(np.stack([next(order) for order in self._orders]))
        orders = orders[:, : n_batches * self._size].to(self._features.device)  # (S, N)
        wanted = self._targets[orders].transpose(1, 2).contiguous()  # (S, O, N)
        rows = [part.flatten() for part in orders.split(self._size, dim=1)]  # (S * B,)
        room = self._features.new_empty((n_matrices, n_seeds * self._size, width))
        for batch, aims in zip(rows, wanted.split(self._size, dim=2), strict=True):
            if len(batch) < room.shape[1]:
                room = room.new_empty((n_matrices, len(batch), width))
            torch.index_select(self._features, 1, batch, out=room)
            yield room.view(n_matrices * n_seeds, -1, width), aims


class EpisodeDraw:
    """Takes each seed's batches from every episode, all of which have n images."""

    def __init__(
        self, features: Floats, targets: Singles, episodes: Indices, config: Course, device: str
    ) -> None:
        import torch

        self.n_images, self.width = episodes.shape[1], features.shape[1]
        self._features = torch.from_numpy(_with_ones([features]))[0].to(device)  # (N, D')
        self._targets = torch.from_numpy(targets).to(device)  # (N, O)
        self._episodes = torch.from_numpy(episodes).to(device)  # (E, n)
        self._orders = [epoch_orders(self.n_images, seed) for seed in config.seeds]
        self._size = config.batch_size
        self._whole = []
        if self.n_images == self._size:
            # A batch is all of an episode, so its order changes nothing: it is gathered once.
            whole = np.tile(np.arange(self.n_images), (len(config.seeds), 1))
            self._whole = [self._take(torch.from_numpy(whole).to(device))]

    def epoch(self, n_batches: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batch after batch: images (H, B, D') and targets (H, O, B); seeds change fastest."""
        import torch

        if self._whole:
            yield from self._whole
            return
        orders = torch.from_numpy(np.stack([next(order) for order in self._orders]))
        orders = orders[:, : n_batches * self._size].to(self._episodes.device)  # (S, n)
        for places in orders.split(self._size, dim=1):
            yield self._take(places)

    def _take(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self._episodes[:, places].flatten(0, 1)  # (E * S, B)
        images = self._features.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return images, self._targets[rows].transpose(1, 2).contiguous()


class _AdamW:
    """torch.optim.AdamW on one tensor, in place: Loshchilov & Hutter 2019, algorithm 2.

    By the operator under ``AdamW(fused=True)``, which goes over the four tensors once. A step of
    three heads takes 150 us with it, 178 with six elementwise calls in its place, and 190 with
    torch.optim's function around it (one core).
    """

    def __init__(self, weights: torch.Tensor, decay: float) -> None:
        self._weights, self._decay = [weights], decay
        self._mean = [weights.new_zeros(weights.shape)]
        self._square = [weights.new_zeros(weights.shape)]
        self._n_steps = [weights.new_zeros(())]

    def __call__(self, gradient: torch.Tensor, rate: float) -> None:
        import torch

        self._n_steps[0].add_(1)
        torch._fused_adamw_(  # type: ignore
            self._weights,
            [gradient],
            self._mean,
            self._square,
            [],
            self._n_steps,
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self._decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class Watch:
    """Looks at val now and then, and keeps each head's best weights; without val the last step's."""

    def __init__(
        self,
        outputs: Outputs,
        config: Course,
        n_repeats: int,
        device: str,
        val: list[Floats] | None = None,
        labels: Ints | None = None,
    ) -> None:
        """``n_repeats``: matrices, each with its val, or episodes of one matrix, which share it."""
        import torch

        self._outputs, self._config, self._val = outputs, config, None
        if val is not None and labels is not None:
            self._val = torch.from_numpy(_with_ones(val)).to(device)  # (M, V, D')
            self._labels, self._targets = labels, outputs.targets(labels)
            self._share = _shares(len(labels), config.loss_batch)
        n_heads = n_repeats * len(config.seeds)
        self._checks: list[list[tuple[int, float]]] = [[] for _ in range(n_heads)]
        self._best: list[Any] = [None] * n_heads  # iteration, (O, D') weights
        self._value = np.full(n_heads, -np.inf)  # higher is better
        self._n_worse = np.zeros(n_heads, int)
        self._done = np.zeros(n_heads, bool)
        self._diverged: dict[int, int] = {}  # head -> iteration

    def epochs(self, n_epochs: int) -> set[int]:
        """The epochs after which to look."""
        if self._val is None:
            return {n_epochs - 1}
        return set(check_epochs(n_epochs, self._config.n_checks))

    def look(self, weights: torch.Tensor, iteration: int) -> bool:
        """Check every head that goes on; returns whether all have stopped."""
        n_seeds = len(self._config.seeds)
        parts = weights.view(-1, n_seeds, *weights.shape[1:])  # (M, S, O, D')
        for head in map(int, np.flatnonzero(~self._done)):
            matrix, seed = divmod(head, n_seeds)
            own, logits = parts[matrix, seed], np.empty(0, np.float32)
            if self._val is not None:
                logits = (self._val[matrix % len(self._val)] @ own.T).cpu().numpy()
            # Both: a weight of a feature that is 0 in all of val shows in no logit.
            if not (bool(own.isfinite().all()) and np.isfinite(logits).all()):
                self._diverged[head], self._done[head] = iteration, True
            elif self._val is None:
                self._best[head], self._done[head] = (iteration, own.cpu().numpy().copy()), True
            else:
                self._note(head, logits, own, iteration)
        return bool(self._done.all())

    def _note(self, head: int, logits: Singles, weights: torch.Tensor, iteration: int) -> None:
        value = self._measure(logits)
        if math.isnan(value):
            raise RequestError(
                f"val has no {self._config.choose_by}: a label is known of no val image"
            )
        self._checks[head].append((iteration, value))
        rank = value if self._config.choose_by == "acc" else -value
        if rank > self._value[head]:
            self._value[head], self._n_worse[head] = rank, 0
            self._best[head] = iteration, weights.cpu().numpy().copy()
        else:
            self._n_worse[head] += 1
        self._done[head] = self._n_worse[head] == self._config.patience

    def _measure(self, logits: Singles) -> float:
        if self._config.choose_by == "acc":
            return accuracy(self._outputs.scores(logits), self._labels, self._outputs.task)
        losses = self._outputs.losses(logits.astype(np.float64), self._targets)
        return float(self._share @ losses)

    def fits(self, width: int) -> list[list[HeadFit | Diverged]]:
        """For each matrix, or episode, the heads of all seeds; ``width`` is D."""
        found: list[HeadFit | Diverged] = []
        n_seeds = len(self._config.seeds)
        for head, best in enumerate(self._best):
            seed = self._config.seeds[head % n_seeds]
            if head in self._diverged:
                found.append(Diverged(seed, self._diverged[head]))
                continue
            iteration, weights = best
            slopes, intercept = np.ascontiguousarray(weights[:, :width].T), weights[:, width].copy()
            checks = tuple(self._checks[head])
            found.append(HeadFit(seed, slopes, intercept, iteration, checks, self._outputs))
        return [found[i : i + n_seeds] for i in range(0, len(found), n_seeds)]


def _with_ones(matrices: list[Floats]) -> Singles:
    """(M, N, D'): the features, a 1, and zeros up to a width that ``_padded`` makes."""
    n_rows, width = matrices[0].shape
    stacked = np.zeros((len(matrices), n_rows, _wide(width + 1)), np.float32)
    for out, matrix in zip(stacked, matrices, strict=True):
        out[:, :width] = matrix
    stacked[..., width] = 1
    return stacked


def _wide(width: int) -> int:
    return -(-width // ALIGNED) * ALIGNED


def _padded(weights: Singles) -> Singles:
    """(..., D + 1) to (..., D') with zeros, which no step changes."""
    n_more = _wide(weights.shape[-1]) - weights.shape[-1]
    return np.pad(weights, np.array([(0, 0)] * (weights.ndim - 1) + [(0, n_more)]))


def _shares(n_images: int, batch: int | None) -> Doubles:
    """(n,) each image's share in the mean loss: equal, or equal by batch."""
    size = batch or n_images
    starts = range(0, n_images, size)
    sizes = [min(size, n_images - start) for start in starts]
    return np.concatenate([np.full(n, 1 / (n * len(sizes))) for n in sizes])
