"""Volumes as slices, and slices as samples."""

from pathlib import Path

import numpy as np
import pytest

from cache import RequestError
from cache.aggregate import aggregate_rows
from cache.errors import BrokenCache
from extract.datasets.volumes import AXES, Slicing, stream_slices

SHAPE = (4, 5, 6)  # of a volume; all sides differ, so a wrong axis shows


@pytest.fixture
def volumes(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file of 3 + 2 volumes, and all of them."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8) for n in (3, 2))
    np.savez_compressed(tmp_path / "v.npz", train_images=train, test_images=test)
    return tmp_path / "v.npz", np.concatenate([train, test])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("neighbours", [False, True])
def test_slices_are_those_of_a_plain_loop(volumes, axis: int, neighbours: bool):
    path, whole = volumes
    slicing = Slicing(axis, neighbours)
    depth = SHAPE[axis]
    expected = []
    for volume in whole:
        for i in range(depth):
            if neighbours:
                around = [max(i - 1, 0), i, min(i + 1, depth - 1)]
                expected.append(np.stack([volume.take(j, axis) for j in around], axis=-1))
            else:
                expected.append(volume.take(i, axis))
    n = len(expected)
    for ranges in ([(0, n)], [(0, 1), (1, 7), (7, 8), (9, n)], [(depth, depth + 1)], []):
        names = ["train_images", "test_images"]
        found = list(stream_slices(path, names, depth, slicing, ranges))
        assert len(found) == len(ranges)
        for part, (start, stop) in zip(found, ranges, strict=True):
            np.testing.assert_array_equal(part, np.stack(expected[start:stop]))
    assert slicing.slice_shape(SHAPE) == expected[0].shape[:2]


def test_other_slices_are_another_key():
    keys = [Slicing(axis, n).key for axis in AXES for n in (False, True)]
    assert len({str(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_rows_become_samples_whatever_their_order(how: str):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 3)).astype(np.float16)
    row_sample = np.array([2, 0, 1, 1, 0, 2, 2, 0, 2])
    expected = [getattr(x[row_sample == s].astype(np.float64), how)(axis=0) for s in range(3)]
    np.testing.assert_allclose(aggregate_rows(x, row_sample, 3, how), expected, rtol=1e-6)


def test_half_precision_rows_are_averaged_in_more():
    x = np.full((5000, 1), 60000, np.float16)
    assert aggregate_rows(x, np.zeros(5000, int), 1, "mean")[0, 0] == np.float16(60000)


def test_samples_without_rows_are_damage():
    with pytest.raises(BrokenCache, match="1 of 3 samples have no rows"):
        aggregate_rows(np.zeros((2, 1)), np.array([0, 2]), 3, "mean")
    with pytest.raises(RequestError, match="--aggregate takes mean, max"):
        aggregate_rows(np.zeros((1, 1)), np.array([0]), 1, "median")
