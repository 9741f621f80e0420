"""The command ``extract`` from end to end, in this process: status, messages, files, keys."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from here import REPOSITORY
from safetensors.torch import save_file

import extract.run
from cache import open_features
from cache.format.fingerprint import drift, summarise
from cache.format.read import read_header
from cache.store import FeatureWriter
from extract.cli import main
from extract.config import ExtractConfig, default_batch_size
from extract.datasets.arrays import medmnist
from extract.encoders.encoder import Description, Encoder, Weights, describe, load_encoder
from extract.fingerprint import fingerprint_picture
from extract.job import Job
from extract.key import feature_key, make_transform
from extract.machine.digests import file_md5
from extract.machine.prefetch import prefetch
from extract.prepare.protocols import preprocess
from extract.prepare.transforms import Transform

MODEL = ["--model", "test_vit", "--size", "32"]
COUNTS = (200, 70, 90)  # 360 rows: a unit of 256 and one of 104


@pytest.fixture
def images(tmp_path, write_npz):
    """What --data takes: a generated set of two units."""
    return f"npz:{write_npz(tmp_path / 'tiny.npz', counts=COUNTS, side=8)}"


@pytest.fixture
def arguments(images):
    """Words of the command that makes features of them."""
    return [*MODEL, "--weights", "random", "--data", images]


@pytest.fixture
def weights(tmp_path):
    """A weight file of test_vit at 32 px."""
    encoder, _ = load_encoder(describe("test_vit", 32), Weights(None, seed=5))
    return save_weights(encoder, tmp_path / "w.safetensors")


def save_weights(encoder: Encoder, path: Path, **changed: torch.Tensor) -> Path:
    tensors = {**encoder.model.state_dict(), **changed}
    save_file({name: value.clone() for name, value in tensors.items()}, path)
    return path


def features_of(root: Path) -> list[Path]:
    return sorted(root.rglob("*.h5"))


def leftovers(root: Path) -> list[str]:
    """Every file that isn't a complete feature file or the memory of digests."""
    files = [p for p in root.rglob("*") if p.is_file()] if root.exists() else []
    files = [p for p in files if p.parent.name != ".leaks"]
    # A shard that wasn't the last leaves its empty lock file.
    kept = (".h5", ".lock")
    return [p.name for p in files if p.suffix not in kept and p.name != ".digests.json"]


def payload(path: Path) -> dict[str, bytes]:
    features = open_features(path)
    names = [(i, pool) for i, pools in features.layers.items() for pool in pools]
    return {f"{i}/{pool}": features.array(i, pool).tobytes() for i, pool in names} | {
        "head": features.array(-1, "head").tobytes()
    }


def extract_to(root: Path, *arguments: str) -> Path:
    """Run, expect success, and give the one feature file."""
    assert main([*arguments, "--features", str(root)]) == 0
    (path,) = features_of(root)
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr got, which is never a traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


# ---------------------------------------------------------------------------- what comes out


def test_a_file_holds_what_the_encoder_makes_of_each_image(tmp_path, images):
    path = extract_to(
        tmp_path / "f", *MODEL, "--weights", "random", "--data", images, "--store", "float32"
    )
    features = open_features(path)
    with np.load(images.removeprefix("npz:")) as file:
        pixels = np.concatenate([file[f"{s}_images"] for s in ("train", "val", "test")])
        labels = np.concatenate([file[f"{s}_labels"] for s in ("train", "val", "test")])[:, 0]
    encoder, _ = load_encoder(describe("test_vit", 32), Weights(None, seed=0))
    transform = transform_of(encoder.description)
    for row in (0, 15, 16, 255, 256, 269, 270, 359):  # one at a time, and across all edges
        expected = encoder(transform(torch.from_numpy(pixels[row : row + 1])))
        for name, vector in expected.items():
            layer, pool = (int(name[7:9]), name[10:]) if name != "head" else (-1, "head")
            np.testing.assert_allclose(
                features.array(layer, pool)[row], vector[0].numpy(), rtol=1e-4, atol=1e-5
            )
    np.testing.assert_array_equal(features.labels, labels)
    assert features.ids[[0, 200, 270]].tolist() == ["train/000000", "val/000000", "test/000000"]
    assert (features.model, features.size, features.dataset) == ("test_vit", 32, "tiny")
    assert features.notes["random_weights"] is True
    cost = features.cost
    assert cost["images"] == 360
    assert cost["parameters"] == sum(p.numel() for p in encoder.model.parameters())
    assert 0 < cost["forward_seconds"] < cost["seconds"]
    assert leftovers(tmp_path / "f") == []


