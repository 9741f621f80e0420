"""One metric of encoders x data sets: what is compared, what is marked, and what stands apart."""

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of

from cache.errors import RequestError
from probe.report.findings.parts import Shape
from probe.report.formats.write import write
from probe.report.pages.matrix import page_of_metric

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
    ranks = words(table, "rank")
    assert [ranks[line] for line in "abc"] == ["1-2", "1-2", "3"]
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
        ({"standardise": True}, ": standardise"),
        ({"split": {"rule": "kfold:3", "seed": 0, "name": "fold 1/3"}}, ": split kfold:3, 0"),
        ({"n_resamples": 7}, ": 7 resamples"),
        ({"aggregate": "max"}, ": aggregate max"),
        ({"text": {"key": "x", "n_prompts": 8}}, ": 8 prompts"),
        ({"prepared": "wu2025"}, ": prepared wu2025"),
        ({"trained": "others"}, ": trained on others"),
        ({"scores_of": "patients"}, ": patients measured"),
        ({"few_shot": {"shots": 5, "episodes": 9}}, ": 5 shots"),
    ],
)
def test_what_differs_in_more_than_the_encoder_is_another_table(more, said):
    page = page_of([*rows_of({"a": GOOD, "b": POOR}), *rows_of({"c": GOOD}, **more)])
    first, second = page.tables
    assert said in second.title
    assert marked(first, "toys") == ["a"]
    assert not any(cell.is_marked for cell in second.cells())
    assert "nothing is ranked across them" in write(page)


def test_what_the_first_alone_has_is_named():
    few = {"few_shot": {"shots": 5, "episodes": 9}, "scores_of": "patients", "prepared": "wu2025"}
    for name, said in [
        *zip(few, ("all of train", "samples measured", "not prepared wu2025"), strict=True)
    ]:
        page = page_of([*rows_of({"a": GOOD}, **{name: few[name]}), *rows_of({"b": GOOD})])
        assert page.tables[1].title == f"table 2 of 2: {said}"


def test_no_two_tables_have_one_title():
    """The first differs in its kind from both others, and those in what is measured."""
    tuned = rows_of({"a": GOOD}, kind="finetune", mode="full")
    rows = [*tuned, *rows_of({"a": GOOD}), *rows_of({"a": GOOD}, scores_of="patients")]
    assert [table.title.partition(": ")[2] for table in page_of(rows).tables] == [
        "",
        "kind linear, not finetune",
        "kind linear, not finetune; patients measured",
    ]


def test_axes_that_are_asked_for_divide_no_table():
    knn = rows_of({"a": GOOD, "b": GOOD}, kind="knn", k=5) + rows_of({"a": POOR}, kind="knn", k=9)
    linear = rows_of({"a": GOOD, "b": POOR})
    (table,) = page_of(knn, across="k").tables
    assert [c.name for c in table.columns][1:] == ["5", "9"]
    (table,) = page_of([*knn[:2], *linear], by=("model", "kind")).tables
    assert [tuple(c.text for c in row[:2]) for row in table.rows[:4]] == [
        ("a", "knn"), ("b", "knn"), ("a", "linear"), ("b", "linear"),
    ]  # fmt: skip


def test_an_axis_spells_out_itself_and_nothing_else():
    knn, linear = rows_of({"a": GOOD}, kind="knn", k=5), rows_of({"b": GOOD})
    assert len(page_of(knn + linear, across="k").tables) == 2
    few = rows_of({"b": POOR}, kind="knn", k=5, few_shot={"shots": 5, "episodes": 9})
    assert len(page_of([*knn, *linear, *few], by=("model", "kind")).tables) == 2
    shots = [rows_of({"a": GOOD}, few_shot={"shots": n, "episodes": 9}) for n in (1, 5)]
    more = rows_of({"b": GOOD}, few_shot={"shots": 5, "episodes": 20})
    assert len(page_of([*shots[0], *shots[1]], across="shots").tables) == 1
    assert len(page_of([*shots[0], *shots[1], *more], across="shots").tables) == 2


