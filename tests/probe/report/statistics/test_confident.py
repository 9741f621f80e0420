"""Confident learning: by hand, and against what cleanlab 2.9.0 found of the same draws."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probe.report.statistics.confident import NONE, likely_classes, margins, thresholds


def draw(n, n_classes):
    """Scores of known skill, and labels of which 12 % were drawn anew."""
    rng = np.random.default_rng(5)
    shares = np.arange(n_classes, 0, -1) / (n_classes * (n_classes + 1) / 2)
    truth = rng.choice(n_classes, n, p=shares)
    logits = rng.normal(size=(n, n_classes)) * 1.2 + 2.2 * (truth[:, None] == np.arange(n_classes))
    p = np.exp(logits)
    p = (p / p.sum(axis=1, keepdims=True)).round(4)
    given = np.where(rng.random(n) < 0.12, rng.integers(0, n_classes, n), truth)
    return p / p.sum(axis=1, keepdims=True), given


# cleanlab.count.compute_confident_joint(calibrate=False), and cleanlab.filter.find_label_issues by
# "confident_learning", ranked by "normalized_margin", min_examples_per_class=0.
CLEANLAB = {
    (200, 4): (
        [[45, 4, 3, 3], [4, 35, 5, 2], [2, 6, 23, 1], [0, 3, 0, 11]],
        [
            *(154, 68, 67, 112, 103, 75, 54, 79, 150, 0, 190, 50, 56, 110, 34, 147, 28, 165, 171),
            *(168, 108, 53, 5, 17, 100, 113, 156, 18, 46, 180, 173, 20, 64),
        ],
    ),
    (80, 2): ([[26, 2], [6, 24]], [74, 70, 6, 69, 71, 52, 63, 54]),
}


@pytest.mark.parametrize("size", CLEANLAB)
def test_it_is_cleanlabs(size):
    scores, labels = draw(*size)
    joint, ranked = CLEANLAB[size]
    likely, margin = likely_classes(scores, labels), margins(scores, labels)
    counts = np.zeros_like(joint)
    np.add.at(counts, (labels[likely != NONE], likely[likely != NONE]), 1)
    assert_array_equal(counts, joint)
    suspect = np.flatnonzero((likely != NONE) & (likely != labels))
    assert suspect[np.argsort(margin[suspect], kind="stable")].tolist() == ranked


def test_by_hand():
    scores = np.array(
        [[0.9, 0.1, 0], [0.5, 0.5, 0], [0.2, 0.8, 0], [0.75, 0.25, 0], [0.4, 0.3, 0.3]]
    )
    labels = np.array([0, 0, 1, 1, 0])
    # Nobody is of class 2; class 0 has .9, .5 and .4, class 1 .8 and .25.
    assert_allclose(thresholds(scores, labels), [0.6, 0.525, np.inf])
    assert likely_classes(scores, labels).tolist() == [0, NONE, 1, 0, NONE]
    assert_allclose(margins(scores, labels), [0.8, 0, 0.6, -0.5, 0.1])


def test_of_several_likely_classes_the_largest_score_decides():
    scores = np.array([[0.55, 0.45], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 0, 1, 1])  # thresholds .375 and .65
    assert likely_classes(scores, labels).tolist() == [0, 1, 1, 0]


def test_the_mean_itself_is_enough():
    """As where all neighbours of every sample agree: shares of votes are 0 and 1."""
    scores = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], float)
    labels = np.array([0, 0, 1, 1, 1])
    assert likely_classes(scores, labels).tolist() == [0, 0, 0, 1, 1]
