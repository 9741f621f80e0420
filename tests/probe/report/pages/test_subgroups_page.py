"""Subgroups as a page: what it says of rows that `probe` left, and what it refuses."""

import numpy as np
import pytest
from golden import make_toy
from probing import answered, refused, run

from cache import open_features
from cache.errors import RequestError
from cache.task import MULTI_LABEL
from probe.metrics.intervals import estimate
from probe.report.cli import main
from probe.report.pages.subgroups import page_of_subgroups
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.report.statistics.bands import parse_by

N = (120, 60, 240)
WHO, METRICS, GAPS, RATES = range(4)


@pytest.fixture
def asked(places, capsys):
    """A function that asks a toy data set, and gives the page of all rows that are stored."""

    def ask(
        by="meta:site",
        words="--kind linear",
        task="binary-class",
        encoders=("toy.full",),
        **options,
    ):
        for encoder in encoders:
            make_toy(places[0], "toys", task, seed=1, n=N, patients=True, encoder=encoder)
        answered(capsys, f"{words} --data toys")
        rows, _ = read_stored(places[1], stored_files(places[1]))
        return page_of_subgroups(rows, parse_by(by), People(places[0]), **options)

    return ask


def texts(table, name):
    """A column's texts, by its heading."""
    place = [column.name for column in table.columns].index(name)
    return [row[place].shown for row in table.rows]


def test_a_page_says_who_how_good_how_far_apart_and_at_what_rates(asked, places):
    page = asked()
    assert [table.title.partition(": ")[2] for table in page.tables] == [
        *("who is in test", "metrics by subgroup"),
        *("gaps between subgroups", "rates at a threshold fixed on val"),
    ]
    sites = ["north", "south", "west"]
    assert texts(page.tables[WHO], "subgroup") == sites
    assert texts(page.tables[WHO], "samples") == ["80"] * 3
    assert texts(page.tables[WHO], "patients") == ["40"] * 3
    assert texts(page.tables[GAPS], "metric") == ["acc", "auc"]
    assert page.tables[RATES].below == (
        "answered yes: largest Youden's J on val (of equal ones the lowest threshold)",
    )
    assert ("subgroups", "by the values of meta:site") in page.tables[WHO].above
    assert ("model", "toy") in page.tables[WHO].above
    assert page.tables[METRICS].columns[0].name == "subgroup"
    assert not any("left out" in note for note in page.notes)


def test_its_numbers_are_those_of_the_scores_and_the_feature_file(asked, places):
    page = asked()
    (path,) = places[1].glob("*/*.npz")
    with np.load(path) as file:
        scores, labels, ids = (file[f"test_{name}"] for name in ("scores", "labels", "ids"))
    features = open_features(next(places[0].glob("*/*.h5")))
    places_of = {name: place for place, name in enumerate(features.ids)}
    order = [places_of[name] for name in ids]
    site, patients = features.meta["site"][order], features.groups[order]
    for row in page.tables[METRICS].rows:
        who = site == row[0].text
        found = estimate(scores[who], labels[who], "binary-class", groups=patients[who])
        for cell, name in zip(row[1:], ("acc", "auc"), strict=True):
            assert (cell.value, cell.low, cell.high) == found.metrics[name]
    threshold = page.tables[RATES].rows[0][1].value
    for row in page.tables[RATES].rows:
        ones = (site == row[0].text) & (labels == 1)
        assert row[3].text == f"{(scores[ones, 1] > threshold).sum()}/{ones.sum()}"


def test_rows_of_one_test_set_stand_in_one_table(asked):
    page = asked(encoders=("toy.full", "other.full"))
    assert len(page.tables) == 4
    assert texts(page.tables[METRICS], "model") == ["other"] * 3 + ["toy"] * 3
    assert len(page.tables[GAPS].rows) == 4


def test_each_fold_is_a_test_set_of_its_own(asked):
    page = asked(words="--kind linear --split kfold:3")
    heads = [table.title for table in page.tables if table.title.endswith("who is in test")]
    assert heads == [f"toys fold {i}/3: who is in test" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("task", "words", "names"),
    [
        (MULTI_LABEL, "--kind linear", ["acc", "auc"]),
        ("regression", "--kind ridge", ["mae", "r2"]),
    ],
)
def test_every_task_has_its_metrics(asked, task, words, names):
    page = asked(words=words, task=task)
    assert texts(page.tables[GAPS], "metric") == names
    is_number = task == "regression"
    assert len(page.tables) == (3 if is_number else 4)
    if not is_number:
        found = dict.fromkeys(texts(page.tables[RATES], "class"))
        assert list(found) == ["edema", "effusion", "fracture"]


def test_metrics_and_sensitivity_are_as_asked(asked):
    page = asked(metrics=["balanced_accuracy"], sensitivity=0.95)
    assert texts(page.tables[GAPS], "metric") == ["bal. acc"]
    assert page.tables[RATES].below == ("answered yes: sensitivity 0.95 on val",)


def test_classes_with_few_patients_are_counted_and_say_so(asked):
    page = asked(by="meta:age:50,60")
    assert texts(page.tables[WHO], "subgroup") == ["<50", "50-60", ">=60"]
    assert any("counts only: class" in note for note in page.numbered())
    assert any(note.startswith("Where a subgroup has under 10 patients") for note in page.notes)


