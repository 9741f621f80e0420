"""--kind attentive from the command line to the row: token files, in which one patch tells the class."""

import json

import numpy as np
import pytest
from answering import scores_file
from patches import GRID, WIDTH, N, make_patches
from probing import answered, refused, rows, run

from cache.task import BINARY, MULTI_LABEL, ORDINAL, REGRESSION
from probe.kinds import attentive
from probe.kinds.attentive import Attentive
from probe.solvers.attentive import Shape

SHORT = "--kind attentive --iterations 60 --epochs 1 --seeds 0 --lr 0.01 --weight-decay 0.01"


def the_row(places):
    (path,) = places[1].glob("*/*.json")
    with np.load(scores_file(path)) as arrays:
        return json.loads(path.read_text()), dict(arrays)


@pytest.mark.parametrize(("choose", "n_val"), [("val", 40), ("cv", 160)])
def test_it_finds_the_patch_that_tells(places, capsys, choose, n_val):
    _, at = make_patches(places[0])
    answered(capsys, f"{SHORT},1 --lr 0.01,1e-6 --queries 4 --choose {choose}")
    row, arrays = the_row(places)
    assert row["metrics"]["acc"]["value"] > 0.9
    asked = row["probe"]
    assert [asked[name] for name in ("layer", "pool", "queries")] == [1, "tokens", 4]
    assert asked["standardised"] is True
    assert not {"noise", "dropouts", "aggregate", "pads_first"} & {*asked}
    assert row["chosen"]["lr"] == 0.01
    assert {len(setting) for setting in row["chosen"]["of_settings"]} == {4}
    assert row["cost"]["trained_parameters"] == Shape(4, WIDTH, 3).n_parameters
    assert row["cost"]["bytes_per_image"] == 2 * GRID[0] * GRID[1] * WIDTH
    assert len(arrays["val_ids"]) == n_val
    right = arrays["val_scores"].argmax(axis=1) == arrays["val_labels"]
    assert right.mean() > 0.9
    maps = arrays["attention_maps"]
    assert (maps.shape, maps.dtype) == ((N[2], *GRID), np.float16)
    np.testing.assert_allclose(maps.sum(axis=(1, 2), dtype=float), 1, atol=5e-3)
    assert arrays["attention_ids"].tolist() == arrays["test_ids"].tolist()
    assert (maps.reshape(N[2], -1).argmax(axis=1) == at[-N[2] :]).mean() > 0.9


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (BINARY, np.arange(220) % 2),
        (ORDINAL, np.arange(220) % 3),
        (MULTI_LABEL, np.eye(3, dtype=int)[np.arange(220) % 3]),
    ],
)
def test_other_tasks(places, capsys, task, labels):
    make_patches(places[0], n_classes=2 if task == BINARY else 3, task=task, labels=labels)
    answered(capsys, f"{SHORT} --choose val")
    row, arrays = the_row(places)
    assert row["metrics"]["auc"]["value"] > 0.9
    sums = arrays["test_scores"].sum(axis=1)
    assert np.allclose(sums, 1) == (task != MULTI_LABEL)


def test_tokens_in_memory_or_from_the_file_are_the_same(places, capsys, monkeypatch):
    make_patches(places[0])
    scores = []
    for most in (0, 2**32):
        monkeypatch.setattr(attentive, "MOST_HELD", most)
        results = places[1] / str(most)
        answered(capsys, f"{SHORT} --choose val --results {results}")
        scores.append(the_row((None, results))[1]["test_scores"])
    assert np.array_equal(*scores)


def test_large_attention_is_kept_of_the_first_images_and_the_row_says_so(
    places, capsys, monkeypatch
):
    monkeypatch.setattr(attentive, "MOST_KEPT", 7 * GRID[0] * GRID[1])
    make_patches(places[0])
    answered(capsys, f"{SHORT} --choose val")
    row, arrays = the_row(places)
    assert len(arrays["attention_maps"]) == len(arrays["attention_ids"]) == 7
    assert f"attention is kept of the first 7 of {N[2]} test images" in row["marks"]


def test_layers_are_compared_and_joined(places, capsys):
    make_patches(places[0], layers=(0, 1))
    answered(capsys, f"{SHORT} --layer 0+1")
    (row,) = rows()
    assert row["cost"]["trained_parameters"] == Shape(8, 2 * WIDTH, 3).n_parameters
    answered(capsys, f"{SHORT} --layer 0,1")
    assert sorted(row["probe"]["layer"] for row in rows()) == [0, 1, 1]


@pytest.mark.parametrize(("width", "n"), [(384, 8), (16, 8), (100, 5), (1152, 8), (37, 1)])
def test_queries_divide_the_width(width, n):
    assert Attentive().n_queries(width) == n


@pytest.mark.parametrize(
    ("fields", "words", "said"),
    [
        ({}, "--queries 5", "divisor of the tokens' width 16"),
        ({}, "--pool cls", "leave out --pool cls"),
        ({"row_sample": np.arange(220) // 2}, "", "samples of toys are several images"),
        ({"labels": np.zeros(220, int)}, "--choose val", "are of class a"),
    ],
    ids=["queries", "pool", "volumes", "one class"],
)
def test_what_it_refuses(places, capsys, fields, words, said):
    if "row_sample" in fields:
        half = np.arange(110)
        fields |= {
            "ids": half.astype(str),
            "labels": half % 3,
            "split": (half % 3).astype(np.uint8),
        }
    make_patches(places[0], pooled=False, **fields)
    assert said in refused(capsys, f"{SHORT} {words}")
    assert not [*places[1].glob("*/*.json")]


def test_numbers_are_refused(places, capsys):
    make_patches(
        places[0], pooled=False, task=REGRESSION, labels=np.arange(220.0), class_names=("x",)
    )
    assert "--kind attentive tells classes apart" in refused(capsys, SHORT)


def test_few_shots_are_refused_with_the_cure(capsys):
    with pytest.raises(SystemExit):
        run(capsys, "--kind attentive --shots 5")
    assert "use --kind linear --pool cls" in capsys.readouterr().err


def test_it_is_not_applied(places, capsys):
    from probe.apply import main as apply

    path, _ = make_patches(places[0])
    answered(capsys, f"{SHORT} --choose val")
    (row,) = places[1].glob("*/*.json")
    assert apply([str(row), str(path)]) == 1
    assert "is of kind attentive and keeps no weights" in capsys.readouterr().err
