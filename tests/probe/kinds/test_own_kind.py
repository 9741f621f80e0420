"""A user's own kind, the class that KINDS.md shows, asked as ours are."""

import json

import numpy as np
import pytest
from features import make_features
from here import REPOSITORY
from numpy.testing import assert_allclose

from cache import open_features
from probe.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "probe" / "KINDS.md").read_text(encoding="utf-8")
    _, shown = page.split("# my_kind.py\n")
    (tmp_path / "my_kind.py").write_text(shown.split("```")[0])
    return tmp_path


def rows(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("results/*/*.json"))]


@pytest.mark.parametrize(
    ("words", "chosen_by"),
    [
        ("--choose val", "val 1 - AUC"),
        ("--choose cv", "pooled out-of-fold 1 - AUC"),
        ("--shots 5 --episodes 4", "in-episode 1 - AUC"),
        ("--layer all --choose val --all-test", "val 1 - AUC"),
    ],
)
def test_it_is_chosen_and_asked_as_every_kind(folder, words, chosen_by):
    make_features(folder / "features")
    assert main(["--kind", "my_kind.py:Shrunken", *words.split()]) == 0
    for row in rows(folder):
        assert row["probe"]["kind"] == "my_kind.py:Shrunken"
        assert row["probe"]["chosen_by"] == chosen_by
        assert row["score_type"] == "margin"
        assert row["chosen"]["shrink"] in (0.0, 0.5, 0.9)
        assert "code" in "".join(row["probe"])  # another file of that name is another question
    assert rows(folder)[-1]["metrics"]["auc"]["value"] > 0.8


def test_its_numbers_are_those_of_a_plain_loop(folder):
    features = open_features(make_features(folder / "features"))
    assert main(["--kind", "my_kind.py:Shrunken", "--set", "shrink=0", "--choose", "val"]) == 0
    (path,) = folder.glob("results/*/*.npz")
    x, train = features.array(-1, "cls").astype(np.float64), features.split == "train"
    means = [x[train & (features.labels == c)].mean(axis=0) for c in range(3)]
    test = x[features.split == "test"]
    expected = -np.stack([np.square(test - mean).sum(axis=1) for mean in means], axis=1)
    with np.load(path) as found:
        assert_allclose(found["test_scores"], expected, rtol=1e-3)


def test_what_it_does_wrong_is_one_line(folder, capsys):
    make_features(folder / "features")
    text = (folder / "my_kind.py").read_text()
    (folder / "my_kind.py").write_text(text.replace("of_classes", "1 / 0\n        of_classes", 1))
    assert main(["--kind", "my_kind.py:Shrunken"]) == 1
    said = capsys.readouterr().err
    assert "my_kind.py:Shrunken fails in answer: ZeroDivisionError" in said
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["--kind", "my_kind.py:Shrunken", "--set", "shrnk=1"])
    assert "has no setting 'shrnk'; near names: shrink" in capsys.readouterr().err
