"""Heads on masks with the encoder run on the way: the rows of ``probe --kind decoder`` on its tokens."""

import numpy as np
import pytest
from finetuning import VIT, read_rows, run, write_images

from cache.features import open_features
from cache.masks import MaskSource, write_masks
from extract.cli import main as extract
from probe.cli import main as probe

QUICK = "--iterations 12 --batch-size 4 --seeds 0,1"


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Images, and masks of what is bright in them."""
    for name in ("features", "results", "runs", "memory"):
        monkeypatch.setenv(f"MEDPROBE_{name.upper()}", str(tmp_path / name))
    write_images(tmp_path / "tiny.npz", counts=(12, 6, 6))
    return tmp_path


def write_tiny_masks(root, ids):
    with np.load(root / "tiny.npz") as file:
        images = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
    masks = [(image > 128).astype(np.uint8) + (image > 180) for image in images]
    for mask in masks:
        mask[:2] = 9
    source = MaskSource(
        ("dark", "bright", "white"), 0, 9, lambda ranges: (masks[a:b] for a, b in ranges)
    )
    return write_masks(root / "features" / "tiny", "tiny", ids, source)


@pytest.mark.parametrize("head", ["linear", "unet"])
def test_rows_are_those_of_stored_float32_tokens(there, head, capsys):
    words = f"{VIT} --data npz:{there / 'tiny.npz'}"
    layers = {"linear": "-1", "unet": "last5"}[head]
    assert extract([*words.split(), "--tokens", layers, "--store", "float32"]) == 0
    (path,) = (there / "features" / "tiny").glob("*tokens*.h5")
    features = open_features(path)
    masks = write_tiny_masks(there, features.ids)
    asked = f"--head {head} {QUICK} --lr 0.01"
    assert probe(f"--kind decoder {asked}".split()) == 0
    stored = read_rows("decoder")
    live = run(f"{words} --mode head {asked} --masks {masks}")
    assert len(live) == len(stored) == 2
    for one, other in zip(live, stored, strict=True):
        assert one["features"] == other["features"]
        assert one["target"] == other["target"]
        own = {n: v for n, v in one["probe"].items() if n not in ("kind", "mode")}
        assert own == {n: v for n, v in other["probe"].items() if n != "kind"}
        assert one["probe"]["kind"] == "finetune"
        assert one["chosen"] == other["chosen"]
        # Pixels by class: a few lie on a border that rounding moves.
        assert np.abs(one["scores"]["test_scores"] - other["scores"]["test_scores"]).max() <= 2
        assert one["metrics"]["dice"]["value"] == pytest.approx(
            other["metrics"]["dice"]["value"], abs=1e-3
        )
