"""Comparisons of contenders are those of the kernels, called by hand on the same scores."""

import dataclasses
import math

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of
from looking import some
from numpy.testing import assert_allclose

from probe.metrics.classification import accuracy, auc
from probe.report.findings.comparisons import (
    CORRECTED_T,
    ENSEMBLE,
    SITES,
    Asking,
    asked_alike,
    compare,
    over_sets,
)
from probe.report.rows.people import People
from probe.report.rows.sides import Pair
from probe.report.statistics.across import signed_rank
from probe.report.statistics.folds import corrected_t
from probe.report.statistics.paired import Answers, Samples, differences

BINARY = "binary-class"
LABELS = labels_of(120)


def pair(*rows):
    return Pair(*contenders(*rows))


def same(found, expected):
    for name in ("a", "b", "value", "low", "high", "p"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    assert (found.test, found.method, found.n) == (expected.test, expected.method, expected.n)


@pytest.mark.parametrize("turned", [False, True])
def test_one_test_set_in_any_order(turned):
    scores = [scores_of(LABELS, skill, seed) for skill, seed in ((2, 0), (1, 1))]
    ids = np.array([f"{i:03d}" for i in range(120)])
    order = slice(None, None, -1 if turned else 1)
    rows = [
        answer("a", scores[0], LABELS, ids=ids),
        answer("b", scores[1][order], LABELS[order], ids=ids[order]),
    ]
    found = compare(pair(*rows), NOBODY, Asking(margin=0.05))
    (part,) = found.parts
    expected = differences(
        Answers(scores[0]), Answers(scores[1]), Samples(LABELS, BINARY), margin=0.05
    )
    assert list(part.differences) == ["auc", "acc"]
    for name in expected:
        same(part.differences[name], expected[name])
        assert part.differences[name].equivalence == expected[name].equivalence
    (shift,) = found.shifts
    right = [s.argmax(axis=1) == LABELS for s in scores]
    assert shift.disagreement.right.only_a == (right[0] & ~right[1]).sum()
    assert [m.name for m in shift.moves] == ["class 0", "class 1"]


def test_trainings_are_means_and_their_ensemble_is_a_line_of_its_own():
    runs = [[scores_of(LABELS, skill, 10 * skill + s) for s in range(3)] for skill in (2, 1)]
    rows = [
        answer(model, scores, LABELS, training_seed=s)
        for model, of in zip("ab", runs, strict=True)
        for s, scores in enumerate(of)
    ]
    found = compare(pair(*rows), NOBODY, Asking(("auc",)))
    whole, ensemble = found.parts
    assert (whole.name, ensemble.name, found.whole) == ("", ENSEMBLE, whole)
    each = [np.mean([auc(s, LABELS, BINARY) for s in of]) for of in runs]
    assert_allclose((whole.differences["auc"].a, whole.differences["auc"].b), each)
    means = [auc(np.mean(of, axis=0), LABELS, BINARY) for of in runs]
    assert_allclose((ensemble.differences["auc"].a, ensemble.differences["auc"].b), means)
    assert whole.differences["auc"].test == "crossed bootstrap"


def test_episodes_of_the_same_draws_go_together():
    drawn = {"few_shot": {"shots": 5, "episodes": 4, "digest": "x"}}
    scores = [scores_of(LABELS, 1, seed, episodes=4) for seed in (0, 1)]
    rows = [answer(m, s, LABELS, **drawn) for m, s in zip("ab", scores, strict=True)]
    found = compare(pair(*rows), NOBODY, Asking(("auc",)))
    (part,) = found.parts  # no ensemble of episodes
    samples = Samples(LABELS, BINARY)
    args = Answers(scores[0]), Answers(scores[1]), samples, ("auc",)
    same(part.differences["auc"], differences(*args, together=True)["auc"])
    assert differences(*args)["auc"].p != part.differences["auc"].p


def folded(rule, n=3, names=None):
    """Two encoders' rows on parts of 40, and each part's labels and scores."""
    rows, parts = [], []
    for f in range(n):
        labels = labels_of(40, seed=f)
        scores = [scores_of(labels, skill, 10 * f + skill) for skill in (2, 1)]
        parts.append((labels, scores))
        for model, of in zip("ab", scores, strict=True):
            split = {"rule": rule, "seed": 0, "name": (names or "{}/3").format(f + 1), "of": n}
            ids = np.array([f"{f}/{i}" for i in range(40)])
            rows.append(answer(model, of, labels, split={**split, "digest": str(f)}, ids=ids))
    return rows, parts


def test_folds_are_compared_by_the_corrected_t_of_each_fold_s_own():
    rows, parts = folded("kfold:3", names="fold {}/3")
    found = compare(pair(*rows), NOBODY, Asking(margin=0.1))
    (part,) = found.parts
    assert part.name == "mean of 3 folds"
    for name, of in (("auc", auc), ("acc", accuracy)):
        values = np.array([[of(s, y, BINARY) for s in scores] for y, scores in parts])
        expected = corrected_t(values[:, 0] - values[:, 1], np.full(3, 40), np.full(3, 80))
        d = part.differences[name]
        assert_allclose((d.a, d.b), values.mean(axis=0))
        assert_allclose(
            (d.value, d.low, d.high, d.p), (expected.value, expected.low, expected.high, expected.p)
        )
        assert (d.test, d.unit, d.n_units, d.n) == (CORRECTED_T, "fold", 3, 120)
        assert d.equivalence.low > d.low
    assert found.shifts[0].disagreement.n == 120


def test_a_fold_that_was_asked_of_one_alone_is_left_out_and_said():
    rows, _ = folded("kfold:3", names="fold {}/3")
    found = compare(pair(*rows[:-1]), NOBODY, Asking())
    assert found.parts[0].name == "mean of 2 folds"
    assert found.notes == ("toys: of 3 folds 2 were asked of both; fold 3/3 of A alone",)


def reseeded(of, seed):
    """A row as another training's."""
    answered = dataclasses.replace(of.row.answered, settings={**of.row.answered.settings, "training_seed": seed})  # fmt: skip
    return dataclasses.replace(of, row=dataclasses.replace(of.row, answered=answered))


def test_folds_of_several_seeds_are_counted_once():
    rows, _ = folded("kfold:3", names="fold {}/3")
    seeds = [reseeded(of, s) for of in rows for s in (0, 1)]
    found = compare(pair(*seeds), NOBODY, Asking(("auc",)))
    assert (found.parts[0].name, found.notes) == ("mean of 3 folds", ())
    found = compare(pair(*seeds[:8]), NOBODY, Asking(("auc",)))
    assert found.notes == ("toys: of 3 folds 2 were asked of both; 1 of neither",)


@pytest.mark.parametrize("rule", ["kfold:3", "site-out:hospital"])
def test_sites_and_folds_of_one_alone_are_named_and_one_common_stands_by_itself(rule):
    rows, parts = folded(rule, names="part {}")
    what = "folds" if rule == "kfold:3" else "sites"
    found = compare(pair(rows[0], rows[2], rows[3], rows[5]), NOBODY, Asking(("acc",)))
    assert [part.name for part in found.parts] == ["part 2"]
    labels, scores = parts[1]
    expected = differences(*map(Answers, scores), Samples(labels, BINARY), ("acc",))["acc"]
    same(found.whole.differences["acc"], expected)
    said = f"of 3 {what} 1 was asked of both; part 1 of A alone, part 3 of B alone"
    assert found.notes == (f"toys: {said}",)
    found = compare(pair(*rows[:-1]), NOBODY, Asking(("acc",)))
    assert f"toys: of 3 {what} 2 were asked of both; part 3 of A alone" in found.notes


def test_sites_stand_by_themselves_and_their_mean_has_no_interval():
    rows, parts = folded("site-out:hospital", names="hospital={}")
    found = compare(pair(*rows), NOBODY, Asking(("acc",)))
    assert [part.name for part in found.parts] == [
        *(f"hospital={i}" for i in (1, 2, 3)),
        "mean of 3 sites",
    ]
    for part, (labels, scores) in zip(found.parts, parts, strict=False):
        expected = differences(*map(Answers, scores), Samples(labels, BINARY), ("acc",))["acc"]
        same(part.differences["acc"], expected)
    mean = found.whole.differences["acc"]
    assert math.isnan(mean.low)
    assert math.isnan(mean.p)
    assert (mean.notes, found.notes) == ((SITES,), (SITES,))


def on(datasets, tables=None, kind="linear", people=NOBODY):
    """Comparisons of the same two encoders, b the better one by less and less."""
    found = []
    for i, dataset in enumerate(datasets):
        labels = labels_of(80, seed=i)
        scores = [scores_of(labels, skill, i) for skill in (1 + 0.2 * i, 1)]
        about = {"dataset": dataset, "kind": kind, "tables": (tables or {}).get(dataset, {})}
        rows = [answer(m, s, labels, **about) for m, s in zip("ab", scores, strict=True)]
        found.append(compare(pair(*rows), people, Asking()))
    return found


def test_data_sets_are_units_and_those_with_shared_patients_are_one():
    comparisons = on(["organamnist", "organcmnist", "x", "y", "z"])
    for of in some(over_sets(comparisons)):
        values = [c.whole.differences[of.metric].value for c in comparisons]
        units = np.array([np.mean(values[:2]), *values[2:]])
        assert of.units[0] == ("organamnist", "organcmnist")
        assert of.test == signed_rank(units)
        assert "4 independent data sets can't decide" in of.why_not


def test_data_sets_of_one_table_of_patients_are_one_unit():
    tables = {name: {"patients": 7} for name in ("x", "y")} | {"z": {"patients": 8}}
    comparisons = on(["x", "y", "z", "u"], tables, people=Alone(None))
    for of in some(over_sets(comparisons)):
        assert of.units == (("x", "y"), ("z",), ("u",))


class Alone(People):
    """Everyone has one image."""

    def groups_of(self, row, ids):
        return np.array([f"p{i}" for i in range(len(ids))])


def test_holm_is_over_metrics():
    first, second = over_sets(on([f"set{i}" for i in range(7)]))
    least, most = sorted([first, second], key=lambda of: of.test.p)
    assert least.adjusted == pytest.approx(min(1, 2 * least.test.p))
    assert most.adjusted >= least.adjusted


def test_data_sets_are_tested_together_only_where_they_were_asked_alike():
    comparisons = [*on(["x", "y"]), *on(["x", "y"], kind="ridge"), *on(["z"], kind="knn")]
    groups = asked_alike(comparisons)
    assert [[c.pair.dataset for c in group] for group in groups] == [["x", "y"], ["x", "y"]]
    assert not over_sets(on(["x"]))
