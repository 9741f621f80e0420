"""Augmentations by name: what happens to training images beyond the transform.

Val and test never see one. Geometry and colours are torchvision's (``transforms.v2``). Each acts at
one of three places:

"input"
    On the encoder's input, on its device: what mean and std don't change.
"levels"
    On the prepared image, resized, cropped, stretched and padded, before mean and std, in levels of
    0..255 rounded to whole ones: torchvision's operations are those of 8-bit images. Grey images
    keep one channel, whose saturation and hue don't change.
"stored"
    On the image as it is stored, in the place of the eval resize, crop and padding; stretching, and
    mean and std, follow. Float images stay float.

What an image becomes hangs on (seed, epoch, row) alone: not on the batch, the worker or the rank
that it falls to, nor on where a run was resumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import RequestError
from extract.prepare.transforms import Transform
from finetune.config import AUGMENTS
from finetune.data.pixels import Pixels

if TYPE_CHECKING:
    from torchvision.transforms import v2

INPUT, LEVELS, STORED = "input", "levels", "stored"
STREAM = 2  # beside (seed, 0) and (seed, 1) of probe.kinds.adamw: first weights, order


@dataclass(frozen=True)
class Augmentation:
    """One augmentation."""

    name: str  # one of finetune.config.AUGMENTS
    acts_on: str  # INPUT, LEVELS or STORED
    # (C, H, W) uint8 or float32 -> (C, size, size); None on INPUT: mirrored or not, half and half.
    change: v2.Transform | None = None

    @property
    def needs_stored(self) -> bool:
        """Whether it takes images as they are stored."""
        return self.acts_on == STORED


def make_augmentation(name: str, size: int) -> Augmentation | None:
    """An augmentation by its name; None for "none".

    flip
        The input mirrored from left to right, with probability 1/2.
    huix
        Huix et al. 2024 (joanaapa/Foundation-Medical, params.json:100-150, defaults/bases.py:63-158),
        behind Resize and CenterCrop: RandomResizedCrop of scale 0.8 to 1.2, bilinear; a vertical and
        a horizontal flip; ColorJitter(0.2, 0.2, 0.1, 0.1) with probability 0.8. Above scale 1 there
        is no such crop; torchvision then tries again, or takes the whole image.
    baharoon
        Baharoon et al. 2023 (DINOv2ForRadiology, dinov2/data/transforms.py:73-90), on the stored
        image: RandomResizedCrop of scale 0.75 to 1, bicubic, and a horizontal flip. Of a float tensor
        by torchvision 0.15.0, so neither antialiased nor clipped.
    trivial
        TrivialAugmentWide (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158): one of 14
        operations at a random strength.

    Args:
        name: one of ``finetune.config.AUGMENTS``.
        size: side of the encoder's input, pixels.

    Raises:
        RequestError: an unknown name.
    """
    if name == "none":
        return None
    if name == "flip":
        return Augmentation(name, INPUT)
    from torchvision.transforms import InterpolationMode, v2  # here, for it takes its time

    if name == "huix":
        steps = [
            v2.RandomResizedCrop(size, scale=(0.8, 1.2)),
            v2.RandomVerticalFlip(),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.1, 0.1)], p=0.8),
        ]
        return Augmentation(name, LEVELS, v2.Compose(steps))
    if name == "baharoon":
        bicubic = InterpolationMode.BICUBIC
        steps = [
            v2.ToDtype(torch.float32),
            v2.RandomResizedCrop(size, scale=(0.75, 1.0), interpolation=bicubic, antialias=False),
            v2.RandomHorizontalFlip(),
        ]
        return Augmentation(name, STORED, v2.Compose(steps))
    if name == "trivial":
        return Augmentation(name, LEVELS, v2.TrivialAugmentWide())
    raise RequestError(f"--augment takes {', '.join(AUGMENTS)}, not {name!r}")


class Chances:
    """The random number of every row in every epoch.

    Args:
        seed: of the training.
        n_rows: N.
    """

    def __init__(self, seed: int, n_rows: int) -> None:
        self._seed, self._n_rows = seed, n_rows
        self._epoch, self._numbers = -1, np.empty(0, np.int64)

    def of(self, epoch: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) numbers of 63 bits for some rows."""
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, STREAM, epoch))
            self._epoch, self._numbers = epoch, rng.integers(2**63, size=self._n_rows)
        return self._numbers[rows]


@dataclass(frozen=True)
class Augmenter:
    """Reads and augments rows; sent to worker processes.

    Args:
        pixels: the images, of "stored" as they are stored.
        transform: of the encoder.
        augmentation: on LEVELS or STORED.
    """

    pixels: Pixels
    transform: Transform
    augmentation: Augmentation

    def __call__(self, task: tuple[NDArray[np.int64], NDArray[np.int64]]) -> list[NDArray[Any]]:
        """Some rows, augmented.

        Args:
            task: (n,) rows, and (n,) numbers that decide what each becomes.

        Returns:
            (m, C, size, size) uint8 or float32 each, in order.
        """
        rows, numbers = task
        with _borrowed_chance():
            images = [image for group in self.pixels.take(rows) for image in self._ready(group)]
            changed = [
                self._change(image, number)
                for image, number in zip(images, numbers.tolist(), strict=True)
            ]
        if len({image.dtype for image in changed}) > 1:
            changed = [image.float() for image in changed]
        return [torch.stack(changed).numpy()]

    def _ready(self, group: NDArray[Any]) -> Tensor:
        """(m, C, H, W), what the augmentation takes."""
        images = torch.from_numpy(group)
        if self.augmentation.acts_on == LEVELS:
            return self.transform.levels(images).round_().to(torch.uint8)
        return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)

    def _change(self, image: Tensor, number: int) -> Tensor:
        assert self.augmentation.change is not None, "it acts on the input"
        # Not torch.manual_seed: that would seed the GPU's dropout too.
        torch.default_generator.manual_seed(number)
        return self.augmentation.change(image.contiguous())


@contextlib.contextmanager
def _borrowed_chance() -> Iterator[None]:
    """torchvision draws from torch's one generator of the CPU: it is given back as it was.

    On one thread: several sum the mean of an image in another order, and may round otherwise.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(n_threads)


def mirror(inputs: Tensor, numbers: Tensor) -> Tensor:
    """Mirror the inputs whose number is odd, from left to right.

    Args:
        inputs: (B, 3, size, size).
        numbers: (B,) on the same device.
    """
    return torch.where((numbers % 2 == 1)[:, None, None, None], inputs.flip(-1), inputs)
