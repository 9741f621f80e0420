"""How long a training lasts, and the learning rate of every step, by where training is.

Nothing here has a state of its own: what a plateau has seen is counted from the checks on val, so a
run that goes on after a kill has the very rates of one that wasn't killed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cache.errors import RequestError
from finetune.config import TrainConfig
from probe.solvers.epochs import count_epochs

DECAY, EVERY = 0.9, 200  # Wu & Papiez 2025: Common_Main.py:250-251 of their release
DROP = 0.1  # of a plateau; Huix et al. 2024: params.json:220-252
THRESHOLD = 1e-4  # torch.optim.lr_scheduler.ReduceLROnPlateau's: a smaller gain is none


@dataclass(frozen=True)
class Length:
    """How long a training lasts: always whole epochs, so that no image is seen more often than another."""

    batch_size: int
    n_epochs: int
    n_batches: int  # of an epoch
    n_warmup: int = 0  # steps from 0 to the full rate, linearly: step i has (i + 1) / n_warmup

    @property
    def n_iterations(self) -> int:
        return self.n_epochs * self.n_batches

    def __str__(self) -> str:
        epochs = "1 whole epoch" if self.n_epochs == 1 else f"{self.n_epochs:_} whole epochs"
        return (
            f"{self.n_iterations:_} iterations: {epochs} of {self.n_batches:_}; one more would be "
            f"{self.n_iterations + self.n_batches:_}"
        )


def measure_length(config: TrainConfig, n_train: int, n_val: int) -> Length:
    """How long a training lasts.

    Args:
        config: the settings.
        n_train: samples that are learned from.
        n_val: samples that are chosen on; 0 of an episode, which may be smaller than a batch.

    Raises:
        RequestError: the samples fill no batch, or no epoch; or all of it is warm-up.
    """
    size = config.batch_size if n_val else min(config.batch_size, n_train)
    n_epochs, n_batches = count_epochs(
        n_train, size, config.drop_last, config.iterations, config.epochs
    )
    epochs = config.warmup_epochs
    n_warmup = config.warmup if epochs is None else epochs * n_batches
    length = Length(size, n_epochs, n_batches, n_warmup)
    if n_warmup >= length.n_iterations:
        raise RequestError(
            f"the warm-up of {n_warmup:_} iterations doesn't end before the training of "
            f"{length.n_iterations:_} ({n_epochs} epochs of {n_batches} batches) does; "
            "take a shorter one with --warmup or --warmup-epochs, or train longer"
        )
    return length


def rate_factor(
    config: TrainConfig, length: Length, part: str, iteration: int, n_drops: int
) -> float:
    """What a part's full learning rate is multiplied by in one step.

    Args:
        config: the settings.
        length: of the whole training.
        part: "head" or "encoder".
        iteration: of the step, from 0.
        n_drops: how often val has reached a plateau, see ``count_drops``.
    """
    warm = min(1.0, (iteration + 1) / length.n_warmup) if length.n_warmup else 1.0
    if config.schedule == "decay":
        return warm * (DECAY ** (iteration // EVERY) if part == "head" else 1.0)
    if config.schedule == "cosine":
        return warm * (1 + math.cos(math.pi * iteration / length.n_iterations)) / 2
    if config.schedule == "cosine-epochs":
        # train.py:183 of Doerrich et al. tells timm's scheduler the epoch that has just ended.
        before, n_batches = max(iteration // length.n_batches - 1, 0), length.n_batches
        return warm * (1 + math.cos(math.pi * before * n_batches / length.n_iterations)) / 2
    return warm * DROP**n_drops


def count_drops(config: TrainConfig, ranks: Sequence[float]) -> int:
    """How often the rates have been dropped, as torch's ReduceLROnPlateau counts it.

    Args:
        config: the settings.
        ranks: each check's value on val, higher is better.

    Returns:
        0 for other schedules.
    """
    if config.schedule != "plateau":
        return 0
    best, n_bad, n_drops = -math.inf, 0, 0
    for value in ranks:
        if value > best + THRESHOLD * abs(best) or best == -math.inf:
            best, n_bad = value, 0
        else:
            n_bad += 1
        if n_bad > config.plateau_checks:
            n_drops, n_bad = n_drops + 1, 0
    return n_drops