def test_tertiles_are_of_the_samples_outside_test(asked, places):
    page = asked(by="meta:age")
    features = open_features(next(places[0].glob("*/*.h5")))
    age = features.meta["age"][features.split != "test"]
    low = np.quantile(age, 1 / 3, method="inverted_cdf")
    assert texts(page.tables[WHO], "subgroup")[0] == f"<{low:g}"
    assert ("subgroups", "bands of meta:age, tertiles of train and val") in page.tables[WHO].above


def test_measured_patients_are_of_the_subgroup_of_their_samples(asked):
    page = asked(words="--kind linear --aggregate patient")
    assert texts(page.tables[WHO], "samples") == ["40"] * 3
    ages = asked(by="meta:age:60", words="--kind linear --aggregate patient --name again")
    assert texts(ages.tables[WHO], "subgroup")[-1] == "unknown"  # samples of several ages


def test_what_has_no_subgroups_is_left_out_and_named(asked, places, capsys):
    asked()
    answered(capsys, "--kind linear --data toys --shots 2 --episodes 3")
    rows, _ = read_stored(places[1], stored_files(places[1]))
    page = page_of_subgroups(rows, parse_by("meta:site"), People(places[0]))
    (said,) = [note for note in page.notes if note.startswith("left out")]
    assert said == (
        "left out: toy on toys: few-shot episodes have no subgroups; ask without --shots"
    )


def test_a_column_that_is_not_there_is_refused(asked):
    with pytest.raises(
        RequestError, match="toys has no column meta:sex; its columns are age, site"
    ):
        asked(by="meta:sex")


def test_without_the_feature_file_nobody_knows(asked, places, tmp_path):
    asked()
    rows, _ = read_stored(places[1], stored_files(places[1]))
    with pytest.raises(RequestError, match="name their folder with --features DIR"):
        page_of_subgroups(rows, parse_by("meta:site"), People(tmp_path / "none"))


def test_rows_that_nothing_else_tells_apart_have_their_id(asked, places, capsys):
    asked()
    page = asked(words="--kind linear --choose val")
    _, rows, metrics, *_ = page.tables
    assert texts(rows, "row") == ["1", "2"]
    ids = texts(rows, "id")
    assert len(set(ids)) == 2
    assert all(len(name) == 8 for name in ids)
    assert texts(metrics, "row") == ["1"] * 3 + ["2"] * 3


@pytest.mark.parametrize("encoders", [("toy.full",), ("toy.full", "other.full")])
def test_rows_have_numbers_where_models_do_not_tell_them_apart(asked, encoders):
    asked(words="--kind ridge --layer 0", encoders=encoders)
    page = asked(words="--kind ridge --layer 1", encoders=encoders)
    _, rows, *others = page.tables
    assert rows.title == "toys: rows"
    names = [column.name for column in rows.columns]
    assert names[0] == "row"
    assert ("model" in names) == (len(encoders) > 1)
    assert "weights" not in names
    assert "layer" in names
    assert all(table.columns[0].name == "row" for table in others)
    assert not any("layer" in [c.name for c in table.columns] for table in others)


@pytest.mark.parametrize(("choice", "is_said"), [("val", False), ("cv", True)])
def test_a_page_says_where_val_is_out_of_fold(asked, choice, is_said):
    page = asked(words=f"--kind linear --choose {choice}")
    assert any("out of fold" in note for note in page.notes) == is_said


def test_report_table_prints_the_page(places, capsys):
    make_toy(places[0], "toys", "binary-class", seed=1, n=N, patients=True)
    answered(capsys, "--kind linear")
    status = main(["table", "--by", "meta:site", "--metric", "auc", "--sensitivity", "0.9"])
    out = capsys.readouterr().out
    assert status == 0
    assert "answered yes: sensitivity 0.9 on val" in out
    assert "auc [95 %]" in out
    assert "acc [95 %]" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--by meta:site --sensitivity 90", "a sensitivity lies above 0, up to 1; found 90"),
        ("--by meta:age:60,40", "edges of bands are numbers that ascend"),
    ],
)
def test_report_table_refuses_what_nothing_would_come_of(places, capsys, words, message):
    make_toy(places[0], "toys", "binary-class", seed=1, n=N, patients=True)
    answered(capsys, "--kind linear")
    assert main(["table", *words.split()]) == 1
    assert message in capsys.readouterr().err


def test_probe_prints_the_page_and_writes_the_same_rows(places, capsys):
    make_toy(places[0], "toys", "binary-class", seed=1, n=N, patients=True)
    plain = answered(capsys, "--kind linear")
    before = sorted(places[1].glob("*/*.npz"))
    (path,) = places[0].glob("*/*.h5")
    out = answered(capsys, f"{path} --kind linear --by meta:site")
    assert sorted(places[1].glob("*/*.npz")) == before
    head = plain.rpartition("\n\n")[0]
    assert out.startswith(head)
    assert "toys: gaps between subgroups" in out
    assert "toys: gaps between subgroups" not in plain


def test_probe_says_why_it_prints_none(places, capsys):
    make_toy(places[0], "toys", "binary-class", seed=1, n=N, patients=True)
    assert "--by meta:sex: toys has no column meta:sex" in refused(
        capsys, "--kind linear --by meta:sex"
    )
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--kind linear --by sex")
