"""What a user can get wrong: one line with a cure, before the training and not after it."""

import io
import json
import re
import sys

import pytest
import torch
from finetuning import CNN, VIT, read_rows, run, trials, write_images
from safetensors.torch import save_file

from cache.errors import RequestError
from extract.cli import main as extract
from extract.machine.progress import Progress
from finetune import ranks
from finetune.cli import main
from finetune.training import training
from finetune.training.checkpoints import Checkpoints
from probe.cli import main as probe

SHORT = "--seeds 0 --batch-size 12 --epochs 2 --checks 2"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "toy.npz")


def refused(words, capsys, status=1):
    """The last line of a refused command."""
    capsys.readouterr()
    try:
        found = main(words if isinstance(words, list) else words.split())
    except SystemExit as error:
        found = error.code
    last = capsys.readouterr().err.splitlines()[-1]
    assert found == status, last
    return last


@pytest.fixture
def untrained(monkeypatch):
    """No training may begin."""

    def fail(self):
        raise AssertionError("it trains")

    monkeypatch.setattr(training.Training, "run", fail)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--mode head --layer-decay 0.5", "--layer-decay: --mode head trains nothing"),
        ("--mode head --drop-path 0.1", "--drop-path: a frozen encoder drops nothing"),
        ("--head-weights random", "--head-weights is of --head deit"),
        ("--micro-batch 0", "--micro-batch takes 1 and more, not 0"),
        ("--checks 0", "--checks takes 1 and more, not 0"),
        ("--seeds 4294967296", "different numbers from 0 to 4294967295"),
        ("--resamples 0", "--resamples takes 1 and more"),
        ("--seed -1", "--seed takes 0 and more"),
        ("--weights-seed -1", "--weights-seed takes 0 to 4294967295"),
        ("--mode lora --lora-targets ,", "--lora-targets takes one or more"),
        ("--episodes-like x --shots 0", "--shots takes 1 and more"),
    ],
)
def test_a_flag_that_is_wrong_or_would_do_nothing(words, line, capsys):
    source = VIT if "--weights-seed" in words else f"{VIT} {SHORT}"
    assert line in refused(f"{source} --data npz:x.npz {words}", capsys, 2)


def test_the_rate_of_a_head_that_follows_the_encoders_is_a_flag(data):
    """huix2024's head has the rates that --encoder-lr names, frozen encoder or not."""
    words = f"{VIT} {SHORT} --protocol huix2024 --mode head --augment none --warmup 2"
    (row,) = run(f"{words} --encoder-lr 1e-3", data)
    assert row["chosen"]["head_lr"] == 1e-3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--episodes-like nothing", "--episodes-like: no result 'nothing'"),
        ("--init-head-from x --head deit", "--init-head-from is a linear head"),
        ("--episodes-like x --choose-by auc", "an episode chooses nothing on val"),
        ("--episodes-like x --patience 2", "--patience watches val"),
        ("--episodes-like x --encoder-lr 1e-3,1e-4", "nothing to choose one of 2 learning rates"),
    ],
)
def test_what_cannot_be_answered_is_not_trained(words, line, data, untrained, capsys):
    assert line in refused(f"{VIT} {SHORT} --data npz:{data} {words}", capsys)


def test_a_val_that_cannot_decide_is_told_before_the_training(tmp_path, untrained, capsys):
    data = write_images(tmp_path / "toy.npz", counts=(48, 1, 16))
    line = refused(f"{VIT} {SHORT} --data npz:{data} --choose-by auc", capsys)
    assert "--choose-by auc: val has none" in line
    assert "--choose-by loss" in line


def test_names_of_files_and_rows_go_by_their_own_flags(tmp_path, data, untrained, capsys):
    words = f"{VIT} {SHORT} --data npz:{data}"
    # An unset variable is no wish for all of train.
    assert "--episodes-like: no result ''" in refused(
        [*words.split(), "--episodes-like", ""], capsys
    )
    words += f" --head deit --head-weights {tmp_path / 'none'}"
    assert "; --head-weights takes pretrained, random, FILE" in refused(words, capsys)


