"""Many small probes at once, against one after another."""

import numpy as np
import pytest
from looking import some

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL
from probe.kinds import linear, ridge
from probe.metrics.classification import auc
from probe.solvers import episodes as fewshot
from probe.solvers.episodes import logistic_scores, ridge_scores
from probe.solvers.standardise import of_one_length, unlabelled_standard

S, D = 60, 80


def problem(task, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(S, D)) * rng.gamma(1, size=D) + 1
    if task == MULTI_LABEL:
        y = rng.integers(-1, 2, (S, n_classes))
    else:
        y = rng.integers(0, n_classes, S)
        x[:, :n_classes] += np.eye(n_classes)[y]
    episodes = [np.sort(rng.choice(S, n, replace=False)) for n in (12, 24, 18, 24, 15)]
    return x, y, episodes, rng.normal(size=(30, D)) + 1


@pytest.mark.parametrize(("task", "n_classes"), [(BINARY, 2), (MULTI_CLASS, 4), (MULTI_LABEL, 3)])
@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1, 100])
def test_every_episode_is_the_linear_probe_of_its_samples(task, n_classes, strength):
    x, y, episodes, queries = problem(task, n_classes)
    found = logistic_scores(x, y, episodes, queries, task, n_classes, strength)
    config = linear.Linear(strengths=(strength,), tolerance=1e-13, max_products=10_000)
    for scores, rows in some(zip(found, episodes, strict=True)):
        (fit,) = linear.fit_path(x[rows], y[rows], task, n_classes, config)
        assert scores == pytest.approx(fit.predict_scores(queries), abs=1e-3)


@pytest.mark.parametrize("by_train", [False, True])
def test_it_is_scikit_learns_logistic_regression(by_train):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y, episodes, queries = problem(MULTI_CLASS, 4)
    prepare = unlabelled_standard(x) if by_train else None
    found = logistic_scores(x, y, episodes, queries, MULTI_CLASS, 4, prepare=prepare)
    for scores, rows in some(zip(found, episodes, strict=True)):
        scaler = StandardScaler().fit(x if by_train else x[rows])
        model = LogisticRegression(C=fewshot.STRENGTH, tol=1e-9, max_iter=10_000)
        model.fit(scaler.transform(x[rows]), y[rows])
        assert scores == pytest.approx(model.predict_proba(scaler.transform(queries)), abs=1e-4)


def test_an_episode_alone_scores_as_among_others(monkeypatch):
    """Shorter ones are filled up, and many are done in pieces."""
    x, y, episodes, queries = problem(MULTI_CLASS, 4)
    together = logistic_scores(x, y, episodes, queries, MULTI_CLASS, 4)
    monkeypatch.setattr(fewshot, "CHUNK_CELLS", 1)
    assert logistic_scores(x, y, episodes, queries, MULTI_CLASS, 4) == pytest.approx(
        together, abs=1e-4
    )


def test_a_class_that_an_episode_lacks_scores_0():
    x, y, _, queries = problem(MULTI_CLASS, 4)
    rows = np.flatnonzero(y != 2)[:20]
    found = logistic_scores(x, y, [rows, np.arange(20)], queries, MULTI_CLASS, 4)
    assert (found[0][:, 2] == 0).all()
    assert found.sum(axis=2) == pytest.approx(1)
    assert (found[1][:, 2] > 0).all()


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS])
def test_an_episode_of_one_class_is_sure_of_it(task):
    n_classes = 2 if task == BINARY else 3
    x, _, _, queries = problem(MULTI_CLASS, 4)
    y = np.r_[np.zeros(30, int), np.ones(30, int)]
    found = logistic_scores(x, y, [np.arange(30, 40)], queries, task, n_classes)
    assert found[0] == pytest.approx(np.tile(np.eye(n_classes)[1], (30, 1)))


