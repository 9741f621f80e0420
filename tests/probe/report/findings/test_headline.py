"""Which comparison is the headline, and what it may be called."""

import dataclasses

import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of

from cache.errors import RequestError
from probe.ledger import Reading
from probe.report.findings.headline import (
    BY_VAL,
    EXPLORATORY,
    NAMED,
    Record,
    best_on_val,
    headline,
    leads,
)
from probe.report.rows.fields import METRIC_WORDS
from probe.report.rows.ledger import History, Ledger, Question, read_question
from probe.report.statistics.claims import Asked, read_claim

LABELS = labels_of(80)
ASKED = Asked("a", "c", ("toys",), "auc")


def with_val(of, n=40, **val):
    """A row with these numbers on n samples of val."""
    measured = dataclasses.replace(of.row.measured, val=val)
    return dataclasses.replace(of, row=dataclasses.replace(of.row, measured=measured, n={**of.row.n, "val": n}))  # fmt: skip


def found(*vals, metric="auc", **about):
    """Rows of encoders a, b, c, of falling skill, with these numbers on val."""
    rows = []
    for i, (model, val) in enumerate(zip("abc", vals, strict=True)):
        of = answer(model, scores_of(LABELS, 3 - i, i), LABELS, **about)
        rows.append(with_val(of, **({metric: val} if val else {})))
    return rows


def record(rows, n=7, named=()):
    """All rows that are stored, and a ledger in which n questions read their test set."""
    row = rows[0].row
    readings = tuple(
        Reading("2026-01-01", row.test_set, f"q{i}", f"r{i}", "toys", "a", "knn", "", "")
        for i in range(n)
    )
    return Record(rows, Ledger((History(readings, frozenset()),), tuple(named)))


def pair_of(rows, pair):
    of = contenders(*rows)
    return [of[i] for i in pair]


def models(head):
    return [c.model for c in (head.a, head.b)]


def test_a_named_question_is_the_headline_and_says_when_it_was_named():
    rows = found(0.9, 0.8, 0.7)
    early = Question(str(ASKED), "2026-01-02T03:04:05", {})
    late = dataclasses.replace(early, read_before={"toys": 3})
    for named, says in (
        ([], "named now, after 7 questions"),
        ([early], "named on 2026-01-02, before its test set was read"),
        ([late], "named on 2026-01-02, after 3 readings"),
    ):
        head = headline(contenders(*rows), ("auc",), record(rows, named=named), ASKED)
        assert (head.standing, head.metric) == (NAMED, "auc")
        assert models(head) == ["a", "c"]
        assert says in head.why
    assert "toys: a - c (32 px, linear, layer 3 cls): auc +" in head.state(NOBODY)


@pytest.mark.parametrize(
    ("question", "pair", "standing"),
    [
        (None, None, BY_VAL),
        (None, (2, 1), BY_VAL),
        (None, (0, 1), EXPLORATORY),
        (ASKED, (0, 1), EXPLORATORY),
        (ASKED, (2, 0), NAMED),
        (dataclasses.replace(ASKED, datasets=("other",)), None, BY_VAL),
        (dataclasses.replace(ASKED, other="nobody"), None, BY_VAL),
        (dataclasses.replace(ASKED, metric="acc"), None, BY_VAL),
        (dataclasses.replace(ASKED, metric=""), None, BY_VAL),
    ],
)
def test_else_it_is_what_val_chose_and_any_other_is_exploratory(question, pair, standing):
    rows = found(0.7, 0.8, 0.9)
    shown = contenders(*rows) if pair is None else pair_of(rows, pair)
    head = headline(shown, ("auc",), record(rows), question)
    assert head.standing == standing
    if pair:
        assert {id(head.a), id(head.b)} == set(map(id, shown))
    if question and question.other == "nobody":
        assert '"a > nobody by auc on toys" names no pair of these rows' in head.why
    if question and question.metric != "auc":
        assert "is by acc" in head.why
    if standing == BY_VAL:
        assert "the two best of 3 encoders there (auc 0.900 and 0.800)" in head.why


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_question_of_several_pairs_names_none_whatever_is_shown(is_recorded):
    rows = [
        with_val(answer(m, scores_of(LABELS, s, 3 * i + k), LABELS, kind="knn", k=k))
        for i, (m, s) in enumerate((("a", 2), ("c", 1)))
        for k in (1, 5, 20)
    ]
    named = Question(str(ASKED), "2026-01-02", {})
    known = record(rows, named=[named] if is_recorded else [])
    for shown in ([rows[1], rows[4]], rows):
        head = headline(contenders(*shown), ("auc",), known, None if is_recorded else ASKED)
        assert head.standing == EXPLORATORY
        if len(shown) == 2:
            assert f'one of 3 pairs that the question "{ASKED}" names' in head.why
    exact = read_question("a and k=5 > c and k=5 by auc on toys")
    head = headline(contenders(rows[1], rows[4]), ("auc",), known, exact)
    assert head.standing == NAMED
    head = headline(contenders(rows[0], rows[3]), ("auc",), known, exact)
    assert head.standing == EXPLORATORY
    assert "names another pair" in head.why


def test_rows_that_did_not_read_test_or_were_of_other_labels_are_no_pairs():
    rows = found(None, None, None)
    unread = answer("a", scores_of(LABELS, 1, 8), LABELS, kind="knn", k=5)
    unread = dataclasses.replace(
        unread,
        row=dataclasses.replace(
            unread.row, measured=dataclasses.replace(unread.row.measured, test={})
        ),
    )
    other = found(None, None, None, samples={"labels": 9, "split": 2})
    known = record([*rows, unread, *other])
    assert headline(contenders(*rows), ("auc",), known, ASKED).standing == NAMED


