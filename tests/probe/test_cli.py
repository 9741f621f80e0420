"""The command `probe`: from feature files to rows, tables and one-line errors."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from answering import make_earlier, scores_file
from features import make_features, write_file
from probing import answered, probe_file, refused, rows, run

from cache import open_features
from cache.store import FeatureWriter
from probe.cli import main
from probe.config import ProbeConfig
from probe.kinds.knn import Knn
from probe.kinds.linear import Linear
from probe.places import read_samples
from probe.questions.laying import lay_over
from probe.questions.overlay import OverlayConfig
from probe.questions.question import divide_samples
from probe.results import read_row
from probe.run import run_probe


def test_the_command_as_typed(places, capsys):
    make_features(places[0], n=(300, 40, 60))
    make_features(places[0], "others", n=(300, 40, 60))
    out = answered(capsys, "--kind knn --k 10,30")
    assert "toys: train 300 (33% 33% 33%)" in out
    assert len(rows()) == 4  # two data sets, two k
    row = rows()[0]
    assert row["probe"]["layer"] == 1
    assert row["probe"]["pool"] == "cls"
    assert {"acc", "auc", "balanced_accuracy", "f1_macro"} < set(row["metrics"])
    acc = row["metrics"]["acc"]
    assert acc["low"] <= acc["value"] <= acc["high"]
    assert acc["value"] > 0.6
    assert row["n"] == {"train": 300, "val": 40, "test": 60}
    assert row["features"]["key"]["model"] == "toy"


def test_scores_stand_beside_the_row_and_give_its_numbers(places, capsys):
    make_features(places[0])
    run(capsys, "--kind linear --choose val")
    (path,) = places[1].glob("*/*.json")
    row = json.loads(path.read_text())
    with np.load(scores_file(path), allow_pickle=False) as scores:
        predicted = scores["test_scores"].argmax(axis=1)
        assert np.mean(predicted == scores["test_labels"]) == row["metrics"]["acc"]["value"]
        assert scores["test_ids"][0] == "00160"
        assert len(scores["val_scores"]) == 40
    assert row["chosen"]["strength"] in row["probe"]["strengths"]
    assert len(row["chosen"]["val_log_loss"]) == len(row["probe"]["strengths"])


def test_the_same_question_twice_is_one_row(places, capsys):
    make_features(places[0])
    run(capsys, "--kind knn --k 5 --name first")
    run(capsys, "--kind knn --k 5 --name second")
    (row,) = rows()
    assert row["names"] == ["first", "second"]
    run(capsys, "--kind knn --k 5 --seed 1")
    run(capsys, "--kind knn --k 5 --vote majority")
    run(capsys, "--kind knn --k 5 --pool mean")
    assert len(rows()) == 4


def test_the_strength_is_chosen_without_test(places):
    """Other test labels must not change what is chosen."""
    from cache import open_features

    path = make_features(places[0])
    features = open_features(path)
    (row,) = probe_file(ProbeConfig(Linear()), features)
    shuffled = features.labels.copy()
    shuffled[features.split == "test"] = 0
    other = open_features(path)
    other.__dict__["labels"] = shuffled
    (again,) = probe_file(ProbeConfig(Linear()), other)
    assert again.answered.chosen == row.answered.chosen
    assert again.measured.test["acc"] != row.measured.test["acc"]


def test_marks_tell_what_a_number_is_worth(places, capsys):
    make_features(
        places[0], n=(30, 12, 12), n_classes=2, task="binary-class", notes={"random_weights": True}
    )
    out = answered(capsys, "--kind knn --k 30")
    assert "k is 100% of the 30 training images" in out
    assert "random weights" in out
    make_features(places[0], "flat", n=(90, 9, 9), n_classes=3)
    _, out, _ = run(capsys, "--kind knn --k 90 --vote majority --data flat")
    assert "accuracy equals the larger-class rate" in out


@pytest.mark.parametrize(
    ("notes", "seen", "marks"),
    [
        ({}, "unknown", []),
        ({"seen": "unknown"}, "unknown", []),
        ({"seen": "no"}, "no", []),
        (
            {"seen": "yes: LAION-2B, by its URLs"},
            "yes: LAION-2B, by its URLs",
            ["the encoder saw these images in pretraining: LAION-2B, by its URLs"],
        ),
        ({"seen": "yes"}, "yes", ["the encoder saw these images in pretraining"]),
    ],
)
def test_rows_say_whether_the_encoder_saw_the_images(places, capsys, notes, seen, marks):
    make_features(places[0], notes=notes)
    _, out, _ = run(capsys, "--kind knn --k 5")
    (row,) = rows()
    assert (row["seen"], row["marks"]) == (seen, marks)
    assert [mark for mark in marks if f"[1] {mark}\n" in out] == marks


def test_rows_say_whose_preprocessing_it_is(places, capsys):
    make_features(places[0], notes={"protocol": "wu2025"})
    make_features(places[0], "others")
    _, out, _ = run(capsys, "--kind knn --k 5")
    assert "[1] preprocessed as wu2025\n" in out
    by_set = {row["features"]["dataset"]: row for row in rows()}
    assert by_set["toys"]["protocol"] == "wu2025"
    assert (by_set["others"]["protocol"], by_set["others"]["marks"]) == ("", [])


def test_rows_of_earlier_versions_are_read(places, capsys):
    make_features(places[0])
    run(capsys, "--kind knn --k 5 --name first")
    (path,) = places[1].glob("*/*.json")
    row = make_earlier(path, "seen", "protocol")
    assert read_row(path) == {**row, "seen": "unknown", "protocol": "", "per_size": {}}
    assert run(capsys, "--kind knn --k 5 --name second")[0] == 0
    assert read_row(path)["names"] == ["first", "second"]


def test_a_set_that_does_not_fit_is_named_and_the_rest_is_done(places, capsys):
    make_features(places[0], "small", n=(20, 10, 10))
    make_features(places[0], "large", n=(300, 40, 40))
    status, out, err = run(capsys, "--kind knn --k 200")
    assert status == 1
    assert "large" in out
    assert "toy on small: 20 training images are too few for k = 200" in err
    assert [row["features"]["dataset"] for row in rows()] == ["large"]


def test_of_several_k_those_that_fit_are_asked(places, capsys):
    make_features(places[0], n=(50, 10, 10))
    err = refused(capsys, "--kind knn --k 10,50,51,200")
    assert "50 training images are too few for k = 51, 200" in err
    assert sorted(row["probe"]["k"] for row in rows()) == [10, 50]
    assert run(capsys, "--kind knn --k 10,200 --layer all")[0] == 1
    assert len(rows()) == 4  # both layers at k = 10 besides


def test_a_file_that_vanishes_does_not_cost_the_others(places):
    from cache import open_features

    found = [(open_features(make_features(places[0], name)),) for name in ("a", "b")]
    found[0][0].path.unlink()
    config = ProbeConfig(Knn(k=(5,)))
    written, problems = run_probe(config, found, say=lambda line: None)
    assert [row.encoded.dataset for row in written] == ["b"]
    assert problems[0][0] == "toy on a"


def test_corrected_labels_are_another_question(places, capsys):
    path = make_features(places[0])
    run(capsys, "--kind knn --k 5")
    path.unlink()
    make_features(places[0], labels=lambda labels: 2 - labels)  # of the same features
    run(capsys, "--kind knn --k 5")
    first, second = rows()
    assert first["id"] != second["id"]
    assert first["features"]["digest"] == second["features"]["digest"]
    assert first["features"]["samples"]["split"] == second["features"]["samples"]["split"]


def test_rows_in_another_order_than_samples_are_joined_to_their_own(places):
    """By the index of each row's sample, never by position."""
    path = make_features(places[0], row_sample=np.r_[1, 0, 2:220])
    features = open_features(path)
    x = features.array(-1, "cls").astype(np.float32)
    samples = read_samples(features, -1, "cls")
    found = divide_samples(samples, *lay_over(OverlayConfig(), features))["train"].x
    np.testing.assert_array_equal(found[:3], x[[1, 0, 2]])


