"""SGD steps of a grid of linear heads at once, as DINOv2's linear probe takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import MULTI_LABEL
from probe.arrays import Doubles, Floats, Indices, Ints, Singles
from probe.metrics.classification import accuracy, auc
from probe.solvers.epochs import stepping_together
from probe.solvers.outputs import Outputs, check_finite, check_training

if TYPE_CHECKING:
    import torch


MOMENTUM = 0.9  # linear.py: SGD(momentum=0.9, weight_decay=0)


SPREAD = 0.01  # of the first weights, a normal; intercepts start at 0: LinearClassifier.__init__


class Course:
    """What a training needs to know; ``probe.kinds.heads.Heads`` says what each is."""

    lrs: tuple[float, ...]
    n_last: tuple[int, ...]
    one_logit: bool
    by_sigmoid: bool
    scale_lr: bool
    batch_size: int
    epochs: int
    iterations: int | None
    loss: str
    seed: int


@dataclass(frozen=True)
class GridFit:
    """One head of the grid."""

    lr: float  # as named, before any scaling
    n_last: int
    with_mean: bool  # whether it saw the mean patch token
    weights: Singles  # (d, O)
    intercept: Singles  # (O,)
    columns: slice  # of the blocks laid side by side, d wide
    outputs: Outputs

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.weights).all() and np.isfinite(self.intercept).all())

    def predict_scores(self, blocks: Floats) -> Doubles:
        """(Q, C) scores of images, from all blocks side by side as ``fit_grid`` takes them."""
        return self.outputs.answers(blocks[:, self.columns], self.weights, self.intercept)


def image_batches(n_images: int, batch_size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Batches without end: all images in a new order, and again; a batch may span two orders."""
    rng = np.random.default_rng((seed, 1))
    rest = np.empty(0, np.int64)
    while True:
        while len(rest) < batch_size:
            rest = np.concatenate([rest, rng.permutation(n_images)])
        yield rest[:batch_size]
        rest = rest[batch_size:]


def first_weights(width: int, n_columns: int, seed: int) -> Singles:
    """(d, n) weights of n logits on one input."""
    rng = np.random.default_rng((seed, 0, width))
    return (SPREAD * rng.standard_normal((width, n_columns))).astype(np.float32)


Input = tuple[int, bool, slice, tuple[float, ...]]


