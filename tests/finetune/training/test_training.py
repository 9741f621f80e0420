"""Training end to end on small networks: what must not change the numbers, and what must."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from answering import scores_file
from finetuning import CNN, VIT, read_log, read_rows, run, torchrun, trials, write_images
from numpy.testing import assert_allclose
from safetensors.torch import load_file

from cache.features import open_features
from extract.cli import main as extract
from finetune.cli import main
from finetune.training import training
from probe.cli import main as probe

SHORT = "--seeds 0 --batch-size 12 --epochs 3 --checks 3"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "toy.npz")


def write_findings(data, path):
    """Three labels for each image of a data set, some of them unknown, as a table by id."""
    rng = np.random.default_rng(3)
    lines = ["id,one,two,three\n"]
    with np.load(data) as file:
        for split in ("train", "val", "test"):
            for i, label in enumerate(file[f"{split}_labels"][:, 0].tolist()):
                two, three = rng.integers(2, size=2)
                unknown = rng.random() < 0.2
                lines.append(f"{split}/{i:06d},{label},{'' if unknown else two},{three}\n")
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("task", ["two classes", "three classes", "several labels"])
def test_a_frozen_encoder_is_a_probe(tmp_path, task):
    """The same order, first weights, checks and choice: the same head to rounding.

    The loss's mean over samples, labels and what is unknown is the probe's, too.
    """
    data = write_images(tmp_path / "toy.npz", classes=3 if task == "three classes" else 2)
    shared = "--iterations 40 --seeds 0,1 --batch-size 12"
    if task == "several labels":
        table = write_findings(data, tmp_path / "findings.csv")
        shared += f" --labels {table} --target one,two,three"
    source = f"{VIT} --data npz:{data}"
    assert extract([*source.split(), "--store", "float32"]) == 0
    assert probe(f"--kind adamw --pool head {shared}".split()) == 0
    found = run(f"{source} --mode head {shared}")
    assert [row["probe"]["training_seed"] for row in found] == [0, 1]
    for own, other in zip(found, read_rows("adamw"), strict=True):
        assert own["chosen"]["iteration"] == other["chosen"]["iteration"]
        for split in ("val_scores", "test_scores"):
            assert own["scores"][split].shape[1] == (2 if task == "two classes" else 3)
            assert_allclose(own["scores"][split], other["scores"][split], atol=1e-6)
        assert own["metrics"]["auc"] == other["metrics"]["auc"]


@pytest.mark.parametrize(
    ("iterations", "said"),
    [
        (4, None),
        (5, "4 iterations: 1 whole epoch of 4; one more would be 8"),
        (11, "8 iterations: 2"),
    ],
)
def test_whole_epochs_are_said_where_fewer_iterations_run(data, capsys, iterations, said):
    (row,) = run(f"{VIT} --mode head --batch-size 12 --iterations {iterations} --seeds 0", data)
    out = capsys.readouterr().out
    assert f"whole epochs up to {iterations} iterations" in out
    assert said in out if said else "whole epoch of" not in out
    assert row["chosen"]["iteration"] <= iterations


@pytest.mark.parametrize("mode", ["full", "lora", "bitfit", "partial --freeze-until 3"])
def test_every_mode_learns_what_the_classes_differ_in(data, runs, mode):
    (row,) = run(f"{VIT} {SHORT} --mode {mode} --epochs 12 --encoder-lr 1e-3", data)
    (trial,) = trials(runs)
    losses = [line["loss"] for line in read_log(trial / "log.jsonl")]
    assert losses[-1] < 0.9 * losses[0]
    trains = row["chosen"]["trains"]
    part = trains["adapters" if mode == "lora" else "encoder"]
    assert 0 < part["n_training"] <= part["n_all"]
    assert part["names"]
    assert ("adapters" in trains) == (mode == "lora")
    assert row["metrics"]["auc"]["value"] > 0.9


def test_micro_batches_change_nothing(data, runs):
    whole = run(f"{VIT} {SHORT}", data)[0]["scores"]["test_scores"]
    for path in runs.rglob("*.pt"):
        path.unlink()
    cut = run(f"{VIT} {SHORT} --micro-batch 5", data)[0]["scores"]["test_scores"]
    assert_allclose(cut, whole, atol=2e-5)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """``uninterrupted(words)``: the data and, made once, the row, weights and log of a whole run."""
    root, known = tmp_path_factory.mktemp("whole"), {}
    data = write_images(root / "toy.npz")

    def whole(words):
        if words not in known:
            place = root / str(len(known))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MEDPROBE_RUNS", str(place / "runs"))
                patch.setenv("MEDPROBE_RESULTS", str(place / "results"))
                known[words] = (data, run(words, data)[0], *what_is_left(place / "runs"))
        return known[words]

    return whole


def what_is_left(runs):
    """The best weights of a training, and its log without the times."""
    (trial,) = trials(runs)
    log = [
        {n: v for n, v in line.items() if "second" not in n and "_s" not in n}
        for line in read_log(trial / "log.jsonl")
    ]
    return load_file(next(trial.glob("best-*"))), log


@pytest.mark.parametrize(
    "words",
    [
        "--mode full --augment flip",
        "--mode lora --lora-dropout 0.3 --schedule plateau --patience 2",
        "--mode full --optimiser sgd --schedule cosine --warmup 4 --drop-path 0.2",
    ],
)
@pytest.mark.parametrize("stop_at", [1, 6, 9])
def test_a_killed_run_goes_on_identically(runs, uninterrupted, monkeypatch, words, stop_at):
    """Bit for bit: weights, moments, random state, rates and the place in the epoch."""
    words = f"{VIT} {SHORT} {words}"
    data, whole, wanted, log = uninterrupted(words)
    monkeypatch.setattr(training.Training, "_is_due", lambda self: True)
    advance = training.Training._advance

    def advance_and_die(self, batches):
        if self.place.iteration == stop_at:
            raise Killed
        advance(self, batches)

    monkeypatch.setattr(training.Training, "_advance", advance_and_die)
    with pytest.raises(Killed):
        run(words, data)
    monkeypatch.setattr(training.Training, "_advance", advance)
    again = run(words, data)[0]
    found, found_log = what_is_left(runs)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    assert np.array_equal(again["scores"]["test_scores"], whole["scores"]["test_scores"])
    assert found_log == log


def test_the_same_question_again_trains_nothing(data, monkeypatch):
    first = run(f"{VIT} {SHORT}", data)
    monkeypatch.setattr(training.Training, "_advance", None)
    again = run(f"{VIT} {SHORT}", data)
    assert [row["id"] for row in again] == [row["id"] for row in first]
    assert again[0]["metrics"] == first[0]["metrics"]


def test_of_several_rates_val_decides_and_test_is_read_for_one(data, runs):
    (row,) = run(f"{VIT} {SHORT} --epochs 8 --encoder-lr 1e-3,1e-9 --choose-by loss", data)
    assert row["chosen"]["encoder_lr"] == 1e-3
    tried = {one["encoder_lr"]: one["value"] for one in row["chosen"]["tried"]}
    assert tried[1e-3] > tried[1e-9]
    lines = [line for trial in trials(runs) for line in read_log(trial / "log.jsonl")]
    assert {line["encoder_lr"] for line in lines} == {1e-3, 1e-9}
    assert not any("test" in name for line in lines for name in line)


def test_a_rate_that_diverges_is_out_of_the_race(data, capsys):
    words = f"{VIT} {SHORT} --optimiser sgd --batchnorm eval"
    (row,) = run(f"{words} --encoder-lr 1e-3,1e30", data)
    assert row["chosen"]["encoder_lr"] == 1e-3
    assert [one["value"] is None for one in row["chosen"]["tried"]] == [False, True]
    assert main([*f"{words} --encoder-lr 1e30 --data npz:{data}".split()]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "training diverged" in last
    assert "try --encoder-lr 1e+29" in last


def test_the_last_good_checkpoint_is_named_when_the_loss_is_nan(data, capsys, monkeypatch):
    step = training.Training._step

    def spoil(self, *arguments):
        step(self, *arguments)
        if self.place.iteration == 6:
            next(self.classifier.head.parameters()).data.fill_(math.nan)

    monkeypatch.setattr(training.Training, "_step", spoil)
    monkeypatch.setattr(training, "LOG_SECONDS", 0)
    assert main([*f"{VIT} {SHORT} --data npz:{data}".split()]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "last good checkpoint is" in last
    assert "last.pt, after 4 iterations" in last


class Small(training.Classifier):
    """A network on a device that takes four images at once."""

    def forward(self, images, sample=None):
        if self.training and len(images) > 4:
            raise torch.OutOfMemoryError("too small")
        return super().forward(images, sample)


def make_small(monkeypatch):
    build = sys.modules["finetune.trials"].build_classifier

    def built(*arguments):
        classifier, digest = build(*arguments)
        classifier.__class__ = Small
        return classifier, digest

    monkeypatch.setattr("finetune.trials.build_classifier", built)


def test_too_little_memory_halves_what_goes_through_at_once(data, tmp_path, monkeypatch, capsys):
    wanted = run(f"{VIT} {SHORT} --micro-batch 3", data)[0]
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "again"))
    make_small(monkeypatch)
    found = run(f"{VIT} {SHORT}", data)[0]
    assert found["chosen"]["halved_micro_batches"] == [12, 6]
    assert "too small for 12 images at once: 6 at once from now on" in capsys.readouterr().out
    assert_allclose(found["scores"]["test_scores"], wanted["scores"]["test_scores"], atol=1e-5)
    assert found["id"] == wanted["id"]


def test_too_little_memory_in_the_last_pass_changes_nothing(data, monkeypatch):
    """A trial that ended on a larger device is tested on this one."""
    wanted = run(f"{VIT} {SHORT}", data)[0]
    make_small(monkeypatch)
    forward = training.Classifier.forward
    monkeypatch.setattr(Small, "forward", _refusing(forward))
    found = run(f"{VIT} {SHORT}", data)[0]
    assert_allclose(found["scores"]["test_scores"], wanted["scores"]["test_scores"], atol=1e-6)


def _refusing(forward):
    def small(self, images, sample=None):
        if len(images) > 4:
            raise torch.OutOfMemoryError("too small")
        return forward(self, images, sample)

    return small


def test_batchnorm_that_trains_refuses_halves(data, monkeypatch, capsys):
    assert main([*f"{CNN} {SHORT} --micro-batch 4 --data npz:{data}".split()]) == 1
    assert "would change the numbers" in capsys.readouterr().err
    make_small(monkeypatch)
    assert main([*f"{CNN} {SHORT} --data npz:{data}".split()]) == 1
    assert "BatchNorm's statistics" in capsys.readouterr().err.splitlines()[-1]
    run(f"{CNN} {SHORT} --batchnorm eval", data)


def test_the_published_batchnorm_of_a_frozen_encoder_is_repeated_by_name(data, runs):
    """Wu & Papiez 2025 call train() on the frozen encoder: its statistics move, its weights don't."""
    words = f"{CNN} --mode head {SHORT}"
    right = run(words, data)[0]
    (trial,) = trials(runs)
    before = load_file(next(trial.glob("best-*")))
    wrong = next(r for r in run(f"{words} --batchnorm train", data) if r["id"] != right["id"])
    (trial,) = [t for t in trials(runs) if t != trial]
    after = load_file(next(trial.glob("best-*")))
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    assert all(not torch.equal(before[name], after[name]) for name in means)
    assert any("BatchNorm of the frozen encoder" in mark for mark in wrong["marks"])
    assert not np.array_equal(right["scores"]["test_scores"], wrong["scores"]["test_scores"])


