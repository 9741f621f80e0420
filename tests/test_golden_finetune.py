"""Golden rows of finetune: tiny networks trained for a step or two, of every mode and way to begin.

Where torch is another than the recording's, or the processor is, floats are not compared.
"""

import math
import platform

import numpy as np
import pytest
import torch
from finetuning import write_images
from golden import Recording, clear, masked, read_recording, run_in, stored_rows, told
from PIL import Image

from extract.cli import main as extract
from finetune.cli import main as finetune
from probe.cli import main as probe

TOLERANCE = 1e-5
KIND = "finetune"  # of its rows, beside those of the probes that they begin with
TIMES = ("seconds", "images_per_s", "seconds_per_test_image")
SPLITS = ("train", "val", "test")
HERE = [torch.__version__.partition("+")[0].rpartition(".")[0], platform.machine()]

VIT = "--model test_vit --weights random --size 32 --device cpu --workers 0"
CNN = VIT.replace("test_vit", "test_resnet")
SHORT = "--seeds 0 --batch-size 12 --epochs 1 --checks 1"
TOY = f"{VIT} {SHORT} --data npz:toy.npz"
OVER = f"{VIT} {SHORT} --data npz:many.npz --labels labels.csv"
FEW = f"{VIT} --data npz:toy.npz --encoder-lr 1e-3 --epochs 1 --seeds 0 --shots 2 --episodes 2"
TABLE = f"{VIT} {SHORT} --data csv:scans.csv"
CASES = {
    "full": TOY,
    "two seeds": f"{TOY} --seeds 0,3 --checks 2 --name mine",
    "classes": f"{VIT} {SHORT} --data npz:many.npz --choose-by balanced_accuracy",
    "head": f"{TOY} --mode head --pool cls --lr 0.01 --augment flip",
    "partial": f"{TOY} --freeze-until 4 --freeze-norm --cut-after 4",
    "lora": f"{TOY} --mode lora --lora-rank 2 --lora-alpha 4 --lora-dropout 0.1 --lora-targets qkv --lora-train-bias",
    "bitfit": f"{TOY} --mode bitfit --schedule cosine --warmup 1",
    "rates": f"{TOY} --encoder-lr 1e-4,1e-3 --choose-by loss --optimiser sgd --momentum 0.5",
    "refit": f"{TOY} --refit train+val --layer-decay 0.5 --no-decay-1d --clip 1 --weight-decay 0.1",
    "of a CNN": f"{CNN} {SHORT} --data npz:toy.npz --batchnorm eval --schedule plateau",
    "less memory": f"{TOY} --micro-batch 5 --grad-checkpointing --patience 1 --choose-by auc",
    "several labels": f"{OVER} --target u,v",
    "ordinal": f"{OVER} --target grade --task ordinal --choose-by auto",
    "numbers": f"{OVER} --target size --task regression --choose-by loss",
    "a split": f"{TOY} --split 60/20/20 --split-seed 2 --strict --resamples 50 --seed 1",
    "wu2025": f"{VIT} --protocol wu2025 --encoder-lr 1e-4,1e-3 --data npz:toy.npz --epochs 1 --batch-size 12 --seeds 0",
    "huix2024": f"{VIT} {SHORT} --protocol huix2024 --mode head --augment none --warmup 1 --choose-by loss --encoder-lr 1e-3,1e-1 --data npz:toy.npz",
    "baharoon2023 as published": f"{VIT} {SHORT} --protocol baharoon2023 --as-published --mode head --encoder-lr 0.01,0.05 --data npz:toy.npz",
    "a probe's head": f"{TOY} --mode head --init-head-from results/toy/LINEAR",
    "episodes": f"{FEW} --episodes-like results/toy/FEW",
    "episodes of a head": f"{FEW} --mode head --episodes-like results/toy/FEW".replace("--encoder-lr 1e-3 ", ""),
    "plan": f"{TOY} --dry-run --compile --tensorboard --overwrite --offline --drop-path 0.1 --warmup-epochs 1",
    "plan of a DeiT": f"{TOY} --dry-run --mode head --head deit --head-weights random",
    "plan of iterations": f"{VIT} --data npz:toy.npz --dry-run --iterations 40 --precision bf16 --weights-seed 2",
    "plan of images": f"{TOY} --dry-run --antialias --channels rgb --intensity min-max --mean 0.5 --std 0.5,0.5,0.5 --resize pad --resize-backend pil --interpolation bilinear --fit-size nearest --source-size 32 --data-root d --features f --results r --runs q --split-file s.csv",
    "plan of a table": f"{TABLE} --dry-run --path-col file --label-col u --id-col file --group-col patient --meta-cols age --split-col part --missing ? --task multi-class --window 20,200 --skip-errors --root scans --suffix .png",
    "plan of lists": f"{TABLE} --dry-run --path-col file --label-col u --label-sep y --task multi-label --root scans --suffix .png",
    "a table": f"{TABLE} --path-col file --label-col sex --positive m --root scans --suffix .png --group-col patient --split-col part --aggregate patient",
    "plan of samples": f"{TABLE} --dry-run --path-col file --label-col sex --root scans --suffix .png --sample-col patient",
    "plan of folders": f"{VIT} {SHORT} --dry-run --data folder:series --samples folders",
    "plan of slices": f"{VIT} {SHORT} --dry-run --data npz:cubes.npz --slice-axis 1 --slice-neighbours",
    "uncertain": f"{TOY} --uncertain zeros",
    "episodes of a file": f"{TOY} --episodes-file e.csv",
    "patients unknown": f"{TOY} --aggregate patient",
    "no data": f"{VIT} {SHORT}",
    "no model": "--data npz:toy.npz",
    "no such row": f"{TOY} --init-head-from nothing",
    "no such mode": f"{TOY} --mode partial",
    "a rate of none": f"{TOY} --mode head --encoder-lr 1e-3",
    "momentum of adamw": f"{TOY} --momentum 0.5",
}  # fmt: skip
ASKED = {  # of probe, whose rows finetune begins with
    "LINEAR": "--kind linear --pool head --strengths 0.1 --refit train",
    "FEW": "--kind linear --pool head --shots 2 --episodes 3",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    write_images(folder / "toy.npz", counts=(24, 12, 12))
    write_images(folder / "many.npz", counts=(24, 12, 12), classes=3, seed=1)
    rng = np.random.default_rng(2)
    lines = ["id,u,v,grade,size"]
    for split, n in (("train", 24), ("val", 12), ("test", 12)):
        for i in range(n):
            numbers = [int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(3))]
            size = round(float(rng.normal(5, 2)), 3)
            lines.append(",".join([f"{split}/{i:06d}", *map(str, numbers), str(size)]))
    np.savez(
        folder / "cubes.npz",
        **{f"{s}_images": rng.integers(0, 256, (2, 6, 6, 6), np.uint8) for s in SPLITS},
        **{f"{s}_labels": np.array([[0], [1]], np.uint8) for s in SPLITS},
    )
    scans = ["file,u,sex,patient,age,part"]
    for i in range(48):
        place = folder / "series" / "ab"[i // 2 % 2] / str(i // 2)
        for to in (folder / "scans", place):
            to.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 20), np.uint8)
            Image.fromarray(pixels).save(to / f"{i:02d}.png")
        part = ("train", "train", "val", "test")[i // 4 % 4]
        scans.append(f"{i:02d},{'xyz?'[i % 4]},{'fm'[i // 2 % 2]},p{i // 2},{40 + i},{part}")
    (folder / "scans.csv").write_text("\n".join(scans) + "\n")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def places(root, monkeypatch):
    clear(root / "results", root / "runs")
    run_in(root, monkeypatch)
    return root


@pytest.fixture(scope="module")
def of_finetune():
    recording = Recording("finetune", TOLERANCE)
    if recording.known and recording.known["torch", "of"] != HERE:
        recording.tolerance = math.inf
    recording.check("torch", {"of": recording.known.get(("torch", "of"), HERE)})
    yield recording
    recording.finish()


@pytest.mark.parametrize("case", CASES)
def test_finetune(case, places, capsys, of_finetune):
    words = CASES[case]
    for name, asked in ASKED.items():
        if f"/{name}" in words:
            if not list(places.glob("features/toy/*.h5")):
                assert extract(f"{VIT} --data npz:toy.npz".split()) == 0
            assert probe(asked.split()) == 0
            (path,) = places.glob("results/toy/*.json")
            words = words.replace(f"results/toy/{name}", path.relative_to(places).as_posix())
    status, out, err = told(capsys, finetune, words.split())
    found = {"said": masked([status, err])}
    if "--dry-run" in words:
        found["plan"] = masked(out)
    rows = [
        r for r in stored_rows(places / "results").values() if r["json"]["probe"]["kind"] == KIND
    ]
    for row in sorted(rows, key=lambda row: row["json"]["probe"].get("training_seed", 0)):
        chosen = row["json"]["chosen"]
        chosen |= {name: "time" for name in TIMES if name in chosen}
        found[f"row {len(found)}"] = masked(row)
    of_finetune.check(case, found)


def test_every_flag_is_typed():
    typed = {word.partition("=")[0] for words in CASES.values() for word in words.split()}
    flags = read_recording(Recording("help").path)["finetune", "flags"]
    missing = {flag for flag in flags if not typed & set(flag.split())}
    assert missing <= {"-h --help", "--version"}
