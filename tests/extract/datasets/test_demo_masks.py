"""Whole slices of a brain: their splits share nothing, their masks are the template's maps."""

import numpy as np
import pytest

from cache.format.sample_tables import SPLITS
from cache.geometry import Geometry
from cache.masks import open_masks, write_masks
from extract.datasets.arrays import demo_masks
from extract.datasets.arrays.demo import read_map
from extract.datasets.masks import describe_masks


@pytest.fixture(scope="module")
def dataset():
    return demo_masks.open_demo()


def test_splits_are_disjoint_in_space_with_a_gap(dataset) -> None:
    assert dataset.n_rows > 100
    z = np.array([int(name[-3:]) for name in dataset.row_ids])
    split = np.array([SPLITS[s] for s in dataset.samples.split])
    apart = np.abs(z[:, None] - z[None])
    assert apart[split[:, None] != split[None]].min() > demo_masks.GAP
    assert len(set(z)) == len(z)


def test_masks_are_the_likeliest_of_the_maps(dataset, tmp_path) -> None:
    path = write_masks(tmp_path / dataset.name, dataset.name, dataset.row_ids, dataset.masks)
    masks = open_masks(path)
    grey, white = (read_map(name).astype(int) for name in ("gm", "wm"))
    for i in (0, 50, 106):
        z = int(masks.ids[i][-3:])
        for (row, column), found in np.ndenumerate(masks.mask(i)[::40, ::30]):
            here = [a[column * 30, 232 - row * 40, z] for a in (grey, white)]
            assert found == np.argmax([255 - sum(here), *here])
    assert masks.counts.min() > 0  # every slice has all three
    assert masks.shapes.tolist() == [[233, 197]] * dataset.n_rows
    assert (masks.spacing == 1).all()
    assert "background alone" not in describe_masks(masks, dataset)
    # Images and masks are of the same slices: no tissue where the image is black.
    (image,) = next(iter(dataset.stream([(50, 51)])))
    assert (masks.mask(50)[image < 20] == 0).mean() > 0.99


def test_the_grid_can_see_them(dataset) -> None:
    """The Dice of the true masks, pooled to 32 x 32 patches and back, in test."""
    geometry = Geometry("pad-fit", 256)
    test = np.flatnonzero(dataset.samples.split == SPLITS.index("test"))
    both, either = np.zeros(3), np.zeros(3)
    for masks in dataset.masks.stream([(int(test[0]), int(test[-1]) + 1)]):
        for mask in masks:
            seen = geometry.to_input(mask)
            is_class = seen[..., None] == np.arange(3)
            shares = is_class.reshape(32, 8, 32, 8, 3).mean((1, 3)).astype(np.float32)
            back = geometry.to_source(shares, mask.shape).argmax(-1)
            for c in range(3):
                both[c] += ((back == c) & (mask == c)).sum()
                either[c] += (back == c).sum() + (mask == c).sum()
    assert np.allclose(2 * both / either, [0.987, 0.837, 0.880], atol=0.002)