@pytest.mark.parametrize(
    "words",
    [
        f"{VIT} --mode lora --encoder-lr 1e-2",
        # Statistics that moved in a frozen encoder are kept, too.
        f"{CNN} --mode head --batchnorm train",
    ],
)
def test_the_tuned_encoder_goes_back_into_extract(data, runs, words):
    row = run(f"{words} {SHORT}", data)[0]
    (trial,) = trials(runs)
    source = words.partition(" --weights")[0]
    source += f" --size 32 --weights {trial / 'encoder.safetensors'} --store float32"
    assert extract([*source.split(), "--data", f"npz:{data}"]) == 0
    (path,) = Path(os.environ["MEDPROBE_FEATURES"]).glob("toy/*.h5")
    features, head = open_features(path), load_file(trial / "head.safetensors")
    logits = features.array(-1, "head") @ head["weight"].numpy().T + head["bias"].numpy()
    ones = 1 / (1 + np.exp(-logits[features.split == "test", 0]))
    assert_allclose(ones, row["scores"]["test_scores"][:, 1], atol=1e-5)


def test_a_probes_head_is_where_training_begins(data):
    source = f"{VIT} --data npz:{data}"
    assert extract([*source.split(), "--store", "float32"]) == 0
    assert probe("--kind linear --pool head --choose val".split()) == 0
    (wanted,) = read_rows("linear")
    words = f"{source} --mode head --lr 1e-12 --epochs 1 --seeds 0 --batch-size 12 --init-head-from"
    (found,) = run(f"{words} {wanted['path']}")
    assert found["chosen"]["head"]["row"] == wanted["id"]
    assert_allclose(found["scores"]["test_scores"], wanted["scores"]["test_scores"], atol=1e-5)


