"""Batches of a training: from samples to the encoder's input, prepared ahead.

Without an augmentation a thread gathers pixels while the device works, and the device prepares them
as ``extract`` does, by the same ``Transform`` on the same pixels. An augmentation that acts before
mean and std runs in processes; with no workers here and now, since it borrows torch's generator,
from which the model's dropout draws.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.machine.prefetch import prefetch
from extract.machine.workers import map_ordered
from extract.prepare.transforms import Transform
from finetune.data.augment import INPUT, LEVELS, STORED, Augmentation, Augmenter, Chances, mirror
from finetune.data.images import Images, rows_of

# torch and torchvision, which take seconds
PRELOAD = (Augmenter.__module__, "torchvision.transforms.v2")


class Draw(NamedTuple):
    """What is to become one batch."""

    epoch: int  # decides, with the seed, how images are augmented
    samples: NDArray[np.int64]  # (n,) positions among the data set's samples


@dataclass(frozen=True)
class Batch:
    """Samples as the encoder takes them. B images of n samples."""

    images: Tensor  # (B, 3, size, size) float32 on the device
    samples: NDArray[np.int64]  # (n,) as they were drawn
    # (B,) int64 on the device, 0 to n - 1: the sample of each image; None where they are the same.
    sample: Tensor | None


class _Ahead(NamedTuple):
    """A batch on the host."""

    draw: Draw
    sample: NDArray[np.int64]  # (B,)
    numbers: NDArray[np.int64]  # (B,) random
    parts: list[Tensor]  # of the images, in order


class Loader:
    """Makes batches of one data set.

    Args:
        images: the data set.
        transform: of the encoder.
        augmentation: None for val and test.
        device: where batches go.
        workers: processes that augment; 0 augments in this one.
    """

    def __init__(
        self,
        images: Images,
        transform: Transform,
        augmentation: Augmentation | None,
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self._images, self._transform, self._device = images, transform, device
        self._augmentation, self._workers = augmentation, 0
        # Of (rows, numbers); without processes, so it needn't be pickled.
        self._make: Callable[[Any], list[NDArray[Any]]] = lambda task: images.pixels.take(task[0])
        if augmentation and augmentation.acts_on != INPUT:
            pixels = images.stored if augmentation.acts_on == STORED else images.pixels
            assert pixels is not None, "open_images(with_stored=True)"
            self._make = Augmenter(pixels, transform, augmentation)
            self._workers = workers
        # A crop of the stored image has the encoder's size already.
        self._of_crop = dataclasses.replace(
            transform, resize="scale", backend="device", content=None
        )

    def batches(self, draws: Iterable[Draw], seed: int = 0) -> Generator[Batch, None, None]:
        """A batch for each draw, in order; close it where it isn't read to its end.

        One call for a whole training: processes are started by the call, and take seconds.

        Args:
            draws: read ahead, in another thread. They may cross epochs.
            seed: of the augmentation.

        Raises:
            BrokenCache: an image isn't as it was written.
            RequestError: a worker process died.
        """
        ahead = self._on_host(draws, seed)
        if self._makes_here:
            yield from map(self._to_device, ahead)
            return
        with closing(prefetch(ahead)) as ready:
            yield from map(self._to_device, ready)

    @property
    def most_rows(self) -> int:
        """Images of the sample that has the most: 1, or a volume's slices."""
        return self._images.rows.most

    @property
    def _makes_here(self) -> bool:
        return isinstance(self._make, Augmenter) and self._workers == 0

    def _on_host(self, draws: Iterable[Draw], seed: int) -> Iterator[_Ahead]:
        chances = Chances(seed, len(self._images.pixels))
        waiting: deque[tuple[Draw, NDArray[np.int64], NDArray[np.int64]]] = deque()

        def tasks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
            for draw in draws:
                rows, sample = rows_of(self._images, draw.samples)
                numbers = chances.of(draw.epoch, rows) if self._augmentation else rows
                waiting.append((draw, sample, numbers))
                yield rows, numbers

        for arrays in map_ordered(self._make, tasks(), self._workers, preload=PRELOAD):
            parts = [torch.from_numpy(array) for array in arrays]
            if self._device.type == "cuda":
                parts = [part.pin_memory() for part in parts]
            yield _Ahead(*waiting.popleft(), parts)

    def _to_device(self, ahead: _Ahead) -> Batch:
        parts = [part.to(self._device, non_blocking=True) for part in ahead.parts]
        inputs = [self._input_of(part) for part in parts]
        images = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        if self._augmentation and self._augmentation.acts_on == INPUT:
            images = mirror(images, torch.from_numpy(ahead.numbers).to(self._device))
        sample = None
        if not self._images.features.rows_are_samples:
            sample = torch.from_numpy(ahead.sample).to(self._device)
        return Batch(images, ahead.draw.samples, sample)

    def _input_of(self, part: Tensor) -> Tensor:
        acts_on = self._augmentation.acts_on if self._augmentation else INPUT
        if acts_on == INPUT:
            return self._transform(part)
        if acts_on == LEVELS:
            return self._transform.from_levels(part)
        return self._of_crop(part[:, 0] if part.shape[1] == 1 else part.permute(0, 2, 3, 1))
