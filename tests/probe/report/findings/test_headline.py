"""Which comparison is the headline, and what it may be called."""

import dataclasses

import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of

from cache.errors import RequestError
from probe.ledger import Reading
from probe.report.findings.headline import BY_VAL, EXPLORATORY, NAMED, best_on_val, headline
from probe.report.rows.ledger import History, Ledger, Question
from probe.report.statistics.claims import Asked, read_claim

LABELS = labels_of(80)
ASKED = Asked("a", "c", ("toys",), "auc")


def found(*vals):
    """Encoders a, b, c, of falling skill, with these AUCs on val."""
    rows = []
    for i, (model, val) in enumerate(zip("abc", vals, strict=True)):
        of = answer(model, scores_of(LABELS, 3 - i, i), LABELS)
        measured = dataclasses.replace(of.row.measured, val={"auc": val} if val else {})
        rows.append(dataclasses.replace(of, row=dataclasses.replace(of.row, measured=measured)))
    return contenders(*rows)


def ledger(of, n=7, named=()):
    row = of[0].first.row
    readings = tuple(
        Reading("2026-01-01", row.test_set, f"q{i}", f"r{i}", "toys", "a", "knn", "", "")
        for i in range(n)
    )
    return Ledger((History(readings, frozenset()),), tuple(named))


def test_a_named_question_is_the_headline_and_says_when_it_was_named():
    of = found(0.9, 0.8, 0.7)
    early = Question(str(ASKED), "2026-01-02T03:04:05", {})
    late = dataclasses.replace(early, read_before={"toys": 3})
    for named, says in (
        ([], "named now, after 7 questions"),
        ([early], "named on 2026-01-02, before its test set was read"),
        ([late], "named on 2026-01-02, after 3 readings"),
    ):
        head = headline(of, "acc", ledger(of, named=named), question=ASKED)
        assert (head.standing, head.metric) == (NAMED, "auc")
        assert (head.a.model, head.b.model) == ("a", "c")
        assert says in head.why
    assert "toys: a - c: auc +" in head.state(NOBODY)


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
    ],
)
def test_else_it_is_what_val_chose_and_any_other_is_exploratory(question, pair, standing):
    of = found(0.7, 0.8, 0.9)
    pair = pair and tuple(of[i] for i in pair)
    head = headline(of, "auc", ledger(of), question=question, pair=pair)
    assert head.standing == standing
    if pair:
        assert (head.a, head.b) == pair
    if question and question.other == "nobody":
        assert '"a > nobody by auc on toys" names no pair of these rows' in head.why
    if standing == BY_VAL:
        assert "the two best of 3 encoders there (auc 0.900 and 0.800)" in head.why


@pytest.mark.parametrize(
    ("pair", "says"), [(None, "best of 7"), ((1, 0), "best of 7"), ((1, 2), "one of 7")]
)
def test_without_val_it_is_the_best_of_all_that_were_looked_at(pair, says):
    of = found(None, None, None)
    head = headline(of, "auc", ledger(of), pair=pair and tuple(of[i] for i in pair))
    assert head.standing == EXPLORATORY
    assert f"{says} looked at on this test set" in head.why
    if pair is None:
        assert [head.a.model, head.b.model] == ["a", "b"]


def test_val_takes_each_encoder_once():
    of = found(0.7, 0.8, 0.9)
    twice = answer("c", scores_of(LABELS, 1, 9), LABELS, kind="knn")
    measured = dataclasses.replace(twice.row.measured, val={"auc": 0.85})
    twice = dataclasses.replace(twice, row=dataclasses.replace(twice.row, measured=measured))
    assert [c.model for c in best_on_val([*of, *contenders(twice)], "auc")] == ["c", "b"]
    assert best_on_val(of[:1], "auc") == ()


def test_one_alone_has_nothing_to_be_compared_with():
    of = found(None, None, None)[:1]
    assert "best of 7" in headline(of, "auc", ledger(of)).state(NOBODY)


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
