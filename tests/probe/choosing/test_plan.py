"""Choosing: the kernel by hand, folds against what they promise, fits against plain loops."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import log_loss as sklearn_log_loss

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL, REGRESSION, Task
from probe.choosing.plan import (
    HELD_OUT,
    N_FOLDS,
    ChoosingConfig,
    as_val,
    choose,
    fit_and_choose,
    has_few,
    make_folds,
    make_plan,
)
from probe.metrics.calibration import Votes
from probe.metrics.classification import MARGIN
from probe.metrics.losses import loss_of
from probe.questions.question import Split, join, pick


def by_mean(fitted):
    return None


def split_of(labels, prefix="a", groups=None) -> Split:
    labels = np.asarray(labels)
    ids = np.array([f"{prefix}{i}" for i in range(len(labels))])
    x = np.arange(2.0 * len(labels)).reshape(-1, 2)
    return Split(x, labels, ids, None if groups is None else np.array(groups))


def asked_of(task=BINARY, names=("no", "yes"), copies=None, ids=None) -> Any:
    header = SimpleNamespace(tables={"samples/groups": 7})
    features = SimpleNamespace(header=header, copies=copies, ids=ids)
    return SimpleNamespace(task=Task(task, names), title="toys", features=features)


def plan_of(train, val, n_candidates=2, asked=None, **settings):
    splits = {"train": train, "val": val}
    return make_plan(ChoosingConfig(**settings), asked or asked_of(), splits, n_candidates)


# ---------------------------------------------------------------------------- the kernel


def test_the_smallest_mean_loss_wins_weighted_by_samples():
    losses = np.array([[3.0, 1.0, 2.0], [1.0, 4.0, 2.0]])
    even, odd = choose(losses, [1, 1]), choose(losses, [9, 1])
    assert (even.place, odd.place) == (0, 1)  # 2, 2.5, 2: the first of equals
    assert_allclose(odd.losses, [2.8, 1.3, 2.0])
    assert odd.wins.tolist() == [1, 1, 0]


def test_choice_refusals():
    with pytest.raises(RequestError, match="candidate 1 has no loss"):
        choose(np.array([[1.0, np.nan]]), [3])
    with pytest.raises(RequestError, match=r"found \(1, 0\)"):
        choose(np.empty((1, 0)), [3])


def test_losses_by_hand():
    scores, labels = np.array([[0.75, 0.25], [0.0, 1.0]]), np.array([0, 1])
    assert_allclose(loss_of(scores, labels, BINARY), -np.log(0.75) / 2)
    # One vote more, shared as the bank's classes are: 3.4 of 5, and 4.6 of 5.
    expected = -(np.log(0.68) + np.log(0.92)) / 2
    votes = Votes(4, np.array([0.4, 0.6]))
    assert_allclose(loss_of(scores, labels, BINARY, votes=votes), expected)
    assert_allclose(loss_of(np.array([[1.0], [4.0]]), np.array([1.0, 2.0]), REGRESSION), 2.0)
    margins = np.array([[1.0, -1.0], [-3.0, 3.0], [2.0, -2.0]])
    assert loss_of(margins, np.array([0, 1, 1]), BINARY, score_type=MARGIN) == 0.5
    with pytest.raises(RequestError, match="none where all labels are the same"):
        loss_of(margins, np.array([1, 1, 1]), BINARY, score_type=MARGIN)
    wide = np.column_stack([margins, [9.0, 9.0, 9.0]])  # over the classes that there are
    assert loss_of(wide, np.array([0, 1, 1]), MULTI_CLASS, score_type=MARGIN) == 0.5


def test_one_unanimous_mistake_does_not_decide():
    scores = np.tile([1.0, 0.0], (20, 1))
    labels = np.repeat([0, 1], [19, 1])
    assert loss_of(scores, labels, BINARY) > 1.5
    votes = Votes(10, np.array([0.5, 0.5]))
    assert loss_of(scores, labels, BINARY, votes=votes) < sklearn_log_loss(labels, np.full(20, 0.5))


# ---------------------------------------------------------------------------- val or folds


@pytest.mark.parametrize(
    ("task", "train", "val", "expected"),
    [
        (BINARY, [0, 1], np.repeat([0, 1], [250, 250]), False),
        (BINARY, [0, 1], np.repeat([0, 1], [250, 249]), True),
        (BINARY, [0, 1], np.repeat([0, 1], [451, 49]), True),
        (BINARY, [0, 1], np.repeat([0, 1], [450, 50]), False),
        (MULTI_CLASS, [0, 1], np.repeat([0, 1], [450, 50]), False),  # a class that nobody has
        (MULTI_CLASS, [0, 1, 2], np.repeat([0, 1], [450, 50]), True),  # one that val lacks
        (MULTI_LABEL, [[0, 1]], np.repeat([[0, 1]], 500, axis=0), False),
        (REGRESSION, [0.5], np.linspace(0, 1, 500), False),
        (REGRESSION, [0.5], np.linspace(0, 1, 499), True),
    ],
)
def test_when_val_is_too_small(task, train, val, expected):
    assert has_few(split_of(train), split_of(val), task) is expected


def test_auto_takes_folds_where_val_is_small_and_there_is_a_choice():
    train, val = split_of([0, 1] * 20), split_of([0, 1] * 5, "v")
    assert plan_of(train, val).fold is not None
    assert plan_of(train, val).refit == "train+val"
    assert plan_of(train, val, n_candidates=1).fold is None
    assert plan_of(train, val, how="val").fold is None
    assert plan_of(train, val, how="val").refit == "train"
    assert plan_of(train, val, refit="train").refit == "train"
    large = split_of([0, 1] * 250, "v")
    assert plan_of(train, large).fold is None
    assert plan_of(train, large, how="cv").fold is not None


def test_what_the_row_holds():
    train, val = split_of([0, 1] * 20), split_of([0, 1] * 5, "v")
    by_val, by_folds = plan_of(train, val, how="val"), plan_of(train, val)
    # As rows held it before there were folds: today's rows stay the same question.
    assert by_val.settings("log-loss") == {"chosen_by": "val log-loss"}
    assert by_val.marks == []
    held = by_folds.settings("log-loss")
    assert held["chosen_by"] == "out-of-fold log-loss"
    assert held["folds"] == {"n": N_FOLDS, "seed": 0}
    assert held["refit"] == "train+val"
    assert "5 folds of train and val (10 val samples)" in by_folds.marks[0]
    fitted_on_both = plan_of(train, val, how="val", refit="train+val")
    assert fitted_on_both.settings("log-loss")["refit"] == "train+val"
    assert fitted_on_both.marks == ["fitted on train and val"]


def test_no_val_and_a_choice():
    train, empty = split_of([0, 1] * 20), split_of(np.empty(0, int), "v")
    with pytest.raises(RequestError, match="no val images to choose on.*--choose cv"):
        plan_of(train, empty, how="val")
    assert plan_of(train, empty).fold is not None
    assert plan_of(train, empty, n_candidates=1).fold is None


def test_where_folds_cannot_be_made():
    train, val = split_of([0, 0, 0, 1]), split_of([0], "v")
    message = "without one of 5 folds only no is left"
    with pytest.raises(RequestError, match=message):
        plan_of(train, val, how="cv")
    plan = plan_of(train, val)  # auto: val decides, and the row says why
    assert plan.fold is None
    assert message in plan.marks[0]
    with pytest.raises(RequestError, match="as many samples, found 4"):
        plan_of(split_of([0, 1]), split_of([0, 1], "v"), how="cv")
    labels = np.full((6, 2), MISSING)
    labels[:, 0], labels[0, 1] = [0, 1, 0, 1, 0, 1], 1
    several = asked_of(MULTI_LABEL, ("first", "second"))
    with pytest.raises(RequestError, match="nothing is known of second"):
        plan_of(split_of(labels), split_of(labels[:0], "v"), asked=several, how="cv")


# ---------------------------------------------------------------------------- folds


def test_folds_are_stratified_and_every_sample_is_held_out_once():
    train, val = split_of([0] * 60 + [1] * 20), split_of([0] * 15 + [1] * 5, "v")
    plan = plan_of(train, val)
    pool = join(train, val)
    seen = []
    for fit_on, held_out in plan.rounds():
        assert not set(fit_on.ids) & set(held_out.ids)
        assert np.bincount(held_out.y).tolist() == [15, 5]
        assert len(fit_on) + len(held_out) == len(pool)
        seen += held_out.ids.tolist()
    assert sorted(seen) == sorted(pool.ids)
    assert plan.n_fitted == 80
    rounds = [held_out.y for _, held_out in plan.rounds()]
    assert_array_equal(plan.gather(rounds), pool.y)


def test_folds_do_not_depend_on_the_order_of_rows():
    pool = split_of(np.random.default_rng(0).integers(2, size=90))
    shuffled = np.random.default_rng(1).permutation(90)
    again = Split(pool.x[shuffled], pool.y[shuffled], pool.ids[shuffled])
    assert_array_equal(make_folds(asked_of(), pool)[shuffled], make_folds(asked_of(), again))


def test_no_exact_copies_are_divided():
    rng = np.random.default_rng(5)
    train, val = split_of(rng.integers(2, size=80)), split_of(rng.integers(2, size=40), "v")
    pool = join(train, val)
    copies = np.arange(120)
    copies[[70, 90, 100]] = 3  # of sample 3, two of them in val
    copies[50] = 51
    shuffled = rng.permutation(120)
    asked = asked_of(copies=copies[shuffled], ids=pool.ids[shuffled])
    fold = make_folds(asked, pool)
    assert len(set(fold[[3, 70, 90, 100]])) == len(set(fold[[50, 51]])) == 1
    divided = make_folds(asked_of(), pool)
    assert len(set(divided[[3, 70, 90, 100]])) > 1  # else this test could not fail
    counts = np.array([np.bincount(pool.y[fold == k], minlength=2) for k in range(N_FOLDS)])
    assert np.ptp(counts, axis=0).max() <= 3  # still stratified
    plan = plan_of(train, val, asked=asked)
    assert plan.settings("log-loss")["folds"]["copies"] == 6
    assert "no copy divided" in plan.marks[0]
    none = asked_of(copies=np.arange(120), ids=pool.ids)
    assert_array_equal(make_folds(none, pool), divided)
    assert "copies" not in plan_of(train, val, asked=none).settings("log-loss")["folds"]


def test_a_copy_joins_patients():
    groups = [f"p{i // 3}" for i in range(90)]
    train, val = split_of([0, 1] * 30, groups=groups[:60]), split_of([0, 1] * 15, "v", groups[60:])
    pool = join(train, val)
    copies = np.arange(90)
    copies[[4, 36]] = 4  # p1 and p12
    copies[[37, 86]] = 37  # p12 and p28
    copies[8] = 7  # within p2
    fold = make_folds(asked_of(copies=copies, ids=pool.ids), pool)
    assert pool.groups is not None
    for name in ("p0", "p2", "p5"):
        assert len(set(fold[pool.groups == name])) == 1
    assert len(set(fold[np.isin(pool.groups, ["p1", "p12", "p28"])])) == 1
    apart = make_folds(asked_of(), pool)
    assert len(set(apart[np.isin(pool.groups, ["p1", "p12", "p28"])])) > 1
    within = np.arange(90)
    within[8] = 7  # one patient's: nothing changes
    assert_array_equal(make_folds(asked_of(copies=within, ids=pool.ids), pool), apart)


def test_no_patient_is_divided():
    groups = [f"p{i // 3}" for i in range(90)]
    train, val = split_of([0, 1] * 30, groups=groups[:60]), split_of([0, 1] * 15, "v", groups[60:])
    plan = plan_of(train, val)
    assert plan.settings("log-loss")["folds"]["groups"] == 7
    assert "no patient divided" in plan.marks[0]
    for fit_on, held_out in plan.rounds():
        assert fit_on.groups is not None
        assert held_out.groups is not None
        assert not set(fit_on.groups) & set(held_out.groups)
    few = split_of([0, 1] * 10, groups=["p"] * 20)
    with pytest.raises(RequestError, match="as many patients, found 1"):
        plan_of(few, pick(few, np.zeros(20, bool)), how="cv")


# ---------------------------------------------------------------------------- fitting


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """Predicts a mean, shrunk towards 0: three candidates."""

    mean: float

    def losses(self, x, y):
        return np.array([np.mean((y - self.scores(x, i)[:, 0]) ** 2) for i in range(3)])

    def scores(self, x, place):
        return np.full((len(x), 1), self.mean * (0.0, 0.5, 1.0)[place])


@pytest.mark.parametrize("refit", ["train", "train+val"])
@pytest.mark.parametrize("how", ["val", "cv"])
def test_fit_and_choose_equals_a_plain_loop(how, refit):
    rng = np.random.default_rng(0)
    train, val = split_of(rng.normal(3, 1, 40)), split_of(rng.normal(3, 1, 20), "v")
    plan = plan_of(train, val, asked=asked_of(REGRESSION), how=how, refit=refit)
    chosen = fit_and_choose(plan, lambda split: Shrunk(float(split.y.mean())), 5, by_mean)
    assert chosen.choice.place == 2
    pool = join(train, val)
    if how == "val":
        expected = np.full(20, train.y.mean())
        errors = (val.y - expected) ** 2
    else:
        assert plan.fold is not None
        expected = np.array([pool.y[plan.fold != part].mean() for part in plan.fold])
        errors = (pool.y - expected) ** 2
    assert_allclose(chosen.held_out[:, 0], expected)
    assert_allclose(chosen.choice.losses[2], errors.mean())
    assert chosen.choice.wins.tolist() == [0, 0, 1 if how == "val" else N_FOLDS]
    final = train if refit == "train" else pool
    assert_allclose(chosen.scores(val.x)[:, 0], final.y.mean())


def test_one_candidate_needs_no_val():
    train = split_of(np.ones(9))
    empty = pick(train, np.zeros(9, bool))
    plan = plan_of(train, empty, n_candidates=1, asked=asked_of(REGRESSION))
    chosen = fit_and_choose(plan, lambda split: Shrunk(1.0), 1, by_mean)
    assert chosen.choice.place == 0
    assert chosen.held_out.shape == (0, 1)


def test_answers_out_of_fold_stand_for_val():
    train, val, test = split_of([0, 1]), split_of([1], "v"), split_of([0], "t")
    splits = {"train": train, "val": val, "test": test}
    scores = {HELD_OUT: np.eye(3), "test": np.ones((1, 3))}
    answered, renamed = as_val(splits, scores)
    assert answered["val"].ids.tolist() == ["a0", "a1", "v0"]
    assert set(renamed) == {"val", "test"}
    assert as_val(splits, renamed) == (splits, renamed)


def test_words():
    with pytest.raises(RequestError, match="--choose takes auto, val, cv, not 'test'"):
        ChoosingConfig("test")
    with pytest.raises(RequestError, match=r"--refit takes train, train\+val, not 'test'"):
        ChoosingConfig(refit="test")
