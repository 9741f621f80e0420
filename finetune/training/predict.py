"""Logits of many samples, by one process or by several that share them; what is done where memory is short."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import RequestError
from finetune.data.batches import Draw, Loader
from finetune.model.classifier import Classifier
from finetune.ranks import Ranks


@dataclass(frozen=True)
class Predicted:
    """What a network says of n samples."""

    logits: NDArray[np.float32]  # (n, O)
    seconds_per_image: float  # of the forward pass alone, on one device


@torch.no_grad()  # not inference_mode: tables that some libraries cache would stay of that kind
def predict(
    classifier: Classifier, loader: Loader, samples: NDArray[np.int64], at_once: int, ranks: Ranks
) -> Predicted:
    """Score samples in eval mode and float32, whatever it was trained in.

    Each rank takes a share of its own, so that nothing is padded and nothing counted twice.

    Args:
        classifier: the network, on its device; it is left in eval mode.
        loader: of the images, without augmentation.
        samples: (n,) positions; 1 or more.
        at_once: samples in one forward pass; halved where memory is too small for them.
        ranks: the processes that share the work.

    Returns:
        The same on every rank, in the order of ``samples``.

    Raises:
        RequestError: memory is too small for one sample.
    """
    classifier.eval()
    own = np.array_split(samples, ranks.size)[ranks.rank]
    device = next(classifier.parameters()).device
    while True:
        try:
            found = _predict(classifier, loader, own, at_once, device)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if at_once == 1:
                raise RequestError(
                    f"the device's memory is too small for one sample; {CURE}"
                ) from error
            free_cache(device)
            at_once //= 2
    parts = ranks.gather(found)
    logits = np.concatenate([block for blocks, *_ in parts for block in blocks])
    spent, seen = sum(p[1] for p in parts), sum(p[2] for p in parts)
    return Predicted(logits, spent / max(seen, 1))


def _predict(
    classifier: Classifier,
    loader: Loader,
    samples: NDArray[np.int64],
    at_once: int,
    device: torch.device,
) -> tuple[list[NDArray[np.float32]], float, int]:
    """Blocks of logits, the forward passes' seconds, and how many images they were."""
    found, seconds, n_images = [], 0.0, 0
    draws = [Draw(0, samples[i : i + at_once]) for i in range(0, len(samples), at_once)]
    with without_tf32(), contextlib.closing(loader.batches(draws)) as batches:
        for batch in batches:
            _wait_for(device)  # what prepares the images isn't the network's time
            started = time.perf_counter()
            logits = classifier(batch.images, batch.sample).float()
            _wait_for(device)
            seconds += time.perf_counter() - started
            n_images += len(batch.images)
            found.append(logits.cpu().numpy())
    return found, seconds, n_images


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """TF32 is a switch of the whole process, on for a training by ``--precision tf32``."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn


CURE = "take a smaller --size or --batch-size, --grad-checkpointing, or --precision bf16"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says so; torch has a class of its own for accelerators alone."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def free_cache(device: torch.device) -> None:
    """Give back what torch keeps of earlier tensors, which may be in pieces too small to use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
