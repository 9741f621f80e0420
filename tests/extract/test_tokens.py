"""``extract --tokens`` from end to end: values, pictures, resuming, shards, chosen ids, the plan."""

import random
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import extract.run
from cache import CacheMiss, RequestError, open_features
from cache.catalogue import Wish, find_features
from cache.format import units
from cache.format.key import partial_path
from cache.format.read import read_header
from extract.cli import main
from extract.config import ExtractConfig
from extract.describe import check_space, describe_plan, file_bytes
from extract.encoders.encoder import Weights, describe, load_encoder
from extract.forward import plan_runs
from extract.job import Job
from extract.key import make_transform
from extract.machine.digests import DigestMemory
from extract.plan import Plan, make_plan
from extract.prepare.protocols import preprocess
from extract.prepare.transforms import Transform
from extract.run import run_plan

COUNTS = (200, 70, 90)  # 360 rows: blocks of 256 and 104
MODEL = ["--model", "test_vit", "--size", "32", "--weights", "random"]


@pytest.fixture
def images(tmp_path, write_npz):
    return f"npz:{write_npz(tmp_path / 'tiny.npz', counts=COUNTS, side=8)}"


@pytest.fixture
def small_units(monkeypatch):
    """Units of 16 rows."""
    monkeypatch.setattr(units, "UNIT_BYTES", 1)


def extract_to(root: Path, *arguments: str) -> Path:
    """Run, expect success, and give the one feature file."""
    assert main([*MODEL, *arguments, "--features", str(root)]) == 0
    (path,) = root.rglob("*.h5")
    return path


def pixels_of(images: str) -> torch.Tensor:
    with np.load(images.removeprefix("npz:")) as file:
        pixels = [file[f"{split}_images"] for split in ("train", "val", "test")]
    return torch.from_numpy(np.concatenate(pixels))


