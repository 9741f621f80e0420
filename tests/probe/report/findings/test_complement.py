"""Two encoders together: which rows belong together, against both, and the pair that val prefers."""

import dataclasses

import numpy as np
import pytest
from contending import NOBODY, answer, contenders, labels_of, scores_of
from numpy.testing import assert_allclose
from sklearn.metrics import cohen_kappa_score

from cache.errors import RequestError
from probe.report.figures import catalogue
from probe.report.figures.frame import Asked
from probe.report.findings.comparisons import Asking, compare
from probe.report.findings.complement import AVERAGED, JOINED, candidates, study
from probe.report.rows.people import People
from probe.report.rows.sides import Pair
from probe.report.statistics.agreement import agreement
from probe.report.statistics.families import better_than_all, holm
from probe.report.statistics.paired import Answers, Samples, differences
from probe.results import Part

LABELS = labels_of()
AUC = Asking(("auc",))
AT = [{"layer": 3, "pool": "cls"}, {"layer": 3, "pool": "cls", "file": 1}]


def alone(model, skill=1.0, seed=0, **settings):
    return answer(model, scores_of(LABELS, skill, seed), LABELS, **settings)


def both(a, b, scores, kind="linear", val=None, at=AT, **settings):
    """A row of two encoders."""
    of = answer(f"{a}+{b}", scores, LABELS, kind=kind, pool="joined", places=at, **settings)
    parts = tuple(Part(m, m, f"{m}.full", 32, f"{m:0<64}", {}) for m in (a, b))
    measured = of.row.measured
    if val is not None:
        measured = dataclasses.replace(measured, val={"auc": val, "brier": 1 - val})
    encoded = dataclasses.replace(of.row.encoded, joined=parts, digest=f"{a}{b}".ljust(64, "1"))
    return dataclasses.replace(
        of, row=dataclasses.replace(of.row, encoded=encoded, measured=measured)
    )


def mean_of(*rows):
    return np.mean([of.row.scores["test_scores"] for of in rows], axis=0)


def found_of(*rows):
    return candidates(contenders(*rows))


A, B = alone("a", 1.2, 1), alone("b", 1.0, 2)


@pytest.mark.parametrize(
    ("row", "way"),
    [
        (both("a", "b", mean_of(A, B)), JOINED),
        (both("b", "a", mean_of(A, B)), JOINED),
        (both("a", "b", mean_of(A, B), "stack", weights="equal"), AVERAGED),
        (both("a", "b", mean_of(A, B), "stack", weights="stacked"), ""),
        (both("a", "b", mean_of(A, B), "ridge"), ""),
        (both("a", "c", mean_of(A, B)), ""),
        (both("a", "b", mean_of(A, B), at=[AT[0], {**AT[1], "layer": 2}]), ""),
        (both("a", "b", mean_of(A, B), at=[*AT, {"layer": 1, "pool": "cls"}]), ""),
        (both("a", "b", mean_of(A, B), samples={"labels": 7, "split": 2}), ""),
        (both("a", "b", mean_of(A, B), aggregate="max"), ""),
        (both("a", "b", mean_of(A, B), few_shot={"shots": 5, "episodes": 1}), ""),
    ],
)
def test_which_rows_are_of_two_encoders(row, way):
    ((of,),) = found_of(A, B, row)
    assert [c.model for c in (of.a, of.b)] == ["a", "b"]
    assert [name for name in (JOINED, AVERAGED) if of.way(name)] == ([way] if way else [])


def test_averaged_linear_probes_stand_beside_linear_ones_alone():
    rows = [alone(name, seed=i, kind="ridge") for i, name in enumerate("ab")]
    averaged = both("a", "b", mean_of(A, B), "stack", weights="equal")
    ((of,),) = found_of(*rows, averaged)
    assert of.averaged is None
    assert study([of], NOBODY, AUC, has_cka=False).lacking == {JOINED: (of,)}


