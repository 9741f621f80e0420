"""Training on volumes: a sample is all of its slices."""

import numpy as np
import pytest
import torch
from finetuning import VIT, read_rows, run
from numpy.testing import assert_allclose

from extract.cli import main as extract
from finetune.model.reading import Reader
from finetune.training import training
from probe.cli import main as probe

N_SLICES = 14
SHORT = "--seeds 0 --batch-size 4 --epochs 2"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))


@pytest.fixture(params=[(N_SLICES, N_SLICES, N_SLICES)])
def volumes(tmp_path, request):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 16), ("val", 8), ("test", 8)):
        labels = rng.permutation(np.arange(n) % 2)
        images = rng.normal(80 + 60 * labels[:, None, None, None], 40, (n, *request.param))
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(tmp_path / "v.npz", **arrays)
    return tmp_path / "v.npz"


@pytest.mark.parametrize("volumes", [(14, 14, 14), (14, 9, 11)], indirect=True)
def test_a_frozen_encoder_of_volumes_is_a_probe(volumes):
    """Slices are averaged before the head, as a probe averages what extract stored."""
    (own,) = run(f"{VIT} {SHORT} --mode head", volumes)
    assert extract(f"{VIT} --data npz:{volumes} --store float32".split()) == 0
    assert probe(f"--kind adamw --pool head {SHORT}".split()) == 0
    (other,) = read_rows("adamw")
    assert own["chosen"]["iteration"] == other["chosen"]["iteration"]
    for name in ("val_scores", "test_scores"):
        assert_allclose(own["scores"][name], other["scores"][name], atol=1e-6)


def test_a_cpu_takes_few_slices_at_once_and_the_numbers_stay(volumes, tmp_path, monkeypatch):
    read, n_images = Reader.__call__, []

    def count(self, images):
        n_images.append(len(images))
        return read(self, images)

    monkeypatch.setattr(Reader, "__call__", count)
    (few,) = run(f"{VIT} {SHORT}", volumes)
    assert max(n_images) == N_SLICES
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "again"))
    (many,) = run(f"{VIT} {SHORT} --micro-batch 4", volumes)
    assert max(n_images) == 4 * N_SLICES
    assert few["id"] == many["id"]
    assert_allclose(few["scores"]["test_scores"], many["scores"]["test_scores"], atol=2e-5)


def test_too_little_memory_is_told_in_samples(volumes, monkeypatch, capsys):
    def refuse(self, images, sample=None):
        raise torch.OutOfMemoryError("too small")

    monkeypatch.setattr(training.Classifier, "forward", refuse)
    run(f"{VIT} {SHORT} --micro-batch 2", volumes, status=1)
    found = capsys.readouterr()
    assert "too small for 2 samples at once: 1 at once from now on" in found.out
    assert f"too small for one sample of {N_SLICES} images" in found.err
