"""Our ACC and AUC are MedMNIST's, for all four tasks: its own evaluator is asked."""

import numpy as np
import pytest

from probe.metrics.classification import evaluate

N = 300


def random_case(task, seed):
    rng = np.random.default_rng(seed)
    if task == "multi-label, binary-class":
        labels = rng.integers(0, 2, (N, 14))
        scores = np.clip(labels * 0.2 + rng.random((N, 14)) * 0.8, 0, 1)
    else:
        n_classes = 2 if task == "binary-class" else 5
        labels = rng.integers(0, n_classes, N)
        scores = rng.random((N, n_classes)) + np.eye(n_classes)[labels] * 0.4
        scores /= scores.sum(axis=1, keepdims=True)
    # Rounded, so that there are ties and scores of exactly one half.
    return (scores.round(1) if seed % 2 else scores), labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "task",
    ["multi-class", "binary-class", "multi-label, binary-class", "ordinal-regression"],
)
def test_acc_and_auc(task, seed):
    from medmnist.evaluator import getACC, getAUC

    scores, labels = random_case(task, seed)
    ours = evaluate(scores, labels, task)
    theirs = labels if labels.ndim == 2 else labels[:, None]
    assert ours["acc"] == pytest.approx(getACC(theirs, scores, task), abs=1e-12)
    assert ours["auc"] == pytest.approx(getAUC(theirs, scores, task), abs=1e-12)