def test_float16_is_the_default_and_close(tmp_path, images):
    common = (*MODEL, "--weights", "random", "--data", images, "--layers", "-1")
    half = open_features(extract_to(tmp_path / "a", *common)).array(-1, "cls")
    full = open_features(extract_to(tmp_path / "b", *common, "--store", "float32"))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, full.array(-1, "cls").astype(np.float16))


def test_the_stored_command_makes_the_file_again(tmp_path, write_npz):
    path = write_npz(tmp_path / "with space" / "a b.npz", counts=(4, 1, 1), side=8)
    first = extract_to(
        tmp_path / "f", *MODEL, "--weights", "random", "--seed", "2", "--layers=-2,-1",
        "--layer-norm", "none", "--store", "float32", "--data", f"npz:{path}", "--batch-size", "3",
        "--mean", "0.48145466,0.4578275,0.40821073", "--std", "0.26862954", "--no-antialias",
    )  # fmt: skip
    assert first.parent.name == "a-b"
    command = shlex.split(open_features(first).header.attributes["command"])
    assert command[0] == "extract"
    before = first.read_bytes()
    first.unlink()
    assert main(command[1:]) == 0
    again = open_features(first)
    assert again.header.attributes["command"] == shlex.join(command)
    del again
    assert first.stat().st_size == len(before)


@pytest.mark.parametrize(("n_labels", "shape"), [(1, (36,)), (14, (36, 14))])
def test_labels_go_with_the_features(tmp_path, write_npz, n_labels, shape):
    path = write_npz(tmp_path / "x.npz", side=8, channels=3, classes=5, n_labels=n_labels)
    features = open_features(
        extract_to(tmp_path / "f", *MODEL, "--weights", "random", "--data", f"npz:{path}")
    )
    assert features.labels.shape == shape
    assert features.key["transform"]["channels"] == "RGB"


def test_many_classes_fit(tmp_path, write_npz):
    path = write_npz(tmp_path / "x.npz", side=8, counts=(3, 1, 1))
    with np.load(path) as file:
        arrays = dict(file)
    arrays["train_labels"] = np.array([[3999], [0], [1]])
    np.savez(path, **arrays)
    features = open_features(
        extract_to(tmp_path / "f", *MODEL, "--weights", "random", "--data", f"npz:{path}")
    )
    assert len(features.class_names) == 4000


# ---------------------------------------------------------------------------- again, resumed


