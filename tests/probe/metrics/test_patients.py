"""Patients: scores averaged over their samples, and intervals that leave them out."""

import json

import numpy as np
import pytest
from leaking import make_file
from numpy.testing import assert_allclose

from cache.errors import RequestError
from cache.features import open_features
from cache.task import MISSING
from probe.cli import main
from probe.metrics import classification as metrics
from probe.metrics.patients import Scored, by_patient


def test_by_eye():
    scored = Scored(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.5, 0.5]]),
        np.array([0, 1, 1, 0, 1]),
        np.array(["a", "b", "c", "d", "e"]),
        np.array(["p2", "p1", "p1", "p2", ""]),
    )
    found = by_patient(scored)
    assert_allclose(found.scores, [[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
    assert found.labels.tolist() == [0, 1, 1]
    assert found.ids.tolist() == ["p2", "p1", "e"]  # in the order in which they occur
    assert found.groups is None
    episodes = np.stack([scored.scores, scored.scores[::-1]])
    both = by_patient(scored._replace(scores=episodes)).scores
    assert_allclose(both[0], found.scores)
    assert_allclose(both[1], [[0.35, 0.65], [0.55, 0.45], [0.9, 0.1]])


def test_an_id_may_be_the_name_of_a_patient():
    groups = np.array(["a", "a", ""])
    found = by_patient(Scored(np.eye(3), np.array([1, 1, 2]), np.array(["b", "c", "a"]), groups))
    assert found.ids.tolist() == ["a", "a"]
    assert found.labels.tolist() == [1, 2]


def test_of_several_labels_each_agrees_where_it_is_known():
    labels = np.array([[1, MISSING], [1, 0], [MISSING, MISSING], [0, 1]])
    groups = np.array(["p", "p", "p", "q"])
    scored = Scored(np.zeros((4, 2)), labels, np.array([*"abcd"]), groups)
    assert by_patient(scored).labels.tolist() == [[1, 0], [0, 1]]
    other = scored._replace(labels=np.array([[1, 0], [1, 1], [0, 0], [0, 1]]))
    with pytest.raises(RequestError, match="1 of 2 patients have several, 'p' for one"):
        by_patient(other)


def test_a_patient_with_two_labels_is_refused():
    scored = Scored(np.eye(2), np.array([0, 1]), np.array(["a", "b"]), np.array(["p", "p"]))
    with pytest.raises(RequestError, match="one label for all samples of a patient.*--labels FILE"):
        by_patient(scored)


def test_unknown_patients_are_refused():
    scored = Scored(np.eye(2), np.array([0, 1]), np.array(["a", "b"]), None)
    with pytest.raises(RequestError, match="extract --group-col"):
        by_patient(scored)
    nobody = Scored(np.empty((0, 2)), np.empty(0, int), np.empty(0, str), None)
    assert by_patient(nobody) is nobody  # test that wasn't read


# ---------------------------------------------------------------------------- the command


def ask(capsys, tmp_path, path, *words):
    status = main([str(path), "--kind", "knn", "--k", "5", "--resamples", "50", *words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    stored = sorted((tmp_path / "results").rglob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    row = json.loads(stored[-1].read_text()) if stored else None
    return status, said.out, said.err, row


@pytest.fixture
def path(tmp_path):
    """Two samples of each patient; who has copies isn't of interest here."""
    path = make_file(tmp_path / "features", copies={}, twins={})
    labels = open_features(path).labels
    order = np.argsort(labels[80:], kind="stable")
    groups = np.array([f"p{i}" for i in range(120)])
    groups[80:][order] = [f"q{i // 2}" for i in range(40)]
    assert len(np.unique(labels[80:])) == 2
    if (labels[80:] == 0).sum() % 2:  # else one patient would have both labels
        groups[80:][order[(labels[80:] == 0).sum() - 1]] = ""
    return make_file(tmp_path / "features", copies={}, twins={}, groups=groups, patients=True)


def test_intervals_of_patients(capsys, tmp_path, path):
    status, _, err, row = ask(capsys, tmp_path, path)
    assert (status, err) == (0, "")
    assert row["intervals"]["acc"] == row["intervals"]["auc"] == "jackknife"
    assert row["intervals"]["ece"] == "none"
    assert row["metrics"]["ece"]["low"] is None
    assert row["score_type"] == "probability"
    assert 0.01 <= row["temperature"] <= 100
    assert row["per_class"]["class"] == ["a", "b"]
    assert sum(row["per_class"]["n"]) == 40
    recall = np.mean(row["per_class"]["recall"])
    assert recall == pytest.approx(row["metrics"]["balanced_accuracy"]["value"])


def test_patients_are_measured(capsys, tmp_path, path):
    by_sample = ask(capsys, tmp_path, path)[3]
    status, out, err, row = ask(capsys, tmp_path, path, "--aggregate", "patient")
    assert (status, err) == (0, "")
    features = open_features(path)
    assert features.groups is not None
    test = features.split == "test"
    n = len(set(features.groups[test]) - {""}) + int((features.groups[test] == "").sum())
    assert f"patients are measured, 20 of val and {n} of test" in out
    assert row["id"] != by_sample["id"]
    assert row["probe"]["scores_of"] == "patients"
    assert row["intervals"]["acc"] == "wilson"
    assert row["intervals"]["auc"] in ("jackknife", "one-sided")
    stored = {}
    for found in (by_sample, row):
        (file,) = (tmp_path / "results").rglob(f"*{found['id'][:16]}*.npz")
        with np.load(file) as arrays:
            stored[found["id"]] = {name: arrays[name] for name in arrays}
    samples, patients = stored[by_sample["id"]], stored[row["id"]]
    assert len(patients["test_ids"]) == n
    names = dict(zip(features.ids, features.groups, strict=True))
    for name, scores in zip(patients["test_ids"], patients["test_scores"], strict=True):
        own = [i for i, s in enumerate(samples["test_ids"]) if (names[s] or s) == name]
        assert_allclose(samples["test_scores"][own].mean(axis=0), scores, rtol=1e-6)
    answers = patients["test_scores"].astype(float), patients["test_labels"], "multi-class"
    assert row["metrics"]["acc"]["value"] == metrics.evaluate(*answers)["acc"]


def test_words_of_aggregate(capsys, tmp_path, path):
    ask(capsys, tmp_path, path, "--aggregate", "patient")
    assert ask(capsys, tmp_path, path, "--aggregate", "mean,patient")[0] == 0
    assert len([*(tmp_path / "results").rglob("*.json")]) == 1
    for words in ("mean,max", "patient,patient", "median"):
        with pytest.raises(SystemExit):
            ask(capsys, tmp_path, path, "--aggregate", words)
        assert "--aggregate takes" in capsys.readouterr().err


def test_without_patients_the_flag_is_refused(capsys, tmp_path):
    path = make_file(tmp_path / "features", copies={}, twins={})
    status, _, err, _ = ask(capsys, tmp_path, path, "--aggregate", "patient")
    assert status == 1
    assert "needs to know the patients" in err


def test_twins_are_left_out_before_patients_are_averaged(capsys, tmp_path):
    features = open_features(make_file(tmp_path / "features"))
    groups = np.array([f"p{i}" for i in range(120)])
    labels = features.labels
    with_twin, other = 80, int(np.flatnonzero(labels[85:] == labels[80])[0]) + 85
    groups[[with_twin, other]] = "q"
    path = make_file(tmp_path / "features", groups=groups, patients=True)
    _, _, _, row = ask(capsys, tmp_path, path, "--aggregate", "patient")
    (file,) = (tmp_path / "results").rglob("*.npz")
    with np.load(file) as arrays:
        assert len(arrays["test_ids"]) == 39
    assert row["without_twins"]["n"] == 35  # samples; each is a patient by now


def test_other_patients_are_another_question(capsys, tmp_path, path):
    """Their names aren't in the features' key, and intervals leave them out in turn."""
    first = ask(capsys, tmp_path, path)[3]
    assert first["probe"]["groups"] == open_features(path).header.tables["samples/groups"]
    again = ask(capsys, tmp_path, path)[3]
    assert again["id"] == first["id"]
    groups = np.array([f"p{i // 3}" for i in range(120)])
    make_file(tmp_path / "features", copies={}, twins={}, groups=groups, patients=True)
    other = ask(capsys, tmp_path, path)[3]
    assert other["id"] != first["id"]
    value, *ends = other["metrics"]["acc"].values()
    assert value == first["metrics"]["acc"]["value"]
    assert ends != [*first["metrics"]["acc"].values()][1:]
    assert len([*(tmp_path / "results").rglob("*.json")]) == 2
    # The names alone change nothing where each has one sample.
    alone = np.array([f"p{i}" for i in range(120)])
    make_file(tmp_path / "features", copies={}, twins={}, groups=alone, patients=True)
    assert "groups" not in ask(capsys, tmp_path, path)[3]["probe"]
