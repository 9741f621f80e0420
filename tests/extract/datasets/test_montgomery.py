"""Montgomery County's X-rays, on a small tree as the owner's archive unpacks."""

import numpy as np
import pytest
from PIL import Image

from cache import RequestError
from cache.masks import open_masks, write_masks
from extract.datasets.files.images import Reading, open_dataset, open_files
from extract.datasets.recipes import find_recipe, open_recipe

FOLDERS = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")


@pytest.fixture
def root(tmp_path):
    for i in range(9):
        for folder, value in zip(FOLDERS, (100, 0, 0), strict=True):
            values = np.full((6, 8), value, np.uint8)
            if folder.endswith("leftMask"):
                values[1, 5:7] = 255
            if folder.endswith("rightMask"):
                values[1, 1:3] = 255
            path = tmp_path / "MontgomerySet" / folder / f"MCUCXR_{i:04d}_{i % 2}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return tmp_path


def listed(root):
    recipe = find_recipe("montgomery")
    assert recipe is not None
    return open_recipe(recipe, root)


def test_both_lungs_are_one_class(root):
    listing = listed(root)
    assert np.bincount(listing.split).tolist() == [4, 2, 3]
    assert listing.target.labels.tolist() == [0, 1] * 4 + [0]
    dataset = open_dataset(open_files(listing, Reading(), root / "index"))
    masks = open_masks(write_masks(root / "f", "montgomery", dataset.row_ids, dataset.masks))
    assert masks.class_names == ("background", "lung")
    assert len(masks) == 9
    expected = np.zeros((6, 8), np.uint8)
    expected[1, [1, 2, 5, 6]] = 1
    np.testing.assert_array_equal(masks.mask(4), expected)


def test_a_lung_that_is_missing_is_named(root):
    (root / "MontgomerySet/ManualMask/rightMask/MCUCXR_0003_1.png").unlink()
    with pytest.raises(RequestError, match="lacks ManualMask/rightMask/MCUCXR_0003_1.png"):
        listed(root)