def test_labels_that_do_not_fit_the_task_are_refused(places, capsys, monkeypatch):
    # Of another writer: ours refuses them, too.
    with monkeypatch.context() as careless:
        careless.setattr("cache.format.sample_tables.check_stored_labels", lambda *given: None)
        make_features(places[0], labels=lambda labels: labels - 5)
    err = refused(capsys, "--kind knn --k 5")
    assert "is damaged: labels of the task 'multi-class' lie in -1..2, found -5..-3" in err


@pytest.mark.parametrize("n", [(60, 0, 20), (60, 20, 0), (0, 20, 20), (1, 1, 1)])
@pytest.mark.parametrize("kind", ["knn --k 1", "linear", "linear --layer all"])
def test_missing_splits_are_said_in_one_line(places, capsys, n, kind):
    make_features(places[0], n=n)
    status, _, err = run(capsys, f"--kind {kind}")
    if kind == "knn --k 1":
        fits = n[0] > 0 and n[2] > 0
    else:
        fits = n == (60, 0, 20) or (kind.endswith("all") and n == (60, 20, 0))
    assert status == (0 if fits else 1)
    assert bool(rows()) == fits
    assert err.count("\n") == (0 if fits else 1)


def test_a_val_split_without_one_class(places, capsys):
    make_features(places[0], n=(60, 2, 20))
    assert run(capsys, "--kind linear --choose val")[0] == 0
    (row,) = rows()
    assert row["val_metrics"]["auc"] is None  # JSON has no NaN
    assert row["metrics"]["auc"]["value"] > 0.5


def test_results_that_cannot_be_written_are_said_before_the_work(places, capsys):
    make_features(places[0])
    places[1].write_text("a file, no folder")
    status, out, err = run(capsys, "--kind knn --k 5")
    assert status == 1
    assert "--results DIR" in err
    assert "train" not in out


