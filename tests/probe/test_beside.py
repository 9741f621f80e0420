"""What is asked beside a question: baselines of a fused probe, and pairs of encoders."""

from types import SimpleNamespace

import pytest
from features import make_features
from patches import make_patches
from probing import answered, rows, run
from reporting import answered as reported

from probe.beside import plan_runs
from probe.cli import read_config

N = (60, 30, 40)


@pytest.fixture
def encoders(places):
    for number, name in enumerate(("a", "b", "c")):
        make_features(places[0], model=name, n=N, seed=number)
    return places


def test_pairs_are_each_encoder_and_each_two_joined_and_averaged(encoders, capsys):
    answered(capsys, "--kind linear --strengths 0.01,0.1 --model all+ --pairs")
    found = [
        (row["features"]["model"], row["probe"]["kind"], row["probe"].get("weights"))
        for row in rows()
    ]
    single = [(name, "linear", None) for name in "abc"]
    of_pairs = [
        (pair, kind, weights)
        for pair in ("a+b", "a+c", "b+c")
        for kind, weights in (("linear", None), ("stack", "equal"), ("stack", "stacked"))
    ]
    assert sorted(found, key=str) == sorted([*single, *of_pairs], key=str)


def test_an_averaged_pair_has_the_strengths_of_the_linear_probe(encoders, capsys):
    answered(capsys, "--kind linear --strengths 0.01,0.1 --model a+b --pairs --name mine")
    assert all(row["probe"]["strengths"] == [0.01, 0.1] for row in rows())


def test_baselines_beside_a_stack(encoders, capsys):
    answered(capsys, "--kind stack --model a --beside --strengths 0.01,0.1")
    assert all(row["probe"]["strengths"] == [0.01, 0.1] for row in rows())
    found = [(row["probe"]["kind"], row["probe"]["pool"]) for row in rows()]
    # Last layer and best, all places joined, and two ways to average; not the stack twice.
    assert sorted(found) == sorted(
        [("linear", "joined"), *[("stack", "joined")] * 2]
        + [("linear", row["probe"]["pool"]) for row in rows() if row["probe"]["pool"] != "joined"]
    )
    of_one = [row for row in rows() if row["probe"]["pool"] != "joined"]
    assert any("place_chosen" in row["probe"] for row in of_one)
    assert any("place_chosen" not in row["probe"] for row in of_one)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--kind linear --pairs", "--pairs takes --kind linear and encoders"),
        ("--kind knn --model a+b --pairs", "--pairs takes --kind linear and encoders"),
        ("--kind linear --beside", "--beside belongs to kinds that read all layers"),
    ],
)
def test_what_has_nothing_beside_it(encoders, capsys, words, match):
    with pytest.raises(SystemExit):
        run(capsys, words)
    assert match in capsys.readouterr().err


def test_the_last_layer_of_an_encoder_without_a_class_token_is_read_as_ever(places, capsys):
    config = read_config("--kind stack --beside".split())
    first, *_ = plan_runs(config, [(SimpleNamespace(pools=["mean", "head"]),)])
    assert first.config.places.pools == ("head", "mean")


ATTENTIVE = "--kind attentive --iterations 5 --epochs 1 --seeds 0 --lr 0.01 --weight-decay 0.01"


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        ("", [(1, "cls"), (1, "mean")]),
        ("--layer 0", [(0, "cls"), (0, "mean")]),
        ("--layer 0+1", [(1, "joined"), (1, "joined")]),
        ("--layer 0,1", [(0, "cls"), (0, "mean"), (1, "cls"), (1, "mean")]),
    ],
)
def test_linear_probes_of_the_pooled_file_beside_an_attentive_one(places, capsys, words, beside):
    make_patches(places[0], layers=(0, 1), n=N)
    answered(capsys, f"{ATTENTIVE} --beside {words}")
    found = [row["probe"] for row in rows()]
    linear = [(p["layer"], p["pool"]) for p in found if p["kind"] == "linear"]
    assert sorted(linear) == beside
    assert {p["kind"] for p in found} == {"linear", "attentive"}


def test_without_a_pooled_file_its_command_is_said_and_the_attentive_row_stands(places, capsys):
    command = (
        "extract --model toy --data toys --tokens=-1 --store int8 --no-pictures --weights w.pt"
    )
    make_patches(places[0], pooled=False, n=N, command=command)
    make_patches(places[0], tokens=False, n=N, weights="sha256:1")  # of other weights
    out = answered(capsys, f"{ATTENTIVE} --beside")
    assert "no pooled features of toy on toys" in out
    assert "  extract --model toy --data toys --weights w.pt\n" in out
    assert [row["probe"]["kind"] for row in rows()] == ["attentive"]


def test_an_attentive_probe_and_its_baselines_are_paired(places, capsys):
    make_patches(places[0])
    answered(capsys, f"{ATTENTIVE} --beside")
    out = reported(capsys, "compare", "kind=attentive", "kind=linear and pool=cls")
    assert "A: kind=attentive" in out
    assert "Who answers what" in out


def test_pairs_of_one_encoder(encoders, capsys):
    with pytest.raises(SystemExit):
        run(capsys, "--kind linear --model a+ --pairs")


def test_baselines_of_a_paper_s_probe_are_asked_of_the_same_features_and_follow_no_paper():
    words = "--kind fusion --protocol ciernik2026 --beside --aggregate max".split()
    *baselines, fused = [
        run.config
        for run in plan_runs(read_config(words), [(SimpleNamespace(pools=["cls", "mean"]),)])
    ]
    assert [config.kind.name for config in baselines] == ["linear", "linear", "stack"]
    assert [config.places.layer for config in baselines] == ["auto", "all+", "all+"]
    assert {config.places.aggregate for config in (*baselines, fused)} == {"max"}
    assert fused.protocol.name == "ciernik2026"
    assert not any(config.protocol for config in baselines)
