"""Epochs of a training: their order, when val is looked at, first weights, and the device."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe.arrays import Indices, Singles


def check_epochs(n_epochs: int, n_checks: int | None) -> list[int]:
    """The epochs, from 0, after which val is looked at: every ``n_epochs // n_checks``-th, the last.

    The first is among them. Common_Trainer.py:255-260: 10 checks are 11 of 150 epochs, and 19 of 19.
    """
    step = 1 if n_checks is None else n_epochs // min(n_checks, n_epochs)
    return sorted({*range(0, n_epochs, step), n_epochs - 1})


def count_epochs(
    n_images: int, batch_size: int, drop_last: bool, iterations: int | None, epochs: int | None
) -> tuple[int, int]:
    """How many epochs, and how many batches each.

    Args:
        n_images: of the training set.
        batch_size: of a step.
        drop_last: whether the last batch of an epoch is left out where it is short.
        iterations: as many whole epochs as fit in.
        epochs: in the place of iterations.

    Raises:
        RequestError: not one batch, or not one epoch.
    """
    batches = n_images / batch_size
    n_batches = math.floor(batches) if drop_last else math.ceil(batches)
    if n_batches == 0:
        raise RequestError(
            f"{n_images} training images fill no batch of {batch_size}, and a short one is "
            f"dropped; take a smaller one, as --batch-size {n_images}"
        )
    n_epochs = epochs if epochs is not None else (iterations or 0) // n_batches
    if n_epochs == 0:
        raise RequestError(
            f"an epoch of {n_images} images in batches of {batch_size} has {n_batches} "
            f"iterations; take at least as many with --iterations, found {iterations}"
        )
    return n_epochs, n_batches


def epoch_orders(n_images: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Epoch after epoch, the order (N,) of its images; by the seed alone."""
    rng = np.random.default_rng((seed, 1))
    while True:
        yield rng.permutation(n_images)


def first_weights(width: int, n_logits: int, seed: int) -> Singles:
    """(O, D + 1) weights and intercept: torch.nn.Linear's, uniform within 1 / sqrt(D).

    timm's vision transformers start their heads from a normal of 0.02 instead; after thousands of
    steps nothing of either is left.
    """
    bound = 1 / math.sqrt(width)
    rng = np.random.default_rng((seed, 0))
    return rng.uniform(-bound, bound, (n_logits, width + 1)).astype(np.float32)


# 40 episodes of 20 shots of 7 classes: 1.8 s, and 2.6 s in batches of 64 MB (one core).
CACHE_BYTES = 2**22


MAX_BYTES = 2**30  # of training features that are held at one time, unless one matrix is larger


def stepping_together(
    episodes: Sequence[Indices], used: Indices, device: str, n_cells: Callable[[int], int]
) -> Iterator[tuple[list[int], Indices]]:
    """Episodes of as many images together, the shortest first, a few at a time.

    Args:
        episodes: for each its rows of train.
        used: all of these rows, ascending.
        device: where they are trained: on a processor a few batches stay in its cache.
        n_cells: numbers that the batch of one episode of so many images has.

    Yields:
        Places of e episodes, and (e, n) their rows' places in ``used``.
    """
    n_bytes = CACHE_BYTES if device == "cpu" else MAX_BYTES
    lengths = np.array([len(rows) for rows in episodes])
    for length in np.unique(lengths).tolist():
        alike = np.flatnonzero(lengths == length).tolist()
        size = max(1, n_bytes // (4 * n_cells(length)))
        for start in range(0, len(alike), size):
            part = alike[start : start + size]
            yield part, np.searchsorted(used, np.stack([episodes[i] for i in part]))


def check_device(device: str) -> str:
    """Refuse a device that isn't there.

    Raises:
        RequestError: torch can't use it.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).splitlines()[0]
        raise RequestError(f"--device {device} can't be used ({reason}); leave it out") from None
    return device
