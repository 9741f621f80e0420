"""Control rows: pixel statistics by eye, the larger class, and random weights."""

import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from features import make_features
from numpy.testing import assert_allclose, assert_array_equal
from probing import rows

from cache import open_features
from extract.cli import main as extract
from extract.config import ExtractConfig
from extract.encoders.encoder import describe
from extract.encoders.resolve import find_entry
from extract.job import Job
from extract.key import feature_key
from extract.prepare.transforms import Transform
from probe.cli import main
from probe.kinds.controls import CHUNK_ROWS, N_BINS, advise_random, find_random, pixel_statistics


def test_statistics_of_two_pictures_by_eye():
    found = pixel_statistics(np.array([[0, 0, 255, 255], [15, 16, 17, 31]], np.uint8))
    assert found.shape == (2, 2 + N_BINS)
    assert found[0, :2].tolist() == [127.5, 127.5]
    assert_array_equal(np.flatnonzero(found[0, 2:]), [0, 15])
    assert found[1, 2:4].tolist() == [0.25, 0.75]


def test_statistics_in_chunks_are_those_of_each_picture(monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (CHUNK_ROWS + 3, 9), dtype=np.uint8)
    found = pixel_statistics(pictures)
    for row in (0, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 2):
        assert_allclose(found[row, 0], pictures[row].mean(), rtol=1e-6)
        expected = np.histogram(pictures[row], bins=N_BINS, range=(0, 256))[0] / 9
        assert_allclose(found[row, 2:], expected, rtol=1e-6)


@pytest.fixture
def bright(tmp_path, monkeypatch, write_npz):
    """Feature files of images whose brightness tells their class, of a random encoder."""
    monkeypatch.chdir(tmp_path)
    path = write_npz(tmp_path / "x.npz", counts=(60, 30, 40), side=16)
    content = dict(np.load(path))
    for split in ("train", "val", "test"):
        labels = content[f"{split}_labels"]
        content[f"{split}_images"] = (
            content[f"{split}_images"] // 4 + 60 * labels[..., None]
        ).astype(np.uint8)
    np.savez(path, **content)
    words = ["--model", "test_vit", "--weights", "random", "--data", f"npz:{path}"]
    assert extract(words) == 0
    return tmp_path


def test_the_controls_of_images_that_brightness_tells_apart(bright, capsys):
    assert main(["--kind", "knn", "--k", "5", "--controls"]) == 0
    found = {row["features"]["model"]: row for row in rows()}
    assert set(found) == {"test_vit", "larger class", "pixels"}
    pixels, larger = found["pixels"], found["larger class"]
    assert pixels["metrics"]["auc"]["value"] == 1
    assert pixels["features"]["size"] == 16
    assert pixels["probe"]["kind"] == "control"
    assert larger["metrics"]["auc"]["value"] == 0.5
    assert larger["metrics"]["balanced_accuracy"]["value"] == 0.5
    assert "accuracy equals the larger-class rate" in larger["marks"]
    assert not any("random weights" in mark for mark in pixels["marks"])
    assert {row["seen"] for row in (pixels, larger)} == {"no"}
    # Of another encoder of the same images they are the same two rows.
    table = capsys.readouterr().out
    assert "larger class" in table
    assert main(["--kind", "linear", "--controls"]) == 0
    assert len(rows()) == 4


def test_random_weights_are_a_row_beside_and_never_the_encoder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "features"
    real = make_features(root, weights="sha256:1")
    words = ["--kind", "knn", "--k", "5", "--controls"]
    assert main(words) == 1  # these files hold no pictures
    said = capsys.readouterr()
    assert "make them with\n  extract --model toy --data toys --weights random" in said.out
    assert "holds no small pictures" in said.err
    assert find_random(open_features(real), root) is None
    notes = {"random_weights": True}
    random = make_features(root, weights="random, seed 0", notes=notes, n=(120, 40, 60), part=1)
    assert find_random(open_features(real), root) is None  # another part of the key differs, too
    random.unlink()
    # The same key but for the weights; the path of make_features doesn't tell them apart.
    real = real.rename(real.with_name("real.h5"))
    make_features(root, weights="random, seed 0", notes=notes)
    main(words)
    assert "random weights" not in capsys.readouterr().out.partition("toys")[0]
    marked = [row for row in rows() if "random weights" in row["marks"]]
    assert len(marked) == 1
    assert main(["--kind", "knn", "--k", "7"]) == 0  # not two that differ: the real one
    assert sum(row["probe"].get("k") == 7 for row in rows()) == 1
    assert main(["--kind", "knn", "--k", "7", "--where", "weights=random, seed 0"]) == 0