@pytest.mark.parametrize("garbage", ["", "[]", "nonsense", '{"names": "abc"}', '{"names": null}'])
def test_a_damaged_row_is_replaced(places, capsys, garbage):
    make_features(places[0])
    run(capsys, "--kind knn --k 5")
    (path,) = places[1].glob("*/*.json")
    path.write_text(garbage)
    assert run(capsys, "--kind knn --k 5 --name again")[0] == 0
    assert rows()[0]["names"] == ["again"]


def test_the_form_is_no_setting_of_two_classes(places, capsys):
    make_features(places[0], n_classes=2, task="binary-class")
    run(capsys, "--kind linear")
    run(capsys, "--kind linear --form ovr")
    (row,) = rows()
    assert "form" not in row["probe"]


def test_files_by_path(places, capsys):
    path = make_features(places[0])
    assert run(capsys, f"{path} --kind knn --k 5")[0] == 0
    status, out, err = run(capsys, f"{path} {path} nowhere.h5 --kind knn --k 5")
    assert status == 1
    assert "no features at nowhere.h5" in err
    assert "1 row with scores" in out
    other = make_features(places[0], precision="bf16")
    _, out, _ = run(capsys, f"{path} {other} --kind knn --k 5")
    assert str(path) in out  # the table's lines would be alike
    assert str(other) in out


def test_a_damaged_file_never_becomes_a_number(places, capsys):
    from cache.format.read import read_header

    path = make_features(places[0])
    with path.open("r+b") as file:
        file.seek(read_header(path).arrays["layers/01/cls"].offset)
        file.write(b"\x01\x02\x03")
    err = refused(capsys, "--kind knn --k 5")
    assert "don't match their checksum" in err
    assert "extract --model toy" in err
    assert not rows()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--kind"),
        ("--kind knn --k ,", "--k takes one or more"),
        ("--kind knn --model ,", "--model takes one or more"),
        ("--kind knn --data=", "--data takes one or more"),
        ("--kind knn a.h5 --features there", "by path or by --features, not both"),
        ("--kind linear --vote majority", "--vote belongs to --kind knn"),
        ("--kind knn --metric euclidean --vote weighted", "weighted vote needs cosine"),
        ("--kind knn --metric euclidean --temperature 1", "--temperature belongs to the weighted"),
        ("--kind knn a.h5 --model vit", "by path or by --model, not both"),
        ("--kind knn --size big", "--size takes numbers"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(places, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--kind knn", "extract --demo"),
        (
            "--kind knn --model eva02 --size 224 --data breastmnist",
            "extract --model eva02 --size 224 --data breastmnist",
        ),
    ],
)
def test_nothing_stored_names_the_next_command(places, capsys, words, message):
    assert message in refused(capsys, words)


def test_layers_that_are_not_there(places, capsys):
    make_features(places[0])
    assert "no pool head at layer 0" in refused(capsys, "--kind knn --k 5 --layer 0 --pool head")


def test_an_unfinished_file_is_named_with_its_command(places, capsys):
    from features import make_spec, write_units

    with FeatureWriter(places[0] / "toys" / "toy_8_aaaaaaaaaaaa.h5", make_spec()) as writer:
        write_units(writer, [0])
    assert "1 of 3 units are done" in refused(capsys, "--kind knn --data toys")


def test_two_faiss_distributions_are_refused(places, capsys, monkeypatch):
    make_features(places[0])
    monkeypatch.setattr(
        "probe.solvers.faiss_library._is_installed", lambda name: name in ("faiss-cpu", "faiss-gpu")
    )
    assert "pip uninstall" in refused(capsys, "--kind knn --k 5")


def test_a_probe_is_one_light_process(places):
    """The default paths of knn and linear load neither torch nor scikit-learn nor pandas."""
    make_features(places[0])
    code = (
        "import sys; from probe.cli import main\n"
        "assert main(['--kind', 'knn', '--k', '5']) == 0 == main(['--kind', 'linear'])\n"
        "heavy = {'torch', 'timm', 'sklearn', 'pandas', 'scipy', 'medmnist'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_features_without_a_signal_are_chance(places, tmp_path, capsys):
    from features import make_spec

    path = write_file(tmp_path / "elsewhere" / "a.h5", make_spec())
    assert run(capsys, f"{path} --kind linear")[0] == 0
    assert abs(rows()[0]["metrics"]["auc"]["value"] - 0.5) < 0.1


def test_a_large_search_says_what_it_will_hold(places, capsys, monkeypatch):
    make_features(places[0])
    assert "in memory" not in run(capsys, "--kind knn --k 5")[1]
    monkeypatch.setattr("probe.kinds.knn.TOLD_BYTES", 1)
    _, out, _ = run(capsys, "--kind knn --k 5")
    assert re.search(r"kNN on toys will hold about [\d.]+ MB in memory", out)
    assert "in memory" not in run(capsys, "--kind knn --k 5 --shots 9 --episodes 2")[1]
