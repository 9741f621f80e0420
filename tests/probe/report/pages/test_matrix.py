"""One metric of encoders x data sets: what is compared, what is marked, and what stands apart."""

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of

from cache.errors import RequestError
from probe.report.formats.write import write
from probe.report.pages.matrix import Shape, page_of_metric

LABELS = labels_of()
GOOD, POOR = 3.0, 0.3


def rows_of(skills, **facts):
    labels = facts.pop("labels", LABELS)
    return [
        answer(name, scores_of(labels, skill, seed), labels, **facts)
        for seed, (name, skill) in enumerate(skills.items())
    ]


def page_of(rows, metric="auc", **shape):
    return page_of_metric(contenders(*rows), metric, Shape(**shape), NOBODY)


def marked(table, column):
    """The lines that are marked in a column."""
    place = [c.name for c in table.columns].index(column)
    body = table.rows[: len(table.rows) - table.feet]
    return [row[0].text for row in body if row[place].is_marked]


def words(table, column):
    place = [c.name for c in table.columns].index(column)
    return {row[0].text: row[place].shown for row in table.rows}


@pytest.mark.parametrize("metric", ["auc", "acc", "brier", "balanced_accuracy"])
def test_who_is_put_below_another_is_not_marked_whichever_way_the_metric_runs(metric):
    (table,) = page_of(rows_of({"a": GOOD, "b": GOOD, "c": POOR}), metric).tables
    assert marked(table, "toys") == ["a", "b"]
    assert words(table, "rank") | {"test samples": ""} == {
        "a": "1-2", "b": "1-2", "c": "3", "test samples": "",
    }  # fmt: skip
    assert any("max-T bootstrap over all 3 pairs, level 0.05" in line for line in table.below)


def test_calibration_errors_and_single_encoders_have_no_test_and_no_mark():
    page = page_of(rows_of({"a": GOOD, "b": POOR}), "ece")
    assert not any(cell.is_marked for cell in page.tables[0].cells())
    assert "no test holds for errors of calibration" in page.tables[0].below[-1]
    (table,) = page_of(rows_of({"a": GOOD})).tables
    assert not any(cell.is_marked for cell in table.cells())


def test_a_gap_is_empty_and_the_average_is_of_those_that_have_all():
    first = rows_of({"a": GOOD, "b": GOOD, "c": POOR}, dataset="breastmnist")
    other = rows_of({"a": GOOD, "c": GOOD}, dataset="bloodmnist")
    (table,) = page_of([*first, *other], "acc").tables
    assert words(table, "bloodmnist")["b"] == ""
    assert words(table, "average")["b"] == "-"
    of_a = [of.row.measured.test["acc"].value for of in (first[0], other[0])]
    assert words(table, "average")["a"] == f"{np.mean(of_a):.3f}"


def test_sets_that_share_patients_are_averaged_as_one():
    sets = ["organamnist", "organcmnist", "organsmnist", "breastmnist"]
    rows = [row for name in sets for row in rows_of({"a": GOOD, "b": POOR}, dataset=name)]
    rows[0] = answer("a", scores_of(LABELS, POOR, 9), LABELS, dataset="organamnist")
    (table,) = page_of(rows, "acc").tables
    values = [row.row.measured.test["acc"].value for row in rows if row.row.encoded.model == "a"]
    assert words(table, "average")["a"] == f"{np.mean([np.mean(values[:3]), values[3]]):.3f}"
    assert "organamnist, organcmnist, organsmnist share patients and are one" in table.below[0]
    assert any("can't decide" in line for line in table.below)  # of two units


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"samples": {"labels": 9, "split": 2}}, "other labels of toys"),
        ({"samples": {"labels": 1, "split": 9}}, "other split of toys"),
        ({"kind": "knn", "k": 5}, "kind knn, not linear"),
        ({"standardise": True}, "standardise True, not none"),
        ({"split": {"rule": "kfold:3", "seed": 0, "name": "fold 1/3"}}, "split"),
        ({"n_resamples": 7}, "n_resamples 7, not none"),
    ],
)
def test_what_differs_in_more_than_the_encoder_is_another_table(more, said):
    page = page_of([*rows_of({"a": GOOD, "b": POOR}), *rows_of({"c": GOOD}, **more)])
    first, second = page.tables
    assert said in second.title
    assert marked(first, "toys") == ["a"]
    assert not any(cell.is_marked for cell in second.cells())
    assert "nothing is ranked across them" in write(page)


def test_axes_that_are_asked_for_divide_no_table():
    knn = rows_of({"a": GOOD, "b": GOOD}, kind="knn", k=5) + rows_of({"a": POOR}, kind="knn", k=9)
    linear = rows_of({"a": GOOD, "b": POOR})
    (table,) = page_of(knn, across="k").tables
    assert [c.name for c in table.columns][1:] == ["5", "9"]
    (table,) = page_of([*knn[:2], *linear], by=("model", "kind")).tables
    assert [tuple(c.text for c in row[:2]) for row in table.rows[:4]] == [
        ("a", "knn"), ("b", "knn"), ("a", "linear"), ("b", "linear"),
    ]  # fmt: skip


def test_two_answers_of_one_encoder_are_told_apart_by_what_differs():
    rows = rows_of({"a": GOOD}) + rows_of({"a": POOR, "b": GOOD}, pool="mean")
    (table,) = page_of(rows).tables
    assert [c.name for c in table.columns][:2] == ["model", "pool"]
    rows = rows_of({"a": GOOD}) + rows_of({"a": POOR}, size=64)
    (table,) = page_of(rows).tables
    assert [c.name for c in table.columns][:2] == ["model", "size"]


@pytest.mark.parametrize(
    ("sort", "order"),
    [("toys", "cba"), ("-toys", "abc"), ("model", "abc"), ("-model", "cba"), ("rank", "abc")],
)
def test_lines_are_sorted_by_a_column(sort, order):
    rows = rows_of({"b": 1.0, "a": GOOD, "c": POOR})
    (table,) = page_of(rows, sort=sort).tables
    assert "".join(row[0].text for row in table.rows[:3]) == order
    with pytest.raises(RequestError, match="no such column; there are model, toys, rank"):
        page_of(rows, sort="nothing")


def test_the_level_of_a_whole_table_is_shared_by_its_columns():
    sets = ["breastmnist", "bloodmnist"]
    rows = [row for name in sets for row in rows_of({"a": GOOD, "b": POOR}, dataset=name)]
    (table,) = page_of(rows, family="table").tables
    assert any("level 0.025" in line for line in table.below)


def test_trainings_have_a_spread_and_are_tested_over_trainings_too():
    rows = [
        answer(name, scores_of(LABELS, skill, seed), LABELS, kind="finetune", training_seed=seed)
        for name, skill in (("a", GOOD), ("b", POOR))
        for seed in range(3)
    ]
    (table,) = page_of(rows, "acc").tables
    cell = table.rows[0][1]
    assert cell.sd == pytest.approx(
        np.std([r.row.measured.test["acc"].value for r in rows[:3]], ddof=1)
    )
    assert marked(table, "toys") == ["a"]
    assert any("Holm over one pair" in line for line in table.below)
    two = [*rows[:5]]  # of b one training is lacking: another number of trainings is another table
    assert len(page_of(two, "acc").tables) == 2
