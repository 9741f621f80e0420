"""Mean and standard deviation of a data set's pixels, for the protocol that wants them."""

import json
from pathlib import Path

import numpy as np

from cache.layout import SPLITS
from extract.datasets.dataset import Dataset
from extract.datasets.sources import Source
from extract.digests import DigestMemory
from extract.preprocessing import DATASET_STATISTICS

Numbers = tuple[float, ...]

KIND = "train mean and std"  # in the memory of digests
DECIMALS = 4  # one more than the published ones have; the key holds the rounded numbers
CHUNK_ROWS = 256


def recall_statistics(source: Source, memory: DigestMemory) -> tuple[Numbers, Numbers] | None:
    """Published or remembered numbers; None where the images must be read for them."""
    if source.name in DATASET_STATISTICS:
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
    """
    known = recall_statistics(source, memory)
    if known is not None:
        return known

    def compute(path: Path | None = None) -> str:
        return json.dumps(_train_statistics(dataset))

    return _parse(memory.get(KIND, source.path, compute) if source.path else compute())


def _train_statistics(dataset: Dataset) -> tuple[list[float], list[float]]:
    """Sums of uint8 values and their squares are exact in 64-bit integers, in any order."""
    train = dataset.samples.split[dataset.row_sample] == SPLITS.index("train")
    rows = np.flatnonzero(train)
    total = np.zeros(dataset.n_channels, np.int64)
    squares = np.zeros(dataset.n_channels, np.int64)
    n = 0
    for images in dataset.stream(_ranges(rows)):
        pixels = images.reshape(-1, dataset.n_channels).astype(np.int64)
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
        n += len(pixels)
    mean = total / n
    std = np.sqrt(np.maximum(squares / n - mean**2, 0))
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