def test_a_second_run_finds_it_complete_and_loads_no_model(
    tmp_path, images, weights, monkeypatch, capsys
):
    arguments = (*MODEL, "--weights", str(weights), "--data", images)
    path = extract_to(tmp_path / "f", *arguments)
    before = path.stat()

    def refuse(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("extract.loaded.load_encoder", refuse)
    capsys.readouterr()
    assert main([*arguments, "--features", str(tmp_path / "f")]) == 0
    out = capsys.readouterr().out
    assert "complete already, every checksum right" in out
    assert "features to make: 0 B" in out
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_overwrite_makes_it_anew(tmp_path, arguments):
    path = extract_to(tmp_path / "f", *arguments)
    before, inode = payload(path), path.stat().st_ino
    keep = path.with_name("keep")
    os.link(path, keep)  # so that its inode isn't given out again
    fingerprint = open_features(path).fingerprint
    path = extract_to(tmp_path / "f", *arguments, "--overwrite")
    assert path.stat().st_ino != inode
    assert payload(path) == before
    assert fingerprint
    assert open_features(path).fingerprint == fingerprint


def stop_at(monkeypatch: pytest.MonkeyPatch, unit_to_fail: int) -> None:
    """Let the disk fail at a unit."""
    write_unit = FeatureWriter.write_unit

    def write_or_fail(self: FeatureWriter, unit: int, arrays: Any) -> None:
        if unit >= unit_to_fail:
            raise OSError(5, "the disk is gone")
        write_unit(self, unit, arrays)

    monkeypatch.setattr(FeatureWriter, "write_unit", write_or_fail)


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_resumed_run_gives_the_same_file(tmp_path, arguments, n_before, monkeypatch, capsys):
    expected = payload(extract_to(tmp_path / "whole", *arguments))
    stop_at(monkeypatch, n_before)
    root = tmp_path / "f"
    assert main([*arguments, "--features", str(root)]) == 1
    assert "the disk is gone" in said(capsys)
    assert features_of(root) == []
    monkeypatch.undo()
    assert payload(extract_to(root, *arguments)) == expected
    if n_before:
        assert f"going on after {256 * n_before} of 360 images" in capsys.readouterr().out
    assert leftovers(root) == []


def test_a_library_that_computes_something_else_does_not_go_on(
    tmp_path, arguments, monkeypatch, capsys
):
    """As if a new release resized otherwise: the key is the same, and the numbers aren't."""
    arguments = [*arguments, "--features", str(tmp_path / "f")]
    stop_at(monkeypatch, 1)
    assert main(arguments) == 1
    monkeypatch.undo()
    (partial,) = (tmp_path / "f").rglob("*.partial")
    before = partial.read_bytes()
    plain = torch.nn.functional.interpolate
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.nn.functional,
            "interpolate",
            lambda x, size, **options: plain(x, size, **{**options, "antialias": False}),
        )
        capsys.readouterr()
        assert main(arguments) == 1
        text = said(capsys)
        assert "begun with the same key, but other numbers: the fingerprint moved by up to" in text
        assert text.count("\n") == 1
        assert partial.read_bytes() == before
    assert main(arguments) == 0


@pytest.mark.parametrize(("n_channels", "crc"), [(1, 0x2ABF37F3), (3, 0x65F2946C)])
def test_the_fingerprint_s_picture_never_changes(n_channels, crc):
    picture = fingerprint_picture(n_channels)
    assert picture.shape == ((1, 96, 96) if n_channels == 1 else (1, 96, 96, 3))
    assert zlib.crc32(picture.tobytes()) == crc


def test_a_fingerprint_is_what_the_encoder_makes_of_its_picture(tmp_path, images):
    path = extract_to(tmp_path / "f", *MODEL, "--weights", "random", "--data", images)
    encoder, _ = load_encoder(describe("test_vit", 32), Weights(None, seed=0))
    picture = torch.from_numpy(fingerprint_picture(1))
    vectors = encoder(transform_of(encoder.description)(picture))
    expected = summarise({name: vector[0].numpy() for name, vector in vectors.items()})
    moved = drift(expected, open_features(path).fingerprint)
    assert list(moved) == list(encoder.description.arrays)
    assert max(moved.values()) < 1e-5


def test_a_damaged_unit_is_computed_again(tmp_path, arguments, capsys):
    path = extract_to(tmp_path / "f", *arguments)
    expected = payload(path)
    extent = open_features(path).header.arrays["head"]
    with path.open("r+b") as file:
        file.seek(extent.offset + 300 * extent.row_bytes)  # in unit 1
        file.write(b"\x55")
    path = extract_to(tmp_path / "f", *arguments)
    assert "1 damaged units are computed again" in capsys.readouterr().out
    assert payload(path) == expected


# ---------------------------------------------------------------------------- shards


def test_two_shards_one_after_another(tmp_path, arguments, capsys):
    expected = payload(extract_to(tmp_path / "whole", *arguments))
    root = tmp_path / "f"
    assert main([*arguments, "--features", str(root), "--shard", "1/2"]) == 0
    assert "this shard is done, others aren't yet" in capsys.readouterr().out
    assert features_of(root) == []
    assert payload(extract_to(root, *arguments, "--shard", "0/2")) == expected
    assert leftovers(root) == []


