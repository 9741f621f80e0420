"""A grid of linear heads trained at once by SGD: DINOv2's linear probe, on features of one view.

dinov2/eval/linear.py at 05c66df: learning rates x class tokens of the last 1 or 4 blocks x with or
without the last block's mean patch token; every head sees the same batches, and their losses are
summed, which is as if each were trained alone. Baharoon et al. 2023 (DINOv2ForRadiology) train the
same grid at other rates: see protocols.py.

Features are held as they are stored: of 165,466 images and five blocks of 768 in float16, 1.2 GB,
a whole command takes 2.4 GB, of which 0.7 are torch itself (benchmarks/probe_memory.py).

With blocks laid side by side in order and the mean after the last, each of the four inputs is a
slice of columns; the heads of all learning rates on one input are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe.episodes.draw import by_length
from probe.metrics.classification import accuracy, auc
from probe.solvers.epochs import episode_bytes
from probe.solvers.outputs import Outputs, check_finite, check_training
from probe.solvers.sgd import GridFit, Input, train

if TYPE_CHECKING:
    pass

CHOSEN_BY = ("acc", "auc")
LOSSES = ("mean", "sum")


@dataclass(frozen=True)
class HeadsConfig:
    """Everything that changes the weights of the grid.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    lrs: tuple[float, ...] = (  # linear.py: learning_rates
        *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
        *(2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
    )
    scale_lr: bool = True  # x batch / 256, as scale_lr() on one GPU
    n_last: tuple[int, ...] = (1, 4)  # class tokens of how many last blocks
    batch_size: int = 128
    epochs: int = 10
    iterations: int | None = 1250  # of an epoch; None: one pass over the images
    choose_by: str = "acc"  # on val, after the last step: the highest accuracy or AUC
    loss: str = "mean"  # of several labels; "sum": over the batch, as Baharoon et al. publish it
    refit: bool = False  # the chosen head anew on train and val together
    one_logit: bool = False  # two classes: one logit, or two
    by_sigmoid: bool = False  # several classes: scores by a sigmoid each, see Outputs
    # The refit as looked at on test after every so many epochs, and the best of these by AUC kept:
    # a choice on test, for comparison with Baharoon et al. alone. None: the last step's.
    test_every: int | None = None
    seed: int = 0  # of first weights and order

    def __post_init__(self) -> None:
        if not self.lrs or min(self.lrs) <= 0 or not all(map(math.isfinite, self.lrs)):
            raise RequestError(
                f"learning rates are positive and finite, found {self.lrs or 'none'}"
            )
        if not self.n_last or min(self.n_last) < 1:
            raise RequestError(f"numbers of last blocks are 1 and more, found {self.n_last}")
        for name in ("lrs", "n_last"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise RequestError(f"each of {name} may be named once, found one twice")
        for name in ("batch_size", "epochs", "iterations", "test_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} is 1 or more, found {value}")
        for name, words in (("choose_by", CHOSEN_BY), ("loss", LOSSES)):
            if getattr(self, name) not in words:
                raise RequestError(f"{name} is {' or '.join(words)}, found {getattr(self, name)!r}")
        if self.test_every is not None and not self.refit:
            raise RequestError("checkpoints are those of a refit; take train+val to --refit")
        if self.seed < 0:
            raise RequestError(f"a seed is 0 or more, found {self.seed}")


def fit_grid(
    blocks: NDArray[np.floating],
    labels: NDArray[np.integer],
    n_blocks: int,
    has_mean: bool,
    task: str,
    n_classes: int,
    config: HeadsConfig | None = None,
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
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C.
        config: the grid; None for the defaults.
        device: where to train, as torch names it.

    Returns:
        The heads in the order of the release: by blocks, without and with the mean, by learning
        rate. Weights of one that diverged are not finite.

    Raises:
        RequestError: what can't be trained on, or more last blocks asked for than there are.
    """
    config = config or HeadsConfig()
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
    blocks: NDArray[np.floating],
    labels: NDArray[np.integer],
    episodes: Sequence[NDArray[np.intp]],
    n_blocks: int,
    has_mean: bool,
    task: str,
    n_classes: int,
    config: HeadsConfig | None = None,
    device: str = "cpu",
) -> list[list[GridFit]]:
    """``fit_grid`` of every few-shot episode; those of as many images take their steps together.

    Args:
        blocks: (S, n_blocks * D) of the training samples, as for ``fit_grid``.
        labels: (S,), or (S, C) for the multi-label task.
        episodes: for each its rows of ``blocks``, one and more.
        n_blocks: as for ``fit_grid``, as are the others.
        has_mean: whether the mean follows.
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C.
        config: the grid; None for the defaults.
        device: where to train, as torch names it.

    Returns:
        For each episode the heads of its grid, in ``fit_grid``'s order.

    Raises:
        RequestError: see ``fit_grid``; an episode of one class can be trained on.
    """
    config = config or HeadsConfig()
    outputs = Outputs(task, n_classes, config.one_logit, config.by_sigmoid)
    places = _inputs(blocks, n_blocks, has_mean, config)
    found: list[list[GridFit]] = [[] for _ in episodes]
    used = np.unique(np.concatenate(episodes))
    x, y = blocks[used], labels[used]
    check_finite(x)
    for alike in by_length(episodes):
        size = max(1, episode_bytes(device) // (4 * config.batch_size * blocks.shape[1]))
        for start in range(0, len(alike), size):
            part = alike[start : start + size]
            rows = np.searchsorted(used, np.stack([episodes[i] for i in part]))
            grids = train(x, y, places, outputs, config, device, rows=rows)
            for i, number in zip(part, range(len(part)), strict=True):
                found[i] = grids[number :: len(part)]
    return found


def refit_one(
    fit: GridFit,
    blocks: NDArray[np.floating],
    labels: NDArray[np.integer],
    config: HeadsConfig,
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
    fits: list[GridFit],
    val_blocks: NDArray[np.floating],
    val_labels: NDArray[np.integer],
    choose_by: str,
) -> tuple[int, NDArray[np.float64]]:
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


def _inputs(
    blocks: NDArray[np.floating], n_blocks: int, has_mean: bool, config: HeadsConfig
) -> list[Input]:
    width = blocks.shape[1] // (n_blocks + has_mean)
    end = n_blocks * width
    return [
        (n, with_mean, slice(end - n * width, end + with_mean * width), config.lrs)
        for n in config.n_last
        for with_mean in ((False, True) if has_mean else (False,))
    ]