@pytest.mark.parametrize("metric", ["aucc", "bal", "mae"])
def test_a_recorded_metric_that_nobody_knows_or_rows_lack_names_nothing(metric):
    rows = found(None, None, None)
    named = Question(f"a > c by {metric}", "2026-01-02", {})
    head = headline(contenders(*rows), ("auc",), record(rows, named=[named]))
    assert head.standing == EXPLORATORY
    question = Asked("a", "c", (), "mae")
    head = headline(contenders(*rows), ("mae",), record(rows), question)
    assert "no mae; named now" in head.state(NOBODY)


def test_a_metric_s_column_is_its_name():
    rows = found(None, None, None)
    named = Question("a > c by F1", "2026-01-02", {})
    with pytest.raises(RequestError, match="no metric 'F1x'"):
        read_question("a > c by F1x")
    word = next(word for word, name in METRIC_WORDS.items() if name == "f1_macro")
    named = dataclasses.replace(named, text=f"a > c by {word}")
    head = headline(contenders(*rows), ("f1_macro",), record(rows, named=[named]))
    assert (head.standing, head.metric) == (NAMED, "f1_macro")


@pytest.mark.parametrize(
    ("pair", "says"), [(None, "best of 7"), ((1, 0), "best of 7"), ((1, 2), "one of 7")]
)
def test_without_val_it_is_the_best_of_all_that_were_looked_at(pair, says):
    rows = found(None, None, None)
    shown = contenders(*rows) if pair is None else pair_of(rows, pair)
    head = headline(shown, ("auc",), record(rows))
    assert head.standing == EXPLORATORY
    assert f"{says} looked at on this test set" in head.why
    if pair is None:
        assert models(head) == ["a", "b"]


def test_of_losses_the_least_is_best_on_test_and_on_val():
    rows = found(None, None, None)
    head = headline(contenders(*rows), ("brier",), record(rows))
    assert models(head) == ["a", "b"]
    assert "best of 7" in head.why
    rows = found(0.3, 0.2, 0.1, metric="brier")
    head = headline(contenders(*rows), ("brier",), record(rows))
    assert (head.standing, models(head)) == (BY_VAL, ["c", "b"])


@pytest.mark.parametrize("shown", [(2, 3), (0, 1), (0, 1, 2, 3)])
def test_val_chooses_among_all_that_are_stored_whichever_are_shown(shown):
    """Also over settings: the best row on val is of another kind than those shown."""
    rows = [*found(0.7, 0.75, 0.6), *found(0.8, 0.9, 0.5, kind="ridge")]
    rows = [rows[i] for i in (0, 1, 3, 4)]  # a and b by linear, and by ridge
    head = headline(pair_of(rows, shown), ("auc",), record(rows))
    assert head.standing == (EXPLORATORY if shown == (0, 1) else BY_VAL)
    if shown != (0, 1):
        assert models(head) == ["b", "a"]
        assert "(32 px, ridge, layer 3 cls)" in head.state(NOBODY)


def test_val_takes_each_encoder_once():
    rows = found(0.7, 0.8, 0.9)
    twice = with_val(answer("c", scores_of(LABELS, 1, 9), LABELS, kind="knn"), auc=0.85)
    assert [c.model for c in best_on_val(contenders(*rows, twice), "auc")] == ["c", "b"]
    assert best_on_val(contenders(rows[0]), "auc") == ()


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"n": 400}, "40, 400"),
        ({"refit": "train+val"}, "40, 40 before --refit train+val"),
        ({"folds": {"n": 5}}, "40, 40 out of fold"),
        ({"n": 20, "scores_of": "patients"}, "20 patients, 40"),
    ],
)
def test_val_of_other_samples_is_not_ranked(about, says):
    rows = found(0.7, 0.8, 0.9)
    n = about.pop("n", 40)
    rows[0] = with_val(answer("a", scores_of(LABELS, 3, 0), LABELS, **about), n, auc=0.7)
    assert best_on_val(contenders(*rows), "auc") == ()
    head = headline(contenders(*rows), ("auc",), record(rows))
    assert head.standing == EXPLORATORY
    assert f"val chose none, for its numbers are of different samples (val n {says})" in head.why


def test_one_alone_has_nothing_to_be_compared_with():
    rows = found(None, None, None)
    head = headline(contenders(rows[0]), ("auc",), record(rows))
    assert "best of 7" in head.state(NOBODY)


def test_what_can_not_be_compared_is_said_and_takes_no_table_down():
    rows = found(None, None, None)
    rows[0] = dataclasses.replace(rows[0], row=dataclasses.replace(rows[0].row, scores={}))
    (line,) = leads([contenders(*rows)], "auc", record(rows), None, NOBODY)
    assert "not compared: " in line
    assert "test wasn't read" in line


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("a > b by auc on x, y", Asked("a", "b", ("x", "y"), "auc")),
        ("a > b by auc", Asked("a", "b", (), "auc")),
        ("kind=knn > kind=linear on x", Asked("kind=knn", "kind=linear", ("x",))),
    ],
)
def test_a_question_names_its_metric(text, asked):
    assert read_claim(text) == asked
    assert read_claim(str(asked)) == asked
    with pytest.raises(RequestError, match="a claim reads"):
        read_claim("a > b by on x")
