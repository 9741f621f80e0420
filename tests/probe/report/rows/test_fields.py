"""Fields of rows by name: what --where, --sort and --columns take."""

import dataclasses

import pytest
from answering import make_row
from golden import TESTS

from cache.errors import RequestError
from probe.report.rows.fields import (
    FIELDS,
    METRIC_NAMES,
    find_field,
    metric_named,
    read_condition,
    sorted_by,
    written,
)
from probe.report.rows.stored import StoredRow, read_stored
from probe.results import Answered, as_json

KEPT = sorted((TESTS / "data" / "rows").glob("*/*.json"))


def make(kind="linear", auc=0.8, dataset="toys", **settings):
    return StoredRow(make_row(kind, dataset, auc=auc, **settings))


ROWS = [
    make("knn", 0.7, k=5),
    make("knn", 0.8, k=20),
    make("linear", 0.9, dataset="others"),
    make("ridge", float("nan"), few_shot={"shots": 5, "episodes": 3}, mode="a=b"),
]


def chosen(condition):
    return [i for i, row in enumerate(ROWS) if read_condition(condition)(row)]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("kind=knn", [0, 1]),
        ("kind = knn, ridge", [0, 1, 3]),
        ("kind!=knn", [2, 3]),
        ("kind!=knn,ridge", [2]),
        ("k=5", [0]),
        ("k=5.0", [0]),
        ("k!=5", [1, 2, 3]),  # what hasn't the field fits it
        ("k<20", [0]),
        ("k<=20", [0, 1]),
        ("k>5", [1]),
        ("k>=5", [0, 1]),
        ("k>=-1", [0, 1]),
        ("auc>0.75", [1, 2]),
        ("auc<2", [0, 1, 2]),  # nan is no number
        ("auc>=0.9", [2]),
        ("shots=", [0, 1, 2]),
        ("shots!=", [3]),
        ("shots=5", [3]),
        ("mode=a=b", [3]),
        ("data=others", [2]),
        ("data>1", []),  # no numbers
        ("val:acc>0.7", [0, 1, 2, 3]),
        ("probe.k>=20", [1]),
        ("probe.few_shot.shots=5", [3]),
        ("features.dataset=others", [2]),
        ("features.nothing.there=1", []),
    ],
)
def test_conditions(condition, rows):
    assert chosen(condition) == rows


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("kind", "--where takes FIELD=VALUE, or with != < <= > >=; not 'kind'"),
        ("=knn", "--where takes FIELD=VALUE"),
        ("k>many", "> takes a number, not 'many'"),
        ("kidn=knn", "no field 'kidn' of a row; .*kind"),
        ("val:acx>0.5", "no field 'val:acx' of a row; "),
    ],
)
def test_conditions_that_are_none(condition, message):
    with pytest.raises(RequestError, match=message):
        read_condition(condition)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["auc"], [0, 1, 2, 3]),  # what hasn't it stands last
        (["-auc"], [2, 1, 0, 3]),
        (["-k"], [1, 0, 2, 3]),
        (["data", "-auc"], [2, 1, 0, 3]),
        (["-kind", "-k"], [3, 2, 1, 0]),
        (["probe.k"], [0, 1, 2, 3]),
    ],
)
def test_orders(names, order):
    found = sorted_by(ROWS, names, lambda row: row)
    assert [ROWS.index(row) for row in found] == order


def test_a_field_of_numbers_and_words_has_an_order():
    """In a row of another program."""
    odd = [
        dataclasses.replace(row.row, answered=Answered(row.row.answered.settings, {"strength": c}))
        for row, c in zip(ROWS, ("large", 0.1, None, 10), strict=True)
    ]
    found = sorted_by([StoredRow(row) for row in odd], ["C"], lambda row: row)
    assert [find_field("C").of(row) for row in found] == [0.1, 10, "large", None]


@pytest.mark.parametrize("name", ["", "modle", "auc.", "k-", "val:", "test:auc"])
def test_there_is_no_such_field(name):
    if "." in name:  # a path of nothing is found in no row
        assert find_field(name).of(ROWS[0]) is None
        return
    with pytest.raises(RequestError, match="no field"):
        find_field(name)


@pytest.mark.parametrize(("word", "name"), [("acc", "acc"), ("ap", "average_precision"), ("f1", "f1_macro"), ("bal. acc", "balanced_accuracy")])  # fmt: skip
def test_metrics_by_their_columns(word, name):
    assert metric_named(word) == name
    with pytest.raises(RequestError, match=r"no metric 'accc'; .*acc"):
        metric_named("accc")


def test_every_field_is_told_and_found_in_every_kept_row(tmp_path):
    names = [field.name for field in FIELDS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(METRIC_NAMES)
    rows, problems = read_stored(tmp_path, KEPT)
    assert len(rows) == len(KEPT) > 5
    assert not problems
    for field in FIELDS:
        assert field.told
        assert find_field(field.name) is field
        words = [written(field.of(row)) for row in rows]
        assert all(isinstance(word, str) for word in words)
    for row in rows:
        assert find_field("kind").of(row) == row.content["probe"]["kind"]
        assert find_field("id").of(row) == row.content["id"]
        acc = row.content["metrics"]["acc"]["value"]
        assert find_field("acc").of(row) == find_field("metrics.acc.value").of(row) == acc


def test_a_row_that_was_just_made_has_the_paths_of_a_stored_one():
    (row,) = ROWS[:1]
    assert find_field("probe.k").of(row) == as_json(row.row)["probe"]["k"] == 5


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, ""), (0.1, "0.1"), (1e-05, "1e-05"), (10.0, "10"), (3, "3"), (True, "True"),
     ({"b": 1, "a": [2]}, '{"a":[2],"b":1}'), ("x", "x")],
)  # fmt: skip
def test_values_as_words(value, word):
    assert written(value) == word
