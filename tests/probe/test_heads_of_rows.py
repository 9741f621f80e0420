"""Rows keep the weights of the model whose test scores they hold, and new images are scored by it."""

import numpy as np
import pytest
from features import make_features
from probing import run

from cache import open_features
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION
from probe.places import read_side_by_side
from probe.results import load_head, read_row, read_scores

ADAMW = "adamw --iterations 40 --batch-size 30 --lr 0.01 --seeds 3"
HEADS = "heads --lr 0.05,0.5 --epochs 1 --iterations 20"
TASKS = {MULTI_CLASS: 3, ORDINAL: 3, BINARY: 2, MULTI_LABEL: 3, REGRESSION: 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDPROBE_FEATURES", "features")
    monkeypatch.setenv("MEDPROBE_RESULTS", "results")
    return tmp_path


def paths(folder):
    return sorted((folder / "results").glob("*/*.json"))


def of_test(row, features):
    """What a row's head says of its test images, and what the row says."""
    head, stored = load_head(row), read_scores(row, read_row(row))
    x = read_side_by_side(head.places, head.aggregate, features)
    places = {name: i for i, name in enumerate(features.ids.tolist())}
    return head.scores(x[[places[name] for name in stored["test_ids"]]]), stored["test_scores"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "words",
    [
        "linear --choose val --strengths 0.01,1",
        "linear --choose cv --strengths 0.01,1 --layer last2 --pool concat",
        "linear --form ovr --strengths 0.1",
        "ridge --choose cv --penalties 0.01,1",
        "ridge --choose val --refit train+val",
        ADAMW,
        f"{HEADS} --refit train+val",
        f"{HEADS} --pool mean",
    ],
)
def test_a_head_gives_the_rows_scores(folder, capsys, words, task):
    if task == REGRESSION and not words.startswith("ridge"):
        pytest.skip("kinds that tell classes apart")
    path = make_features(folder / "features", task=task, n_classes=TASKS[task], n_layers=4)
    assert run(capsys, f"--kind {words}")[0] == 0
    found, wanted = of_test(*paths(folder), open_features(path))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
