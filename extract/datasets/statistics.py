"""Mean and standard deviation of a data set's pixels, for the protocol that wants them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.splits.make import split_digest
from extract.datasets.dataset import Dataset, group_shapes
from extract.datasets.recipes import RECIPES
from extract.datasets.sources import Source
from extract.machine.digests import DigestMemory

Numbers = tuple[float, ...]

# As papers have them. Others are computed, from the pixels of the train split.
DATASET_STATISTICS = {r.name: r.statistics for r in RECIPES if r.statistics}
DECIMALS = 4  # one more than the published ones have; the key holds the rounded numbers
KIND = f"train mean and std, {DECIMALS} decimals"  # in the memory of digests
CHUNK_ROWS = 32  # 5 MB of colour images at 224 px, and 13 MB of what counting makes of a channel
LEVELS = 256  # of uint8


def recall_statistics(source: Source, memory: DigestMemory) -> tuple[Numbers, Numbers] | None:
    """Published or remembered numbers; None where the images must be read for them."""
    # By what was typed: a user's own file of such a name holds other images.
    if source.wish in DATASET_STATISTICS:
        return DATASET_STATISTICS[source.name]
    if source.path is None or not source.path.is_file():
        return None
    text = memory.recall(_kind(source), source.path)
    return _parse(text) if text else None


def dataset_statistics(
    source: Source,
    dataset: Dataset,
    memory: DigestMemory,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Numbers, Numbers]:
    """Mean and std of each channel over the train split's pixels, values in 0..1.

    Args:
        source: what was named.
        dataset: its images.
        memory: keeps the numbers.
        say: told when images must be read for them.

    Raises:
        RequestError: there are no training images.
    """
    known = recall_statistics(source, memory)
    if known is not None:
        return known

    def compute(path: Path | None = None) -> str:
        say("reading the train images for their mean and std, once")
        return json.dumps(_train_statistics(dataset))

    if source.path:
        return _parse(memory.get(_kind(source), source.path, compute))
    if source.files:
        split = split_digest(dataset.samples.ids, dataset.samples.split)
        of = f"{dataset.images_digest} {sorted(source.files.key.items())} {split}"
        return _parse(memory.get_of(_kind(source), of, compute))
    return _parse(compute())


def _kind(source: Source) -> str:
    """With neighbours, a channel has the slice at one end twice and lacks that at the other."""
    cut = source.slicing
    kind = f"{KIND}, {source.part}" if source.part else KIND
    return f"{kind}, {cut.key}" if cut and cut.neighbours else kind


def _train_statistics(dataset: Dataset) -> tuple[list[float], list[float]]:
    """Counts of the 256 levels are exact, in any order; sums over them are of 256 numbers."""
    train = dataset.samples.split[dataset.row_sample] == SPLITS.index("train")
    rows = np.flatnonzero(train)
    if not len(rows):
        raise RequestError(
            f"{dataset.name} has no training images, and mean and std of the data set are those of "
            "its train split; give others: --mean 0.5 --std 0.5, or three numbers each"
        )
    levels = _Levels(dataset.n_channels)
    for images in dataset.stream(dataset.cut(_ranges(rows), CHUNK_ROWS)):
        for group in group_shapes(images):
            levels.add(group.reshape(-1, dataset.n_channels))
    mean, std = levels.mean_and_std()
    numbers = [[round(float(v) / 255, DECIMALS) for v in values] for values in (mean, std)]
    if dataset.n_channels == 1:
        numbers = [values * 3 for values in numbers]
    return numbers[0], [max(value, 10.0**-DECIMALS) for value in numbers[1]]


class _Levels:
    """Of the pixels of each channel: how often each of 256 levels occurs, or sums of others."""

    def __init__(self, n_channels: int) -> None:
        self._counts = np.zeros((n_channels, LEVELS), np.int64)
        self._sums = np.zeros((3, n_channels))  # of float pixels: number, values, squares

    def add(self, pixels: np.ndarray) -> None:
        """Take (n, channels), uint8 or float32."""
        if pixels.dtype != np.uint8:
            x = pixels.astype(np.float64)
            self._sums += np.stack([np.full(x.shape[1], len(x)), x.sum(0), (x**2).sum(0)])
            return
        for channel, of_channel in enumerate(self._counts):
            of_channel += np.bincount(pixels[:, channel], minlength=LEVELS)

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """(channels,) each, in levels of 0..255."""
        levels = np.arange(LEVELS)
        n = self._counts.sum(axis=1) + self._sums[0]
        mean = (self._counts @ levels + self._sums[1]) / n
        spread = (self._counts * (levels - mean[:, None]) ** 2).sum(axis=1)
        # Around the common mean: sum of squares, less twice the mean times the sum, and so on.
        spread += self._sums[2] - 2 * mean * self._sums[1] + self._sums[0] * mean**2
        return mean, np.sqrt(np.maximum(spread / n, 0))


def _ranges(rows: np.ndarray) -> list[tuple[int, int]]:
    """Ascending row numbers as ranges of at most CHUNK_ROWS."""
    ranges: list[tuple[int, int]] = []
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        for first in range(0, len(run), CHUNK_ROWS):
            part = run[first : first + CHUNK_ROWS]
            ranges.append((int(part[0]), int(part[-1]) + 1))
    return ranges


def _parse(text: str) -> tuple[Numbers, Numbers]:
    mean, std = json.loads(text)
    return tuple(mean), tuple(std)
