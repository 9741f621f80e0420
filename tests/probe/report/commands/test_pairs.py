"""The command ``report pairs``."""

import numpy as np
import pytest
from features import make_features
from probing import answered
from reporting import answered as reported
from reporting import refused

N = (40, 20, 24)


@pytest.fixture
def three(places, capsys):
    """Rows of three encoders alone, and of two pairs."""
    for model, layers, seed in (("toy", 3, 0), ("lite", 2, 5), ("wide", 2, 6)):
        make_features(places[0], "toys", model, n=N, n_layers=layers, seed=seed)
    answered(capsys, "--kind ridge --model toy,lite,wide,toy+lite,toy+wide")
    return places


def test_the_page(three, capsys):
    out = reported(capsys, "pairs")
    assert "best out of fold of 2 pairs joined" in out
    assert "tests: Holm over all 2 tests of these 3 pairs" in out
    assert "asked ridge, last layer" in out
    assert out.count("joined ") >= 2
    assert "of 3 pairs 1 has no joined row: `probe --kind ridge --model lite@32+wide@32" in out
    lines = [line for line in out.splitlines() if line.startswith(("lite ", "toy "))]
    assert len(lines) == 6  # three pairs in two tables


@pytest.mark.parametrize("ending", ["html", "tex", "csv", "json", "md"])
def test_formats(three, capsys, tmp_path, ending):
    path = tmp_path / f"pairs.{ending}"
    reported(capsys, "pairs", "--metric", "acc", "--no-cka", "-o", path)
    text = path.read_text()
    assert "toy" in text
    assert "joined" in text


def test_cka_is_that_of_the_figure(three, capsys, tmp_path):
    reported(capsys, "pairs", "-o", tmp_path / "pairs.csv")
    reported(capsys, "figure", "cka", "--layer=-1", "--csv", tmp_path / "cka.csv")
    import pandas as pd

    text = (tmp_path / "pairs.csv").read_text().split("\n\n")
    table = next(part for part in text if "CKA" in part or "cka" in part.lower())
    assert table
    cka = pd.read_csv(tmp_path / "cka.csv")
    of = cka[(cka.encoder == "lite") & (cka.other == "toy")]
    assert f"{of.value.item():.6g}"[:6] in table


def test_features_that_are_gone_are_a_gap(three, capsys):
    (path,) = three[0].glob("toys/wide*.h5")
    path.unlink()
    out = reported(capsys, "pairs")
    assert "the feature file of wide isn't below" in out


def test_few_patients_have_no_interval(places, capsys):
    patients = np.array([f"p{i // 8}" for i in range(sum(N))])
    for model, seed in (("toy", 0), ("lite", 5)):
        make_features(places[0], "toys", model, n=N, seed=seed, groups=patients)
    answered(capsys, "--kind ridge --model toy,lite,toy+lite")
    out = reported(capsys, "pairs")
    assert "p by swaps of patients" in out
    assert "no interval: class class 0 has 4 patients, and 5 are needed" in out
    assert "toys: 1 joined row, so no pair is chosen" in out


def test_folds_and_shots(three, capsys):
    for words in ("--split kfold:3", "--shots 3 --episodes 4"):
        answered(capsys, f"--kind ridge --model toy,lite,toy+lite {words}")
    out = reported(capsys, "pairs", "--no-cka", "--model", "toy,lite")
    assert "toy+lite" not in out
    assert "wide" not in out
    assert "no joined row" not in out
    assert "3 shots" in out
    assert "kfold:3" in out
    assert "corrected resampled t" in out
    assert "toys (ridge, 3 shots, last layer): 1 joined row" in out


def test_what_pairs_writes(places, capsys):
    for model, layers, seed in (("toy", 3, 0), ("lite", 2, 5), ("wide", 2, 6)):
        make_features(places[0], "toys", model, n=N, n_layers=layers, seed=seed, strength=0.5)
    answered(capsys, "--kind linear --model all+ --pairs --strengths 0.01")
    out = reported(capsys, "pairs", "--metric", "acc")
    assert "tests: Holm over all 6 tests of these 3 pairs, joined and averaged" in out
    assert out.count(" averaged ") == 3
    assert "makes them" not in out
    for path in places[1].glob("toys/lite-wide*"):
        path.unlink()
    out = reported(capsys, "pairs")
    assert (
        "of 3 pairs 1 has no joined row and 1 has no row of averaged scores: "
        "`probe --kind linear --model all+ --pairs --data toys` makes them"
    ) in out


def test_an_asking_without_joined_rows_is_one_line_beside_others(three, capsys):
    answered(capsys, "--kind ridge --model toy,lite --layer=-2")
    out = reported(capsys, "pairs", "--no-cka")
    assert "asked ridge, last layer" in out
    assert "asked ridge, layer 0" not in out
    assert "toys (ridge, layer 0): of 1 pair 1 has no joined row: `probe --kind ridge" in out
    answered(capsys, "--kind ridge --model toy,lite,toy+lite --layer=-2")
    assert "asked ridge, layer 0" in reported(capsys, "pairs", "--no-cka")


def test_nothing_to_compare(places, capsys):
    make_features(places[0], "toys", "toy", n=N)
    answered(capsys, "--kind ridge --model toy")
    assert "--model all+ --pairs" in refused(capsys, "pairs")
    assert "nobody fits none" in refused(capsys, "pairs", "--model", "nobody")
    assert "they have" in refused(capsys, "pairs", "--metric", "r2")
