"""Volumes with masks, on small trees as their owners' archives unpack."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cache import RequestError
from cache.masks import open_masks, write_masks
from cache.splits.make import TEST, TRAIN, VAL
from extract.datasets.files.images import Reading, open_dataset, open_files
from extract.datasets.recipes import find_recipe, open_recipe
from extract.datasets.recipes.msd_amos import ORGANS

SPACING = (0.8, 0.9, 3.0)


def put_volume(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1])), path)


def put_set(root: Path, names: list[str], n_classes: int, word: str = "Tr") -> None:
    rng = np.random.default_rng(0)
    for name in names:
        put_volume(root / f"images{word}" / name, rng.integers(0, 500, (6, 5, 4)).astype(np.int16))
        put_volume(
            root / f"labels{word}" / name, rng.integers(0, n_classes, (6, 5, 4)).astype(np.uint8)
        )


def opened(name: str, root: Path):
    recipe = find_recipe(name)
    assert recipe is not None
    listing = open_recipe(recipe, root)
    return listing, open_dataset(
        open_files(listing, Reading(window=listing.window), root / "index")
    )


@pytest.mark.parametrize(
    ("name", "n_classes", "n_test", "n_val"),
    [("msd-heart", 2, 2, 2), ("msd-hippocampus", 3, 3, 2), ("msd-spleen", 2, 4, 2)],
)
def test_a_task_of_the_decathlon(tmp_path, name, n_classes, n_test, n_val):
    task = tmp_path / "TaskXX"
    put_set(task, [f"case_{i:03d}.nii.gz" for i in range(10)], n_classes)
    (task / "imagesTr/._case_000.nii.gz").write_bytes(b"mac")
    put_volume(task / "imagesTs/case_900.nii.gz", np.zeros((6, 5, 4), np.int16))
    structures = {
        "msd-heart": ("left atrium",),
        "msd-hippocampus": ("Anterior", "Posterior"),
        "msd-spleen": ("spleen",),
    }
    labels = {str(i): name for i, name in enumerate(("background", *structures[name]))}
    (task / "dataset.json").write_text(json.dumps({"labels": labels}))
    listing, dataset = opened(name, tmp_path)
    assert len(listing.ids) == 10
    assert listing.groups is not None
    assert listing.groups.tolist() == [*listing.ids]
    assert any("are published, 10 are here" in note for note in listing.notes)
    assert listing.split is not None
    counts = np.bincount(listing.split, minlength=3)
    assert counts[TEST] == n_test
    assert counts[VAL] == n_val
    assert counts[TRAIN] == 10 - n_test - n_val
    assert dataset.n_rows == 40  # slices
    assert dataset.masks is not None
    masks = open_masks(write_masks(tmp_path / "f", name, dataset.row_ids, dataset.masks))
    assert len(masks) == 40
    assert len(masks.class_names) == n_classes
    assert masks.background == 0
    np.testing.assert_allclose(sorted(masks.spacing[0]), SPACING, rtol=1e-6)


def test_amos_takes_its_ct_and_both_of_its_folders(tmp_path):
    put_set(tmp_path, ["amos_0001.nii.gz", "amos_0507.nii.gz"], 16)
    put_set(tmp_path, ["amos_0013.nii.gz"], 16, "Va")
    listing, _ = opened("amos-ct", tmp_path)
    assert listing.ids == ("amos_0001", "amos_0013")
    assert listing.masks is not None
    assert listing.masks.classes.names == ORGANS
    assert len(ORGANS) == 16
    assert listing.window == "-1024,600"
    assert "left out: 1 MR volumes" in listing.notes
    shutil.rmtree(tmp_path / "imagesVa")
    with pytest.raises(RequestError, match="imagesVa"):
        opened("amos-ct", tmp_path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "labelsTr/case_001.nii.gz").unlink(), "lacks labelsTr/case_001"),
        (
            lambda root: (root / "dataset.json").write_text('{"labels": {"0": "a"}}'),
            "other classes than msd-heart",
        ),
        (
            lambda root: (root / "dataset.json").write_text(
                json.dumps({"labels": {"0": "background", "1": "spleen"}})
            ),
            "other classes than msd-heart",
        ),
        (lambda root: (root / "dataset.json").write_text("x"), "isn't the owner's"),
        (lambda root: (root / "labelsTr").rename(root / "l"), "labelsTr"),
    ],
)
def test_what_is_not_the_owners_archive(tmp_path, spoil, said):
    put_set(tmp_path, ["case_000.nii.gz", "case_001.nii.gz"], 2)
    spoil(tmp_path)
    with pytest.raises(RequestError, match=said):
        opened("msd-heart", tmp_path)
