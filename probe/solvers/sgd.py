"""SGD steps of a grid of linear heads at once, as DINOv2's linear probe takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.task import MULTI_LABEL
from probe.solvers.outputs import Outputs
from probe.solvers.standardise import chunks

if TYPE_CHECKING:
    import torch


MOMENTUM = 0.9  # linear.py: SGD(momentum=0.9, weight_decay=0)


SPREAD = 0.01  # of the first weights, a normal; intercepts start at 0: LinearClassifier.__init__


class Course(Protocol):
    """What a training needs to know; ``probe.kinds.heads.Heads`` says what each is."""

    @property
    def scale_lr(self) -> bool: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def iterations(self) -> int | None: ...
    @property
    def loss(self) -> str: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class GridFit:
    """One head of the grid."""

    lr: float  # as named, before any scaling
    n_last: int
    with_mean: bool  # whether it saw the mean patch token
    weights: NDArray[np.float32]  # (d, O)
    intercept: NDArray[np.float32]  # (O,)
    columns: slice  # of the blocks laid side by side, d wide
    outputs: Outputs

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.weights).all() and np.isfinite(self.intercept).all())

    def predict_scores(self, blocks: NDArray[np.floating]) -> NDArray[np.float64]:
        """(Q, C) scores of images, from all blocks side by side as ``fit_grid`` takes them."""
        scores = np.empty((len(blocks), self.outputs.n_classes))
        for rows in chunks(len(blocks)):
            block = np.asarray(blocks[rows, self.columns], np.float32)
            scores[rows] = self.outputs.scores(block @ self.weights + self.intercept)
        return scores


def image_batches(n_images: int, batch_size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Batches without end: all images in a new order, and again; a batch may span two orders."""
    rng = np.random.default_rng((seed, 1))
    rest = np.empty(0, np.int64)
    while True:
        while len(rest) < batch_size:
            rest = np.concatenate([rest, rng.permutation(n_images)])
        yield rest[:batch_size]
        rest = rest[batch_size:]


def first_weights(width: int, n_columns: int, seed: int) -> NDArray[np.float32]:
    """(d, n) weights of n logits on one input."""
    rng = np.random.default_rng((seed, 0, width))
    return (SPREAD * rng.standard_normal((width, n_columns))).astype(np.float32)


Input = tuple[int, bool, slice, tuple[float, ...]]


def train(
    blocks: NDArray[np.floating],
    labels: NDArray[np.integer],
    places: list[Input],
    outputs: Outputs,
    config: Course,
    device: str,
    every: int | None = None,
    kept: list[GridFit] | None = None,
    rows: NDArray[np.intp] | None = None,
) -> list[GridFit]:
    """The trained heads; checkpoints before the last step go into ``kept``.

    With rows (E, n) of the blocks each of the E episodes is trained on its own, all on the same
    places of these: its heads follow one another for each place of the grid.
    """
    import torch

    rows = np.arange(len(blocks))[None] if rows is None else rows
    n_episodes, n_images = rows.shape
    # As linear.py of Baharoon et al.: where images are few, a batch is all of them.
    size = min(config.batch_size, n_images) if config.iterations is None else config.batch_size
    epoch = config.iterations or math.ceil(n_images / size)
    n_steps = config.epochs * epoch
    readable = np.require(blocks, requirements=["C", "W"])  # torch warns of read-only memory
    features = torch.from_numpy(readable).to(device)  # (N, all), as stored
    wanted = torch.from_numpy(outputs.targets(labels)).to(device)  # (N, O)
    groups = [_Group(*place, outputs, config, device, n_episodes) for place in places]
    factor = size if config.loss == "sum" and outputs.task == MULTI_LABEL else 1
    factor = factor * size / 256 if config.scale_lr else factor
    batches = image_batches(n_images, size, config.seed)
    for i in range(n_steps):
        own = torch.from_numpy(rows[:, next(batches)]).to(device)  # (E, B)
        images = features.index_select(0, own.flatten()).view(*own.shape, -1).float()
        aims = wanted.index_select(0, own.flatten()).view(*own.shape, -1)
        # CosineAnnealingLR to 0, after every step.
        rate = factor * (1 + math.cos(math.pi * i / n_steps)) / 2
        for group in groups:
            group.step(images, aims, rate)
        if kept is not None and every and (i + 1) % (every * epoch) == 0 and i + 1 < n_steps:
            kept += [fit for group in groups for fit in group.fits()]
    return [fit for group in groups for fit in group.fits()]


class _Group:
    """The heads of all learning rates on one input: of each episode one matrix (d, R * O)."""

    def __init__(
        self,
        n_last: int,
        with_mean: bool,
        columns: slice,
        lrs: tuple[float, ...],
        outputs: Outputs,
        config: Course,
        device: str,
        n_episodes: int = 1,
    ) -> None:
        import torch

        self._place, self._columns, self._lrs = (n_last, with_mean), columns, lrs
        self._outputs = outputs
        width, n = columns.stop - columns.start, outputs.n_logits
        first = np.tile(first_weights(width, n, config.seed), (n_episodes, 1, len(lrs)))
        self._weights = torch.from_numpy(first).to(device)  # (E, d, R * O)
        self._intercept = self._weights.new_zeros(n_episodes, 1, first.shape[2])
        self._speed = self._weights.new_zeros(self._weights.shape)
        self._drift = self._weights.new_zeros(self._intercept.shape)
        self._rates = torch.tensor(np.repeat(lrs, n), dtype=torch.float32, device=device)

    def step(self, images: torch.Tensor, aims: torch.Tensor, rate: float) -> None:
        """One step of torch.optim.SGD with momentum: v = 0.9 v + g, w = w - lr v.

        Args:
            images: (E, B, all).
            aims: (E, B, O).
            rate: what the learning rates are multiplied by.
        """
        part = images[:, :, self._columns]
        n_episodes, n_images, _ = part.shape
        logits = (part @ self._weights).add_(self._intercept)  # (E, B, R * O)
        aside = logits.view(n_episodes, n_images, len(self._lrs), -1).permute(0, 2, 3, 1)
        of_logits = self._outputs.gradient(aside, aims.transpose(1, 2)[:, None])  # (E, R, O, B)
        of_logits = of_logits.permute(0, 3, 1, 2).reshape(logits.shape)
        of_logits.div_(n_images)
        self._speed.baddbmm_(part.transpose(1, 2), of_logits, beta=MOMENTUM)
        self._drift.mul_(MOMENTUM).add_(of_logits.sum(dim=1, keepdim=True))
        rates = self._rates * rate
        self._weights.addcmul_(self._speed, rates, value=-1)
        self._intercept.addcmul_(self._drift, rates, value=-1)

    def fits(self) -> Iterator[GridFit]:
        """By learning rate, then by episode."""
        n = self._outputs.n_logits
        weights, intercept = self._weights.cpu().numpy(), self._intercept.cpu().numpy()
        for i, lr in enumerate(self._lrs):
            own = slice(i * n, (i + 1) * n)
            for of_weights, of_intercept in zip(weights, intercept, strict=True):
                parts = of_weights[:, own].copy(), of_intercept[0, own].copy()
                yield GridFit(lr, *self._place, *parts, self._columns, self._outputs)
