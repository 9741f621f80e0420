"""What makes one training, one row and one question, and what doesn't; choices made on val alone."""

import csv
import dataclasses
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from finetuning import CNN, VIT, read_log, read_rows, run, torchrun, trials, write_images
from looking import some
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from reading import printed
from safetensors.torch import load_file, save_file

from cache import open_features
from extract.cli import main as extract
from extract.encoders.encoder import Weights, describe, load_encoder, load_network
from extract.machine.devices import set_precision
from finetune import trials as running
from finetune.cli import main
from finetune.config import FinetuneConfig, ModelConfig
from finetune.model import heads
from finetune.model.classifier import build_classifier
from finetune.ranks import Ranks
from finetune.setting import Trial
from finetune.training import training
from finetune.training.checkpoints import Checkpoints, Position
from finetune.training.predict import predict
from finetune.training.rates import Length
from probe.cli import main as probe

SHORT = "--seeds 0 --batch-size 12 --epochs 2 --checks 2"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "toy.npz")


def last_error(capsys):
    return capsys.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------------------- one training


def test_a_frozen_encoders_head_is_searched_where_its_rate_is_the_encoders(data, runs):
    """Huix et al. 2024 search one rate for all, also of a frozen foundation."""
    words = f"{VIT} --protocol huix2024 --mode head --augment none {SHORT} --warmup 2"
    (row,) = run(f"{words} --choose-by loss --encoder-lr 1e-7,1e-1", data)
    assert row["chosen"]["head_lr"] == 1e-1
    assert "encoder_lr" not in row["chosen"]
    assert row["probe"]["encoder_lr"] == [1e-7, 1e-1]
    assert {path.name for path in trials(runs)} == {"lr1e-07_seed0", "lr0.1_seed0"}
    logged = {line["head_lr"] for trial in trials(runs) for line in read_log(trial / "log.jsonl")}
    assert logged == {1e-7, 1e-1}
    # One rate alone is another question, and another training than those two.
    other = next(r for r in run(f"{words} --encoder-lr 1e-2", data) if r["id"] != row["id"])
    assert other["chosen"]["head_lr"] == 1e-2
    assert len(trials(runs)) == 3


# ---------------------------------------------------------------------------- what it takes


@pytest.mark.parametrize(
    "words", [VIT, f"{VIT} --mode lora", f"{VIT} --mode head", f"{VIT} --cut-after 2", CNN]
)
def test_a_row_says_what_its_training_took(data, words):
    (row,) = run(f"{words} {SHORT} --epochs 1", data)
    cost, chosen = row["cost"], row["chosen"]
    parts = chosen["trains"].values()
    assert cost["parameters"] == sum(part["n_all"] for part in parts)
    assert cost["trained_parameters"] == sum(part["n_training"] for part in parts)
    assert cost["training_seconds"] == chosen["seconds"] > 0
    assert cost["inference_seconds_per_image"] == pytest.approx(
        chosen["seconds_per_test_image"], abs=1e-6
    )
    assert (cost["device"][:5], cost["precision"]) == ("cpu (", "fp32")
    # Whoever hasn't measured it says nothing.
    assert (cost["images_per_second"], cost["bytes_per_image"]) == (None, None)


@pytest.mark.parametrize("words", [VIT, CNN])
def test_extract_and_finetune_count_the_same_encoder(data, words, tmp_path):
    (row,) = run(f"{words} {SHORT} --epochs 1", data)
    assert extract(f"{words} --data npz:{data} --features {tmp_path / 'f'}".split()) == 0
    (path,) = (tmp_path / "f").glob("*/*.h5")
    assert open_features(path).cost["parameters"] == row["chosen"]["trains"]["encoder"]["n_all"]


def test_a_refit_takes_its_own_time_too(data):
    words = f"{VIT} {SHORT} --epochs 1"
    (plain,) = run(words, data)
    other = next(r for r in run(f"{words} --refit train+val", data) if r["id"] != plain["id"])
    assert other["cost"]["training_seconds"] > other["chosen"]["seconds"]


# ---------------------------------------------------------------------------- train and val