def test_the_episodes_are_a_probes(data):
    source = f"{VIT} --data npz:{data}"
    assert extract(source.split()) == 0
    assert probe("--kind linear --pool head --shots 2,4 --episodes 3".split()) == 0
    row = next(r for r in read_rows("linear") if r["probe"]["few_shot"]["shots"] == 4)
    words = f"{source} --encoder-lr 1e-3 --epochs 5 --seeds 0 --shots 4 --episodes-like"
    (found,) = run(f"{words} {row['path'].stem}")
    assert found["probe"]["few_shot"]["digest"] == row["probe"]["few_shot"]["digest"]
    assert len(found["episodes"]["auc"]) == 3
    assert found["scores"]["test_scores"].shape == (3, 16, 2)
    assert found["val_metrics"] == {}
    assert main([*f"{words} {row['path'].stem} --shots 2".split()]) == 1


def test_continuous_labels(tmp_path, data):
    with np.load(data) as file:
        level = {s: file[f"{s}_images"].mean(axis=(1, 2)) for s in ("train", "val", "test")}
    lines = [f"{s}/{i:06d},{v:.3f}\n" for s, of in level.items() for i, v in enumerate(of)]
    table = tmp_path / "ages.csv"
    table.write_text("id,age\n" + "".join(lines))
    words = f"{VIT} --seeds 0 --batch-size 12 --epochs 20 --encoder-lr 1e-3 --choose-by loss"
    (row,) = run(f"{words} --labels {table} --target age --task regression", data)
    assert row["metrics"]["r2"]["value"] > 0.5