def test_pairs_are_of_rows_that_were_asked_alike():
    rows = [A, B, alone("c", seed=3), alone("a", layer=2), alone("b", layer=2, kind="ridge")]
    (found,) = found_of(*rows)
    assert [(of.a.model, of.b.model) for of in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found_of(A) == []
    other = [alone(name, layer=2, seed=5) for name in "ab"]
    assert [len(of) for of in found_of(A, B, *other)] == [1, 1]
    assert found_of(A, alone("b", place_chosen={"by": "loss"})) == []


def test_random_weights_are_in_a_pair_only_where_somebody_joined_them():
    of = alone("c", seed=3)
    random = dataclasses.replace(of, row=dataclasses.replace(of.row, marks=("random weights",)))
    (found,) = found_of(A, B, random)
    assert [(of.a.model, of.b.model) for of in found] == [("a", "b")]
    (found,) = found_of(A, B, random, both("b", "c", mean_of(B, random)))
    assert [(of.a.model, of.b.model) for of in found] == [("a", "b"), ("b", "c")]


def test_both_against_each():
    rows = [A, B, alone("c", 1.1, 3)]
    pairs = [both(x.row.encoded.model, y.row.encoded.model, mean_of(x, y), val=v)
             for x, y, v in ((A, B, 0.7), (A, rows[2], 0.9), (B, rows[2], 0.8))]  # fmt: skip
    averaged = both("a", "b", mean_of(A, B) ** 2, "stack", weights="equal")
    (found,) = found_of(*rows, *pairs, averaged)
    done = study(found, NOBODY, AUC, has_cka=False)
    assert done.n_tests == 4
    assert {way: len(of) for way, of in done.lacking.items()} == {JOINED: 0, AVERAGED: 2}
    p = []
    for of in done.pairs:
        for way in of.ways:
            each = [
                compare(Pair(way.contender, c), NOBODY, AUC).whole.differences["auc"]
                for c in (of.of.a, of.of.b)
            ]
            better = max(each, key=lambda d: d.b)
            assert way.better == better
            assert way.gain == better.value <= way.worse.value
            is_behind = any(d.value <= 0 for d in each)
            p.append(1.0 if is_behind else max(d.p for d in each))
            assert way.p == p[-1]
    assert any(value < 1 for value in p)
    assert_allclose([way.adjusted for of in done.pairs for way in of.ways], holm(np.array(p)))
    # By val, whatever test says.
    assert done.best is done.pairs[1]
    # Of a loss less is better.
    of_losses = study(found, NOBODY, Asking(("brier",)), has_cka=False)
    assert of_losses.best.of is done.best.of
    for way in (way for of in of_losses.pairs for way in of.ways):
        assert way.gain == -way.better.value <= -way.worse.value


def test_val_chooses_among_numbers_of_the_same_samples():
    c = alone("c", seed=3)
    pairs = [
        both("a", "b", mean_of(A, B), val=0.7),
        both("a", "c", mean_of(A, c), val=0.9, folds={}),
    ]
    (found,) = found_of(A, B, c, *pairs)
    assert study(found, NOBODY, AUC, has_cka=False).best is None


@pytest.mark.parametrize("vals", [(0.7, None), (None, None), (0.7,)])
def test_val_chooses_nothing_that_it_doesnt_know(vals):
    c = alone("c", seed=3)
    pairs = [(A, B), (A, c)][: len(vals)]
    rows = [both(x.row.encoded.model, y.row.encoded.model, mean_of(x, y), val=v)
            for (x, y), v in zip(pairs, vals, strict=True)]  # fmt: skip
    (found,) = found_of(A, B, c, *rows)
    assert study(found, NOBODY, AUC, has_cka=False).best is None


@pytest.mark.parametrize(("metric", "sign"), [("auc", 1), ("brier", -1)])
def test_the_figure_has_the_numbers_of_the_page(metric, sign):
    c = alone("c", 1.1, 3)
    rows = [A, B, c, both("a", "b", mean_of(A, B)), both("a", "c", scores_of(LABELS, 2.2, 50)),
            both("a", "b", mean_of(A, B) ** 2, "stack", weights="equal")]  # fmt: skip
    (found,) = found_of(*rows)
    done = study(found, NOBODY, Asking((metric,)), has_cka=False)
    frame = catalogue.make("together", Asked(rows, contenders(*rows), NOBODY, metric))
    assert len(frame.points) == 9
    tiles = {(t.row.partition("\n")[0], t.column): t for t in frame.points}
    for of in done.pairs:
        a, b = of.of.a.model, of.of.b.model
        for key, way in (((a, b), JOINED), ((b, a), AVERAGED)):
            against = next((w for w in of.ways if w.way == way), None)
            tile = tiles[key]
            assert tile.in_common == of.alike.in_common
            assert np.isnan(tile.value) == (against is None)
            if against:
                d = against.better
                assert tile.value == sign * d.value
                assert [tile.low, tile.high] == sorted([sign * d.low, sign * d.high])
                assert tile.adjusted == against.adjusted
                assert tile.is_marked == (against.adjusted < 0.05)
    assert np.isnan(tiles["a", "a"].value)
    assert any("have no row of averaged scores" in note for note in frame.notes)
    with pytest.raises(RequestError, match="--model all\\+ --pairs"):
        catalogue.make("together", Asked([A, B], contenders(A, B), NOBODY))


def test_a_pair_without_rows_of_both_still_says_how_alike_they_are(tmp_path):
    (found,) = found_of(A, B)
    (of,) = study(found, People(tmp_path), AUC).pairs
    assert of.ways == ()
    assert of.alike is not None
    assert np.isnan(of.cka)
    assert of.why_no_cka


@pytest.mark.parametrize(
    ("gains", "p", "expected"),
    [
        ([0.1, 0.2], [0.01, 0.03], 0.03),
        ([0.1, -0.2], [0.01, 0.03], 1.0),
        ([0.1, 0.0], [0.01, 1.0], 1.0),
        ([0.1, 0.2], [np.nan, 0.03], np.nan),
        ([0.1], [0.2], 0.2),
    ],
)
def test_better_than_all(gains, p, expected):
    assert_allclose(better_than_all(np.array(gains), np.array(p)), expected)


def test_equals_are_seldom_called_better_than_both():
    """Of models that are as good as the better of two others."""
    labels, n_told = labels_of(80), 0
    test = Samples(labels, "binary-class")
    for seed in range(200):
        joined, a, b = (
            Answers(scores_of(labels, s, 3 * seed + i)) for i, s in enumerate((1, 1, 0.2))
        )
        each = [differences(joined, x, test, ("auc",))["auc"] for x in (a, b)]
        n_told += (
            better_than_all(np.array([d.value for d in each]), np.array([d.p for d in each])) < 0.05
        )
    assert n_told <= 10  # 2.5 % are expected at most; more than 10 of 200 have p .01


@pytest.mark.parametrize("n_classes", [2, 4])
def test_agreement_against_a_slow_version(n_classes):
    labels = labels_of(97, n_classes)
    found = [scores_of(labels, s, i, n_classes) for i, s in enumerate((1.5, 1.0))]
    task = "binary-class" if n_classes == 2 else "multi-class"
    of = agreement(*map(Answers, found), Samples(labels, task))
    a, b = (scores.argmax(axis=1) for scores in found)
    wrong_a, wrong_b = a != labels, b != labels
    n_both, n_either = (wrong_a & wrong_b).sum(), (wrong_a | wrong_b).sum()
    assert (of.n, of.n_both, of.n_either) == (97, n_both, n_either)
    assert_allclose(of.in_common, n_both / n_either)
    assert_allclose(of.same, (a == b).mean())
    assert_allclose(of.kappa, cohen_kappa_score(a, b))
    # By chance: one's errors shuffled over all samples.
    rng, shares = np.random.default_rng(0), []
    for _ in range(4000):
        other = rng.permutation(wrong_b)
        shares.append((wrong_a & other).sum() / (wrong_a | other).sum())
    assert_allclose(of.chance, np.mean(shares), atol=0.005)


def test_perfect_models_have_no_errors_in_common():
    labels = labels_of(20)
    perfect = Answers(np.eye(2)[labels])
    of = agreement(perfect, perfect, Samples(labels, "binary-class"))
    assert (of.same, of.kappa) == (1, 1)
    assert np.isnan([of.in_common, of.chance]).all()
