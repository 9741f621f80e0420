"""Volumes as slices, and slices as samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import some
from medmnist.info import INFO

from cache import RequestError, open_features
from cache.aggregate import aggregate_rows
from cache.errors import BrokenCache
from extract.cli import main as extract
from extract.config import ExtractConfig
from extract.datasets.arrays.npz import stream_slices
from extract.datasets.sources import expand_names, find_source
from extract.datasets.volumes import Slicing
from extract.encoders.encoder import Weights, describe, load_encoder
from extract.key import make_transform
from extract.machine.digests import DigestMemory
from extract.prepare.protocols import preprocess
from probe.cli import main as probe
from probe.places import read_samples
from probe.questions.laying import lay_over
from probe.questions.overlay import OverlayConfig
from probe.questions.question import divide_samples

SHAPE = (4, 5, 6)  # of a volume; all sides differ, so a wrong axis shows


@pytest.fixture
def volumes(tmp_path):
    """A file of 3 + 2 volumes, and all of them."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8) for n in (3, 2))
    np.savez_compressed(tmp_path / "v.npz", train_images=train, test_images=test)
    return tmp_path / "v.npz", np.concatenate([train, test])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("neighbours", [False, True])
def test_slices_are_those_of_a_plain_loop(volumes, axis, neighbours):
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
    keys = [Slicing(axis, n).key for axis in (0, 1, 2) for n in (False, True)]
    assert len({str(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_rows_become_samples_whatever_their_order(how):
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


# ---------------------------------------------------------------------------- whole runs


MODEL = ["--model", "test_vit", "--size", "32", "--weights", "random", "--store", "float32"]


def write_volumes(path: Path, shape: tuple[int, int, int] = (6, 6, 6)) -> dict[str, np.ndarray]:
    """A file in MedMNIST3D's layout: 12 + 4 + 6 volumes of two classes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.mark.parametrize(
    ("shape", "flags"),
    [
        ((6, 6, 6), []),
        ((6, 6, 6), ["--slice-axis", "2"]),
        ((6, 6, 6), ["--slice-neighbours"]),
        ((5, 9, 7), ["--slice-axis", "1", "--slice-neighbours"]),
        ((8, 7, 7), []),  # no cube, but square slices
    ],
)
def test_a_volume_is_one_sample_of_many_rows(tmp_path, shape, flags):
    arrays = write_volumes(tmp_path / "cubes.npz", shape)
    root = tmp_path / "f"
    data = ["--data", f"npz:{tmp_path / 'cubes.npz'}", "--features", str(root)]
    assert extract([*MODEL, *data, *flags]) == 0
    features = open_features(next(root.rglob("*.h5")))
    axis = int(flags[1]) if "--slice-axis" in flags else 0
    depth, is_square = shape[axis], len({*shape[:axis], *shape[axis + 1 :]}) == 1
    assert (features.n_rows, len(features.labels)) == (22 * depth, 22)
    assert features.key["slices"]["axis"] == axis
    assert features.key["source_size"] == (shape[2] if is_square else "various")
    whole = np.concatenate([arrays[f"{s}_images"] for s in ("train", "val", "test")])
    slicing = Slicing(features.key["slices"]["axis"], "--slice-neighbours" in flags)
    encoder, _ = load_encoder(describe("test_vit", 32), Weights(None, seed=0))
    config = ExtractConfig(models=())
    usual = "scale" if is_square else "pad-fit"  # what isn't square isn't squashed either
    settings = preprocess(config, encoder.description.entry, encoder.description.statistics, usual)
    transform = make_transform(32, settings, slicing.n_channels)
    heads = [
        encoder(transform(torch.from_numpy(slicing.take(cube, 0, depth).copy())))["head"].mean(0)
        for cube in whole
    ]
    splits = divide_samples(
        read_samples(features, -1, "head"), *lay_over(OverlayConfig(), features)
    )
    found = np.concatenate([splits[s].x for s in ("train", "val", "test")])
    np.testing.assert_allclose(found, torch.stack(heads).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(splits["train"].y, arrays["train_labels"][:, 0])


def test_probes_say_how_slices_were_joined(tmp_path):
    write_volumes(tmp_path / "cubes.npz")
    root, results = tmp_path / "f", tmp_path / "r"
    data = ["--data", f"npz:{tmp_path / 'cubes.npz'}", "--features", str(root)]
    assert extract([*MODEL, *data]) == 0
    for how in ("mean", "max"):
        asked = ["--kind", "knn", "--k", "3", "--aggregate", how, "--features", str(root)]
        assert probe([*asked, "--results", str(results)]) == 0
    rows = [json.loads(path.read_text()) for path in results.rglob("*.json")]
    assert sorted(row["probe"]["aggregate"] for row in rows) == ["max", "mean"]
    assert all(row["n"] == {"train": 12, "val": 4, "test": 6} for row in some(rows))
    scores = [np.load(path)["test_scores"] for path in results.rglob("*.npz")]
    assert not np.array_equal(*scores)


def test_slices_of_images_are_refused(tmp_path, write_npz, capsys):
    path = write_npz(tmp_path / "flat.npz")
    assert extract([*MODEL, "--data", f"npz:{path}", "--slice-axis", "1"]) == 1
    assert "are for volumes, and flat.npz has images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        extract([*MODEL, "--data", f"npz:{path}", "--slice-axis", "3"])
    assert "--slice-axis takes 0, 1 or 2" in capsys.readouterr().err


def test_all3d_is_medmnist_s_six():
    assert len(expand_names(("all3d",))) == 6
    assert set(expand_names(("all3d",))) == {flag for flag in INFO if flag.endswith("3d")}
    assert find_source("organmnist3d", 224, None, None).n_images == (971 + 161 + 610) * 64
    with pytest.raises(RequestError, match="--source-size takes 28, 64 for organmnist3d"):
        find_source("organmnist3d", 224, 224, None)


@pytest.mark.real
def test_an_official_3d_set(real_data, tmp_path):
    source = find_source("adrenalmnist3d", 28, 28, real_data, Slicing(1))
    dataset = source.open(DigestMemory(tmp_path / "digests.json"))
    assert (dataset.n_rows, len(dataset.samples.ids)) == (1584 * 28, 1188 + 98 + 298)
    with np.load(real_data / "adrenalmnist3d.npz") as file:
        cube = file["val_images"][2]
    first = (1188 + 2) * 28
    (slices,) = dataset.stream([(first + 3, first + 9)])
    np.testing.assert_array_equal(slices, cube[:, 3:9].transpose(1, 0, 2))
    assert dataset.row_ids[first + 3] == "val/000002/003"
