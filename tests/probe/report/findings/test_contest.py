"""Who can still be first, and pairs over data sets: what `stand`, `decide`, `compare` and the ledger say."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of
from looking import some

from probe.report.findings.comparisons import Asking, compare, over_sets
from probe.report.findings.contest import Tally, make_contest
from probe.report.findings.deciding import Asked, choose, from_rows
from probe.report.findings.pairwise import LOST, OPEN, WON, pairwise
from probe.report.findings.parts import WHOLE_TABLE, Shape, make_parts
from probe.report.findings.standing import Untested, metric_of
from probe.report.rows.ledger import History, Ledger
from probe.report.rows.people import People
from probe.report.rows.sides import Pair
from probe.report.statistics.across import undecidable
from probe.results import PATIENTS, reading_of

LABELS = labels_of(120)
GOOD, FAIR, POOR = 3.0, 1.2, 0.2
# A line's skill on each data set. One is nobody's, another is a's alone.
SKILLS = {
    "breastmnist": {"a": GOOD, "b": POOR, "c": POOR},
    "bloodmnist": {"a": GOOD, "b": GOOD, "c": POOR},
    "organamnist": {"a": FAIR, "b": FAIR, "c": FAIR},
    "organcmnist": {"a": GOOD, "b": POOR},
}


def rows_of(skills=SKILLS, **facts):
    return [
        answer(name, scores_of(LABELS, skill, 7 * d + k), LABELS, dataset=dataset, **facts)
        for d, (dataset, of) in enumerate(skills.items())
        for k, (name, skill) in enumerate(of.items())
    ]


def contest_of(rows, metric="auc", people=NOBODY, ledger=None, **shape):
    shape = Shape(**shape)
    (part,) = make_parts(contenders(*rows), shape)
    return make_contest(part, metric_of(metric), shape, people, ledger)


ROWS = rows_of()
CONTEST = contest_of(ROWS)


def test_marks_of_all_columns_are_tallied():
    marks = {column: {line[0] for line in CONTEST.marked(column)} for column in CONTEST.columns}
    assert marks == {
        "breastmnist": {"a"},
        "bloodmnist": {"a", "b"},
        "organamnist": {"a", "b", "c"},
        "organcmnist": {"a"},
    }
    assert [CONTEST.tally((line,)) for line in "abc"] == [
        Tally(first=2, open=2, out=0),
        Tally(first=0, open=2, out=2),
        Tally(first=0, open=1, out=2),
    ]


def test_a_column_tells_what_decide_tells_of_the_same_rows():
    for column in some(CONTEST.columns):
        of_set = contenders(*(r for r in ROWS if r.row.encoded.dataset == column))
        for shown in from_rows(column, choose(column, of_set), NOBODY, Asked()):
            reach = contest_of(ROWS, shown.decision.metric).reaches[column]
            assert reach.decision == shown.decision
            assert reach.of == shown.of
    assert contest_of(ROWS, "brier").reaches["bloodmnist"].decision is None


def test_the_level_is_each_columns_or_the_tables():
    found = contest_of(ROWS, level=0.02)
    assert {family.level for family in found.families.values()} == {0.02}
    assert {of.decision.power.level for of in found.reaches.values()} == {0.02}
    found = contest_of(ROWS, level=0.02, family=WHOLE_TABLE)
    assert {family.level for family in found.families.values()} == {0.02 / 4}


def test_over_the_sets_less_of_a_loss_is_better():
    for metric in ("auc", "brier"):
        over = contest_of(ROWS, metric).over
        assert over.gains[0, 1] > 0  # a's skill is nowhere below b's


def test_k_is_the_ledger_s():
    readings = tuple(reading_of(of.row, "2026-01-01T00:00:00Z") for of in ROWS[:2])
    again = dataclasses.replace(readings[0], question="another")
    ledger = Ledger((History((*readings, again), frozenset()),), ())
    found = contest_of(ROWS, ledger=ledger).reaches
    assert [found[column].looked_at for column in found] == [3, 0, 0, 0]


def test_patients_are_counted_where_they_are_known(monkeypatch):
    groups = np.array([f"p{i // 4}" for i in range(119)] + [""])
    monkeypatch.setattr(People, "groups_of", lambda self, row, ids: groups)
    rows = rows_of({"breastmnist": SKILLS["breastmnist"]}, tables={PATIENTS: 1})
    assert contest_of(rows).reaches["breastmnist"].n_patients == 31
    assert CONTEST.reaches["breastmnist"].n_patients is None


def test_one_line_and_no_tests_tell_nothing():
    one = contest_of(rows_of({"breastmnist": {"a": GOOD}}))
    assert not one.families
    assert not one.marked("breastmnist")
    assert contest_of(ROWS, is_tested=False).tested == []


def test_columns_that_are_no_data_sets_have_no_units():
    rows = rows_of({"toys": SKILLS["breastmnist"]}, kind="knn", k=5)
    rows += rows_of({"toys": SKILLS["bloodmnist"]}, kind="knn", k=9)
    contest = contest_of(rows, across="k")
    assert (contest.columns, contest.units, contest.over) == (["5", "9"], (), None)
    assert contest.tally(("a",)) == Tally(first=1, open=1, out=0)


@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_pairs_are_those_of_compare(metric):
    """The pseudomedian and p; a loss the other way round."""
    found = {(of.a[0], of.b[0]): of for of in pairwise(contest_of(ROWS, metric))}
    assert list(found) == list(itertools.combinations("abc", 2))
    sign = -1 if metric == "brier" else 1
    for (a, b), duel in found.items():
        each = []
        for dataset in SKILLS:
            on = {r.row.encoded.model: r for r in ROWS if r.row.encoded.dataset == dataset}
            if {a, b} <= set(on):
                pair = Pair(*contenders(on[a], on[b]))
                each.append(compare(pair, NOBODY, Asking((metric,))))
        (over,) = over_sets(each)
        assert duel.p == over.test.p
        assert duel.n_units == len(over.units)
        assert duel.middle == pytest.approx(sign * over.middle)
        assert [(of.dataset, of.gain) for of in duel.sets] == [
            (name, pytest.approx(sign * value)) for name, value in over.values
        ]


def test_a_set_is_won_by_tests_of_all_pairs_alone():
    ab, ac, bc = pairwise(CONTEST)
    assert [of.verdict for of in ab.sets] == [WON, OPEN, OPEN, WON]
    assert (ab.won, ab.open, ab.lost) == (2, 2, 0)
    assert [of.verdict for of in ac.sets] == [WON, WON, OPEN]
    assert [of.verdict for of in bc.sets] == [OPEN, WON, OPEN]
    turned = ab.turned()
    assert [of.verdict for of in turned.sets] == [LOST, OPEN, OPEN, LOST]
    assert (turned.won, turned.lost, turned.gain, turned.p) == (0, 2, -ab.gain, ab.p)
    assert turned.middle == -ab.middle != 0


def test_the_mean_gain_is_over_units():
    ab = pairwise(CONTEST)[0]
    gains = [of.gain for of in ab.sets]  # the Organ sets share patients
    assert ab.gain == pytest.approx(np.mean([gains[0], gains[1], np.mean(gains[2:])]))
    assert ab.adjusted == CONTEST.over.p[0, 1]


def test_sets_of_one_line_alone_decide_nothing():
    skills = {name: {"a": GOOD, "b": POOR} for name in ("bloodmnist", "octmnist")}
    alone = {
        name: {"a": GOOD} for name in ("dermamnist", "pathmnist", "tissuemnist", "retinamnist")
    }
    found = contest_of(rows_of(skills | alone))
    assert found.why_not == undecidable(2, 2)
    assert found.why_not.startswith("2 independent data sets can't decide")


def test_lines_without_a_common_set_are_a_gap():
    rows = rows_of({"breastmnist": {"a": GOOD}, "bloodmnist": {"b": GOOD}})
    contest = contest_of(rows)
    assert all(isinstance(of, Untested) for of in contest.families.values())
    (duel,) = pairwise(contest)
    assert (duel.sets, duel.won + duel.open + duel.lost) == ((), 0)
    assert math.isnan(duel.gain)
    assert math.isnan(duel.p)


def test_tables_of_averaged_scores_say_by_which_weights():
    of = [("linear", {}), *(("stack", {"weights": w}) for w in ("stacked", "equal"))]
    rows = [r for kind, facts in of for r in rows_of(kind=kind, **facts)]
    parts = make_parts(contenders(*rows), Shape())
    assert [part.differs for part in parts[1:]] == [
        "kind stack, not linear; stacked weights",
        "kind stack, not linear; equal weights",
    ]
