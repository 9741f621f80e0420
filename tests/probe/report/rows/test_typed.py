"""Lines made of rows: typed, they give the same rows; and their defaults are those of the flags."""

import json
import shlex
from dataclasses import asdict, replace

import numpy as np
import pytest
from features import make_features
from looking import some
from papers import make_stored
from probing import answered

from cache.commands.settings import flags_of
from finetune.cli import read_requests
from finetune.config import LoraConfig, ModelConfig, TrainConfig, settle
from finetune.protocols import Subject
from probe.kinds.table import KINDS
from probe.report.rows.stored import read_stored, stored_files
from probe.report.rows.typed import RENAMED, USUAL, line_of, lines_of

N = (60, 30, 30)
KNOWN = {
    "k",
    "mode",
    "head_weights",
    "seeds",
    "text",
    "device",
    "grad_checkpointing",
    "compile",
}  # said otherwise


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Two encoders, of two layers and of one, and tables of labels and of a split."""
    root = tmp_path_factory.mktemp("toys")
    patients = np.array([f"p{i // 2}" for i in range(sum(N))])
    meta = {"site": np.array([f"site {i // 2 % 3}" for i in range(sum(N))])}
    labels = np.arange(sum(N)) // 2 % 3  # of both images of a patient
    for model, layers in (("toy", 2), ("lite", 1)):
        make_features(
            root / "features",
            "toys",
            model,
            n=N,
            n_layers=layers,
            groups=patients,
            meta=meta,
            labels=labels,
        )
    lines = [f"{i:05d},{('train', 'val', 'test')[i // 2 % 3]}" for i in range(sum(N))]
    (root / "split.csv").write_text("\n".join(["id,split", *lines, ""]))
    lines = [f"{i:05d},{'xy'[i // 2 % 2]}" for i in range(sum(N))]
    (root / "labels.csv").write_text("\n".join(["id,finding", *lines, ""]))
    return root


def rows_in(folder):
    rows, problems = read_stored(folder, stored_files(folder))
    assert not problems
    return rows


LINES = {
    "k": ("--kind knn --k 20,5", "--kind knn --k 5,20"),
    "chosen k, all": ("--kind knn --k auto:1,5 --metric euclidean --layer all", None),
    "metric": ("--kind knn --k 5 --metric euclidean", None),
    "vote": ("--kind knn --k 5 --temperature 0.1", None),
    "split": ("--kind knn --k 5 --split-file split.csv", None),
    "rule": ("--kind ridge --split 60/20/20 --split-seed 3", None),
    "folds": ("--kind ridge --split kfold:3 --penalties 0.1,1", None),
    "patients": ("--kind linear --aggregate patient --strengths 0.01,1", None),
    "labels": ("--kind ridge --labels labels.csv --target finding", None),
    "meta": ("--kind ridge --target meta:site --task multi-class --choose val", None),
    "layers": ("--kind ridge --layer auto --pool cls,mean --refit train", None),
    "one pool": ("--kind ridge --layer all --pool mean", None),
    "shots": ("--kind linear --shots 1,3 --episodes 3 --draw natural --prior none", None),
    "trainings": ("--kind adamw --epochs 2 --seeds 0,3 --batch-size 16", None),
    "paper": ("--protocol doerrich2024 --kind knn --k 7", None),
    "resamples": ("--kind ridge --seed 4 --shots 2 --episodes 4 --resamples 30", None),
    "layers side by side": ("--kind ridge --model toy --layer 0+1 --pool cls", "--layer all+"),
    "pools side by side": ("--kind knn --k 5 --layer 0 --pool cls+mean", "--layer 0 --pool cls+mean"),
    "encoders": ("--kind ridge --model toy+lite", "--layer=-1 --pool cls --model lite@32+toy@32"),
    "all of all": ("--kind ridge --model all+ --layer all+ --pool mean+cls", None),
    "pairs": ("--kind linear --model all+ --pairs --strengths 0.01,1", None),
    "averaged": ("--kind stack --model toy --strengths 0.01,1", "--layer all+ --pool cls+mean"),
    "some compared": ("--kind ridge --model toy --layer 0,0+1 --pool cls", None),
    "last": ("--kind ridge --model toy --layer last2 --pool concat --shots 2 --episodes 3", None),
    "estimator": ("--kind sklearn.linear_model.LogisticRegression --set C=0.1,1", None),
}  # fmt: skip


@pytest.mark.parametrize(("words", "said"), LINES.values(), ids=LINES)
def test_a_line_typed_again_gives_the_same_rows(toys, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(toys)
    answer = f"--features {toys / 'features'} --results"
    answered_with(capsys, f"probe {words} {answer} {tmp_path / 'one'}")
    rows = rows_in(tmp_path / "one")
    lines = lines_of(rows)
    assert sum(line.n for line in lines) == len(rows)
    if said:
        assert said in str(lines[0])
    for line in some(lines):
        answered_with(capsys, f"{line} {answer} {tmp_path / 'two'}")
    names = {row.path.name for row in rows}
    assert {row.path.name for row in rows_in(tmp_path / "two")} >= names
    again = {row.path.name: row.row.answered.protocol for row in rows_in(tmp_path / "two")}
    assert all(again[row.path.name] == row.row.answered.protocol for row in rows)


def answered_with(capsys, line):
    command, *words = shlex.split(line)
    assert command == "probe"
    return answered(capsys, words)


def usual_of(name):
    """Field -> default of a kind's flags, or of finetune's."""
    classes = (ModelConfig, TrainConfig) if name == "finetune" else (KINDS[name],)
    found = {f.field: f for f in flags_of(*classes)}
    if name == "finetune":
        found |= {f"lora_{f.field}": f for f in flags_of(LoraConfig)}
    return {field: flag for field, flag in found.items() if field not in KNOWN}


@pytest.mark.parametrize("name", [*KINDS, "finetune"])
def test_defaults_are_those_of_the_flags(name):
    flags, usual = usual_of(name), USUAL.get(name, {})
    assert set(flags) == set(usual)
    for field, flag in flags.items():
        assert RENAMED.get(field, f"--{field.replace('_', '-')}") == flag.name
        default = list(flag.default) if isinstance(flag.default, tuple) else flag.default
        if isinstance(default, list):
            assert sorted(usual[field]) == pytest.approx(sorted(default))
        else:
            assert usual[field] == default


TUNED = [
    "--mode partial --freeze-until 3 --epochs 2 --seeds 0",
    "--mode lora --lora-rank 4 --lora-targets qkv,fc1 --lora-train-bias --lr 0.01",
    "--encoder-lr 1e-4,1e-5 --no-decay-1d --clip 1 --aggregate patient",
    "--mode head --refit train+val --optimiser sgd --momentum 0.5 --checks 3",
]


@pytest.mark.parametrize("typed", TUNED)
def test_a_training_s_line_has_every_setting(typed):
    """None is trained: a row is made of the settings as finetune makes it."""
    (request,) = read_requests([*typed.split(), "--model", "m", "--data", "d"]).values()
    config, _ = settle(request, Subject())
    settings = {**asdict(config.model), **asdict(config.train), "training_seed": 0}
    if len(config.rates) == 1:
        del settings["seeds"]
    if request.per_patient:
        settings["scores_of"] = "patients"
    plain = json.loads(json.dumps(settings))
    of = make_stored("finetune", model="m", protocol="", prepared="", values={}, **plain)
    line = line_of(of)
    (again,) = read_requests(line.words()[1:]).values()
    found, _ = settle(again, Subject())
    seeds = (0,) if len(config.rates) == 1 else config.train.seeds
    assert found == replace(config, train=replace(config.train, seeds=seeds))
    assert again.per_patient == request.per_patient
    assert again.images.size == of.row.encoded.size


def test_lines_are_joined_where_they_are_one_command():
    def tuned(block, seed, model="m"):
        asked = {"pool": "head", "mode": "partial", "freeze_until": block, "training_seed": seed}
        return make_stored("finetune", model=model, protocol="", prepared="", values={}, **asked)

    lines = lines_of([tuned(block, seed) for block in (0, 10, 3) for seed in (0, 1, 2)])
    (line,) = lines
    assert line.n == 9
    assert "--mode partial --each freeze-until=0,3,10 --size" in str(line)
    lines = lines_of([tuned(0, 0, "m"), tuned(0, 1, "other")])  # not each of both
    assert [line.n for line in lines] == [1, 1]
