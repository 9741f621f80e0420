"""Heads on masks with the encoder run on the way: the rows of ``probe --kind decoder`` on its tokens."""

import dataclasses

import numpy as np
import pytest
from finetuning import CNN, VIT, read_rows, run, write_images

from cache.features import open_features
from cache.labels.target import unlabelled
from cache.masks import MaskSource, write_masks
from extract import loaded
from extract.cli import main as extract
from finetune.cli import main
from probe.cli import main as probe
from probe.report.rows.stored import read_stored
from probe.report.rows.typed import line_of

NAMES, COUNTS = ("dark", "bright", "white"), {"train": 12, "val": 6, "test": 6}
QUICK = "--iterations 12 --batch-size 4 --seeds 0,1"


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Images, and masks of what is bright in them."""
    for name in ("features", "results", "runs", "memory"):
        monkeypatch.setenv(f"MEDPROBE_{name.upper()}", str(tmp_path / name))
    write_images(tmp_path / "tiny.npz", counts=COUNTS.values())
    return tmp_path


def bright_masks(root):
    with np.load(root / "tiny.npz") as file:
        images = np.concatenate([file[f"{split}_images"] for split in COUNTS])
    masks = [(image > 128).astype(np.uint8) + (image > 180) for image in images]
    for mask in masks:
        mask[:2] = 9
    return masks


def write_tiny_masks(root, ids):
    masks = bright_masks(root)
    source = MaskSource(NAMES, 0, 9, lambda ranges: (masks[a:b] for a, b in ranges))
    return write_masks(root / "features" / "tiny", "tiny", np.array(ids), source)


@pytest.mark.parametrize(
    ("model", "head", "layers", "more"),
    [
        (VIT, "linear", "3", " --cut-after 3"),
        (VIT, "unet", "last5", ""),
        (CNN, "ms", "last4", ""),
        (CNN, "ms", "0,1,2", " --cut-after 2"),
    ],
)
def test_rows_are_those_of_stored_float32_tokens(there, model, head, layers, more):
    """A CNN's stages have grids of their own."""
    words = f"{model} --data npz:{there / 'tiny.npz'}"
    assert extract([*words.split(), "--tokens", layers, "--store", "float32"]) == 0
    (path,) = (there / "features" / "tiny").glob("*tokens*.h5")
    masks = write_tiny_masks(there, open_features(path).ids)
    asked = f"--head {head} {QUICK} --lr 0.05 --class-weights balanced"
    assert probe(f"--kind decoder {asked}".split()) == 0
    stored = read_rows("decoder")
    live = run(f"{words} --mode head {asked} --masks {masks}{more}")
    assert len(live) == len(stored) == 2
    for one, other in zip(live, stored, strict=True):
        assert one["features"] == other["features"]
        assert one["target"] == other["target"]
        own = {n: v for n, v in one["probe"].items() if n not in ("kind", "mode")}
        assert own == {n: v for n, v in other["probe"].items() if n != "kind"}
        assert (one["probe"]["kind"], one["probe"]["mode"]) == ("finetune", "head")
        assert one["chosen"] == other["chosen"]
        assert one["marks"] == other["marks"]
        found, expected = (row["scores"]["test_scores"] for row in (one, other))
        # Pixels by class: a few lie on a border that rounding moves.
        assert np.abs(found - expected).max() <= 2
        assert found.reshape(-1, 6, 3)[:, 1, 1:].sum() > 100  # structures are predicted
        assert one["metrics"]["dice"]["value"] == pytest.approx(
            other["metrics"]["dice"]["value"], abs=1e-3
        )
    assert not (there / "runs").exists()
    ((of,), problems) = read_stored(there / "results", [live[0]["path"]])
    assert not problems
    typed = line_of(of).flags
    assert typed.get("--head", ("linear",)) == (head,)
    assert typed.get("--cut-after") == (tuple(more.split()[1:]) or None)


def test_the_rates_are_chosen_on_val_and_a_data_set_of_masks_needs_no_words(there, monkeypatch):
    """Images without labels whose masks lie in the data set are segmented whatever is typed."""
    opened = loaded.open_images

    def with_masks(job, memory):
        dataset = opened(job, memory)
        masks = bright_masks(there)
        source = MaskSource(NAMES, 0, 9, lambda ranges: (masks[a:b] for a, b in ranges))
        none = unlabelled(dataset.n_rows)
        samples = dataclasses.replace(dataset.samples, labels=none.labels)
        return dataclasses.replace(
            dataset, masks=source, task=none.task, class_names=none.class_names, samples=samples
        )

    monkeypatch.setattr(loaded, "open_images", with_masks)
    data = there / "tiny.npz"
    rows = run(f"{VIT} --mode head --iterations 4 --batch-size 4 --seeds 3", data)
    assert [len(row["chosen"]["val_dice"]) for row in rows] == [3]
    assert rows[0]["probe"]["training_seed"] == 3
    (written,) = (there / "features" / "tiny").glob("masks_*.h5")
    assert rows[0]["target"]["file"] == written.name
    run(f"{VIT} --iterations 4 --batch-size 4", data, status=1)  # the whole encoder


def test_a_protocol_is_the_probes(there):
    masks = write_tiny_masks(there, [f"{s}/{i:06d}" for s, n in COUNTS.items() for i in range(n)])
    words = f"{VIT} --protocol baharoon2023 --mode head --head linear --epochs 1 --lr 0.01"
    (row,) = run(f"{words} --masks {masks}", there / "tiny.npz")
    assert row["probe_protocol"]["changed"] == ["lrs 0.01", "epochs 1"]
    assert any("flips and rotations" in mark for mark in row["marks"])
    assert (row["probe"]["optimiser"], row["probe"]["loss"]) == ("sgd", "dice")
    assert row["probe"]["refit"] == "train+val"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--head unet --mode full", "by a head on the frozen encoder"),
        ("--head ms --augment flip", "--augment isn't of heads on masks"),
        ("--mode head --head deit --loss dice", "--head deit is of classes"),
        ("--head unet --mode head --episodes-like ROW", "probe --kind decoder --shots"),
        ("--head unet --mode head --aggregate patient", "--aggregate patient is of classes"),
    ],
)
def test_words_that_heads_on_masks_have_no_use_for(there, words, why, capsys):
    with pytest.raises(SystemExit):
        main(f"{VIT} --data npz:{there / 'tiny.npz'} {words}".split())
    assert why in capsys.readouterr().err


def test_images_without_masks_are_refused(there, capsys):
    run(f"{VIT} --mode head --head unet", there / "tiny.npz", status=1)
    assert "tiny has no masks to learn from" in capsys.readouterr().err
    run(f"{VIT} --mode head --head unet --cut-after 9", there / "tiny.npz", status=1)
    assert "--cut-after 9: test_vit has layers 0 to 5" in capsys.readouterr().err
