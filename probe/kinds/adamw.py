"""Linear heads trained by AdamW on frozen features, as papers without a closed grid train them.

The default is Wu & Papiez 2025 (FupingWu90/FMMIC at 4119c3b, Common_Trainer.py:127-299): 15,000
iterations of batches of 64, the best of about ten checkpoints by accuracy on val. Doerrich et al.
2024 (train.py of their release) is ``AdamWConfig`` with a cosine, whole epochs and early stopping:
see protocols.py.

Every seed of every matrix (layers and pools of one encoder) is a head, and all heads of one width
take their steps in one loop. AdamW works on each weight by itself, so H heads side by side in one
tensor are H optimisers; the gradient of a linear head is written down, not traced. One step is then
a dozen calls for all heads, where a head by itself costs a loader, a graph and an optimiser. The
loop is one work: its rows come at its end, and an interrupted one leaves none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe.episodes.draw import by_length
from probe.metrics.classification import accuracy
from probe.solvers.outputs import Outputs, check_finite, check_training
from probe.solvers.standardise import chunks

if TYPE_CHECKING:
    import torch

SCHEDULES = ("decay", "cosine")
CHOSEN_BY = ("acc", "loss")

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's, which both papers leave as they are
ALIGNED = 16  # numbers that rows are padded to: whole cache lines
# 40 episodes of 20 shots of 7 classes: 1.8 s, and 2.6 s in batches of 64 MB (one core).
CACHE_BYTES = 2**22
MAX_BYTES = 2**30  # of training features that are held at one time, unless one matrix is larger


@dataclass(frozen=True)
class AdamWConfig:
    """Everything that changes the weights of these heads.

    Raises:
        RequestError: a number out of its range, an unknown word, or both of iterations and epochs.
    """

    lr: float = 1e-3  # Common_Trainer.py:127
    weight_decay: float = 1e-2  # of weights and intercept alike, as torch's default group has it
    batch_size: int = 64  # Common_Main.py:288
    iterations: int | None = 15_000  # Common_Main.py:259; as many whole epochs as fit
    epochs: int | None = None  # or this many epochs
    # "decay": x 0.9 after every 200 iterations (Common_Main.py:250-251). "cosine": by epoch, to 0.
    schedule: str = "decay"
    drop_last: bool = True  # leave out an epoch's last batch where it is short
    n_checks: int | None = 10  # on val, see ``check_epochs``; None: after each epoch
    patience: int | None = None  # checks without improvement that end the training; None: none do
    choose_by: str = "acc"  # on val: the highest accuracy, or the lowest "loss"; the earlier of two
    loss_batch: int | None = (
        None  # val loss as the mean over batches of this size; None: over images
    )
    one_logit: bool = True  # two classes: one logit, or two
    seeds: tuple[int, ...] = (0, 1, 2)  # of first weights and order; a row each
    ddof: int = 1  # of the standard deviation over seeds

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "lr" and value == 0):
                raise RequestError(f"{name} is positive and finite, found {value}")
        for name in ("batch_size", "iterations", "epochs", "n_checks", "patience", "loss_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} is 1 or more, found {value}")
        if (self.iterations is None) == (self.epochs is None):
            raise RequestError("training lasts for iterations or for epochs, and not for both")
        for name, words in (("schedule", SCHEDULES), ("choose_by", CHOSEN_BY)):
            if getattr(self, name) not in words:
                raise RequestError(f"{name} is {' or '.join(words)}, found {getattr(self, name)!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise RequestError(
                "seeds are different numbers from 0 up, found "
                f"{', '.join(map(str, self.seeds)) or 'none'}"
            )

    def plan(self, n_images: int) -> tuple[int, int]:
        """How many epochs, and how many batches each.

        Raises:
            RequestError: not one batch, or not one epoch.
        """
        batches = n_images / self.batch_size
        n_batches = math.floor(batches) if self.drop_last else math.ceil(batches)
        if n_batches == 0:
            raise RequestError(
                f"{n_images} training images fill no batch of {self.batch_size}, and a short one is "
                f"dropped; take a smaller one, as --batch-size {n_images}"
            )
        n_epochs = self.epochs if self.epochs is not None else (self.iterations or 0) // n_batches
        if n_epochs == 0:
            raise RequestError(
                f"an epoch of {n_images} images in batches of {self.batch_size} has {n_batches} "
                f"iterations; take at least as many with --iterations, found {self.iterations}"
            )
        return n_epochs, n_batches

    def rate(self, epoch: int, iteration: int, n_epochs: int) -> float:
        """The learning rate of a step; epochs and iterations count from 0, iterations over all."""
        if self.schedule == "decay":
            return self.lr * 0.9 ** (iteration // 200)
        # train.py:183 of Doerrich et al. tells timm's scheduler the epoch that has just ended, so
        # that each epoch gets the rate of the one before it, and the first two the full one.
        return self.lr * (1 + math.cos(math.pi * max(epoch - 1, 0) / n_epochs)) / 2


@dataclass(frozen=True)
class HeadFit:
    """One head: the checkpoint of one seed that val chose."""

    seed: int
    weights: NDArray[np.float32]  # (D, O) on features as they are
    intercept: NDArray[np.float32]  # (O,)
    iteration: int  # steps that the chosen checkpoint has seen
    checks: tuple[tuple[int, float], ...]  # iteration, and accuracy or loss on val there
    outputs: Outputs

    def predict_scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Score images.

        Args:
            features: (Q, D); may be a memmap.

        Returns:
            (Q, C) probabilities; rows sum to 1, except for the multi-label task.

        Raises:
            RequestError: features of another width than the training features.
        """
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise RequestError(
                f"the head was trained on {len(self.weights)} features, found shape "
                f"{features.shape}: training and test features must come from one encoder, layer "
                "and pool"
            )
        scores = np.empty((len(features), self.outputs.n_classes))
        for rows in chunks(len(features)):
            block = np.asarray(features[rows], np.float32)
            scores[rows] = self.outputs.scores(block @ self.weights + self.intercept)
        return scores