def encode(images: str, wish: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Tokens of all images in one batch, and the encoder's input."""
    d = describe("test_vit", 32, wish, tokens=True)
    encoder, _ = load_encoder(d, Weights(None, seed=0))
    usual = preprocess(ExtractConfig(()), d.entry, d.statistics)
    x = make_transform(32, usual, 1)(pixels_of(images))
    return encoder(x), x


# ---------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("store", ["float32", "float16", "int8"])
def test_a_file_holds_the_tokens_of_each_image(tmp_path, images, store):
    path = extract_to(tmp_path / "f", "--data", images, "--tokens", "-2,-1", "--store", store)
    assert path.name.startswith("test_vit_32_tokens_")
    features, (expected, _) = open_features(path), encode(images, "-2,-1")
    assert features.is_tokens
    assert features.layers == {4: ["tokens"], 5: ["tokens"]}
    assert features.key["tokens"] == {"grids": [[2, 2], [2, 2]]}
    assert features.key["layers"] == {"of": 6, "stored": [4, 5], "norm": "tokens"}
    for name, tokens in expected.items():
        layer, tokens = int(name[7:9]), tokens.numpy()
        found = features.tokens(layer, slice(None))
        assert features.grid(layer) == (2, 2)
        if store == "int8":  # a step is a 127th of a channel's largest number of the unit
            unit = np.arange(len(tokens)) // features.header.unit_rows
            largest = [np.abs(tokens[unit == u]).max(axis=(0, 1, 2)) for u in range(unit[-1] + 1)]
            step = np.stack(largest)[unit][:, None, None] / 127
            assert (np.abs(found - tokens) <= 0.5001 * step + 1e-5).all()
        else:
            rounding = 1e-5 if store == "float32" else 1e-3
            np.testing.assert_allclose(found, tokens, rtol=rounding, atol=rounding)


def test_tokens_pooled_are_the_pooled_file(tmp_path, images):
    tokens = open_features(
        extract_to(tmp_path / "t", "--data", images, "--tokens=-1", "--store", "float32")
    )
    pooled = open_features(
        extract_to(tmp_path / "p", "--data", images, "--layers=-1", "--store", "float32")
    )
    means = tokens.tokens(5, slice(None)).mean(axis=(1, 2))
    np.testing.assert_allclose(means, pooled.array(5, "mean"), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(tokens.hashes, pooled.hashes)
    assert tokens.key["images"] == pooled.key["images"]
    assert (pooled.header.attributes["format_version"], "tokens" in pooled.key) == (1, False)


def test_raw_tokens_of_families_that_norm_after_pooling(tmp_path, images):
    words = ["--model", "test_vit2", "--size", "32", "--weights", "random", "--data", images]
    assert main([*words, "--tokens", "last2", "--features", str(tmp_path / "f")]) == 0
    (path,) = (tmp_path / "f").rglob("*.h5")
    features = open_features(path)
    assert features.key["layers"]["norm"] == "none"
    assert features.notes["tokens"].startswith("raw: VisionTransformer norms the pooled vector")


@pytest.mark.parametrize("wish", ["--layer-norm=norm2", "--layer-norm=none"])
def test_other_norms_are_those_of_the_pools(tmp_path, images, wish):
    common = ["--data", images, wish, "--store", "float32"]
    tokens = open_features(extract_to(tmp_path / "t", *common, "--tokens=all", "--no-pictures"))
    pooled = open_features(extract_to(tmp_path / "p", *common))
    assert tokens.key["layers"] == pooled.key["layers"]
    for layer in range(6):
        means = tokens.tokens(layer, slice(None)).mean(axis=(1, 2))
        np.testing.assert_allclose(means, pooled.array(layer, "mean"), rtol=1e-4, atol=1e-4)


@pytest.mark.real
@pytest.mark.parametrize(
    ("store", "allowed"), [("float32", 1e-4), ("float16", 1e-3), ("int8", 0.02)]
)
def test_a_real_vit_on_real_images(tmp_path, real_data, real_weights, store, allowed):
    """Four ultrasounds through a ViT-S/14, against timm's own maps; the error's share of the largest."""
    ids = "train/000000,train/000007,val/000003,test/000155"
    words = ["--model", "vit_small_patch14_dinov2", "--size", "224", "--weights", str(real_weights)]
    words += ["--data", "breastmnist", "--source-size", "28", "--data-root", str(real_data)]
    words += ["--tokens", "5,-1", "--store", store, "--ids", ids, "--features", str(tmp_path)]
    assert main([*words, "--device", "cpu"]) == 0
    (path,) = tmp_path.rglob("*.h5")
    features = open_features(path)
    d = describe("vit_small_patch14_dinov2", 224, "5,-1", tokens=True)
    network: Any = load_encoder(d, Weights(real_weights))[0].network
    with np.load(real_data / "breastmnist.npz") as file:
        every = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
    rows = features.key["rows"]["stored"]
    usual = preprocess(ExtractConfig(()), d.entry, d.statistics)
    x = make_transform(224, usual, 1)(torch.from_numpy(every[rows]))
    with torch.inference_mode():
        maps = network.model.forward_intermediates(x, [5, 11], norm=True, intermediates_only=True)
    for layer, expected in zip((5, 11), maps, strict=True):
        assert features.grid(layer) == (16, 16)
        found = torch.from_numpy(features.tokens(layer, slice(None))).float()
        off = (found.permute(0, 3, 1, 2) - expected).abs()
        assert float(off.max()) <= allowed * float(expected.abs().max())
        assert float(off.max()) > 0 or store == "float32"


# ---------------------------------------------------------------------------- pictures


def test_pictures_are_what_the_encoder_sees(tmp_path, images):
    features = open_features(extract_to(tmp_path / "f", "--data", images, "--tokens=-1"))
    pictures = features.pictures
    assert pictures is not None
    assert pictures.shape == (360, 224, 224, 3)
    assert (pictures[..., :1] == pictures).all()
    levels = torch.nn.functional.interpolate(
        pixels_of(images)[:, None].float(), (32, 32), mode="bicubic", antialias=True
    ).clamp(0, 255)
    large = torch.nn.functional.interpolate(levels, (224, 224), mode="bilinear")
    off = np.abs(pictures[..., 0].astype(float) - large[:, 0].numpy())
    assert off.max() <= 0.51
    without = tmp_path / "g"
    path = extract_to(without, "--data", images, "--tokens=-1", "--no-pictures")
    assert open_features(path).pictures is None
    assert "--no-pictures" in open_features(path).header.attributes["command"]
    assert path.name == features.path.name  # no feature changes


PADDED = {"resize": "longest", "mean": (0.4, 0.4, 0.6)}


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"size": 300}, {"intensity": "min-max"}, {"resize": "pad"}, {"resize": "crop"}, PADDED,
        {"channels": "grey into the first filter"}, {"content": 90}, {"content": 100, **PADDED},
        {"backend": "tensor", "antialias": False},
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_grey", [True, False])
def test_pictures_are_the_prepared_levels(changes, is_grey):
    if not is_grey:
        changes = {**changes, "channels": "RGB"}
    transform = Transform(**{"size": 96, "mean": (0.5,) * 3, "std": (0.2, 0.3, 0.4)} | changes)
    generator = torch.Generator().manual_seed(0)
    shape = (2, 40, 70) if is_grey else (2, 40, 70, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    pictures = transform.pictures(transform(images)).permute(0, 3, 1, 2).float()
    levels = transform.levels(images).expand(-1, 3, -1, -1)
    expected = torch.nn.functional.interpolate(
        levels, (224, 224), mode="bilinear", antialias=True
    ).clamp(0, 255)
    assert pictures.shape == (2, 3, 224, 224)
    assert float((pictures - expected).abs().max()) < 0.51
    if is_grey and changes.get("mean") != PADDED["mean"]:
        assert (pictures == pictures[:, :1]).all()


# ---------------------------------------------------------------------------- units and batches


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_whole_batches_and_hold_the_units(seed):
    """Against every row by itself: its batch is run where it holds a row to be done."""
    draw = random.Random(seed)
    rows, batch_size = draw.choice([16, 32, 64, 256]), draw.choice([1, 7, 16, 24, 100, 256])
    n_rows = draw.randint(1, 900)
    every = range(-(-n_rows // rows))
    todo = sorted(draw.sample(every, draw.randint(0, len(every))))
    wanted = [row for row in range(n_rows) if row // rows in todo]

    def batch(row: int) -> tuple[int, int]:
        return row // 256, row % 256 // batch_size

    needed = {batch(row) for row in wanted}
    runs = plan_runs(todo, rows, n_rows, batch_size)
    ran = [row for run in runs for row in range(run.start, run.stop)]
    assert ran == [row for row in range(n_rows) if batch(row) in needed]
    assert [unit for run in runs for unit, _, _ in run.units] == todo
    for run in runs:
        assert run.start // 256 == (run.stop - 1) // 256
        assert run.n_wanted(0, n_rows) == sum(run.start <= row < run.stop for row in wanted)


@pytest.mark.parametrize("batch_size", ["24", "100"])
def test_resumed_files_and_shards_equal_an_uninterrupted_one(
    tmp_path, images, small_units, monkeypatch, batch_size
):
    words = ["--data", images, "--tokens", "3,-1", "--store", "int8", "--batch-size", batch_size]
    whole = extract_to(tmp_path / "whole", *words)
    assert read_header(whole).n_units == 23
    written: list[int] = []
    write = extract.run.FeatureWriter.write_unit

    def write_some(self, unit, arrays):
        if len(written) % 9 == 8:  # each run ends after eight units
            written.append(-1)
            raise KeyboardInterrupt
        write(self, unit, arrays)
        written.append(unit)

    monkeypatch.setattr("extract.run.FeatureWriter.write_unit", write_some)
    root = tmp_path / "parts"
    for _ in range(9):
        if main([*MODEL, *words, "--features", str(root)]) == 0:
            break
    assert sorted(unit for unit in written if unit >= 0) == [*range(23)]  # each once
    monkeypatch.undo()
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    assert rows_of(root) == rows_of(tmp_path / "whole")
    for shard in ("1/2", "0/2"):
        main([*MODEL, *words, "--features", str(tmp_path / "shards"), "--shard", shard])
    assert rows_of(tmp_path / "shards") == rows_of(tmp_path / "whole")


def rows_of(root: Path) -> dict[str, bytes]:
    """Every array of the one file below a folder, as it lies there."""
    (path,) = root.rglob("*.h5")
    header = read_header(path)
    content = path.read_bytes()
    return {name: content[e.offset : e.end] for name, e in header.arrays.items()}


def test_a_file_begun_without_pictures_is_finished_without(tmp_path, images, small_units):
    path = extract_to(tmp_path / "f", "--data", images, "--tokens=-1", "--no-pictures")
    header = read_header(path)
    content = bytearray(path.read_bytes())
    content[header.units.offset] = 0  # the first unit isn't done
    path.unlink()
    partial_path(path).write_bytes(content)
    again = extract_to(tmp_path / "f", "--data", images, "--tokens=-1")
    assert again == path
    assert open_features(path).pictures is None


# ---------------------------------------------------------------------------- ids


def test_some_ids_make_a_file_of_their_own(tmp_path, images):
    words = ["--data", images, "--tokens=-1", "--store", "float32"]
    whole = open_features(extract_to(tmp_path / "f", *words))
    ids = ["test/000003", "train/000007", "train/000006", "val/000001"]
    path = extract_to(tmp_path / "g", *words, "--ids", ",".join(ids))
    part = open_features(path)
    rows = [6, 7, 201, 273]
    assert (
        part.ids.tolist() == whole.ids[rows].tolist() == sorted(ids, key=whole.ids.tolist().index)
    )
    assert part.key == {**whole.key, "rows": {"of": 360, "stored": rows}}
    assert path.name != whole.path.name
    for name in ("labels", "split", "hashes"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])
    np.testing.assert_allclose(part.tokens(5, slice(None)), whole.tokens(5, rows), atol=1e-5)
    assert whole.pictures is not None
    np.testing.assert_array_equal(part.pictures, whole.pictures[rows])
    # Typed in another order they are the same file.
    assert extract_to(tmp_path / "g", *words, "--ids", ",".join(ids[::-1])) == path


def test_ids_of_folders_and_volumes(tmp_path, write_npz):
    for i in range(9):
        path = tmp_path / "files" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 7 + i), 20 * i, np.uint8)).save(path)
    words = ["--tokens=-1", "--store", "float32", "--workers", "0"]
    data = f"folder:{tmp_path / 'files'}"
    whole = open_features(extract_to(tmp_path / "f", *words, "--data", data))
    rows = [1, 2, 5, 8]
    ids = ",".join(whole.ids[rows])
    part = open_features(extract_to(tmp_path / "g", *words, "--data", data, "--ids", ids))
    np.testing.assert_array_equal(part.hashes, whole.hashes[rows])
    np.testing.assert_allclose(part.tokens(5, slice(None)), whole.tokens(5, rows), atol=1e-5)

    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_images": rng.integers(0, 256, (n, 6, 6, 6), np.uint8)
        for split, n in (("train", 4), ("val", 2), ("test", 2))
    }
    arrays |= {f"{n[:-7]}_labels": np.arange(len(a))[:, None] % 2 for n, a in arrays.items()}
    np.savez(tmp_path / "volumes.npz", **arrays)
    data = f"npz:{tmp_path / 'volumes.npz'}"
    whole = open_features(extract_to(tmp_path / "v", *words, "--data", data))
    ids = ",".join(whole.ids[[1, 5]])
    part = open_features(extract_to(tmp_path / "w", *words, "--data", data, "--ids", ids))
    assert part.row_sample.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(part.hashes, whole.hashes[[*range(6, 12), *range(30, 36)]])


