"""Helpers of finetune's tests: small learnable data, and the command run in this process."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from answering import scores_file

from finetune.cli import main

VIT = "--model test_vit --weights random --size 32"
CNN = "--model test_resnet --weights random --size 32"


def write_images(path, counts=(48, 16, 16), classes=2, side=32, seed=0):
    """A data set in MedMNIST's layout whose classes differ in brightness, with noise.

    Args:
        path: the file.
        counts: images of train, val and test.
        classes: C.
        side: pixels.
        seed: of noise.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in zip(("train", "val", "test"), counts, strict=True):
        labels = rng.permutation(np.arange(n) % classes)
        level = 60 + 120 * labels / max(classes - 1, 1)
        images = rng.normal(level[:, None, None], 40, (n, side, side))
        # A bright half tells the classes apart beyond their mean.
        images[:, :, : side // 2] += 30 * (labels % 2)[:, None, None]
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


def run(words, data=None, status=0):
    """Run ``finetune``; returns the rows by id, and checks the exit status."""
    if data is not None:
        words += f" --data npz:{data}"
    assert main(words.split()) == status
    return read_rows()


def read_rows(kind="finetune"):
    """The stored rows of a kind with their scores, in the order of seeds."""
    found = []
    for path in Path(os.environ["MEDPROBE_RESULTS"]).glob("*/*.json"):
        row = json.loads(path.read_text())
        if row["probe"]["kind"] == kind:
            with np.load(scores_file(path)) as scores:
                row["scores"] = {name: scores[name] for name in scores.files}
            row["path"] = path
            found.append(row)
    return sorted(found, key=lambda row: row["probe"].get("training_seed", 0))


def trials(root):
    """The folders of trials below the runs."""
    return sorted(path.parent for path in Path(root).glob("*/*/*/last.pt"))


def read_log(path):
    """The lines of a log; a last one that a kill has cut short is left out."""
    lines = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def torchrun(words, root):
    """Run ``finetune`` in two processes, with runs and results below the root; what they print."""
    environment = os.environ | {"MEDPROBE_RUNS": str(root / "runs")}
    environment["MEDPROBE_RESULTS"] = str(root / "results")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(20000 + os.getpid() % 20000), "-m", "finetune"]
    result = subprocess.run(
        [*command, *words.split(), "--device", "cpu"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