def test_a_new_head_learns_from_train_and_val_on_the_encoder_that_val_chose(
    data, runs, monkeypatch
):
    """Baharoon et al. 2023, linear.py:535-601; val is what it was, test is another head's."""
    words = f"{VIT} {SHORT}"
    (plain,) = run(words, data)
    (first,) = trials(runs)
    begun = []
    advance = training.Training._advance
    monkeypatch.setattr(
        training.Training, "_advance", lambda self, b: begun.append(self) or advance(self, b)
    )
    row = next(r for r in run(f"{words} --refit train+val", data) if r["id"] != plain["id"])
    (learner,) = dict.fromkeys(begun)  # the first training was there, and counts
    assert len(learner.learned.train) == 48 + 16
    assert trials(runs) == [first, first.with_name(f"{first.name}_refit")]
    assert row["probe"]["refit"] == "train+val"
    assert "refit" not in plain["probe"]
    assert_array_equal(row["scores"]["val_scores"], plain["scores"]["val_scores"])
    assert not np.array_equal(row["scores"]["test_scores"], plain["scores"]["test_scores"])
    assert any("trained on train and val" in mark for mark in row["marks"])
    assert row["chosen"]["refit_iterations"] == 2 * (64 // 12)
    again = learner.files.folder
    encoders = [load_file(folder / "encoder.safetensors") for folder in (first, again)]
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in some(encoders[0]))
    heads = [load_file(folder / "head.safetensors") for folder in (first, again)]
    assert not torch.equal(heads[0]["weight"], heads[1]["weight"])
    # Interrupted or asked once more, it is the same row.
    monkeypatch.setattr(training.Training, "_advance", None)
    run(f"{words} --refit train+val", data)
    assert len(read_rows()) == 2


def test_a_refit_is_a_training_on_the_two_splits_as_one(tmp_path, runs):
    """Of a frozen encoder: as if val's images stood behind train's, and the last weights counted."""
    data, joined = write_images(tmp_path / "toy.npz"), tmp_path / "joined.npz"
    content = dict(np.load(data))
    for part in ("images", "labels"):
        both = content[f"train_{part}"], content[f"val_{part}"]
        content[f"train_{part}"] = np.concatenate(both)
    np.savez(joined, **content)
    words = f"{VIT} --mode head --seeds 3 --batch-size 12 --epochs 3 --checks 1 --choose-by loss"
    (refit,) = run(f"{words} --refit train+val", data)
    (other,) = [r for r in run(words, joined) if r["features"]["dataset"] == "joined"]
    assert other["chosen"]["iteration"] == other["chosen"]["of"]  # its best weights are its last
    assert_allclose(refit["scores"]["test_scores"], other["scores"]["test_scores"], atol=1e-6)


@pytest.mark.parametrize("words", [f"{VIT} --mode lora --lora-dropout 0.1", CNN])
def test_every_kind_of_training_can_be_refitted(data, runs, words, capsys):
    (row,) = run(f"{words} --seeds 0 --batch-size 16 --epochs 1 --checks 1 --refit train+val", data)
    assert "  training   1 epoch of 16 · " in capsys.readouterr().out
    assert row["chosen"]["refit_iterations"] == 4
    assert row["metrics"]["acc"]["value"] is not None


def test_each_fold_is_a_training_of_its_own(data, runs):
    rows = run(f"{VIT} --mode head {SHORT} --epochs 1 --checks 1 --split kfold:3", data)
    assert sorted(row["split"]["name"] for row in rows) == ["fold 1/3", "fold 2/3", "fold 3/3"]
    assert len({path.parent for path in trials(runs)}) == 3
    for trial in some(trials(runs)):  # a frozen encoder has no rate in the log
        assert all("encoder_lr" not in line for line in some(read_log(trial / "log.jsonl")))