def test_rank_and_world_size_are_read(tmp_path, arguments, monkeypatch, capsys):
    arguments = [*arguments, "--features", str(tmp_path / "f")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(arguments) == 0
    assert len(features_of(tmp_path / "f")) == 1
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "not '2/2' (from RANK and WORLD_SIZE in the environment)" in said(capsys)


def test_two_processes_fill_one_file(tmp_path, arguments):
    expected = payload(extract_to(tmp_path / "whole", *arguments))
    root = tmp_path / "f"
    command = [sys.executable, "-m", "extract", *arguments, "--features", str(root)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, "--shard", f"{i}/2"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    (path,) = features_of(root)
    assert payload(path) == expected
    assert leftovers(root) == []


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x", "--shard", "²/3"], "--shard takes I/N"),
        (["--model", "x", "--shard", "1"], "--shard takes I/N"),
        (["--model", "x", "--weights", "random", "--seed", "-1"], "--seed takes 0 to"),
        (["--model", "x", "--size", "9999"], "1 to 4096, not 9999"),
        (["--model", "x", "--precision", "fp8"], "--precision"),
        (["--model", "x", "--store", "bfloat16"], "--store"),
        (["--demo", "--size", "224"], "--demo means --size 128; leave one of the two out"),
        (["--demo", "--model", "vit"], "--demo means --model efficientnet-lite0"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    text = said(capsys)
    assert message in text
    assert text.count("\n") == 1
    assert text.startswith("extract: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dinov22"], "no encoder 'dinov22'; near names: dinov2"),
        ([*MODEL, "--data", "brestmnist"], "near names: breastmnist"),
        (["--model", "dinov2", "--size", "225"], "nearest valid: 224 or 238"),
        ([*MODEL, "--precision", "tf32", "--device", "cpu"], "tf32 needs a CUDA device"),
        ([*MODEL, "--weights", "nowhere.pth"], "no weight file at nowhere.pth"),
        ([*MODEL, "--source-size", "64"], "has images of 8 px only"),
    ],
)
def test_wishes_that_cannot_be_met_are_status_1(tmp_path, images, arguments, message, capsys):
    if "--data" not in arguments:
        arguments = [*arguments, "--data", images]
    if "--weights" not in arguments:
        arguments = [*arguments, "--weights", "random"]
    root = tmp_path / "f"
    assert main([*arguments, "--features", str(root)]) == 1
    text = said(capsys)
    assert message in text
    assert text.startswith("extract: ")
    assert features_of(root) == []
    assert leftovers(root) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_never_replaced_by_the_cpu(tmp_path, images, capsys):
    arguments = [*MODEL, "--weights", "random", "--data", images, "--device", "cuda"]
    assert main([*arguments, "--features", str(tmp_path / "f")]) == 1
    assert "--device cuda: 0 CUDA devices are here; use --device cpu" in said(capsys)