def test_constant_features_and_equal_images_say_nothing():
    """One shot each, the same image: as likely as not; a constant far from 0 changes nothing."""
    x, y, episodes, queries = problem(BINARY, 2)
    same = logistic_scores(
        np.ones((4, D)), np.array([0, 1, 0, 1]), [np.arange(4)], queries, BINARY, 2
    )
    assert same == pytest.approx(0.5)
    found = logistic_scores(x, y, episodes, queries, BINARY, 2)
    wide, wide_queries = (np.column_stack([a, np.full(len(a), 1e4)]) for a in (x, queries))
    assert logistic_scores(wide, y, episodes, wide_queries, BINARY, 2) == pytest.approx(
        found, abs=1e-4
    )


def test_features_far_from_zero_keep_their_digits():
    """As the massive activations of vision transformers: a mean of a thousand spreads."""
    x, y, episodes, queries = problem(BINARY, 2)
    found = logistic_scores(x, y, episodes, queries, BINARY, 2)
    assert logistic_scores(x + 1000, y, episodes, queries + 1000, BINARY, 2) == pytest.approx(
        found, abs=2e-3
    )


def test_features_are_finite():
    x, y, episodes, queries = problem(BINARY, 2)
    x[episodes[0][3], 7] = np.nan
    with pytest.raises(RequestError, match="found inf or nan in column 7"):
        logistic_scores(x, y, episodes, queries, BINARY, 2)


PENALTIES = (1e-3, 0.1, 10.0)


def test_ridge_is_that_of_the_samples_at_the_penalty_of_the_smallest_left_out_error():
    """Leaving out by hand: refit without each sample, on the scale of all."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(S, 12))
    y = x[:, :2] + rng.normal(size=(S, 2))
    episodes = [np.sort(rng.choice(S, n, replace=False)) for n in (8, 20, 40)]
    found, chosen = ridge_scores(x, y, episodes, x[:9], PENALTIES)
    for scores, penalty, rows in some(zip(found, chosen, episodes, strict=True)):
        errors = [left_out_error(x[rows], y[rows], p) for p in PENALTIES]
        assert penalty == PENALTIES[int(np.argmin(errors))]
        fits = ridge.fit_path(x[rows], y[rows], ridge.Ridge(penalties=(penalty,)))
        assert scores == pytest.approx(fits[0].predict(x[:9]), abs=1e-4)


def left_out_error(x, y, penalty):
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    total = 0.0
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        a = np.column_stack([x, np.ones(len(x))])
        bend = np.diag([penalty * len(x)] * x.shape[1] + [0])
        weights = np.linalg.solve(a[rest].T @ a[rest] + bend, a[rest].T @ y[rest])
        total += np.square(y[i] - a[i] @ weights).sum()
    return total


@pytest.mark.parametrize("seed", [4, 16, 21])
def test_left_out_error_is_exact_where_the_fit_runs_through_every_sample(seed):
    """Next to no penalty 1 - h is next to nothing; float32's rounding must not choose."""
    rng = np.random.default_rng(seed)
    X, n = (rng.normal(size=(20, 384)) + 3).astype(np.float32), 20
    T = np.sign(rng.normal(size=(n, 1)))
    batch = fewshot._standardised(X, [np.arange(n)])
    x, penalties = batch.x[0].astype(np.float64), np.array([1e-2, 1e-4])
    errors = []
    for penalty in penalties:
        left_out = 0.0
        for i in range(n):
            k = np.arange(n) != i
            mean, of_t = x[k].mean(axis=0), T[k].mean(axis=0)
            own = x[k] - mean
            a = np.linalg.solve(own @ own.T + penalty * n * np.eye(n - 1), T[k] - of_t)
            left_out += float(((x[i] - mean) @ own.T @ a + of_t - T[i]).item() ** 2)
        errors.append(left_out)
    chosen = fewshot._leave_one_out(batch, T[None], penalties)[2][0]
    assert chosen == penalties[int(np.argmin(errors))]


