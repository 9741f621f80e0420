"""Curves over learning rates, as in the appendix of Wu & Papiez 2025, from the logs alone."""

from collections import defaultdict

import numpy as np
import pytest
from finetuning import VIT, read_log, run, write_images
from looking import some

SHORT = "--batch-size 12 --epochs 4 --checks 4"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def read_curves(runs):
    """Every line of every log, by the full rate and the seed that it tells of itself."""
    curves = defaultdict(list)
    for path in sorted(runs.glob("**/log.jsonl")):
        for line in read_log(path):
            curves[line["tried"]["encoder_lr"], line["tried"]["seed"]].append(line)
    return curves


def test_val_accuracy_against_rate_is_in_the_logs(tmp_path, runs):
    """Also where the schedule has moved the rate away from the one that is tried."""
    rates = (1e-6, 1e-3, 1e-2)
    words = f"{VIT} {SHORT} --seeds 0,1 --schedule cosine --warmup 3 --encoder-lr 1e-6,1e-3,1e-2"
    row, _ = run(words, write_images(tmp_path / "toy.npz"))
    curves = read_curves(runs)
    assert set(curves) == {(rate, seed) for rate in rates for seed in (0, 1)}
    for (rate, _), lines in curves.items():
        assert [line["iteration"] for line in lines] == [4, 8, 12, 16]
        assert lines[-1]["encoder_lr"] < 0.1 * rate
    best = {one: max(line["val"]["acc"] for line in lines) for one, lines in curves.items()}
    tried = row["chosen"]["tried"]
    assert {(one["encoder_lr"], one["seed"]): one["value"] for one in tried} == best
    means = {rate: np.mean([best[rate, 0], best[rate, 1]]) for rate in rates}
    assert row["chosen"]["encoder_lr"] == max(rates, key=lambda rate: (means[rate], -rate))


def test_a_rate_that_diverges_is_in_the_logs(tmp_path, runs):
    words = f"{VIT} {SHORT} --seeds 0 --optimiser sgd --encoder-lr 1e-3,1e30"
    data = write_images(tmp_path / "toy.npz")
    for _ in range(2):  # asked again, it isn't told twice
        run(words, data)
        curves = read_curves(runs)
        assert all("diverged" not in line for line in some(curves[1e-3, 0]))
        (line,) = curves[1e30, 0]
        assert line["diverged"]
        assert line["loss"] is None
        assert line["val"] == {}


def test_a_frozen_encoders_log_tells_of_no_rate_of_it(tmp_path, runs):
    run(f"{VIT} {SHORT} --seeds 3 --mode head", write_images(tmp_path / "toy.npz"))
    (path,) = runs.glob("**/log.jsonl")
    for line in some(read_log(path)):
        assert line["tried"] == {"seed": 3}
        assert "encoder_lr" not in line