def test_a_part_is_never_taken_for_the_whole(tmp_path, images, capsys):
    """New labels are laid over all files of the images, but not over a part's; nor is its split kept."""
    words = ["--data", images, "--tokens=-1", "--ids", "train/000001,test/000002"]
    part = extract_to(tmp_path / "f", *words)
    before = part.read_bytes()
    with pytest.raises(CacheMiss):
        find_features(tmp_path / "f", Wish(tokens=True))
    capsys.readouterr()
    assert main([*MODEL, "--data", images, "--features", str(tmp_path / "f")]) == 0
    assert "keeps its tables" not in capsys.readouterr().out
    assert part.read_bytes() == before


def test_unknown_ids_are_named_with_near_ones(tmp_path, images, capsys):
    words = [*MODEL, "--data", images, "--tokens=-1", "--features", str(tmp_path / "f")]
    assert main([*words, "--ids", "train/000001,train/0000001"]) == 1
    said = capsys.readouterr().err
    assert "--ids: tiny has no image 'train/0000001'; near names: train/00000" in said
    assert not [*(tmp_path / "f").rglob("*.h5*")]


# ---------------------------------------------------------------------------- refusals, plan


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tokens -1 --layers -1", "--tokens says which layers; leave --layers out"),
        ("--store int8", "--store int8 is for --tokens"),
        ("--ids a", "--ids belongs to --tokens"),
        ("--no-pictures", "--no-pictures belongs to --tokens"),
        ("--tokens x", "--tokens takes all, last4 or numbers"),
        ("--tokens 9", r"no layer 9: the encoder has layers 0\.\.5"),
    ],
)
def test_what_does_not_go_together(tmp_path, images, capsys, words, message):
    command = [*MODEL, "--data", images, "--features", str(tmp_path / "f"), *shlex.split(words)]
    if message.startswith("no layer") or "takes all" in message:
        assert main(command) == 1
    else:
        with pytest.raises(SystemExit):
            main(command)
    assert re.search(message, capsys.readouterr().err)


