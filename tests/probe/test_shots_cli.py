"""`probe --shots`: episodes, rows, refusals."""

import numpy as np
import pytest
from answering import make_earlier
from features import make_features
from looking import some
from probing import refused, rows, run

from cache.task import BINARY
from probe.cli import main
from probe.metrics.classification import evaluate
from probe.results import read_row


def scores_of(results):
    (path,) = results.rglob("*.npz")
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def test_val_is_not_read(places, capsys, monkeypatch):
    """Another val, the same rows, to the last digit."""
    make_features(places[0])
    run(capsys, "--kind linear --shots 2 --episodes 4")
    first = scores_of(places[1])["test_scores"]
    path = next(places[0].rglob("*.h5"))
    path.unlink()
    for old in places[1].rglob("*.*"):
        old.unlink()

    def spoil(labels):
        return np.where((np.arange(len(labels)) >= 120) & (np.arange(len(labels)) < 160), 0, labels)

    make_features(places[0], labels=spoil)
    run(capsys, "--kind linear --shots 2 --episodes 4")
    assert np.array_equal(scores_of(places[1])["test_scores"], first)


def test_the_same_question_is_one_row_and_another_draw_another(places, capsys):
    make_features(places[0])
    for _ in range(2):
        run(capsys, "--kind linear --shots 2 --episodes 4")
    assert len(rows()) == 1
    for more in ("--episode-seed 1", "--draw natural", "--prior none", "--strengths 0.1"):
        run(capsys, f"--kind linear --shots 2 --episodes 4 {more}")
    assert len(rows()) == 5


LOGISTIC = "sklearn.linear_model.LogisticRegression --set C=0.01"
SCALES = {"train": "train-unlabelled", "episode": "by each episode", "none": "none (L2)"}


@pytest.mark.parametrize("kind", ["linear", "ridge", LOGISTIC])
def test_the_scale_is_trains_unless_somebody_says_otherwise(places, capsys, kind):
    """Said in the row; another is another question, which the table keeps apart."""
    make_features(places[0])
    words = f"--kind {kind} --shots 1 --episodes 3"
    out = run(capsys, words)[1]
    assert "standardised: train-unlabelled (n 120)" in out
    assert " scale " not in out
    for how in SCALES:
        assert run(capsys, f"{words} --standardise {how}")[0] == 0
    found = {row["probe"]["standardised"]: row for row in rows()}
    assert sorted(found) == sorted(SCALES.values())
    assert {word: row["n"].get("unlabelled") for word, row in found.items()} == {
        "train-unlabelled": 120,
        "by each episode": None,
        "none (L2)": None,
    }
    assert len({str(row["metrics"]) for row in found.values()}) > 1
    assert main(["table"]) == 0
    out = capsys.readouterr().out
    assert " scale " in out
    for how in SCALES:
        assert f" {how} " in out


def test_what_a_draw_can_not_know_is_said(places, capsys):
    make_features(places[0], n=(24, 30, 30))
    out = run(capsys, "--kind linear --shots 1 --episodes 3")[1]
    assert "standardised: train-unlabelled (n 24, one scale for all features)" in out
    out = run(capsys, "--kind linear --shots 2 --draw patients")[1]
    assert "patients aren't known: each image stands for one" in out


def test_the_scale_is_that_of_what_is_fitted_on(places, capsys):
    """Of the other folds, and of the training data: never of what is asked."""
    make_features(places[0])
    make_features(places[0], dataset="others", images="other", n=(60, 40, 50))
    run(capsys, "--kind linear --shots 2 --episodes 2 --data toys --split kfold:4")
    assert {row["n"]["unlabelled"] for row in rows()} == {110}  # val is a fold, too
    words = "--kind linear --shots 2 --episodes 2 --train-data others --test-data toys"
    assert "standardised: train-unlabelled (n 60)" in run(capsys, words)[1]


