"""``--each``: the rows of the commands that it stands for, and what it can't stand for."""

import pytest
from finetuning import VIT, read_rows, run, write_images
from looking import some

from cache.commands.settings import flags_of
from finetune.cli import NUMBERS, main, make_parser
from finetune.config import TrainConfig
from finetune.each import each_of
from finetune.training import training

SHORT = "--seeds 0 --batch-size 12 --epochs 1 --checks 1"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    return write_images(tmp_path / "toy.npz", counts=(24, 12, 12))


@pytest.mark.parametrize(
    ("each", "alone"),
    [
        ("--each encoder-lr=1e-3,1e-4", ["--encoder-lr 1e-3", "--encoder-lr 1e-4"]),
        (
            "--each freeze-until=0,3 --each decay_1d=no",
            [f"--freeze-until {b} --no-decay-1d" for b in (0, 3)],
        ),
        ("--each cut-after=2,4 --mode head", [f"--cut-after {b} --mode head" for b in (2, 4)]),
        ("--each size=32,64 --mode head", [f"--size {px} --mode head" for px in (32, 64)]),
    ],
)
def test_rows_are_those_of_the_same_command_with_one_value(
    data, each, alone, tmp_path, monkeypatch, capsys
):
    vit = VIT.removesuffix(" --size 32") if "size" in each else VIT
    rows = {row["id"]: row for row in run(f"{vit} {SHORT} {each}", data)}
    said = capsys.readouterr().out.splitlines()
    assert len(rows) == len(alone)
    n = len(alone)
    begun = [line for line in said if line.partition(": ")[0] in {f"{i} of {n}" for i in range(9)}]
    assert [line.partition(" of ")[0] for line in begun] == [str(i + 1) for i in range(n)]
    # The trainings are there: nothing is learnt again.
    monkeypatch.setattr(training.Training, "_advance", None)
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "alone"))
    for words in alone:
        run(f"{vit} {SHORT} {words}", data)
    own = {row["id"]: row for row in read_rows()}
    assert own.keys() == rows.keys()
    for row_id in some(own):
        assert own[row_id]["probe"] == rows[row_id]["probe"]
        assert own[row_id]["metrics"] == rows[row_id]["metrics"]


def test_one_value_that_fails_costs_no_others_row(data, capsys):
    (row,) = run(f"{VIT} {SHORT} --each encoder-lr=1e30,1e-3", data, status=1)
    assert row["chosen"]["encoder_lr"] == 1e-3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert "encoder-lr 1e30: " in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--each encoder-lr", "--each takes SETTING=V1,V2, as in encoder-lr=1e-4,1e-5"),
        ("--each encoder-lrs=1", "--each encoder-lrs: no setting that changes numbers; near names: "
         "encoder-lr"),
        ("--each micro-batch=1", "--each micro-batch: no setting that changes numbers; near"),
        ("--each device=cpu", "--each device: no setting that changes numbers"),
        ("--each clip=,", "--each clip takes one or more"),
        ("--each clip=1,1", "--each clip takes one or more, each once; not 1,1"),
        ("--each clip=1 --each clip=2", "--each clip stands there twice"),
        ("--each clip=1 --clip 2", "--clip and --each clip: leave one of them out"),
        ("--each mode=head,all", "--each mode takes full, head, partial, lora, bitfit, not 'all'"),
        ("--each decay-1d=maybe", "--each decay-1d takes yes, no, not 'maybe'"),
        ("--each clip=1,x", "clip x: --clip takes numbers, not 'x'"),
        ("--each clip=1,-1", "clip -1: --clip takes a number above 0, not -1.0"),
        ("--each mode=full,head --drop-path 0.1", "mode head: --drop-path: a frozen encoder"),
    ],
)  # fmt: skip
def test_what_a_command_alone_would_refuse_is_refused_before_anything(words, line, capsys):
    with pytest.raises(SystemExit) as error:
        main(f"{VIT} --data npz:x.npz {words}".split())
    assert error.value.code == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_a_block_too_many_is_named_before_the_first_training(data, capsys):
    assert not run(f"{VIT} {SHORT} --each freeze-until=3,99", data, status=1)
    assert "freeze-until 99: --freeze-until 99: test_vit has blocks" in capsys.readouterr().err


def test_of_several_every_combination_comes_in_order():
    words = "--each clip=1,2 --each decay-1d=yes,no --lr 0.1"
    found = list(each_of(make_parser().parse_args(words.split()), TrainConfig))
    assert [(o.clip, o.decay_1d, o.lr) for _, o in found] == [
        *(("1", True, 0.1), ("1", False, 0.1), ("2", True, 0.1), ("2", False, 0.1)),
    ]
    assert found[1][0] == "clip 1, decay-1d no"


def test_every_setting_that_changes_numbers_may_be_named():
    """By its declaration: none stands in a list of its own."""
    settings = [of for group in NUMBERS.values() for of in group]
    parser = make_parser()
    for flag in flags_of(*settings):
        value = "yes" if flag.is_switch else str(flag.among[0]) if flag.among else "7"
        options = parser.parse_args(["--each", f"{flag.name[2:]}={value}"])
        [(told, found)] = each_of(options, *settings)
        assert told == f"{flag.name[2:]} {value}"
        assert getattr(found, flag.dest) == (True if flag.is_switch else value)
