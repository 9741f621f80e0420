"""The README's segmentation, on real images with a real encoder: both come with pip."""

import pytest
from probing import rows

import extract.cli
import probe.cli

NEAR = 0.8  # of what the grid leaves of the true masks, each class at least


@pytest.mark.slow
def test_each_class_of_the_demo_comes_near_what_the_grid_leaves(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDPROBE_FEATURES", str(tmp_path / "features"))
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "results"))
    words = "--data demo-masks --model efficientnet-lite0 --size 256 --tokens 2 --offline"
    assert extract.cli.main(words.split()) == 0
    assert probe.cli.main("--kind segment --data demo-masks".split()) == 0
    capsys.readouterr()
    (row,) = rows()
    classes = row["per_class"]
    assert classes["class"] == ["background", "grey matter", "white matter"]
    assert row["n"] == {"train": 67, "val": 14, "test": 26}
    for name, dice, bound in zip(*(classes[c] for c in ("class", "dice", "bound")), strict=True):
        assert dice >= NEAR * bound, name
    assert row["metrics"]["hd95"]["value"] > 0  # mm: the template says its voxels' size