def test_dry_run_writes_nothing_beside_what_is_remembered_of_encoders(
    tmp_path, images, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    root = tmp_path / "f"
    arguments = [*MODEL, "--weights", "random", "--data", images, "--dry-run"]
    assert main([*arguments, "--features", str(root)]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    # 360 rows x (6 layers x 2 pools + head) x 64 x 2 bytes + 2 records of 4096
    assert "636.0 kB" in out
    assert "6 of 6 x (cls + mean) of 64 + head of 64 · norm: tokens" in out
    assert "RANDOM (seed 0)" in out


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("nowhere", "extract: nowhere: no data set 'nowhere'"),
        ("npz:no.npz", "no.npz; --data npz:FILE takes"),
        ("breastmnist", "(the network is not to be used); get https://"),
    ],
)
def test_a_missing_set_is_named_and_the_others_are_done(
    tmp_path, images, missing, message, monkeypatch, capsys
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = [*MODEL, "--weights", "random", "--data", f"{missing},{images}"]
    root = tmp_path / "f"
    assert main([*arguments, "--data-root", str(tmp_path), "--features", str(root)]) == 1
    assert len(features_of(root)) == 1
    assert message in said(capsys)


def test_offline_the_one_size_that_is_here_is_taken_and_said(
    tmp_path, write_npz, monkeypatch, capsys
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    path = write_npz(tmp_path / "data" / "breastmnist.npz")
    facts = {**medmnist.info("breastmnist"), "MD5": file_md5(path)}
    monkeypatch.setitem(medmnist._every_info(), "breastmnist", facts)
    root = tmp_path / "f"
    arguments = ["--model", "test_vit", "--size", "160", "--weights", "random"]
    arguments += ["--data-root", str(path.parent), "--features", str(root), "--data", "breastmnist"]
    assert main([*arguments, "--dry-run"]) == 0
    assert re.search(r"images of +28 px .*; 224 px is usual, and not here", capsys.readouterr().out)
    assert main(arguments) == 0
    (made,) = features_of(root)
    command = open_features(made).header.attributes["command"]
    assert "--source-size 28" in command
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert medmnist.find_file("breastmnist", 160, None, path.parent).source_size == 224
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path.with_name("breastmnist_64.npz").write_bytes(b"")
    capsys.readouterr()
    assert main([*arguments, "--dry-run"]) == 1
    told = capsys.readouterr()
    assert "--source-size 28 or 64" in told.err
    assert "features to make" not in told.out


def test_one_wrong_encoder_does_not_stop_the_other(tmp_path, images, capsys):
    root = tmp_path / "f"
    arguments = ["--model", "nonsense9,test_vit", "--size", "32", "--weights", "random"]
    assert main([*arguments, "--data", images, "--features", str(root)]) == 1
    assert len(features_of(root)) == 1
    assert "extract: nonsense9: no encoder 'nonsense9'" in said(capsys)


# ---------------------------------------------------------------------------- bad weights


def test_weights_that_do_not_fit_leave_nothing_behind(tmp_path, images, write_npz, capsys):
    other, _ = load_encoder(describe("test_vit3", 32), Weights(None, seed=0))
    path = save_weights(other, tmp_path / "w.safetensors")
    second = write_npz(tmp_path / "second.npz", side=8)
    root = tmp_path / "f"
    arguments = [*MODEL, "--weights", str(path), "--data", f"{images},npz:{second}"]
    assert main([*arguments, "--features", str(root)]) == 1
    text = said(capsys)
    assert text.count("doesn't fit VisionTransformer") == 1, "once, not once a data set"
    assert features_of(root) == []
    assert leftovers(root) == []


@pytest.mark.parametrize(
    ("value", "message", "cure"),
    [
        (np.nan, "the encoder's output layers/02/cls holds NaN", "--precision fp32"),
        (np.inf, "the encoder's output layers/02/cls holds infinity", "--precision fp32"),
        (1e5, "layers/02/cls reaches 100000, and float16 ends at 65504", "--store float32"),
    ],
)
def test_values_that_cannot_be_stored_name_the_layer_and_the_cure(
    tmp_path, images, value, message, cure, capsys
):
    encoder, _ = load_encoder(describe("test_vit", 32), Weights(None, seed=0))
    bias = encoder.model.blocks[2].mlp.fc2.bias.clone()
    bias[3] = value
    path = save_weights(encoder, tmp_path / "w.safetensors", **{"blocks.2.mlp.fc2.bias": bias})
    arguments = [*MODEL, "--weights", str(path), "--data", images, "--layer-norm", "none"]
    assert main([*arguments, "--features", str(tmp_path / "f")]) == 1
    text = said(capsys)
    assert message in text
    assert cure in text
    assert features_of(tmp_path / "f") == []
    assert leftovers(tmp_path / "f") == []
    if value == 1e5:
        wide = open_features(extract_to(tmp_path / "g", *arguments, "--store", "float32"))
        assert wide.array(2, "cls").max() > 65504


def test_nan_in_a_later_batch_stops_before_its_unit(tmp_path, arguments, monkeypatch, capsys):
    forward, calls = Encoder.__call__, []

    def poisoned(self, batch):
        calls.append(len(batch))
        vectors = forward(self, batch)
        if sum(calls) > 1 + 256:  # one for the fingerprint
            vectors["head"] = vectors["head"] * float("nan")
        return vectors

    monkeypatch.setattr(Encoder, "__call__", poisoned)
    root = tmp_path / "f"
    assert main([*arguments, "--features", str(root)]) == 1
    assert "the encoder's output head holds NaN" in said(capsys)
    monkeypatch.undo()
    capsys.readouterr()
    extract_to(root, *arguments)
    assert "going on after 256 of 360" in capsys.readouterr().out


# ---------------------------------------------------------------------------- disks


def test_a_features_folder_that_is_a_file(tmp_path, arguments, capsys):
    (tmp_path / "file").write_text("x")
    assert main([*arguments, "--features", str(tmp_path / "file" / "f")]) == 1
    assert str(tmp_path / "file") in said(capsys)
    assert (tmp_path / "file").read_text() == "x"


def test_too_little_room_is_seen_before_anything_is_made(tmp_path, images, monkeypatch, capsys):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("extract.describe.shutil.disk_usage", lambda path: usage)
    root = tmp_path / "f"
    assert main([*MODEL, "--weights", "random", "--data", images, "--features", str(root)]) == 1
    text = said(capsys)
    assert "the features take 636.0 kB" in text
    assert "1.0 kB free" in text
    assert "--features DIR" in text
    assert not root.exists()


def test_room_that_is_reserved_already_is_not_asked_for_again(
    tmp_path, images, weights, monkeypatch, capsys
):
    """A run that stopped must go on though the disk has become full: its file is made whole."""
    arguments = (*MODEL, "--weights", str(weights), "--data", images)
    root = tmp_path / "f"
    with monkeypatch.context() as broken:
        stop_at(broken, 1)
        assert main([*arguments, "--features", str(root)]) == 1
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("extract.describe.shutil.disk_usage", lambda path: usage)
    capsys.readouterr()
    extract_to(root, *arguments)
    out = capsys.readouterr().out
    assert re.search(r"360 images of +8 px +[\d.]+ kB +begun", out)
    assert re.search(r"to make: 0 B, beside [\d.]+ kB of files begun, in", out)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no such call here")
def test_a_full_disk_leaves_nothing_behind(tmp_path, images, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    root = tmp_path / "f"
    assert main([*MODEL, "--weights", "random", "--data", images, "--features", str(root)]) == 1
    assert "can't reserve" in said(capsys)
    assert features_of(root) == []
    assert leftovers(root) == []


# ---------------------------------------------------------------------------- interrupts, memory


def test_an_interrupt_is_130_and_loses_nothing(tmp_path, arguments, monkeypatch, capsys):
    forward, calls = Encoder.__call__, []

    def interrupted(self, batch):
        calls.append(len(batch))
        if sum(calls) > 256 + 20:  # by then the thread has stored the first unit
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(Encoder, "__call__", interrupted)
    root = tmp_path / "f"
    assert main([*arguments, "--features", str(root)]) == 130
    assert "interrupted; the same command goes on from here" in said(capsys)
    monkeypatch.undo()
    extract_to(root, *arguments)
    assert "going on after 256 of 360" in capsys.readouterr().out


def test_too_little_device_memory_proposes_a_smaller_batch(tmp_path, images, monkeypatch, capsys):
    forward, least = Encoder.__call__, 2

    def out_of_memory(self, batch):
        if len(batch) >= least:  # the fingerprint's picture is one
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(Encoder, "__call__", out_of_memory)
    arguments = [*MODEL, "--weights", "random", "--data", images, "--batch-size", "64"]
    assert main([*arguments, "--features", str(tmp_path / "f")]) == 1
    assert "64 images of 32 px at once; use --batch-size 32" in said(capsys)
    least = 1
    assert main([*arguments, "--features", str(tmp_path / "f")]) == 1
    assert "1 images of 32 px at once; use a smaller --size" in said(capsys)


def test_prefetch_keeps_order_and_hands_errors_over():
    assert list(prefetch(iter(range(50)))) == list(range(50))

    def broken():
        yield 1
        raise ValueError("in the thread")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="in the thread"):
        next(items)


def test_prefetch_is_at_most_a_few_items_ahead():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    ahead = prefetch(items(), depth=2)
    next(ahead)
    ahead.close()  # ends the thread
    assert len(made) <= 5


@pytest.mark.parametrize(
    ("device", "size", "expected"),
    [("cpu", 224, 16), ("cpu", 1024, 1), ("cuda", 224, 128), ("cuda", 28, 128), ("cuda", 4096, 1)],
)
def test_default_batch_sizes(device, size, expected):
    assert default_batch_size(device, size) == expected


# ---------------------------------------------------------------------------- the key


def transform_of(description: Description, n_channels: int = 1, **wishes: Any) -> Transform:
    """The transform that these settings make."""
    config = ExtractConfig(models=(), **wishes)
    preprocessing = preprocess(config, description.entry, description.statistics)
    return make_transform(description.size, preprocessing, n_channels)


def key(**changed: Any) -> dict[str, Any]:
    """A key; changes of the encoder, of the settings, or of what is said of the data."""
    about = {
        name: changed.pop(name) for name in ("size", "layers", "layer_norm") if name in changed
    }
    data = {"weights": "sha256:1", "name": "x", "images": "md5:1", "source_size": 28}
    n_channels = changed.pop("n_channels", 1)
    data |= {name: changed.pop(name) for name in tuple(changed) if name in data}
    description = describe(changed.pop("model", "test_vit"), **{"size": 32, **about})
    config = ExtractConfig(**({"models": ("test_vit",), "weights": "random"} | changed))
    preprocessing = preprocess(config, description.entry, description.statistics)
    transform = make_transform(description.size, preprocessing, n_channels)
    weights, images = data.pop("weights"), data.pop("images")
    source: Any = SimpleNamespace(**data, slicing=None, reading=None)
    job = Job(description, source, preprocessing)
    return feature_key(job, config, transform, weights=weights, images=images)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 48},
        {"layers": "last4"},
        {"layer_norm": "none"},
        {"precision": "bf16"},
        {"store": "float32"},
        {"weights": "sha256:2"},
        {"images": "md5:2"},
        {"source_size": 64},
        {"n_channels": 3},
        {"resize": "pad"},
        {"resize": "crop"},
        {"resize_backend": "pil"},
        {"interpolation": "bilinear"},
        {"antialias": False},
        {"mean": (0.4, 0.4, 0.4)},
        {"std": (0.2, 0.2, 0.2)},
        {"intensity": "min-max"},
        {"channels": "first-filter"},
        {"protocol": "baharoon2023"},
        {"name": "y"},
        {"model": "test_vit2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_features_changes_the_key(change):
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 3},
        {"device": "cuda:1"},
        {"features": Path("elsewhere")},
        {"data_root": Path("elsewhere")},
        {"shard": (1, 4)},
        {"overwrite": True},
        {"data": ("a", "b")},
        {"models": ("test_vit", "dino")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_change_features_is_not_in_the_key(change):
    assert key(**change) == key()


def test_labels_and_paths_are_not_in_the_key(tmp_path, images):
    """A corrected label costs no forward pass; for MedMNIST's files the MD5 stands for all."""
    text = str(key())
    assert "label" not in text
    assert "split" not in text
    path = extract_to(tmp_path / "f", *MODEL, "--weights", "random", "--data", images)
    stored = str(open_features(path).key)
    assert str(tmp_path) not in stored
    assert dataclasses.asdict(ExtractConfig(models=()))["device"] not in stored


def test_the_seed_is_in_the_key_of_random_weights(tmp_path, images):
    arguments = (*MODEL, "--data", images, "--weights", "random", "--layers", "-1")
    assert main([*arguments, "--features", str(tmp_path / "f")]) == 0
    assert main([*arguments, "--features", str(tmp_path / "f"), "--seed", "1"]) == 0
    first, second = (open_features(path) for path in features_of(tmp_path / "f"))
    assert first.key["weights"].startswith("random, seed ")
    assert first.key["weights"] != second.key["weights"]
    assert not np.array_equal(first.array(-1, "head"), second.array(-1, "head"))


@pytest.mark.parametrize(
    "words", ["--model ,", "--model=", "--model vit --data=", "--model vit --data ,"]
)
def test_an_empty_list_is_never_all(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == 2
    assert "takes one or more, comma separated" in capsys.readouterr().err


def test_a_file_named_like_an_official_set_is_refused(tmp_path, write_npz, capsys):
    path = write_npz(tmp_path / "breastmnist.npz")
    words = f"--model test_vit --weights random --size 32 --data npz:{path} --features {tmp_path}"
    assert main(words.split()) == 1
    assert "named like the official set breastmnist" in capsys.readouterr().err


def test_a_dry_run_refuses_what_the_run_would(tmp_path, capsys):
    path = tmp_path / "few.npz"
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((2, 0, 9), np.uint8)
        arrays[f"{split}_labels"] = np.zeros((2, 1), int)
    np.savez(path, **arrays)
    words = f"--model test_vit --weights random --size 32 --data npz:{path} --dry-run"
    assert main(words.split()) == 1
    assert "images of 9 x 0 pixels: nothing to see" in capsys.readouterr().err


def test_a_reader_that_leaves_and_closed_streams(tmp_path, write_npz):
    path = write_npz(tmp_path / "x.npz")
    command = f"{sys.executable} -m extract --model test_vit --weights random --size 32"
    command += f" --data npz:{path} --features {tmp_path / 'f'}"
    ended = subprocess.run(
        f"{command} | head -1; {command} 2>&-", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in ended.stderr
    assert "Broken pipe" not in ended.stderr
    assert len(list((tmp_path / "f").glob("x/*.h5"))) == 1  # the second one ran through


def test_a_file_is_computed_with_the_threads_that_it_was_begun_with(
    tmp_path, arguments, monkeypatch, capsys
):
    root, seen = tmp_path / "f", []
    usual = torch.get_num_threads()

    def noting(*_, **__):
        seen.append(torch.get_num_threads())
        return compute(*_, **__)

    compute = extract.run.compute_blocks
    monkeypatch.setattr("extract.run.compute_blocks", noting)
    with monkeypatch.context() as broken:
        stop_at(broken, 1)
        assert main([*arguments, "--features", str(root)]) == 1
    try:
        torch.set_num_threads(usual + 1)
        extract_to(root, *arguments)
        assert torch.get_num_threads() == usual + 1
    finally:
        torch.set_num_threads(usual)
    assert seen == [usual, usual]
    assert (
        f"with {usual} threads, as the file was begun, not {usual + 1}" in capsys.readouterr().out
    )
    assert open_features(features_of(root)[0]).cost["threads"] == usual


@pytest.mark.parametrize(
    "cost", ['{"threads": 1', '{"threads": "1"}', '{"threads": 0}', '{"threads": true}', "[1]"]
)
def test_a_damaged_cost_is_refused_with_a_cure(tmp_path, arguments, cost, monkeypatch, capsys):
    arguments = [*arguments, "--features", str(tmp_path / "f")]
    with monkeypatch.context() as broken:
        stop_at(broken, 1)
        assert main(arguments) == 1
    (path,) = (tmp_path / "f").rglob("*.partial")
    place = read_header(path).cost.offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(cost.encode().ljust(4096))
    capsys.readouterr()
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert (
        f"{path} is damaged: its cost isn't readable; delete it and run\n  extract --model" in said
    )


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224"]
)
def test_threads_change_no_bit_of_vit_and_resnet(name):
    """Where they change nothing they needn't be kept; ``same_threads`` says of which they do."""
    network, _ = load_encoder(describe(name, 224), Weights(None, seed=0))
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    usual, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(network(pictures))
    finally:
        torch.set_num_threads(usual)
    for array, one in found[0].items():
        two = found[1][array]
        if "swin" in name:
            assert (one - two).abs().max() <= 1e-5 * one.std()
        else:
            assert torch.equal(one, two), array
