"""The learning rate of every step, as a function of where training is.

Nothing here has a state of its own: what a plateau has seen is counted from the checks on val, so a
run that goes on after a kill has the very rates of one that wasn't killed.
"""

import math
from collections.abc import Sequence

from finetune.config import TrainConfig

DECAY, EVERY = 0.9, 200  # Wu & Papiez 2025: Common_Main.py:250-251 of their release
DROP = 0.1  # of a plateau; Huix et al. 2024: params.json:220-252
THRESHOLD = 1e-4  # torch.optim.lr_scheduler.ReduceLROnPlateau's: a smaller gain is none


def rate_factor(
    config: TrainConfig,
    part: str,
    iteration: int,
    n_iterations: int,
    n_warmup: int,
    n_drops: int,
    n_batches: int = 1,
) -> float:
    """What a part's full learning rate is multiplied by in one step.

    Args:
        config: the settings.
        part: "head" or "encoder".
        iteration: of the step, from 0.
        n_iterations: of the whole training.
        n_warmup: steps from 0 to the full rate, linearly: step i has (i + 1) / n_warmup.
        n_drops: how often val has reached a plateau, see ``count_drops``.
        n_batches: iterations of an epoch.
    """
    warm = min(1.0, (iteration + 1) / n_warmup) if n_warmup else 1.0
    if config.schedule == "decay":
        return warm * (DECAY ** (iteration // EVERY) if part == "head" else 1.0)
    if config.schedule == "cosine":
        return warm * (1 + math.cos(math.pi * iteration / n_iterations)) / 2
    if config.schedule == "cosine-epochs":
        # train.py:183 of Doerrich et al. tells timm's scheduler the epoch that has just ended.
        before = max(iteration // n_batches - 1, 0)
        return warm * (1 + math.cos(math.pi * before * n_batches / n_iterations)) / 2
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