# Names with the tag of published weights, with one of ours, and whole; of open_clip, whose tag
# stands behind a stroke; of weights of a user's own, which have none.
@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("dinov2", "pretrained"),
        ("test_vit", "pretrained"),
        ("vit_base_patch16_224.dino", "pretrained"),
        ("medsam", "pretrained"),
        ("biomedclip", "pretrained"),
        ("openclip", "pretrained"),
        ("open_clip:ViT-B-16/openai", "pretrained"),
        ("phikon", "pretrained"),
        ("dinov2", "w.safetensors"),
        ("openclip", "w.safetensors"),
    ],
)
def test_random_weights_are_found_by_the_keys_of_extract(tmp_path, sketch, model, weights):
    def make(part, model, weights, words):
        description = replace(sketch, entry=find_entry(model))
        config = ExtractConfig((model,), weights=weights)
        transform = Transform(32, (0.5,) * 3, (0.5,) * 3)
        source = SimpleNamespace(name="toys", source_size=28, slicing=None, reading=None)
        job = Job(description, source, None)
        key = feature_key(job, config, transform, weights=words, images="md5:0")
        del key["dataset"]  # make_features has it
        notes = {"random_weights": weights == "random"}
        path = make_features(tmp_path, notes=notes, n=(20, 10, 10), key=key)
        return path.rename(path.with_name(f"{part}.h5"))

    real = open_features(make(1, model, weights, "sha256:1"))
    make(2, "resnet18", "random", "random, seed 0, sha256:2")
    assert find_random(real, tmp_path) is None  # of another architecture
    seeded = make(3, model, "random", "random, seed 1, sha256:3")
    assert find_random(real, tmp_path).path == seeded
    lowest = make(4, model, "random", "random, seed 0, sha256:4")
    assert find_random(real, tmp_path).path == lowest


@pytest.fixture(scope="module")
def sketch():
    """An encoder whose name alone is changed: to build the large ones takes seconds."""
    return describe("test_vit", 32)


def test_the_command_that_is_printed_makes_what_is_missing(bright, capsys):
    """Of an encoder whose published weights come by pip, so with a tag in its name."""
    words = ["--model", "efficientnet-lite0", "--size", "32", "--data", f"npz:{bright}/x.npz"]
    assert extract([*words, "--features", "elsewhere"]) == 0
    asking = ["--kind", "knn", "--k", "5", "--controls", "--features", "elsewhere"]
    assert main(asking) == 0
    _, found, command = capsys.readouterr().out.partition(
        "with random weights on x; make them with\n"
    )
    assert found
    _, *words = shlex.split(command.splitlines()[0])
    assert extract(words) == 0
    capsys.readouterr()
    assert main(asking) == 0
    assert "make them with" not in capsys.readouterr().out
    (random,) = [row for row in rows() if "random weights" in row["marks"]]
    assert random["features"]["encoder"] == "tf_efficientnet_lite0"
    both = sorted(map(str, bright.glob("elsewhere/x/*.h5")))
    assert main(["--kind", "knn", "--k", "5", "--controls", *both]) == 0
    assert capsys.readouterr().out.count("random weights") == 1  # by path, too, once


def test_an_encoder_that_makes_its_own_weights_is_told_so(tmp_path):
    path = make_features(tmp_path / "features", weights="made by code, sha256:1")
    assert "its own code makes its weights" in advise_random(open_features(path), tmp_path)


@pytest.mark.parametrize(
    "words", ["--kind knn --shots 1", "--kind knn --layer all", "--kind zeroshot"]
)
def test_controls_stand_beside_test(words, capsys):
    with pytest.raises(SystemExit):
        main([*words.split(), "--controls"])
    assert "--controls stands beside numbers on test" in capsys.readouterr().err


def test_a_regression_is_controlled_by_its_mean(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = make_features(tmp_path / "features")
    ids = open_features(path).ids
    values = np.random.default_rng(0).normal(50, 9, len(ids))
    table = "\n".join(["id,age", *(f"{i},{v:.3f}" for i, v in zip(ids, values, strict=True))])
    (tmp_path / "ages.csv").write_text(table)
    main("--kind ridge --labels ages.csv --target age --task regression --controls".split())
    (row,) = [row for row in rows() if row["probe"]["kind"] == "control"]
    test = values[160:]
    assert_allclose(
        row["metrics"]["mae"]["value"], np.abs(test - values[:120].mean()).mean(), rtol=1e-3
    )