def folds(model, n, n_seeds=1, n_classes=2):
    """Rows of n folds of five."""
    return [
        answer(
            model,
            scores_of(labels_of(40, seed=fold), GOOD, 10 * fold + seed),
            labels_of(40, seed=fold),
            split={"rule": "kfold:5", "seed": 0, "name": f"fold {fold + 1}/5", "of": 5},
            ids=np.array([f"{fold}/{i}" for i in range(40)]),
            **({"training_seed": seed} if n_seeds > 1 else {}),
        )
        for fold in range(n)
        for seed in range(n_seeds)
    ]


def test_means_over_other_folds_are_another_table():
    assert len(page_of(folds("a", 5) + folds("b", 5)).tables) == 1
    assert len(page_of(folds("a", 5) + folds("b", 2)).tables) == 2
    assert len(page_of(folds("a", 5) + folds("b", 1)).tables) == 2
    (table,) = page_of(folds("a", 3, 2) + folds("b", 3, 2)).tables
    assert any("Holm over one pair" in line for line in table.below)


def test_of_sets_with_the_same_patients_one_alone_gives_no_average():
    tables = {"patients": 7, "ids": 1}
    sets = ["one", "two"]
    rows = [r for d in sets for r in rows_of({"a": GOOD, "b": POOR}, dataset=d, tables=tables)]
    (table,) = page_of(rows[:3], "acc", is_tested=False).tables
    assert words(table, "average")["b"] == "-"
    assert "one, two share patients and are one" in table.below[0]


def test_ranks_over_data_sets_run_the_way_of_the_metric():
    sets = [f"set{i}" for i in range(6)]
    rows = [row for d in sets for row in rows_of({"a": GOOD, "b": POOR}, dataset=d)]
    (table,) = page_of(rows, "brier").tables
    assert [words(table, "rank")[m] for m in "ab"] == ["1", "2"]


def test_answers_on_several_data_sets_are_no_pairs():
    rows = [row for d in ("one", "two") for row in rows_of({"a": GOOD, "b": POOR}, dataset=d)]
    (table,) = page_of(rows, by=("data",), across="model").tables
    assert not any(cell.is_marked for cell in table.cells())
    assert any("no pairs: let --across be data" in line for line in table.below)


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


def test_the_table_says_who_is_out_where_and_what_each_column_can_tell():
    skills = {"breastmnist": (GOOD, POOR, POOR), "bloodmnist": (GOOD, GOOD, POOR)}
    rows = [
        row
        for dataset, of in skills.items()
        for row in rows_of(dict(zip("abc", of, strict=True)), dataset=dataset)
    ]
    page = page_of(rows)
    (table,) = page.tables
    assert [(c.over, c.name) for c in table.columns][-3:] == [
        ("of 2 sets", "first"),
        ("of 2 sets", "open"),
        ("of 2 sets", "out"),
    ]
    assert [[cell.value for cell in row[-3:]] for row in table.rows[:3]] == [
        [1, 1, 0],
        [0, 1, 1],
        [0, 0, 2],
    ]
    feet = [[cell.shown for cell in row[:3]] for row in table.rows[3:]]
    assert feet[0] == ["test samples", "120", "120"]
    assert [foot[0] for foot in feet[1:]] == ["smallest difference"]  # nobody counted K or patients
    assert sum("80% of the time at level 0.05" in note for note in page.notes) == 1
    assert sum(note.startswith("first: in so many") for note in page.notes) == 1
    (untested,) = page_of(rows, is_tested=False).tables
    assert [c.name for c in untested.columns] == ["model", "breastmnist", "bloodmnist", "average"]
    (by_out,) = page_of(rows, sort="-out").tables
    assert [row[0].text for row in by_out.rows[:3]] == ["c", "b", "a"]


def test_where_answers_never_differ_no_difference_is_shown_and_why():
    scores = scores_of(LABELS, GOOD, 0)
    (table,) = page_of([answer(name, scores, LABELS) for name in "ab"], "acc").tables
    feet = {row[0].text: row[1] for row in table.rows[-table.feet :]}
    assert feet["smallest difference"].shown == "-"
    assert feet["smallest difference"].notes[0].startswith("nothing is shown: ")