def _written(runs):
    """When each checkpoint below was written."""
    return {path: path.stat().st_mtime_ns for path in runs.glob("*/*/*/last.pt")}


@pytest.mark.posix
@pytest.mark.slow
def test_kill_at_any_moment(tmp_path, data):
    """SIGKILL again and again: the checkpoint always loads, and the end is that of a whole run."""
    words = [*f"{VIT} --seeds 0 --batch-size 4 --epochs 12 --checks 12 --data npz:{data}".split()]
    wanted = run(" ".join(words))[0]["scores"]["test_scores"]
    environment = os.environ | {"MEDPROBE_RUNS": str(tmp_path / "again")}
    environment["MEDPROBE_RESULTS"] = str(tmp_path / "again-results")
    rng, n_killed = np.random.default_rng(0), 0
    for _ in range(6):
        before = _written(tmp_path / "again")
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune", *words], env=environment, stderr=subprocess.PIPE
        )
        # Soon after a checkpoint was written, at a moment of no meaning.
        while process.poll() is None and _written(tmp_path / "again") in (before, {}):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            n_killed += 1
        process.communicate()
    assert n_killed >= 1
    result = subprocess.run(
        [sys.executable, "-m", "finetune", *words], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "again-results").glob("*/*.npz")
    with np.load(path) as scores:
        assert np.array_equal(scores["test_scores"], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--batch-size 11", "--mode lora --batch-size 9"])
def test_two_processes_train_the_same_model(tmp_path, data, runs, words):
    words = f"{VIT} {words} --seeds 0 --epochs 3 --checks 3 --encoder-lr 1e-4 --data npz:{data}"
    wanted = run(words)[0]
    two = tmp_path / "two"
    assert torchrun(words, two).count("1 row with scores") == 1
    (path,) = (two / "results").glob("*/*.json")
    found = json.loads(path.read_text())
    assert found["id"] == wanted["id"]
    with np.load(scores_file(path)) as scores:
        assert_allclose(scores["test_scores"], wanted["scores"]["test_scores"], atol=2e-5)
        assert list(scores["test_ids"]) == list(wanted["scores"]["test_ids"])
    # The logged loss is that of the whole batch.
    losses = [
        [line["loss"] for line in read_log(trials(root)[0] / "log.jsonl")]
        for root in (runs, two / "runs")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_log_lines_tell_rates_loss_and_val(data, runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    started = time.time()
    run(f"{VIT} {SHORT} --tensorboard", data)
    (trial,) = trials(runs)
    lines = read_log(trial / "log.jsonl")
    assert [line["iteration"] for line in lines] == [4, 8, 12]
    for line in lines:
        assert line["head_lr"] == 1e-3
        assert line["encoder_lr"] == 1e-5
        assert 0 < line["seconds"] < time.time() - started
        assert 0 <= line["val"]["acc"] <= 1
        assert line["val"]["loss"] > 0
    events = EventAccumulator(str(trial)).Reload()  # beside the log
    assert {"loss", "encoder_lr", "head_lr", "val/acc"} <= {*events.Tags()["scalars"]}
    assert [event.step for event in events.Scalars("loss")] == [4, 8, 12]