def test_two_encoders_see_the_same_episodes(places, capsys):
    make_features(places[0])
    make_features(places[0], model="other")
    run(capsys, "--kind linear --shots 2 --episodes 4")
    first, second = (row["probe"]["few_shot"] for row in rows())
    assert first == second


def test_a_file_of_episodes_is_written_then_read(places, tmp_path, capsys):
    make_features(places[0])
    path = tmp_path / "episodes.csv"
    words = f"--kind linear --shots 2 --episodes-file {path}"
    assert run(capsys, f"{words} --episodes 4")[0] == 0
    written = path.read_text()
    assert len(written.splitlines()) == 1 + 4 * 3 * 2
    assert run(capsys, f"{words} --episodes 4")[0] == 0  # the same draw
    assert run(capsys, words)[0] == 0  # and whatever is there
    assert path.read_text() == written
    assert len(rows()) == 1
    assert "holds other episodes of 2 shots" in refused(capsys, f"{words} --episode-seed 3")


def test_a_new_file_of_episodes_is_called_csv(places, tmp_path, capsys):
    make_features(places[0])
    path = tmp_path / "nope.npz"
    with pytest.raises(SystemExit, match="2"):
        run(capsys, f"--kind linear --shots 2 --episodes-file {path}")
    err = capsys.readouterr().err
    assert f"{path}: there is none, and a new one is a table; end its name in .csv" in err
    assert not path.exists()


def test_a_file_and_a_named_draw_that_differ_contradict_each_other(places, tmp_path, capsys):
    """Also where what is named is the default."""
    make_features(places[0])
    path = tmp_path / "mine.csv"
    path.write_text("shots,episode,id\n1,a,00000\n1,a,00001\n1,a,00002\n")
    words = f"--kind linear --shots 1 --episodes-file {path}"
    assert run(capsys, words)[0] == 0
    for named in ("--draw balanced", "--episode-seed 0", "--episodes 100"):
        status, _, err = run(capsys, f"{words} {named}")
        assert status == 1
        assert "holds other episodes of 1 shots" in err


def test_a_file_of_another_data_set_is_refused_by_name(places, tmp_path, capsys):
    make_features(places[0])
    make_features(places[0], dataset="others")
    path = tmp_path / "episodes.csv"
    words = f"--kind linear --shots 2 --episodes-file {path}"
    assert run(capsys, f"{words} --data toys")[0] == 0
    assert path.read_text().startswith("shots,episode,id,dataset\n2,0,")
    err = refused(capsys, f"{words} --data others")
    assert "these are ids of toys, and others is asked; name another file, or take out" in err


def test_a_small_class_and_a_single_episode_are_said(places, capsys):
    make_features(
        places[0], labels=lambda labels: np.where(np.arange(len(labels)) < 117, labels % 2, labels)
    )
    out = run(capsys, "--kind linear --shots 5 --draw first")[1]
    assert "one episode (first): the interval is about the test set alone" in out
    assert "fewer than 5 in train, all taken: class 2 1" in out


@pytest.mark.parametrize(
    ("task", "words", "at_most", "expected"),
    [
        ("multi-class", "--k 1,6", "k = 6", [(1, 1), (2, 1), (2, 6)]),
        # ML-kNN needs one image more than k, and episodes have 4 and 8.
        ("multi-label, binary-class", "--vote mlknn --k 2,4", "k = 4", [(1, 2), (2, 2), (2, 4)]),
    ],
)
def test_k_larger_than_an_episode_is_refused_after_the_rows_that_fit(
    places, capsys, task, words, at_most, expected
):
    make_features(places[0], task=task)
    err = refused(capsys, f"--kind knn {words} --shots 1,2 --episodes 3")
    assert f"--shots 1: {at_most} needs more images than some episodes have: at most 3; name" in err
    found = [(row["probe"]["few_shot"]["shots"], row["probe"]["k"]) for row in rows()]
    assert sorted(found) == expected


