"""Correcting probabilities to other class shares."""

import numpy as np
import pytest

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, Task
from probe.episodes.prior import class_shares, correct, likeliest_shares, to_prior

EVEN = np.array([[0.5, 0.5]])


def test_bayes_by_hand():
    """Even odds 3 : 1, and a class that is a quarter as frequent: 3 : 4."""
    found = correct(np.array([[0.25, 0.75]]), EVEN, np.array([0.8, 0.2]), BINARY)
    assert found == pytest.approx(np.array([[4 / 7, 3 / 7]]))


def test_there_and_back_again():
    scores = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    shares = np.array([[0.4, 0.3, 0.2, 0.1]])
    there = correct(scores, np.full((1, 4), 0.25), shares, MULTI_CLASS)
    assert there.sum(axis=1) == pytest.approx(1)
    assert correct(there, shares, np.full(4, 0.25), MULTI_CLASS) == pytest.approx(scores)


def test_each_of_several_labels_is_a_problem_of_two_classes():
    scores = np.random.default_rng(0).random((20, 3))
    learnt, wanted = np.array([[0.5, 0.4, 0.5]]), np.array([0.1, 0.2, 0.5])
    found = correct(scores, learnt, wanted, MULTI_LABEL)
    for c in range(3):
        two = np.stack([1 - scores[:, c], scores[:, c]], axis=1)
        sides = [np.array([1 - s, s]) for s in (learnt[0, c], wanted[c])]
        assert found[:, c] == pytest.approx(correct(two, sides[0][None], sides[1], BINARY)[:, 1])


def test_what_an_episode_has_not_seen_stays_as_it_is():
    scores = np.array([[0.7, 0.3, 0.0]])
    found = correct(scores, np.array([[0.5, 0.5, 0.0]]), np.array([0.2, 0.2, 0.6]), MULTI_CLASS)
    assert found == pytest.approx(scores)
    ones = np.array([[1.0, 0.25]])
    found = correct(ones, np.array([[1.0, 0.5]]), np.array([0.5, 0.5]), MULTI_LABEL)
    assert found == pytest.approx(ones)


def test_em_finds_the_shares_of_test_from_scores_alone():
    """Two normal classes one standard deviation from the middle: the truth is known."""
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.8
    x = rng.normal(size=20_000) + np.where(labels, 1, -1)
    likelihoods = np.exp(-np.square(x[:, None] - [-1, 1]) / 2)
    scores = likelihoods / likelihoods.sum(axis=1, keepdims=True)
    found = likeliest_shares(scores, EVEN, BINARY)
    assert found[0] == pytest.approx([0.2, 0.8], abs=0.01)
    corrected = to_prior(scores, EVEN, np.array([0.2, 0.8]), BINARY, "em")
    assert ((corrected[:, 1] > 0.5) == labels).mean() > ((scores[:, 1] > 0.5) == labels).mean()


def test_em_of_many_episodes_is_that_of_each():
    scores = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 60))
    learnt = np.full((4, 1, 3), 1 / 3)
    together = likeliest_shares(scores, learnt, MULTI_CLASS)
    for e in range(4):
        alone = likeliest_shares(scores[e], learnt[e], MULTI_CLASS)
        assert together[e] == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize(
    ("word", "expected"), [("none", 0.75), ("uniform", 0.75), ("train", 3 / 7)]
)
def test_words(word, expected):
    found = to_prior(np.array([[0.25, 0.75]]), EVEN, np.array([0.8, 0.2]), BINARY, word)
    assert found[0, 1] == pytest.approx(expected)


def test_an_unknown_word_is_refused():
    with pytest.raises(RequestError, match="--prior takes train, uniform, em, none, not 'flat'"):
        to_prior(np.array([[0.25, 0.75]]), EVEN, np.array([0.5, 0.5]), BINARY, "flat")


def test_shares_count_what_is_known():
    assert class_shares(
        np.array([0, 2, 2, 2]), Task(MULTI_CLASS, ("a", "b", "c", "d"))
    ).tolist() == [0.25, 0, 0.75, 0]
    labels = np.array([[1, -1], [0, 1], [0, -1]])
    assert class_shares(labels, Task(MULTI_LABEL, ("a", "b"))) == pytest.approx([1 / 3, 1])