def test_texts_have_no_patches():
    for words, flag in [({"tokens": "-1"}, "tokens"), ({"pictures": False}, "no-pictures")]:
        with pytest.raises(RequestError, match=f"--{flag} is about images; leave it out with"):
            ExtractConfig(("openclip",), text=True, **words)


def plan_of(images: str, root: Path, **options: Any) -> Plan[Job]:
    return make_plan(
        ExtractConfig(
            ("test_vit",), size=32, data=(images,), weights="random", features=root, **options
        )
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"store": "int8"}, {"store": "float32", "pictures": False}, {"ids": ("test/000001",)}],
)
def test_the_plan_says_what_the_file_takes(tmp_path, images, small_units, options):
    plan = plan_of(images, tmp_path / "f", tokens="last3", **options)
    said = "\n".join(describe_plan(plan, DigestMemory(tmp_path / "digests.json")))
    assert "3 of 6 x tokens of 2 x 2 x 64 · norm: tokens" in said
    assert ("and its picture 150.5 kB (--no-pictures)" in said) == (options.get("pictures", True))
    planned = file_bytes(plan.jobs[0].description, plan.config, plan.jobs[0].source)
    assert run_plan(plan, DigestMemory(tmp_path / "digests.json"), print) == []
    (path,) = (tmp_path / "f").rglob("*.h5")
    header = read_header(path)
    arrays = [*header.arrays.values(), header.units]
    assert planned == sum(extent.end - extent.offset for extent in arrays)


def test_a_plan_of_a_large_encoder(tmp_path, images):
    """ViT-L/14 at 224 px: half a megabyte an image and layer."""
    plan = make_plan(
        ExtractConfig(("clip-l14",), data=(images,), tokens="last4", features=tmp_path)
    )
    said = "\n".join(describe_plan(plan, DigestMemory(tmp_path / "digests.json")))
    assert "4 of 24 x tokens of 16 x 16 x 1024 · norm: tokens" in said
    assert "an image   524.3 kB a layer, and its picture 150.5 kB (--no-pictures)" in said
    assert "features to make: 809.3 MB" in said


def test_what_the_disk_cannot_hold_is_refused_with_what_fits(tmp_path, images, monkeypatch):
    plan = plan_of(images, tmp_path / "f", tokens="all")
    memory = DigestMemory(tmp_path / "digests.json")
    d, source = plan.jobs[0].description, plan.jobs[0].source
    for free, fits in [
        (file_bytes(d, plan.config, source) // 2, "(--no-pictures takes"),
        (10, "(nothing less of it fits)"),
    ]:
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("extract.describe.shutil.disk_usage", lambda folder, u=usage: u)
        with pytest.raises(RequestError, match=re.escape(fits)):
            check_space(plan, memory)