def test_stored_scores_give_the_metrics(places, capsys):
    """Not those of more digits: near 0 and 1 they tell apart what is equal in the file."""
    make_features(places[0], n_classes=2, task="binary-class")
    run(capsys, "--kind linear --shots 1 --episodes 9 --strengths 1000 --layer 0")
    (row,), stored = rows(), scores_of(places[1])
    each = [evaluate(s, stored["test_labels"], BINARY) for s in stored["test_scores"]]
    for name, values in some(row["episodes"].items()):
        assert values == [found[name] for found in each], name


def test_folds_have_episodes_of_their_own_and_one_mean(places, capsys):
    make_features(places[0])
    out = run(capsys, "--kind linear --shots 2,3 --episodes 3 --split kfold:3")[1]
    assert out.count("mean of 3") == 2
    assert len({row["probe"]["few_shot"]["digest"] for row in rows()}) == 6


def test_a_file_says_what_it_has_and_not_what_a_rule_would(places, tmp_path, capsys):
    make_features(places[0])
    path = tmp_path / "mine.csv"
    path.write_text("shots,episode,id\n2,a,00000\n2,a,00003\n2,a,00006\n2,a,00001\n")
    out = run(capsys, f"--kind linear --shots 2 --episodes-file {path}")[1]
    assert "mine.csv has 0 to 3 images of a class where it says 2 shots" in out
    assert "all taken" not in out


def test_a_file_of_episodes_belongs_to_one_data_set(places, tmp_path, capsys):
    make_features(places[0])
    make_features(places[0], dataset="others")
    path = tmp_path / "episodes.csv"
    err = refused(capsys, f"--kind linear --shots 2 --episodes-file {path}")
    assert "both have an id '00000'" in err
    assert not path.exists()


def test_episodes_without_an_image_are_refused(places, capsys):
    groups = np.array([f"p{i // 6}" for i in range(220)])  # classes come in turn
    make_features(places[0], "patients", groups=groups)
    err = refused(capsys, "--kind linear --data patients --shots 5 --episodes 3")
    assert "has no image, as no patient is of one class alone" in err


def test_class_shares_of_continuous_labels_are_refused(places, tmp_path, capsys):
    make_features(places[0])
    ages = tmp_path / "ages.csv"
    ages.write_text("id,age\n" + "".join(f"{i:05d},{i % 7}.5\n" for i in range(220)))
    words = f"--kind knn --shots 9 --labels {ages} --target age --task regression"
    assert run(capsys, f"{words} --episodes 2")[0] == 0
    assert "--prior train is about shares of classes" in refused(capsys, f"{words} --prior train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--kind linear --shots 1 --layer all", "compared on val, whose labels are more"),
        ("--kind linear --shots 1 --strengths 1,10", "nothing to choose one of 2 strengths on"),
        ("--kind linear --shots one", "--shots takes numbers"),
        ("--kind linear --standardise none", "say how many, as in --shots"),
        ("--kind knn --shots 1 --standardise none", "--standardise belongs to --kind linear or"),
    ],
)
def test_wrong_flags_are_one_line(places, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_older_rows_have_no_episodes(places, capsys):
    make_features(places[0])
    run(capsys, "--kind linear")
    path = next(places[1].rglob("*.json"))
    make_earlier(path, "episodes")
    assert read_row(path)["episodes"] == {}


def test_class_shares_move_accuracy_and_leave_the_auc(places, capsys):
    """Two classes, nine to one: an even draw says that they are equally frequent."""
    rng = np.random.default_rng(0)
    make_features(
        places[0],
        task="binary-class",
        n_classes=2,
        n=(120, 40, 200),
        labels=lambda labels: (rng.random(len(labels)) < 0.9).astype(int),
    )
    for word in ("none", "train"):
        run(capsys, f"--kind linear --shots 5 --episodes 20 --prior {word}")
    found = {row["probe"]["few_shot"]["prior"]: row["metrics"] for row in rows()}
    assert found["train"]["acc"]["value"] > found["none"]["acc"]["value"] + 0.2
    assert found["train"]["auc"] == pytest.approx(found["none"]["auc"], abs=1e-3)
