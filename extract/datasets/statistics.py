"""Mean and standard deviation of a data set's pixels, for the protocol that wants them."""

import json
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.layout import SPLITS
from extract.datasets.dataset import Dataset
from extract.datasets.sources import Source
from extract.digests import DigestMemory
from extract.preprocessing import DATASET_STATISTICS

Numbers = tuple[float, ...]

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
    text = memory.recall(KIND, source.path)
    return _parse(text) if text else None


def dataset_statistics(
    source: Source, dataset: Dataset, memory: DigestMemory
) -> tuple[Numbers, Numbers]:
    """Mean and std of each channel over the train split's pixels, values in 0..1.

    Args:
        source: what was named.
        dataset: its images.
        memory: keeps the numbers of files.

    Raises:
        RequestError: there are no training images.
    """
    known = recall_statistics(source, memory)
    if known is not None:
        return known

    def compute(path: Path | None = None) -> str:
        return json.dumps(_train_statistics(dataset))

    return _parse(memory.get(KIND, source.path, compute) if source.path else compute())


def _train_statistics(dataset: Dataset) -> tuple[list[float], list[float]]:
    """Counts of the 256 levels are exact, in any order; sums over them are of 256 numbers."""
    train = dataset.samples.split[dataset.row_sample] == SPLITS.index("train")
    rows = np.flatnonzero(train)
    if not len(rows):
        raise RequestError(
            f"{dataset.name} has no training images, and mean and std of the data set are those of "
            "its train split; give others: --mean 0.5 --std 0.5, or three numbers each"
        )
    counts = np.zeros((dataset.n_channels, LEVELS), np.int64)
    for images in dataset.stream(_ranges(rows)):
        pixels = images.reshape(-1, dataset.n_channels)
        for channel, of_channel in enumerate(counts):
            of_channel += np.bincount(pixels[:, channel], minlength=LEVELS)
    levels = np.arange(LEVELS)
    n = counts.sum(axis=1)
    mean = counts @ levels / n
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(axis=1) / n)
    numbers = [[round(float(v) / 255, DECIMALS) for v in values] for values in (mean, std)]
    if dataset.n_channels == 1:
        numbers = [values * 3 for values in numbers]
    return numbers[0], [max(value, 10.0**-DECIMALS) for value in numbers[1]]


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
