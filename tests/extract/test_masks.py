"""``extract`` with masks: a file of their own beside token files, and never a forward pass for them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache import open_features
from cache.masks import find_masks, open_masks
from extract.cli import main

MODEL = ["--model", "test_vit", "--size", "32", "--weights", "random"]


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("val", 2), ("test", 2)):
        for folder in ("images", "masks"):
            (tmp_path / "scans" / split / folder).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (20, 30), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "scans" / split / "images" / f"{i}.png")
            mask = Image.fromarray(np.where(pixels > 99, 255, 0).astype(np.uint8))
            mask.save(tmp_path / "scans" / split / "masks" / f"{i}.png")
    return tmp_path / "scans"


def run(scans: Path, *words: str, status: int = 0) -> tuple[list[Path], list[Path]]:
    """The feature files and the masks files, the newest first, after a command."""
    root = scans.parent / "features"
    data = ["--data", f"seg-folder:{scans}", "--features", str(root)]
    assert main([*MODEL, *data, *words]) == status
    masks = find_masks(root, "scans")
    return sorted({*root.rglob("scans/*.h5")} - {*masks}), masks


def test_masks_are_written_with_tokens_only(scans, capsys) -> None:
    assert [len(paths) for paths in run(scans)] == [1, 0]
    (_, tokens), (path,) = run(scans, "--tokens", "-1")
    features, masks = open_features(tokens), open_masks(path)
    assert features.is_tokens
    assert "masks of 8 images: background 3" in capsys.readouterr().out
    assert masks.ids.tolist() == features.ids.tolist()
    assert masks.digest not in str(features.key)
    # The pictures are of what the masks are of.
    assert masks.shapes.tolist() == [[20, 30]] * 8


def test_masks_that_change_cost_no_forward_pass(scans, capsys) -> None:
    (tokens,), (first,) = run(scans, "--tokens", "-1")
    before = tokens.stat()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(scans / "test" / "masks" / "0.png")
    capsys.readouterr()
    (again,), (second, old) = run(scans, "--tokens", "-1", "--mask-classes", "background,lesion")
    assert old == first
    assert (again, again.stat().st_ino, again.stat().st_mtime_ns) == (
        tokens,
        before.st_ino,
        before.st_mtime_ns,
    )
    assert "complete already" in capsys.readouterr().out
    assert open_masks(second).class_names == ("background", "lesion")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((20, 29), np.uint8), "is 29 x 20 px, and its image test/images/0.png 30 x 20 px"),
        (np.full((20, 30), 7, np.uint8), r"values 7 (600 px) are no classes"),
    ],
)
def test_bad_masks_are_named_before_anything_is_computed(scans, capsys, mask, message) -> None:
    Image.fromarray(mask).save(scans / "test" / "masks" / "0.png")
    words = ["--tokens", "-1", "--mask-classes", "0=background,255=lesion"]
    assert run(scans, *words, status=1) == ([], [])
    err = capsys.readouterr().err
    assert "mask test/masks/0.png" in err
    assert message in err
    assert err.count("\n") == 1


def test_chosen_images_have_the_masks_of_all(scans) -> None:
    _, (path,) = run(scans, "--tokens", "-1", "--ids", "test/images/0.png,train/images/1.png")
    assert len(open_masks(path)) == 8