def test_how_memory_is_used_is_no_other_training(data, runs, monkeypatch):
    words = f"{VIT} {SHORT} --encoder-lr 1e-4 --drop-path 0.1"
    run(words, data)
    monkeypatch.setattr(training.Training, "_advance", None)
    run(f"{words} --micro-batch 3 --grad-checkpointing --device cpu", data)
    (trial,) = trials(runs)
    settings = json.loads((trial / "settings.json").read_text())
    assert (settings["encoder_lr"], settings["model"]["drop_path"]) == (1e-4, 0.1)


def write_table(folder, columns, n, cells):
    """Noisy images in a table; ``cells(i)`` says what stands beside the path, and the level."""
    rng = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *columns])
        for i in range(n):
            level, *about = cells(i)
            image = rng.integers(level, level + 60, (32, 32), np.uint8)
            Image.fromarray(image).save(folder / f"{i}.png")
            rows.writerow([f"{i}.png", *about])
    return f"csv:{folder / 'table.csv'}"


SPLITS = ("train", "train", "val", "test")


def test_another_task_of_the_same_labels_is_another_training(tmp_path, runs):
    table = write_table(tmp_path, ["label", "split"], 24, lambda i: (90, i % 3, SPLITS[i // 3 % 4]))
    words = f"{VIT} --seeds 0 --batch-size 6 --epochs 1 --data {table}"
    for task in ("multi-class", "ordinal"):
        run(f"{words} --task {task}")
    assert len(trials(runs)) == 2
    assert len(read_rows()) == 2


def test_a_deits_weights_are_told_by_what_they_are_not_by_where(tmp_path, data, runs, monkeypatch):
    monkeypatch.setattr(heads, "DEIT", "deit_tiny_patch16_224")
    network, *_ = load_network(describe(heads.DEIT, 224), Weights(None, seed=1))
    tensors = {name: t.clone() for name, t in network.module.state_dict().items()}
    paths = [tmp_path / f"{name}.safetensors" for name in ("a", "b", "c")]
    for path, shift in zip(paths, (0, 0, 0.1), strict=True):
        save_file({n: t + shift if n == "cls_token" else t for n, t in tensors.items()}, path)
    words = f"{VIT} --mode head --head deit {SHORT} --epochs 1 --head-weights"
    same = [run(f"{words} {path}", data)[0]["id"] for path in paths[:2]]
    assert same[0] == same[1]
    assert len(trials(runs)) == 1
    rows = run(f"{words} {paths[2]}", data)
    assert len({row["id"] for row in rows}) == len(trials(runs)) == 2
    assert all(str(tmp_path) not in row["probe"]["head_weights"] for row in some(rows))


def test_another_networks_weights_are_never_tested(data, runs, capsys):
    run(f"{VIT} {SHORT}", data)
    (trial,) = trials(runs)
    iteration = int(next(trial.glob("best-*")).stem.removeprefix("best-"))
    Checkpoints(trial, {}).save_best(iteration, {"weight": torch.zeros(2)})
    assert main([*f"{VIT} {SHORT} --data npz:{data}".split()]) == 1
    assert "holds weights of another network; train anew with --overwrite" in last_error(capsys)


class Killed(BaseException):
    pass


def test_what_is_overwritten_is_forgotten_before_the_first_training(data, runs, monkeypatch):
    """Killed then, the command without the flag goes on, and mixes nothing old with the new."""
    words = f"{VIT} {SHORT} --seeds 0,1"
    run(words, data)
    with monkeypatch.context() as patch:

        def kill(self, batches):
            raise Killed

        patch.setattr(training.Training, "_advance", kill)
        with pytest.raises(Killed):
            run(f"{words} --overwrite", data)
    assert trials(runs) == []
    assert not list(runs.rglob("*.safetensors"))
    assert not list(runs.rglob("*_refit"))  # nobody asked for one


def test_a_warm_up_that_never_ends_is_refused(data, capsys):
    """The protocol's 1000 iterations are more than a small set's 100 epochs."""
    words = f"{VIT} --data npz:{data} --protocol huix2024 --encoder-lr 1e-4 --seeds 0"
    assert main(words.split()) == 1
    said = last_error(capsys)
    assert "warm-up of 1_000 iterations doesn't end before the training of" in said or (
        "fill no batch" in said
    )
    assert main([*words.split(), "--batch-size", "12"]) == 1
    assert "warm-up of 1_000 iterations" in last_error(capsys)


# ---------------------------------------------------------------------------- one row


def test_of_several_rates_the_seeds_that_decide_are_in_the_question(data):
    """The rate of seed 0 is chosen by the mean over seeds: with other seeds it may be another."""
    words = f"{VIT} {SHORT}"
    one = run(f"{words} --encoder-lr 1e-3", data)[0]["id"]
    assert one in {row["id"] for row in run(f"{words} --encoder-lr 1e-3 --seeds 0,1", data)}
    alone = {row["id"] for row in run(f"{words} --encoder-lr 1e-3,1e-5", data)}
    both = {row["id"] for row in run(f"{words} --encoder-lr 1e-3,1e-5 --seeds 0,1", data)}
    assert len(both) == len(alone) + 2
    seeds = [row["probe"].get("seeds") for row in read_rows()]
    assert sorted(map(str, seeds)) == ["None", "None", "[0, 1]", "[0, 1]", "[0]"]


def test_seeds_are_summed_up_as_one_question(data, capsys):
    run(f"{VIT} {SHORT} --seeds 0,1 --encoder-lr 1e-3,1e-5", data)
    assert "mean of 2" in capsys.readouterr().out


def test_a_seed_that_ended_has_its_row_though_the_next_one_diverges(data, monkeypatch, capsys):
    step = training.Training._step

    def spoil(self, *arguments):
        step(self, *arguments)
        if self.seed == 1:
            self._loss.fill_(math.nan)

    monkeypatch.setattr(training.Training, "_step", spoil)
    assert main([*f"{VIT} {SHORT} --seeds 0,1,2 --data npz:{data}".split()]) == 1
    assert "training diverged" in last_error(capsys)
    assert [row["probe"]["training_seed"] for row in read_rows()] == [0]


def test_logits_that_overflow_on_val_put_a_rate_out_of_the_race(data):
    """One step a check: the loss before it is finite, and what it leaves isn't."""
    words = f"{VIT} --seeds 0 --batch-size 48 --epochs 2 --checks 2 --optimiser sgd"
    (row,) = run(f"{words} --encoder-lr 1e-3,1e30", data)
    assert row["chosen"]["encoder_lr"] == 1e-3
    assert [one["value"] is None for one in row["chosen"]["tried"]] == [False, True]


def test_a_checkpoint_of_weights_that_arent_finite_is_never_written(data, runs, monkeypatch):
    """Between two looks at the loss a save may be due."""
    step = training.Training._step

    def spoil(self, *arguments):
        step(self, *arguments)
        if self.place.iteration == 2:
            next(self.classifier.head.parameters()).data.fill_(math.nan)

    monkeypatch.setattr(training.Training, "_step", spoil)
    monkeypatch.setattr(training.Training, "_is_due", lambda self: True)
    monkeypatch.setattr(training, "LOG_SECONDS", 1e9)
    assert main([*f"{VIT} {SHORT} --data npz:{data}".split()]) == 1
    (trial,) = trials(runs)
    stored = torch.load(trial / "last.pt", weights_only=True)
    assert json.loads(stored["place"])["iteration"] == 2
    assert all(tensor.isfinite().all() for tensor in some(stored["model"].values()))


def test_the_logged_loss_survives_too_little_memory_on_val(data, runs, monkeypatch):
    score, failed = training.predict, []

    def fail_once(*arguments):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("too small")
        return score(*arguments)

    monkeypatch.setattr(training, "predict", fail_once)
    run(f"{VIT} {SHORT}", data)
    (trial,) = trials(runs)
    assert all(line["loss"] > 0.1 for line in some(read_log(trial / "log.jsonl")))


def test_a_trained_encoder_says_what_it_was_trained_on(data, runs, capsys):
    """Its file is called like every other's, and the rows of its features must not hide it."""
    run(f"{VIT} {SHORT} --mode lora --encoder-lr 1e-3", data)
    (trial,) = trials(runs)
    path = trial / "encoder.safetensors"
    assert f"for extract --weights: {path}" in capsys.readouterr().out
    words = f"--model test_vit --size 32 --weights {path} --data npz:{data}"
    assert extract(words.split()) == 0
    assert probe("--kind knn --k 1".split()) == 0
    (row,) = read_rows("knn")
    trained = "encoder.safetensors, fine-tuned on toy (lora, encoder lr 0.001, seed 0)"
    assert f"weights from {trained}" in row["marks"]
    digest = row["features"]["key"]["weights"].removeprefix("sha256:")
    label = f"test_vit (tuned on toy {digest[:4]})"
    assert row["features"]["label"] == label
    # Two of them, and what they were made of, have names of their own.
    other = write_images(data.with_name("other.npz"))
    run(f"{VIT} {SHORT}", other)
    (other_trial,) = set(trials(runs)) - {trial}
    assert extract(words.replace(str(trial), str(other_trial)).split()) == 0
    assert extract(f"--model test_vit --size 32 --weights random --data npz:{data}".split()) == 0
    asked = {
        (): {label, "test_vit (tuned on other"},
        ("--model", label): {label},
        ("--where", f"weights={digest[:6]}"): {label},
        ("--model", "test_vit (random)"): {"test_vit (random)"},
    }
    for words, named in asked.items():
        capsys.readouterr()
        assert probe(["--kind", "knn", "--k", "1", *words]) == 0
        shown = [line["model"] for line in printed(capsys.readouterr().out)]
        assert len(shown) == len(named)
        assert all(any(model.startswith(name) for model in shown) for name in named)


def test_the_choice_of_a_rate_is_told_with_all_that_were_tried(data, capsys):
    words = f"{VIT} {SHORT} --choose-by loss --encoder-lr 1e-7,1e-3 --split kfold:3"
    run(words, data)
    lines = capsys.readouterr().out.splitlines()
    assert "  trials     2 (1 seed x 2 rates)" in lines
    chosen = [line for line in lines if "is tested; best val loss" in line]
    assert len(chosen) == 3
    assert all(re.search(r"1e-07: \d\.\d{3}, 0\.001: \d\.\d{3}$", line) for line in some(chosen))
    ends = [line for line in lines if "encoder lr 0.001, seed 0, fold 2/3: best val loss" in line]
    assert len(ends) == 1


def test_the_table_tells_kinds_of_training_apart(data, capsys):
    run(f"{VIT} {SHORT} --freeze-until 4", data)
    assert [line["mode"] for line in printed(capsys.readouterr().out)] == ["partial from 4"]
    words = "--mode head --protocol huix2024 --augment none --encoder-lr 1e-2,1e-3 --warmup 1"
    run(f"{VIT} {SHORT} {words}", data)
    (line,) = printed(capsys.readouterr().out)
    assert (line["mode"], float(line["head lr"]) in (1e-2, 1e-3)) == ("head", True)


# ---------------------------------------------------------------------------- few-shot


@pytest.fixture
def episodes(data):
    """Words that train on the episodes of a probe's row, all but the row."""
    source = f"{VIT} --data npz:{data}"
    assert extract(source.split()) == 0
    for kind in ("linear", "knn --k 1"):
        words = f"--kind {kind} --pool head --shots 4 --episodes 3"
        assert probe(words.split()) == 0
    words = f"{source} --encoder-lr 1e-3 --epochs 2 --seeds 0 --episodes-like"
    return SimpleNamespace(
        words=words, linear=read_rows("linear")[0]["id"], knn=read_rows("knn")[0]["id"]
    )


def test_two_rows_of_the_same_episodes_are_one_training(episodes, runs, monkeypatch):
    (first,) = run(f"{episodes.words} {episodes.linear}")
    assert len(trials(runs)) == 3
    monkeypatch.setattr(training.Training, "_advance", None)
    # A neighbour vote has no probabilities to correct to train's class shares: another row.
    rows = run(f"{episodes.words} {episodes.knn}")
    assert len(trials(runs)) == 3
    assert first["id"] in {row["id"] for row in rows}


def test_fewer_episodes_are_said_and_counted(episodes):
    (row,) = run(f"{episodes.words} {episodes.linear} --episodes 2")
    assert len(row["episodes"]["auc"]) == 2
    assert any("the 2 episodes of row" in mark for mark in row["marks"])
    assert row["n"]["train"] == 8


def test_leaks_of_episodes_are_those_of_the_probe(tmp_path, capsys):
    """An episode reads no val: a copy between val and test is no leak of either row."""
    data = write_images(tmp_path / "toy.npz")
    with np.load(data) as file:
        arrays = dict(file)
    arrays["test_images"][0] = arrays["val_images"][0]
    arrays["test_images"][1] = arrays["train_images"][0]
    np.savez(data, **arrays)
    source = f"{VIT} --data npz:{data}"
    assert extract(source.split()) == 0
    assert probe("--kind linear --pool head --shots 4 --episodes 2".split()) == 0
    (asked,) = read_rows("linear")
    capsys.readouterr()
    (row,) = run(f"{source} --epochs 1 --seeds 0 --episodes-like {asked['id']}")
    assert "nan" not in "".join(capsys.readouterr())  # there is no val to tell of
    assert asked["leaks"]["exact"] == 1
    assert row["leaks"] == asked["leaks"]
    assert row["without_twins"]["n"] == asked["without_twins"]["n"]


def test_episodes_of_continuous_labels(tmp_path, data):
    with np.load(data) as file:
        level = {s: file[f"{s}_images"].mean(axis=(1, 2)) for s in ("train", "val", "test")}
    lines = [f"{s}/{i:06d},{v:.3f}\n" for s, of in level.items() for i, v in enumerate(of)]
    table = tmp_path / "ages.csv"
    table.write_text("id,age\n" + "".join(lines))
    labels = f"--labels {table} --target age --task regression"
    source = f"{VIT} --data npz:{data}"
    assert extract(source.split()) == 0
    assert probe(f"--kind ridge --pool head --shots 8 --episodes 2 {labels}".split()) == 0
    words = f"{source} --encoder-lr 1e-3 --epochs 2 --seeds 0 {labels}"
    (row,) = run(f"{words} --episodes-like {read_rows('ridge')[0]['id']}")
    assert len(row["episodes"]["mae"]) == 2
    assert row["scores"]["test_scores"].shape == (2, 16, 1)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--schedule plateau", "--schedule plateau watches val, and an episode has none"),
        ("--patience 3", "--patience watches val, and an episode has none"),
        ("--encoder-lr 1e-3,1e-4", "nothing to choose one of 2 learning rates on"),
        ("--init-head-from ROW", "that head learnt from more labels than an episode has"),
    ],
)
def test_what_needs_val_or_more_labels_is_refused(episodes, capsys, flag, message):
    words = f"{episodes.words} {episodes.linear} {flag.replace('ROW', episodes.linear)}"
    assert main(words.split()) == 1
    assert message in last_error(capsys)


# ---------------------------------------------------------------------------- how it is scored


def test_sigmoids_of_several_classes_are_no_probabilities(tmp_path):
    """Baharoon et al. 2023 as published: no figures of calibration, as of the probe's heads."""
    data = write_images(tmp_path / "three.npz", classes=3)
    words = f"{VIT} --protocol baharoon2023 --as-published --encoder-lr 1e-3 --augment none"
    (row,) = run(f"{words} --batch-size 12 --epochs 1 --seeds 0", data)
    assert row["score_type"] == "unnormalised"
    assert not row["metrics"].keys() & {"ece", "brier", "nll"}
    assert not np.allclose(row["scores"]["test_scores"].sum(axis=1), 1, atol=1e-3)


def test_val_and_test_are_scored_in_float32():
    """--precision tf32 is a switch of the process; val and test don't have it."""
    seen = []

    class Classifier(torch.nn.Linear):
        def forward(self, images, sample=None):
            seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return super().forward(images)

    loader = SimpleNamespace(
        batches=lambda draws: (
            SimpleNamespace(images=torch.zeros(len(d.samples), 2), sample=None) for d in draws
        )
    )
    set_precision("tf32", torch.device("cuda"))
    found = predict(Classifier(2, 3), loader, np.arange(5), 2, Ranks())
    assert found.logits.shape == (5, 3)
    assert set(seen) == {(False, False)}
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    set_precision("fp32", torch.device("cpu"))


def test_layers_before_the_final_norm_are_what_the_head_sees():
    """Where a protocol takes them so: Baharoon et al. 2023's wrappers of transformers' models."""
    raw = dataclasses.replace(describe("test_vit", 64), layer_norm="none")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weights = Weights(None, seed=3)
    wanted = load_encoder(raw, weights)[0](images)[f"layers/{raw.anatomy.n_layers - 1:02d}/cls"]
    config = ModelConfig(mode="head", pool="cls")
    classifier, _ = build_classifier(raw, weights, config, 2, 0, lambda line: None)
    with torch.no_grad():
        found = classifier.eval().reader(images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-5)


# ---------------------------------------------------------------------------- several processes


@pytest.mark.parametrize("shares", [(math.nan, 0.1), (0.1, math.nan)])
def test_ranks_stop_together_after_steps_that_they_agree_on(tmp_path, shares):
    """One that stopped alone, when its clock says so, would leave the others waiting for ever."""
    own = training.Training.__new__(training.Training)
    own.place = Position(iteration=training.SYNC_STEPS - 1, n_losses=1)
    own.length, own._n_drops = Length(1, 100, 100), 0
    own.encoder_lr, own.head_lr, own.seed = 1.0, 1.0, 0
    own.config, own._looked, own._loss = FinetuneConfig(), 0.0, torch.tensor(shares[0])
    own.ranks = SimpleNamespace(size=2, is_first=True, gather=lambda mine: [mine, shares[1]])
    own.files = Checkpoints(tmp_path, {})
    own._progress = SimpleNamespace(reach=lambda n, note: None)
    own._look()
    own.place.iteration += 1
    with pytest.raises(training.Diverged):
        own._look()


@pytest.mark.slow
def test_two_processes_leave_a_rate_that_diverges_together(tmp_path, data):
    words = f"{VIT} --seeds 0 --epochs 30 --checks 3 --batch-size 11 --optimiser sgd"
    words += f" --encoder-lr 1e-3,1e30 --data npz:{data}"
    torchrun(words, tmp_path)
    (path,) = (tmp_path / "results").glob("*/*.json")
    tried = json.loads(path.read_text())["chosen"]["tried"]
    assert [one["value"] is None for one in tried] == [False, True]


def test_the_choice_is_the_mean_over_seeds_and_the_smaller_of_two():
    def tried(*values):
        return [
            running.Tried(Trial(rate, seed), None, None, value)
            for rate, of_rate in zip((1e-3, 1e-4), values, strict=True)
            for seed, value in enumerate(of_rate)
        ]

    assert running.choose_rate(tried((0.9, 0.5), (0.6, 0.7))) == 1e-3
    assert running.choose_rate(tried((0.9, 0.3), (0.6, 0.7))) == 1e-4
    assert running.choose_rate(tried((0.5, 0.5), (0.5, 0.5))) == 1e-4
    assert running.choose_rate(tried((0.9, -math.inf), (0.1, 0.1))) == 1e-4


def test_patients_are_measured_as_another_row_of_the_same_training(tmp_path, runs):
    """What is measured changes no weight."""

    def cells(i):
        return 60 + 100 * (i % 2), i % 2, SPLITS[i // 4 % 4], f"p{i // 4}-{i % 2}"

    table = write_table(tmp_path, ["label", "split", "patient"], 32, cells)
    words = f"{VIT} --seeds 0 --batch-size 6 --epochs 1 --data {table} --group-col patient"
    (images,) = run(words)
    both = run(f"{words} --aggregate patient")
    assert len(both) == 2
    assert len(trials(runs)) == 1
    (patients,) = (row for row in both if row["id"] != images["id"])
    assert len(patients["scores"]["test_scores"]) < len(images["scores"]["test_scores"])