def test_more_episodes_than_a_row_has(data, capsys):
    assert extract([*f"{VIT} --data npz:{data}".split()]) == 0
    assert probe("--kind linear --shots 2 --episodes 3".split()) == 0
    (row,) = read_rows("linear")
    words = f"{VIT} {SHORT} --data npz:{data} --episodes-like {row['path']} --episodes 4"
    assert "--episodes 4: " in (line := refused(words, capsys))
    assert "has 3; leave the flag out" in line


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {"weight": torch.zeros(1, 7), "bias": torch.zeros(1)},
            "its head is of 7 features, and this one sees 64",
        ),
        # A file that is no head is not listed whole.
        ({f"blocks.{i}": torch.zeros(1) for i in range(50)}, "and 47 more"),
    ],
)
def test_heads_that_do_not_fit(tmp_path, data, untrained, capsys, tensors, said):
    path = tmp_path / "head.safetensors"
    save_file(tensors, path)
    words = f"{VIT} {SHORT} --data npz:{data} --init-head-from {path}"
    assert said in refused(words, capsys)


def test_batchnorm_has_no_statistics_of_one_image(data, capsys):
    words = f"{CNN} --seeds 0 --epochs 1 --batch-size 1 --data npz:{data}"
    line = refused(words, capsys)
    assert "the statistics of 1 image at once; take a larger --batch-size" in line
    assert main(f"{words} --batchnorm eval".split()) == 0


def test_a_full_disk_is_told_before_the_training(data, monkeypatch, capsys):
    assert main(f"{VIT} {SHORT} --data npz:{data} --mode head".split()) == 0  # unpacked
    monkeypatch.setattr(training.Training, "_run_on", lambda *_: pytest.fail("it trains"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("finetune.training.checkpoints.shutil.disk_usage", lambda path: usage)
    assert "--runs DIR" in refused(f"{VIT} {SHORT} --data npz:{data}", capsys)


def test_the_checkpoint_of_a_finished_training_has_no_moments(data, runs):
    """Of 5 seeds and 4 rates, 19 trainings wait on the disk while the last one runs."""
    run(f"{VIT} {SHORT}", data)
    (trial,) = trials(runs)
    content = torch.load(trial / "last.pt", weights_only=True)
    assert content["model"]
    assert "optimiser" not in content
    question = json.loads(content["question"])
    assert Checkpoints(trial, question).load()[0].done


def test_a_frozen_encoder_without_batchnorm_did_not_change(data):
    (row,) = run(f"{VIT} {SHORT} --mode head --batchnorm train", data)
    assert not any("BatchNorm" in mark for mark in row["marks"])
    rows = run(f"{CNN} {SHORT} --mode head --batchnorm train", data)
    marks = [mark for other in rows for mark in other["marks"]]
    assert any("BatchNorm of the frozen encoder trained" in mark for mark in marks)


def test_an_interrupted_run_says_how_to_go_on(data, monkeypatch, capsys):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "run", interrupt)
    words = f"{VIT} {SHORT} --data npz:{data}"
    assert "goes on from the last checkpoint" in refused(words, capsys, 130)
    assert "without --overwrite it goes on" in refused(f"{words} --overwrite", capsys, 130)


def test_a_rank_says_in_one_line_that_another_one_is_gone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("init_process_group", "destroy_process_group", "get_rank", "get_world_size"):
        monkeypatch.setattr(ranks.dist, name, lambda *_, **__: 1)
    cpu = torch.device("cpu")
    with pytest.raises(RequestError, match="rank 1 stops, .* goes on from the last checkpoint"):
        with ranks.join_ranks(cpu):
            raise RuntimeError("[gloo/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1")
    with pytest.raises(RuntimeError, match="a bug"), ranks.join_ranks(cpu):
        raise RuntimeError("a bug")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_count_and_time_beside_a_long_note(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    note = "lr 0.00081/0.001 · loss 0.0012 · val acc 0.912 (best 0.934 at 12_000) · 356 images/s"
    with Progress("dinov2 on breastmnist, full, lr 0.001/1e-05, seed 0", 15_000, "steps") as shown:
        shown.reach(4470, note=note)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())  # without colours
    assert note in text
    assert re.search(r"4470/15000 +[-\d]:[-\d]{2}:[-\d]{2}", text)
