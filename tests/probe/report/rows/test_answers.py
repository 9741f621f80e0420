"""Answers of several encoders in one order, with the patients that feature files know."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of
from overlaying import N, make_file
from probing import answered

from cache.errors import RequestError
from cache.features import open_features
from probe.report.rows.answers import test_sets as sets_of
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People, Unfound
from probe.report.rows.stored import Wanted, read_stored, stored_files

PATIENTS = np.array([f"p{i // 3}" for i in range(N)])
SEX = np.array(["f", "m"] * (N // 2))
LABELS = labels_of(30)


@pytest.fixture
def asked(places, capsys):
    """Two encoders on the same patients, asked; returns their contenders and where features are."""
    features = make_file(places[0], groups=PATIENTS, meta={"sex": SEX})
    make_file(places[0], model="tuned", groups=PATIENTS, meta={"sex": SEX})
    answered(capsys, ["--kind", "knn", "--k", "5"])
    root = Path(os.environ["MEDPROBE_RESULTS"])
    rows, problems = read_stored(root, stored_files(root), Wanted())
    assert not problems
    return contenders_of(rows), places[0], features


def test_patients_and_meta_columns_are_those_of_the_samples(asked):
    found, folder, features = asked
    (test,) = sets_of(found, People(folder))
    is_test = features.split == "test"
    assert (test.ids == features.ids[is_test]).all()
    assert (test.samples.groups == PATIENTS[is_test]).all()
    assert (test.samples.labels == features.labels[is_test]).all()
    assert (People(folder).meta_of(found[0].first.row, test.ids)["sex"] == SEX[is_test]).all()
    assert [a.scores.shape for a in test.answers] == [(is_test.sum(), 3)] * 2


def test_any_file_with_these_patients_will_do_and_none_is_named(asked):
    found, folder, features = asked
    features.path.unlink()
    assert sets_of(found, People(folder))[0].samples.groups is not None
    for path in folder.glob("toys/*.h5"):
        path.unlink()
    with pytest.raises(Unfound, match=r"--features DIR"):
        sets_of(found, People(folder))
    make_file(folder, groups=PATIENTS[::-1])
    with pytest.raises(Unfound, match=r"none below .* has the samples"):
        sets_of(found, People(folder))
    assert open_features(next(folder.glob("toys/*.h5"))).groups is not None


def rows_of(order):
    scores = scores_of(LABELS, 1.0, 1)
    ids = np.array([f"toys/{i:05d}" for i in range(len(LABELS))])
    a = answer("a", scores_of(LABELS, 2.0, 0), LABELS)
    return a, answer("b", scores[order], LABELS[order], ids=ids[order]), scores


def test_other_orders_of_the_same_samples_are_one():
    order = np.random.default_rng(0).permutation(30)
    a, b, scores = rows_of(order)
    (test,) = sets_of(contenders(a, b), NOBODY)
    assert (test.answers[1].scores == scores).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: {n: v[1:] if n.startswith("test") else v for n, v in s.items()},
            "29 are common of 29 and 30",
        ),
        (lambda s: {**s, "test_labels": 1 - s["test_labels"]}, "30 test samples have other labels"),
        (lambda s: {n: v for n, v in s.items() if n != "test_scores"}, "test wasn't read"),
    ],
)
def test_other_samples_or_labels_are_refused_by_name(change, said):
    a, b, _ = rows_of(np.arange(30))
    b = dataclasses.replace(b, row=dataclasses.replace(b.row, scores=change(dict(b.row.scores))))
    with pytest.raises(RequestError, match=said):
        sets_of(contenders(a, b), NOBODY)