def test_one_sample_has_nothing_to_leave_out():
    rng = np.random.default_rng(1)
    found, chosen = ridge_scores(
        rng.normal(size=(5, 4)),
        np.arange(5.0)[:, None],
        [np.array([3])],
        np.ones((2, 4)),
        PENALTIES,
    )
    assert chosen.tolist() == [10.0]
    assert found == pytest.approx(3.0)


# ------------------------------------------------------------------------------- the scale


def test_the_scale_is_trains_and_one_for_all_features_of_few_images():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 5)) * [1, 10, 100, 1, 0] + [0, 5, 0, -9, 3]).astype(np.float32)
    found = unlabelled_standard(x)
    assert found.mean == pytest.approx(x.mean(axis=0, dtype=np.float64))
    assert found.scale == pytest.approx([*x[:, :4].std(axis=0, dtype=np.float64), 1])
    few = unlabelled_standard(x[:29])
    variances = x[:29, :4].var(axis=0, dtype=np.float64)
    assert few.scale == pytest.approx(np.full(5, np.sqrt(variances.mean())))
    assert few.mean == pytest.approx(x[:29].mean(axis=0, dtype=np.float64))
    assert few(x) == pytest.approx((x - few.mean) / few.scale, rel=1e-5)


def test_ridge_on_trains_scale_is_scikit_learns():
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    x = rng.normal(size=(S, 12)) * rng.gamma(1, size=12)
    y = x[:, :2] + rng.normal(size=(S, 2))
    rows = np.arange(20)
    ((found,), _) = ridge_scores(x, y, [rows], x[:9], [0.1], unlabelled_standard(x))
    z = StandardScaler().fit_transform(x)
    model = Ridge(alpha=0.1 * len(rows)).fit(z[rows], y[rows])
    assert found == pytest.approx(model.predict(z[:9]), abs=1e-4)


@pytest.mark.parametrize("scale", [1e-37, 1e-22, 1e19, 1e30])
def test_the_unit_of_features_changes_nothing(scale):
    """Squares of 1e19 and of 1e-23 are no float32."""
    x, y, episodes, queries = problem(BINARY, 2)
    own, scaled = ((part * f).astype(np.float32) for part, f in ((x, 1), (x, scale)))
    asked = (queries * scale).astype(np.float32)
    for prepare in (lambda _: None, unlabelled_standard, lambda _: of_one_length):
        found = logistic_scores(scaled, y, episodes, asked, BINARY, 2, prepare=prepare(scaled))
        usual = logistic_scores(own, y, episodes, queries, BINARY, 2, prepare=prepare(own))
        assert found == pytest.approx(usual, abs=1e-4)
        assert np.ptp(found) > 0.1
        wide = np.sign(x[:, :1])
        ridged = ridge_scores(scaled, wide, episodes, asked, PENALTIES, prepare(scaled))[0]
        same = ridge_scores(own, wide, episodes, queries, PENALTIES, prepare(own))[0]
        assert ridged == pytest.approx(same, abs=1e-3)


def test_one_shot_of_two_classes_is_met_on_trains_scale():
    """By itself every feature is 1 and -1, and what hardly varies decides."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    spread = np.r_[np.full(40, 1.0), np.full(200, 0.01)]
    x = rng.normal(size=(400, 240)) * spread
    x[:, :40] += 0.5 * y[:, None]
    x[:, 40:] += rng.standard_cauchy(size=(400, 200)) * 0.01
    episodes = [np.array([2 * i, 2 * i + 1]) for i in range(40)]
    queries, truth = x[200:], y[200:]
    values = {}
    for how, prepare in {"episode": None, "train": unlabelled_standard(x[:200])}.items():
        found = logistic_scores(x[:200], y[:200], episodes, queries, BINARY, 2, prepare=prepare)
        values[how] = np.mean([auc(scores, truth, BINARY) for scores in found])
    assert values["train"] > values["episode"] + 0.1