def train(
    blocks: Floats,
    labels: Ints,
    places: list[Input],
    outputs: Outputs,
    config: Course,
    device: str,
    every: int | None = None,
    kept: list[GridFit] | None = None,
    rows: Indices | None = None,
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


def fit_grid(
    blocks: Floats,
    labels: Ints,
    n_blocks: int,
    has_mean: bool,
    task: str,
    n_classes: int,
    config: Course,
    device: str = "cpu",
) -> list[GridFit]:
    """Train every head of the grid on the same batches.

    Args:
        blocks: (N, n_blocks * D) class tokens of the last blocks, the last one last; then, with
            ``has_mean``, (N, D) mean patch tokens of the last block.
        labels: (N,), or (N, C) zeros, ones and MISSING for the multi-label task.
        n_blocks: how many class tokens there are; numbers in ``config.n_last`` above it are
            refused.
        has_mean: whether the mean follows. Without it (networks without a class token) the grid
            is of learning rates alone, for each of ``config.n_last``.
        task: one of ``cache.task.TASKS``.
        n_classes: C.
        config: the grid.
        device: where to train, as torch names it.

    Returns:
        The heads in the order of the release: by blocks, without and with the mean, by learning
        rate. Weights of one that diverged are not finite.

    Raises:
        RequestError: what can't be trained on, or more last blocks asked for than there are.
    """
    check_training(blocks, labels)
    if max(config.n_last) > n_blocks:
        raise RequestError(
            f"heads on the last {max(config.n_last)} blocks need as many layers, found {n_blocks}"
        )
    outputs = Outputs(task, n_classes, config.one_logit, config.by_sigmoid)
    return train(
        blocks, labels, _inputs(blocks, n_blocks, has_mean, config), outputs, config, device
    )


def fit_episode_grids(
    blocks: Floats,
    labels: Ints,
    episodes: Sequence[Indices],
    n_blocks: int,
    has_mean: bool,
    task: str,
    n_classes: int,
    config: Course,
    device: str = "cpu",
) -> list[list[GridFit]]:
    """``fit_grid`` of every few-shot episode; those of as many images take their steps together.

    Args:
        blocks: (S, n_blocks * D) of the training samples, as for ``fit_grid``.
        labels: (S,), or (S, C) for the multi-label task.
        episodes: for each its rows of ``blocks``, one and more.
        n_blocks: as for ``fit_grid``, as are the others.
        has_mean: whether the mean follows.
        task: one of ``cache.task.TASKS``.
        n_classes: C.
        config: the grid.
        device: where to train, as torch names it.

    Returns:
        For each episode the heads of its grid, in ``fit_grid``'s order.

    Raises:
        RequestError: see ``fit_grid``; an episode of one class can be trained on.
    """
    outputs = Outputs(task, n_classes, config.one_logit, config.by_sigmoid)
    places = _inputs(blocks, n_blocks, has_mean, config)
    found: list[list[GridFit]] = [[] for _ in episodes]
    used = np.unique(np.concatenate(episodes))
    x, y = blocks[used], labels[used]
    check_finite(x)
    n_cells = config.batch_size * blocks.shape[1]
    for part, rows in stepping_together(episodes, used, device, lambda n_images: n_cells):
        grids = train(x, y, places, outputs, config, device, rows=rows)
        for number, i in enumerate(part):
            found[i] = grids[number :: len(part)]
    return found


def refit_one(
    fit: GridFit,
    blocks: Floats,
    labels: Ints,
    config: Course,
    device: str = "cpu",
    every: int | None = None,
) -> list[GridFit]:
    """Train the head of one place of the grid anew, on more images.

    Args:
        fit: the head that was chosen; its weights aren't used.
        blocks: as for ``fit_grid``.
        labels: as for ``fit_grid``.
        config: the grid that it comes from.
        device: where to train.
        every: keep a checkpoint after every so many epochs, too.

    Returns:
        The checkpoints, of which the last is the trained head.
    """
    check_training(blocks, labels)
    place = [(fit.n_last, fit.with_mean, fit.columns, (fit.lr,))]
    kept: list[GridFit] = []
    (last,) = train(blocks, labels, place, fit.outputs, config, device, every, kept)
    return [*kept, last]


def choose(
    fits: list[GridFit], val_blocks: Floats, val_labels: Ints, choose_by: str
) -> tuple[int, Doubles]:
    """Choose the head by val.

    Returns:
        The place in ``fits`` of the highest accuracy or AUC, the earlier of two; and the value of
        every head, nan of one that diverged.

    Raises:
        RequestError: every head diverged, or val has no AUC.
    """
    measure = accuracy if choose_by == "acc" else auc
    task = fits[0].outputs.task
    found = np.array(
        [
            measure(fit.predict_scores(val_blocks), val_labels, task) if fit.is_finite else np.nan
            for fit in fits
        ]
    )
    if not any(fit.is_finite for fit in fits):
        raise RequestError(
            f"all {len(fits)} heads diverged, the slowest at a learning rate of "
            f"{min(fit.lr for fit in fits):g}; try smaller ones with --lr"
        )
    if np.isnan(found).all():
        raise RequestError(
            "heads are chosen by AUC on val, and val has none: a class is absent there, or a label "
            "has one value only; choose by accuracy with --choose-by acc"
        )
    return int(np.nanargmax(found)), found


def _inputs(blocks: Floats, n_blocks: int, has_mean: bool, config: Course) -> list[Input]:
    width = blocks.shape[1] // (n_blocks + has_mean)
    end = n_blocks * width
    return [
        (n, with_mean, slice(end - n * width, end + with_mean * width), config.lrs)
        for n in config.n_last
        for with_mean in ((False, True) if has_mean else (False,))
    ]
