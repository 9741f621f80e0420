"""Golden command lines: what a feature file says of how it was made, for every flag of extract."""

import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from golden import Recording, clear, masked, read_recording, run_in, told
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

from cache import open_features
from extract.cli import main as extract

VIT = "--model test_vit --weights random --size 32 --device cpu --batch-size 4 --workers 0"
FLAT = "--model test_vit --data npz:flat.npz"
IMAGES = f"{VIT} --data npz:flat.npz"
TABLE = f"{VIT} --data csv:scans/scans.csv --path-col file --label-col finding"
CASES = {
    "images": IMAGES,
    "seed": f"{IMAGES} --seed 3",
    "layers": f"{IMAGES} --layers last2 --layer-norm none",
    "layers by number": f"{IMAGES} --layers -2,-1",
    "precision": f"{IMAGES} --precision bf16 --store float32",
    "precision by its name": f"{IMAGES} --precision fp32 --store float16",
    "own weights": "--model test_vit --size 32 --data npz:flat.npz --weights weights.safetensors",
    "native size": f"{FLAT} --weights random --size native",
    "several encoders": "--model test_vit,test_resnet --weights random --size 32 --data npz:flat.npz",
    "fit size": f"{IMAGES.replace('32', '36')} --fit-size nearest",
    "fit size by a frame": f"{IMAGES.replace('32', '36')} --fit-size pad",
    "fit size refused": IMAGES.replace("32", "36"),
    "prepared": f"{IMAGES} --resize crop --interpolation bilinear --no-antialias --resize-backend pil",
    "by pillow": f"{IMAGES} --resize scale-crop --interpolation bilinear --resize-backend pil",
    "without antialias": f"{IMAGES} --no-antialias --interpolation nearest",
    "antialias": f"{IMAGES} --antialias --resize pad-fit --resize-backend tensor",
    "numbers": f"{IMAGES} --mean 0.5 --std 0.25,0.5,0.125 --intensity min-max --channels first-filter",
    "negative mean": f"{IMAGES} --mean=-0.5",
    "as a paper": f"{IMAGES} --protocol doerrich2024",
    "as a paper, but": f"{IMAGES} --protocol wu2025 --interpolation bicubic",
    "volumes": f"{VIT} --data npz:cubes.npz",
    "slices": f"{VIT} --data npz:cubes.npz --slice-axis 2 --slice-neighbours --source-size 28",
    "table": TABLE,
    "columns": f"{TABLE} --id-col name --group-col patient --meta-cols age,site --split-col part",
    "several labels": f"{TABLE.replace('finding', 'found')} --label-sep | --missing ? --task multi-label",
    "positive": f"{TABLE} --positive b --split 60/20/20 --split-seed 4 --strict",
    "systematic": f"{TABLE} --split systematic:4,3 --keep-split none",
    "ordinal": f"{TABLE.replace('finding', 'grade')} --task ordinal --split test",
    "root and suffix": f"{VIT} --data csv:bare.csv --root scans --suffix .png",
    "rows of a sample": f"{TABLE.replace('finding', 'sex')} --sample-col patient",
    "window": f"{TABLE} --window 20,200 --skip-errors",
    "folder": f"{VIT} --data folder:classes",
    "folder of folders": f"{VIT} --data folder:series --samples folders",
    "elsewhere": f"{IMAGES} --features other --data-root nowhere --shard 0/1 --offline --overwrite",
    "plan": f"{IMAGES} --dry-run",
    "official, not here": f"{VIT} --data breastmnist --offline --data-root nowhere",
    "texts": "--model local-dir:clip --data npz:flat.npz --text --prompts prompts.json --device cpu",
    "texts by template": "--model local-dir:clip --data npz:flat.npz --text --template one:{} --template {}",
}  # fmt: skip
REFUSED = [
    "",
    "--model test_vit --demo",
    "--demo --text",
    "--model nonsense --data npz:flat.npz",
    f"{VIT} --data nonsense",
    f"{VIT} --data npz:none.npz",
    f"{FLAT} --seed 1",
    f"{FLAT} --size 0",
    f"{FLAT} --size big",
    f"{FLAT} --mean 1,2",
    f"{FLAT} --std 0",
    f"{FLAT} --std x",
    f"{FLAT} --layers 9,x",
    f"{IMAGES} --layers 99",
    f"{FLAT} --batch-size 0",
    f"{FLAT} --batch-size 999",
    f"{FLAT} --shard 4/4",
    f"{FLAT} --device tpu",
    f"{FLAT} --workers -1",
    f"{FLAT} --slice-axis 3",
    f"{FLAT} --window odd",
    f"{FLAT} --split odd",
    f"{FLAT} --split-seed -1",
    f"{FLAT} --split 80/10/10",
    f"{FLAT} --prompts x.json",
    f"{FLAT} --template x",
    f"{FLAT} --source-size 30",
    "--model test_vit --data breastmnist --source-size 30",
    "--model test_vit --data breastmnist --split 80/10/10",
    f"{FLAT} --path-col x",
    f"{FLAT} --keep-split x",
    f"{FLAT} --modle x",
    f"{IMAGES} --text",
    "dta",
]
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    rng = np.random.default_rng(0)
    for name, shape in (("flat", (28, 28)), ("cubes", (28, 28, 28))):
        arrays = {}
        for split, n in (("train", 4), ("val", 2), ("test", 2)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
            arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
        if name == "cubes":
            arrays = {name: x[:1] for name, x in arrays.items()}
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "scans").mkdir()
    lines = ["file,finding,found,grade,sex,name,patient,age,site,part"]
    for i in range(24):
        pixels = rng.integers(0, 256, (20, 24), np.uint8)
        Image.fromarray(pixels).save(folder / "scans" / f"{i:02d}.png")
        found = ("x", "x|y", "y", "?")[i % 4]
        part = ("train", "train", "val", "test")[i // 2 % 4]
        about = f"{i % 3},{'fm'[i // 2 % 2]},n{i:02d},p{i // 2},{40 + i},{'ab'[i % 2]},{part}"
        lines.append(f"{i:02d}.png,{'ab'[i % 2]},{found},{about}")
        for kind, parts in (
            ("classes", f"{'ab'[i % 2]}"),
            ("series", f"{'ab'[i // 2 % 2]}/{i // 2}"),
        ):
            place = folder / kind / parts
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "scans" / f"{i:02d}.png", place)
    (folder / "scans" / "scans.csv").write_text("\n".join(lines) + "\n")
    bare = [f"{i:02d},{'ab'[i % 2]}" for i in range(24)]
    (folder / "bare.csv").write_text("\n".join(["image,label", *bare]) + "\n")
    (folder / "prompts.json").write_text(json.dumps({"0": ["none", "no"], "1": ["one"]}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit").state_dict(), folder / "weights.safetensors")
        clip = CLIP(**CONFIG).state_dict()
    (folder / "clip").mkdir()
    save_file(clip, folder / "clip" / "open_clip_model.safetensors")
    published = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "clip" / "open_clip_config.json").write_text(json.dumps(published))
    return folder


@pytest.fixture
def places(root, monkeypatch):
    clear(root / "features", root / "other")
    run_in(root, monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return root


@pytest.fixture(scope="module")
def of_extract():
    recording = Recording("extract")
    yield recording
    recording.finish()


@pytest.mark.parametrize("case", CASES)
def test_the_command_that_makes_a_file_again(case, places, capsys, of_extract):
    found = {"said": masked(told(capsys, extract, CASES[case].split()))}
    for path in sorted([*places.glob("features/*/*.h5"), *places.glob("other/*/*.h5")]):
        features = open_features(path)
        name = re.sub("_[0-9a-f]{12}.h5$", "", path.relative_to(places).as_posix())
        found[f"file {len(found)}"] = masked(
            {
                "name": name,
                "command": features.header.command,
                "key": features.key,
                "notes": features.notes,
                "layers": {str(i): list(pools) for i, pools in features.layers.items()},
                "pools": list(features.pools),
                "tables": list(features.header.tables),
                "split": np.unique(features.split, return_counts=True)[1].tolist(),
            }
        )
    of_extract.check(case, found)


@pytest.mark.parametrize("i", range(len(REFUSED)))
def test_refusals(i, places, capsys, of_extract):
    of_extract.check(REFUSED[i], {"said": masked(told(capsys, extract, REFUSED[i].split()))})


def test_every_flag_is_typed():
    flags = read_recording(Recording("help").path)["extract", "flags"]
    typed = {word.partition("=")[0] for words in CASES.values() for word in words.split()}
    missing = [flag for flag in flags if not typed & set(flag.split())]
    assert set(missing) <= {"-h --help", "--version", "--demo"}
