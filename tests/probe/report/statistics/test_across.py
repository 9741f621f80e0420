"""The signed-rank test over data sets: against scipy, by enumeration, and where it can't decide."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache.errors import RequestError
from probe.report.statistics.across import (
    across,
    kendall,
    mean_of_units,
    most_models,
    pseudomedian,
    signed_rank,
    smallest_p,
    undecidable,
    units_of,
)

MEDMNIST = [
    *("pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist"),
    *("breastmnist", "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist"),
]


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # scipy 1.17.1, wilcoxon(zero_method="pratt", method=PermutationMethod(n_resamples=inf))
        ([0.02, 0.05, -0.01, 0.03, 0.04, 0.06, 0.01], 0.046875),
        ([0.02, 0, -0.01, 0.02, 0.04, 0.06, 0, 0.03], 0.0625),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, -10], 0.083984375),
        ([0.5, -0.5, 1, 2, -1, 3], 0.34375),
        # and by thought
        ([0.3, 0.1, 0.2, 0.4], 0.125),
        ([0, 0, 0], 1),
        ([0.1], 1),
        ([0.1, np.nan], 1),
    ],
)
def test_signed_rank_is_exact(differences, p):
    assert signed_rank(np.array(differences)).p == pytest.approx(p, abs=1e-14)
    assert signed_rank(-np.array(differences)).p == pytest.approx(p, abs=1e-14)


def test_signed_rank_counts_every_way_to_give_signs():
    d = np.array([0.1, -0.1, 0.2, 0, 0.3, 0.2, -0.05, 0.4])
    order = np.abs(d).round(12)
    ranks = np.array([(order < own).sum() + ((order == own).sum() + 1) / 2 for own in order])
    ways = [
        abs((np.array(signs) * ranks * (d != 0)).sum())
        for signs in itertools.product((1, -1), repeat=8)
    ]
    seen = (np.sign(d) * ranks).sum()
    found = signed_rank(d)
    assert found.total == seen
    assert found.p == np.mean(np.array(ways) >= abs(seen))
    assert (found.n_units, found.n_zeros, found.smallest) == (8, 1, 2**-6)


def test_no_unit_no_p():
    assert np.isnan(signed_rank(np.array([np.nan])).p)


def test_differences_that_print_alike_tie():
    d = np.array([0.3 - 0.2, 0.1, 0.2 - 0.1, -0.1])  # differ in the last bit
    assert signed_rank(d).p == signed_rank(np.array([1.0, 1, 1, -1])).p == 0.625


@pytest.mark.parametrize(
    ("n_units", "smallest", "most"),
    # Of 12, 11 and 9 units the models are those of Holm's first step: p <= 0.05 / pairs.
    [
        (4, 0.125, 1),
        (5, 0.0625, 1),
        (6, 0.03125, 2),
        (7, 0.015625, 3),
        (9, 0.00390625, 5),
        (10, 0.001953125, 7),
        (11, 0.0009765625, 10),
        (12, 0.00048828125, 14),
    ],
)
def test_how_little_few_data_sets_decide(n_units, smallest, most):
    assert smallest_p(n_units) == smallest
    assert most_models(n_units) == most


def test_words_where_nothing_can_be_decided():
    assert undecidable(4, 2) == (
        "4 independent data sets can't decide: the smallest two-sided p of the exact signed-rank "
        "test is 0.125, above 0.05 whatever the differences"
    )
    assert undecidable(10, 12) == (
        "10 independent data sets can't tell any of 12 models apart, all pairs: the smallest "
        "two-sided p of the exact signed-rank test is 0.00195, above 0.05 / 66 = 0.00076; at most 7 "
        "models can be told apart"
    )
    assert undecidable(10, 7) == ""


def test_medmnist_is_ten_units():
    units = units_of(MEDMNIST)
    assert len(units) == 10
    assert units[-1] == ("organamnist", "organcmnist", "organsmnist")
    joined = units_of(MEDMNIST, [("octmnist", "pneumoniamnist"), ("pneumoniamnist", "x")])
    assert ("octmnist", "pneumoniamnist") in joined


def test_a_unit_is_the_mean_of_its_members():
    values = np.array([[0.1, 0.2], [0.3, np.nan], [0.5, np.nan]])
    means = mean_of_units(values, ["a", "b", "c"], [("a", "b"), ("c",)])
    assert_allclose(means, [[0.2, 0.2], [0.5, np.nan]])


# scikit-posthocs 0.17.1 (zeros dropped, of which there are none): posthoc_wilcoxon(p_adjust="holm")
POSTHOC = [
    [0.921, 0.753, 0.843, 0.783],
    [0.846, 0.824, 0.769, 0.793],
    [0.834, 0.93, 0.837, 0.789],
    [0.852, 0.81, 0.798, 0.788],
    [0.874, 0.823, 0.859, 0.794],
    [0.861, 0.876, 0.846, 0.785],
    [0.855, 0.846, 0.888, 0.792],
    [0.853, 0.86, 0.803, 0.791],
    [0.886, 0.847, 0.833, 0.82],
]


def test_all_pairs_over_data_sets_equal_scikit_posthocs():
    family = across(np.array(POSTHOC), [f"set{i}" for i in range(9)])
    of_pairs = family.p[np.triu_indices(4, 1)]
    assert_allclose(of_pairs, [0.5, 0.13671875, 0.0234375, 0.5703125, 0.13671875, 0.13671875])
    assert family.not_separated.tolist() == [True, True, True, False]


def test_data_sets_that_share_patients_count_once():
    values = np.linspace(0.7, 0.9, 12)[:, None] + np.array([0.02, 0.0])
    family = across(values, MEDMNIST)
    assert family.p[0, 1] == 2**-9
    assert family.gains[0, 1] == pytest.approx(0.02)
    assert family.above[0, 1]
    with pytest.raises(RequestError, match="one row"):
        across(values[:2], ["a", "a"])


def test_a_pair_goes_by_the_data_sets_that_both_have():
    values = np.array(POSTHOC)
    values[:, 3] = np.nan
    values[0, 1] = np.nan
    family = across(values, [f"set{i}" for i in range(9)])
    assert np.isnan(family.p[3]).all()
    assert not family.not_separated[3]
    assert family.p[0, 2] == pytest.approx(3 * signed_rank(values[:, 0] - values[:, 2]).p)


def test_pseudomedian():
    assert pseudomedian(np.array([1.0, 2, 9])) == 3.5  # of 1, 1.5, 2, 5, 5.5, 9
    assert np.isnan(pseudomedian(np.array([np.nan])))


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3, 4, 5], [1, 3, 2, 4, 5], 0.8),
        # scipy 1.17.1, kendalltau: with ties on both sides
        ([0.91, 0.90, 0.90, 0.85, 0.80, 0.7], [3, 2, 2.5, 2.5, 1, 1.5], 0.6428571428571429),
        ([1, 2], [2, 1], -1),
        ([1, 1], [2, 1], np.nan),
        ([1], [1], np.nan),
    ],
)
def test_kendall(a, b, tau):
    assert kendall(np.array(a), np.array(b)) == pytest.approx(tau, nan_ok=True)
