"""``--k auto``: one k, chosen without test."""

import numpy as np
import pytest
from features import make_features
from looking import some
from numpy.testing import assert_allclose
from probing import rows
from reading import printed

from cache import open_features
from cache.task import MULTI_CLASS
from probe.cli import main
from probe.kinds.knn import Knn
from probe.solvers.knn import scores


@pytest.mark.parametrize("how", ["val", "cv"])
def test_the_k_with_the_smallest_smoothed_loss_is_taken(folder, capsys, how):
    path = make_features(folder / "features")
    assert main(f"--kind knn --vote majority --k auto:1,9,100 --choose {how}".split()) == 0
    (row,) = rows()
    assert row["probe"]["k_among"] == [100, 9, 1]
    assert row["chosen"]["k"] == 9
    losses = row["chosen"]["val_log_loss" if how == "val" else "out_of_fold_log_loss"]
    assert int(np.argmin(losses)) == 1
    if how == "val":
        x, y = open_features(path).array(-1, "cls"), open_features(path).labels
        config = Knn((100, 9, 1), vote="majority")
        votes = scores(config, x[:120], y[:120], x[120:160], MULTI_CLASS, 3)
        for k, loss in zip(config.k, losses, strict=True):
            shared = (k * votes[k][np.arange(40), y[120:160]] + 1 / 3) / (k + 1)
            assert_allclose(loss, -np.log(shared).mean(), rtol=1e-12)
    assert [line["k"] for line in printed(capsys.readouterr().out)] == ["9"]
    alone = f"--kind knn --vote majority --k 9 --choose {how}"
    assert main(alone.split()) == 0
    one, other = (r["metrics"]["auc"]["value"] for r in rows())
    assert one == other  # the same neighbours vote


def test_the_list_is_part_of_the_question_and_the_chosen_k_is_not(folder):
    make_features(folder / "features")
    for k in ("auto:1,9", "auto:9,1", "auto:1,9,11"):
        assert main(["--kind", "knn", "--k", k]) == 0
    assert len(rows()) == 2


def test_a_k_beyond_the_bank_is_left_out_of_the_choice(folder, capsys):
    make_features(folder / "features")
    assert main("--kind knn --k auto:5,1000".split()) == 0
    (row,) = rows()
    assert row["probe"]["k_among"] == [5]
    assert main("--kind knn --k auto:1000".split()) == 1
    assert "too few for k = 1000" in capsys.readouterr().err


def test_layers_are_compared_by_the_chosen_k(folder):
    make_features(folder / "features")
    assert main("--kind knn --k auto:5,9 --layer auto".split()) == 0
    assert {row["probe"]["layer"] for row in rows()} == {1}


def test_several_labels_as_a_paper_has_them(folder, capsys):
    make_features(folder / "features", task="multi-label, binary-class", n=(120, 60, 60))
    assert main("--protocol baharoon2023 --kind knn --k 5,20".split()) == 0
    assert main("--protocol baharoon2023 --kind knn --k 5,20 --as-published".split()) == 0
    corrected, *published = sorted(rows(), key=lambda row: "k" in row["probe"])
    assert corrected["probe"]["vote"] == "mlknn"
    assert "self_counts" not in corrected["probe"]
    assert len(published) == 2
    assert all(row["probe"]["self_counts"] for row in some(published))
    assert all(row["metrics"]["auc"]["value"] > 0.7 for row in some(rows()))
    assert main("--kind knn --vote mlknn --k 119,120 --choose val".split()) == 1
    assert "too few for k = 120" in capsys.readouterr().err