@dataclass(frozen=True)
class Diverged:
    """A head that has no answer: what it computes overflowed. The heads beside it go on."""

    seed: int
    iteration: int  # steps taken when val was looked at and this was seen


def fit_heads(
    train: Sequence[NDArray[np.floating]],
    labels: NDArray[np.integer],
    val: Sequence[NDArray[np.floating]],
    val_labels: NDArray[np.integer],
    task: str,
    n_classes: int,
    config: AdamWConfig | None = None,
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
        task: one of ``probe.metrics.classification.TASKS``.
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
    config = config or AdamWConfig()
    if not len(val_labels):
        raise RequestError("checkpoints are chosen on val images, found none")
    for features in train:
        check_training(features, labels)
    outputs = Outputs(task, n_classes, config.one_logit)
    found: list[list[HeadFit | Diverged]] = [[] for _ in train]
    for group in _groups(train):
        heads = _train(
            [train[i] for i in group],
            outputs.targets(labels),
            [val[i] for i in group],
            val_labels,
            outputs,
            config,
            device,
        )
        for i, of_seeds in zip(group, heads, strict=True):
            found[i] = of_seeds
    return found


def fit_episodes(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    episodes: Sequence[NDArray[np.intp]],
    task: str,
    n_classes: int,
    config: AdamWConfig | None = None,
    val: tuple[NDArray[np.floating], NDArray[np.integer]] | None = None,
    device: str = "cpu",
) -> list[list[HeadFit | Diverged]]:
    """Train a head for each few-shot episode and seed; those of as many images step together.

    As ``fit_heads`` of each episode's samples, one after the other; but an episode of fewer images
    than a batch has batches of all of them.

    Args:
        features: (S, D) of the training samples.
        labels: (S,), or (S, C) for the multi-label task.
        episodes: for each its rows of ``features``, one and more.
        task: one of ``probe.metrics.classification.TASKS``.
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
    config = config or AdamWConfig()
    outputs = Outputs(task, n_classes, config.one_logit)
    used = np.unique(np.concatenate(episodes))  # of train so many rows are read
    check_finite(features[used])
    x, targets = features[used], outputs.targets(labels[used])
    found: list[list[HeadFit | Diverged]] = [[] for _ in episodes]
    for alike in by_length(episodes):
        own = dataclasses.replace(
            config, batch_size=min(config.batch_size, len(episodes[alike[0]]))
        )
        cells = own.batch_size * (features.shape[1] + 1) * len(own.seeds)
        size = max(1, episode_bytes(device) // (4 * cells))
        for start in range(0, len(alike), size):
            part = alike[start : start + size]
            rows = np.searchsorted(used, np.stack([episodes[i] for i in part]))
            draw = _EpisodeDraw(x, targets, rows, own, device)
            watch = _Last(draw.width, outputs, own)
            if val is not None:
                watch = _Watch([val[0]], val[1], outputs, own, len(part), device)
            heads = _take_steps(draw, watch, len(part), outputs, own, device)
            for i, of_seeds in zip(part, heads, strict=True):
                found[i] = of_seeds
    return found


def episode_bytes(device: str) -> int:
    """Of the batches of episodes that step together: on a processor what its cache holds."""
    return CACHE_BYTES if device == "cpu" else MAX_BYTES


def check_epochs(n_epochs: int, n_checks: int | None) -> list[int]:
    """The epochs, from 0, after which val is looked at: every ``n_epochs // n_checks``-th, the last.

    The first is among them. Common_Trainer.py:255-260: 10 checks are 11 of 150 epochs, and 19 of 19.
    """
    step = 1 if n_checks is None else n_epochs // min(n_checks, n_epochs)
    return sorted({*range(0, n_epochs, step), n_epochs - 1})


def epoch_orders(n_images: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Epoch after epoch, the order (N,) of its images; by the seed alone."""
    rng = np.random.default_rng((seed, 1))
    while True:
        yield rng.permutation(n_images)


def first_weights(width: int, n_logits: int, seed: int) -> NDArray[np.float32]:
    """(O, D + 1) weights and intercept: torch.nn.Linear's, uniform within 1 / sqrt(D).

    timm's vision transformers start their heads from a normal of 0.02 instead; after thousands of
    steps nothing of either is left.
    """
    bound = 1 / math.sqrt(width)
    rng = np.random.default_rng((seed, 0))
    return rng.uniform(-bound, bound, (n_logits, width + 1)).astype(np.float32)


# The loop. M matrices, S seeds, H = M * S heads, matrices first; the intercept is the weight of a
# feature 1. Weights are (H, O, D'), D' being D + 1 and zeros up to whole cache lines: with logits
# before features both products of a step are twice as fast as the other way round.


def _train(
    train: list[NDArray[np.floating]],
    targets: NDArray[np.float32],
    val: list[NDArray[np.floating]],
    val_labels: NDArray[np.integer],
    outputs: Outputs,
    config: AdamWConfig,
    device: str,
) -> list[list[HeadFit | Diverged]]:
    draw = _Draw(train, targets, config, device)
    watch = _Watch(val, val_labels, outputs, config, len(train), device)
    return _take_steps(draw, watch, len(train), outputs, config, device)


def _take_steps(
    draw: _Draw | _EpisodeDraw,
    watch: _Watch | _Last,
    n_repeats: int,
    outputs: Outputs,
    config: AdamWConfig,
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
    return watch.fits()


class _Draw:
    """Takes each seed's batches from every matrix."""

    def __init__(
        self,
        train: list[NDArray[np.floating]],
        targets: NDArray[np.float32],
        config: AdamWConfig,
        device: str,
    ) -> None:
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


class _EpisodeDraw:
    """Takes each seed's batches from every episode, all of which have n images."""

    def __init__(
        self,
        features: NDArray[np.floating],
        targets: NDArray[np.float32],
        episodes: NDArray[np.intp],
        config: AdamWConfig,
        device: str,
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


class _Watch:
    """Looks at val now and then, and keeps each head's best weights."""

    def __init__(
        self,
        val: list[NDArray[np.floating]],
        labels: NDArray[np.integer],
        outputs: Outputs,
        config: AdamWConfig,
        n_repeats: int,
        device: str,
    ) -> None:
        """``n_repeats``: matrices, each with its val, or episodes of one matrix, which share it."""
        import torch

        self._features = torch.from_numpy(_with_ones(val)).to(device)  # (M, V, D')
        self._labels, self._outputs, self._config = labels, outputs, config
        self._width = val[0].shape[1]
        self._targets = outputs.targets(labels)
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
        return set(check_epochs(n_epochs, self._config.n_checks))

    def look(self, weights: torch.Tensor, iteration: int) -> bool:
        """Check every head that goes on; returns whether all have stopped."""
        n_seeds = len(self._config.seeds)
        parts = weights.view(-1, n_seeds, *weights.shape[1:])  # (M, S, O, D')
        for head in map(int, np.flatnonzero(~self._done)):
            matrix, seed = divmod(head, n_seeds)
            own = parts[matrix, seed]
            logits = (self._features[matrix % len(self._features)] @ own.T).cpu().numpy()
            # Both: a weight of a feature that is 0 in all of val shows in no logit.
            if bool(own.isfinite().all()) and np.isfinite(logits).all():
                self._note(head, logits, own, iteration)
            else:
                self._diverged[head], self._done[head] = iteration, True
        return bool(self._done.all())

    def _note(
        self, head: int, logits: NDArray[np.float32], weights: torch.Tensor, iteration: int
    ) -> None:
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

    def _measure(self, logits: NDArray[np.float32]) -> float:
        if self._config.choose_by == "acc":
            return accuracy(self._outputs.scores(logits), self._labels, self._outputs.task)
        losses = self._outputs.losses(logits.astype(np.float64), self._targets)
        return float(self._share @ losses)

    def fits(self) -> list[list[HeadFit | Diverged]]:
        found: list[HeadFit | Diverged] = []
        for head, best in enumerate(self._best):
            seed = self._config.seeds[head % len(self._config.seeds)]
            if head in self._diverged:
                found.append(Diverged(seed, self._diverged[head]))
                continue
            iteration, weights = best
            checks = tuple(self._checks[head])
            found.append(_fit(seed, weights, self._width, iteration, checks, self._outputs))
        return _by_seeds(found, self._config)


class _Last:
    """Takes each head as it is after the last step: nothing is left to choose a checkpoint on."""

    def __init__(self, width: int, outputs: Outputs, config: AdamWConfig) -> None:
        self._width, self._outputs, self._config = width, outputs, config
        self._found: list[HeadFit | Diverged] = []

    def epochs(self, n_epochs: int) -> set[int]:
        return {n_epochs - 1}

    def look(self, weights: torch.Tensor, iteration: int) -> bool:
        for head, own in enumerate(weights.cpu().numpy()):
            seed = self._config.seeds[head % len(self._config.seeds)]
            fit = _fit(seed, own, self._width, iteration, (), self._outputs)
            self._found.append(fit if np.isfinite(own).all() else Diverged(seed, iteration))
        return True

    def fits(self) -> list[list[HeadFit | Diverged]]:
        return _by_seeds(self._found, self._config)


def _fit(
    seed: int,
    weights: NDArray[np.float32],
    width: int,
    iteration: int,
    checks: tuple[tuple[int, float], ...],
    outputs: Outputs,
) -> HeadFit:
    slopes, intercept = np.ascontiguousarray(weights[:, :width].T), weights[:, width].copy()
    return HeadFit(seed, slopes, intercept, iteration, checks, outputs)


def _by_seeds(
    heads: list[HeadFit | Diverged], config: AdamWConfig
) -> list[list[HeadFit | Diverged]]:
    n_seeds = len(config.seeds)
    return [heads[i : i + n_seeds] for i in range(0, len(heads), n_seeds)]


def _groups(matrices: Sequence[NDArray[np.floating]]) -> list[list[int]]:
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


def _with_ones(matrices: list[NDArray[np.floating]]) -> NDArray[np.float32]:
    """(M, N, D'): the features, a 1, and zeros up to a width that ``_padded`` makes."""
    n_rows, width = matrices[0].shape
    stacked = np.zeros((len(matrices), n_rows, _wide(width + 1)), np.float32)
    for out, matrix in zip(stacked, matrices, strict=True):
        out[:, :width] = matrix
    stacked[..., width] = 1
    return stacked


def _wide(width: int) -> int:
    return -(-width // ALIGNED) * ALIGNED


def _padded(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., D + 1) to (..., D') with zeros, which no step changes."""
    n_more = _wide(weights.shape[-1]) - weights.shape[-1]
    return np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, n_more)])


def _shares(n_images: int, batch: int | None) -> NDArray[np.float64]:
    """(n,) each image's share in the mean loss: equal, or equal by batch."""
    size = batch or n_images
    starts = range(0, n_images, size)
    sizes = [min(size, n_images - start) for start in starts]
    return np.concatenate([np.full(n, 1 / (n * len(sizes))) for n in sizes])
