"""All-pairs tests: adjusted p-values against statsmodels', and what the families promise."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.errors import RequestError
from probe.report.statistics.families import HOLM, MAX_T, Ranks, by_holm, by_max_t, gains_of, holm


def test_holm_equals_statsmodels():
    # statsmodels 0.15.0, multipletests(p, method="holm")
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.04, 0.5])
    assert_allclose(holm(p), [0.05, 0.12, 0.12, 0.03, 0.12, 0.5], rtol=1e-12)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [([], []), ([0.04], [0.04]), ([np.nan, 0.04], [np.nan, 0.04]), ([0.6, 0.9], [1, 1])],
)
def test_holm_counts_the_tests_that_were_made(p, adjusted):
    assert_allclose(holm(np.array(p)), adjusted)


def symmetric(**pairs):
    p = np.full((3, 3), np.nan)
    for (j, k), value in (((int(name[1]), int(name[2])), v) for name, v in pairs.items()):
        p[j, k] = p[k, j] = value
    return p


def test_who_is_separated_and_which_ranks_are_left():
    gains = gains_of(np.array([0.9, 0.88, 0.8]))
    [family] = by_holm([gains], [symmetric(p01=0.2, p02=0.001, p12=0.02)])
    assert_allclose(family.p[0], [np.nan, 0.2, 0.003])
    assert family.not_separated.tolist() == [True, True, False]
    assert family.ranks == [Ranks(1, 2), Ranks(1, 2), Ranks(3, 3)]
    assert family.describe() == "Holm over all 3 pairs, level 0.05"


def test_columns_of_one_table_are_one_family():
    gains = gains_of(np.array([0.9, 0.8]))
    p = np.array([[np.nan, 0.03], [0.03, np.nan]])
    one, two = by_holm([gains, gains], [p, 3 * p])
    assert (one.p[0, 1], two.p[0, 1]) == (0.06, 0.09)
    assert one.not_separated.all()
    assert one.describe() == "Holm over one pair, 2 tests with those of other columns, level 0.05"
    assert by_holm([gains], [p])[0].not_separated.tolist() == [True, False]


def test_a_model_that_was_not_tested_is_not_marked():
    [family] = by_holm([gains_of(np.array([0.9, 0.8, 0.95]))], [symmetric(p01=0.001)])
    assert family.not_separated.tolist() == [True, False, False]
    assert family.ranks[2] == Ranks(1, 3)
    [alone] = by_holm([np.zeros((1, 1))], [np.full((1, 1), np.nan)])
    assert alone.not_separated.all()


def accuracies(answers, n_draws, rng):
    """(R, K) of (K, N) right answers, under draws that all models share."""
    n = answers.shape[1]
    return rng.multinomial(n, np.full(n, 1 / n), n_draws) @ answers.T / n


def test_max_t_of_two_models_is_their_bootstrap_test():
    rng = np.random.default_rng(0)
    answers = np.array([np.arange(200) < 160, np.arange(200) < 142]).astype(float)
    drawn = accuracies(answers, 999, rng)
    [family] = by_max_t([answers.mean(axis=1)], [drawn])
    moved = drawn[:, 0] - drawn[:, 1]
    t = 0.09 / moved.std(ddof=1)
    by_hand = (1 + (np.abs(moved - 0.09) / moved.std(ddof=1) >= t - 1e-12).sum()) / 1000
    assert family.p[0, 1] == family.p[1, 0] == by_hand
    assert family.above.tolist() == [[False, True], [False, False]]
    assert family.describe() == "max-T bootstrap over one pair, level 0.05"
    # 950 of 999 draws lie within the interval around their centre.
    half = (family.high[0, 1] - family.low[0, 1]) / 2
    assert (np.abs(moved - 0.09) <= half + 1e-12).sum() in range(950, 975)  # accuracies tie


def test_steps_down_find_no_less_than_one_step():
    rng = np.random.default_rng(1)
    values = np.array([0.9, 0.7, 0.699, 0.6])
    drawn = values + 0.02 * rng.standard_normal((500, 4))
    [family] = by_max_t([values], [drawn])
    single = (family.low > 0) & (family.p <= 1)
    assert (family.above | ~single).all()
    assert family.ranks == [Ranks(1, 1), Ranks(2, 3), Ranks(2, 3), Ranks(4, 4)]


def test_max_t_of_models_that_answer_alike():
    rng = np.random.default_rng(2)
    drawn = np.repeat(0.8 + 0.02 * rng.standard_normal((200, 1)), 3, axis=1)
    drawn[:, 2] -= 0.1  # always as far below: no draw tells how sure that is
    [family] = by_max_t([np.array([0.8, 0.8, 0.7])], [drawn])
    assert family.p[0, 1] == 1
    assert np.isnan([family.p[0, 2], family.low[0, 2]]).all()
    assert family.not_separated.tolist() == [True, True, False]  # the third was tested with none


def test_max_t_over_columns_is_stricter():
    rng = np.random.default_rng(3)
    value = np.array([0.85, 0.8])
    drawn = [value + 0.013 * rng.standard_normal((2000, 2)) for _ in range(8)]
    [alone] = by_max_t([value], drawn[:1])
    together = by_max_t([value] * 8, drawn)
    assert alone.p[0, 1] < 0.02 < together[0].p[0, 1]
    assert together[0].n_tests == 8


@pytest.mark.parametrize(
    ("values", "n_draws", "n_undefined"),
    [([0.8, np.nan], 200, 0), ([0.8, 0.7], 99, 0), ([0.8, 0.7], 200, 101)],
)
def test_max_t_needs_values_and_draws(values, n_draws, n_undefined):
    drawn = np.random.default_rng(0).random((n_draws, 2))
    drawn[:n_undefined, 1] = np.nan
    with pytest.raises(RequestError):
        by_max_t([np.array(values)], [drawn])


@pytest.mark.parametrize("step", [0.0, 0.01])
def test_sets_of_ranks_hold_all_true_ranks_at_once(step):
    rng = np.random.default_rng(4)
    truth = 0.85 - step * np.arange(6)
    low = [1 + int((truth > own).sum()) for own in truth]
    high = [6 - int((truth < own).sum()) for own in truth]
    held = 0
    for _ in range(150):
        common = rng.random(300) < 0.6  # images on which models answer alike
        shared, own = rng.random(300), rng.random((6, 300))
        answers = (np.where(common, shared, own) < truth[:, None]).astype(float)
        [family] = by_max_t([answers.mean(axis=1)], [accuracies(answers, 300, rng)])
        ranks = family.ranks
        held += all(
            r.low <= h and r.high >= l for r, l, h in zip(ranks, low, high, strict=True)
        ) and not (step == 0 and family.above.any())
    assert held / 150 >= 0.9


def test_methods_have_names():
    assert {HOLM, MAX_T} == {"Holm", "max-T bootstrap"}
