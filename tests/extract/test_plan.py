"""A plan is a list of jobs: each can be sent to another process, which computes the same features."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cache import open_features
from cache.format.spec import HASH
from extract.config import ExtractConfig
from extract.machine.digests import DigestMemory
from extract.plan import make_plan
from extract.run import run_plan

ELSEWHERE = """
import pickle, sys
from pathlib import Path
from extract.forward import compute_blocks
from extract.loaded import LazyEncoder, find_transform, open_images
from extract.machine.digests import DigestMemory

jobs, config = pickle.loads(Path(sys.argv[1]).read_bytes())
memory = DigestMemory(Path(sys.argv[2]))
encoder = LazyEncoder(jobs[0].description, config, memory).get(print)
found = {}
for job in jobs:
    dataset = open_images(job, memory)
    units = range((dataset.n_rows + 255) // 256)
    transform = find_transform(job, dataset, memory)
    blocks = compute_blocks(encoder, dataset, transform, units, config)
    found[dataset.name] = [block.arrays() for block in blocks]
Path(sys.argv[3]).write_bytes(pickle.dumps(found))
"""


def test_jobs_in_another_process_give_the_same_features(
    tmp_path: Path, write_npz: Callable[..., Path]
):
    for i in range(12):
        path = tmp_path / "files" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 7), 20 * i, np.uint8)).save(path)
    npz = write_npz(tmp_path / "arrays.npz", counts=(200, 40, 60), side=8)  # two units
    config = ExtractConfig(
        ("test_vit",), size=32, data=(f"npz:{npz}", f"folder:{tmp_path / 'files'}"),
        weights="random", layers="-1", store="float32", workers=0, features=tmp_path / "f",
    )  # fmt: skip
    plan = make_plan(config)
    sent, back = tmp_path / "jobs", tmp_path / "back"
    sent.write_bytes(pickle.dumps((plan.jobs, config)))
    words = [sys.executable, "-c", ELSEWHERE, sent, tmp_path / "there.json", back]
    subprocess.run(words, check=True)
    found = pickle.loads(back.read_bytes())

    assert run_plan(plan, DigestMemory(tmp_path / "here.json"), print) == []
    for job, n_units in zip(plan.jobs, (2, 1), strict=True):
        (path,) = (tmp_path / "f" / job.source.name).glob("*.h5")
        features, arrays = open_features(path), found[job.source.name]
        assert len(arrays) == n_units
        for pool in ("cls", "mean"):
            name = f"layers/05/{pool}"
            expected = np.concatenate([a[name] for a in arrays])
            np.testing.assert_array_equal(features.array(5, pool), expected)
        np.testing.assert_array_equal(features.hashes, np.concatenate([a[HASH] for a in arrays]))


def test_a_job_of_the_demo_can_be_sent(tmp_path: Path):
    plan = make_plan(ExtractConfig(("test_vit",), size=32, data=("demo",), weights="random"))
    (job,) = pickle.loads(pickle.dumps(plan.jobs))
    assert (job.label, job.preprocessing) == ("test_vit on demo", plan.jobs[0].preprocessing)
    assert job.description.arrays == plan.jobs[0].description.arrays
    assert (
        len(job.source.open(DigestMemory(tmp_path / "x.json")).samples.ids) == job.source.n_images
    )
