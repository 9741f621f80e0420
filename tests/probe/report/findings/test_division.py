"""How rows divided their samples, against what `probe` itself lays over a feature file."""

import numpy as np
import pytest
from golden import make_toy
from probing import answered

from cache import open_features
from cache.splits.files import write_split_file
from cache.splits.rules import SplitRule
from probe.questions.laying import lay_over
from probe.questions.overlay import OverlayConfig
from probe.report.findings.cohort import characterise, count_splits
from probe.report.findings.division import CHANGED, divisions
from probe.report.findings.headline import read_record
from probe.report.findings.reported import report_on
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.report.study.cards import cards
from probe.report.study.make import Studied, make_study

ALL = ("train", "val", "test")
TOYS = {"task": "binary-class", "seed": 3, "n": (60, 40, 60), "patients": True, "looks": "alone"}


@pytest.fixture
def asked(places, capsys, tmp_path):
    """A function that asks toys, and gives the contenders, People and the feature file."""

    def ask(*lines):
        features = open_features(make_toy(places[0], "toys", **TOYS))
        table = tmp_path / "mine.csv"
        patients = np.unique(features.groups, return_inverse=True)[1]
        write_split_file(table, features.ids, (patients % 5 % 3).astype(np.uint8), "toys")
        for line in lines:
            answered(capsys, f"--data toys {line.replace('mine.csv', str(table))}")
        rows, _ = read_stored(places[1], stored_files(places[1]))
        return contenders_of(rows), People(places[0]), features, table

    return ask


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("--kind linear", ALL),
        ("--kind linear --split-file mine.csv", ALL),
        ("--kind linear --choose val --split-file mine.csv", ALL),
        ("--kind knn --k 5 --split-file mine.csv", ALL),
        ("--kind linear --aggregate patient --split-file mine.csv", ALL),
        ("--kind adamw --epochs 1 --split-file mine.csv", ("val", "test")),
        ("--kind adamw --epochs 1 --split 60/20/20", ALL),
        ("--kind linear --shots 3 --episodes 2 --split-file mine.csv", ("test",)),
        ("--kind linear --target meta:site --split-file mine.csv", ALL),
    ],
)
def test_samples_are_divided_as_they_were_asked(asked, line, known):
    contenders, people, features, table = asked(line)
    (found,) = divisions(contenders, people)
    overlay = OverlayConfig(
        target="meta:site" if "--target" in line else None,
        split=SplitRule.parse("60/20/20") if "--split " in line else None,
        split_file=table if "mine.csv" in line else None,
    )
    (question,) = lay_over(overlay, features)
    split = np.array([*ALL, ""])[np.minimum(question.split, 3)]
    assert found.known == known
    n = {name: int((split == name).sum()) for name in ALL}
    assert dict(found.n) == ({"test": n["test"]} if "--shots" in line else n)
    is_known = np.isin(split, known)
    assert found.features.split[is_known].tolist() == split[is_known].tolist()
    assert found.features.labels[is_known].tolist() == question.labels[is_known].tolist()
    assert list(found.features.class_names) == list(question.task.class_names)
    assert not found.features.split[~is_known].any()
    assert found.is_stored == (line == "--kind linear")
    assert ("mine.csv" in found.name) == ("mine.csv" in line)


def test_rows_of_one_split_tell_what_others_do_not_keep(asked):
    of_file = "--split-file mine.csv"
    contenders, people, *_ = asked(
        f"--kind adamw --epochs 1 {of_file}", f"--kind knn --k 5 {of_file}"
    )
    (found,) = divisions(contenders, people)
    assert found.known == ALL


def test_folds_are_their_test_sets_together(asked):
    contenders, people, *_ = asked("--kind linear --split kfold:3")
    (found,) = divisions(contenders, people)
    assert (found.known, found.n_folds) == (("test",), 3)
    assert (found.features.split == "test").all()
    assert "test sets of 3 folds or sites together" in found.name
    (card, *_) = cards(contenders, people)
    assert [column.name for column in card.tables[0].columns] == ["class", "test"]


def test_labels_that_changed_since_are_those_that_were_asked(asked, places):
    asked("--kind linear --choose val")
    path = next(places[0].glob("*/*.h5"))
    labels = open_features(path).labels.copy()
    path.unlink()
    make_toy(places[0], "toys", **{**TOYS, "seed": 4})
    rows, _ = read_stored(places[1], stored_files(places[1]))
    (found,) = divisions(contenders_of(rows), People(places[0]))
    assert found.name == CHANGED
    assert found.features.labels.tolist() == labels.tolist()


def test_cards_and_checklists_count_the_split_that_was_asked(asked, places):
    of_file = "--split-file mine.csv"
    contenders, people, *_ = asked(
        f"--kind linear --aggregate patient {of_file}", f"--kind linear {of_file}"
    )
    (card, *_) = cards(contenders, people)
    (table,) = card.tables
    assert table.title == "toys, mine.csv"
    (division,) = divisions(contenders, people)
    samples, patients = ([cell.value for cell in row[1:]] for row in table.rows[-2:])
    n = [int((division.features.split == name).sum()) for name in ALL]
    assert samples == [*n, sum(n)]
    assert patients == [of / 2 for of in samples]  # two samples each
    for of in report_on(contenders, "auc", read_record(places[1]), people):
        assert [s.n for s in count_splits(of)] == n
        assert [s.n_patients for s in count_splits(of)] == patients[:3]
        assert [sum(m for _, m in s.by_class) for s in count_splits(of)] == n
        assert {s for c in characterise(of) for s, _ in c.by_split} == set(ALL)


def test_several_splits_have_a_table_each(asked):
    contenders, people, *_ = asked("--kind linear", "--kind linear --split-file mine.csv")
    (card, *_) = cards(contenders, people)
    assert sorted(table.title for table in card.tables) == ["toys", "toys, mine.csv"]
    assert "asked with 2 splits or labels" in card.notes[0]


def test_figures_of_files_are_of_the_samples_that_were_tested(asked, places):
    contenders, people, *_ = asked(
        "--kind linear --target meta:site --split-file mine.csv",
        "--kind linear --split-file mine.csv",
    )
    rows = [row for c in contenders for row in c.rows]
    study = make_study(Studied(rows, contenders, people, read_record(places[1]), "auc"))
    (alike,) = (section.blocks for section in study.sections if section.name == "alike")
    titles = {figure.title for figure in alike}
    assert all("toys, mine.csv" in title for title in titles)
    plane = next(figure for figure in alike if figure.name == "scatter-toys")
    (chosen,) = divisions(contenders[:1], people)
    is_test = chosen.features.split == "test"
    assert sorted(p.id for p in plane.frame.points) == sorted(chosen.features.ids[is_test])
    names = {p.id: p.label for p in plane.frame.points}
    for name, label in zip(
        chosen.features.ids[is_test], chosen.features.labels[is_test], strict=True
    ):
        assert names[name] == chosen.features.class_names[label]


def test_another_file_is_divided_alike(asked, tmp_path):
    contenders, people, features, _ = asked(
        "--kind linear --target meta:site --split-file mine.csv"
    )
    (found,) = divisions(contenders, people)
    other = open_features(make_toy(tmp_path, "toys", **TOYS, encoder="wide.full"))
    laid = found.over(other)
    assert laid.split.tolist() == found.features.split.tolist()
    assert laid.labels.tolist() == found.features.labels.tolist()
    assert laid.class_names == list(found.features.class_names)
    assert laid.array().shape == other.array().shape
    assert other.split.tolist() == features.split.tolist()  # the file itself stays as it is
