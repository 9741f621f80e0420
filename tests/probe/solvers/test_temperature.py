"""The best temperature, against a search without any idea."""

import numpy as np
import pytest
import torch

from probe.solvers.temperature import fit_temperature, log_loss


def answers(is_independent, n=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, 3))
    logits = 5 * (truth + rng.normal(size=(n, 3)))
    weights = rng.uniform(0.5, 2, (n, 3 if is_independent else 1))
    targets = (truth > 0) if is_independent else truth.argmax(axis=1)[:, None] == np.arange(3)
    return logits, targets.astype(float), weights


@pytest.mark.parametrize("is_independent", [False, True])
def test_the_loss_is_torchs(is_independent):
    logits, targets, weights = map(torch.from_numpy, answers(is_independent))
    if is_independent:
        nats = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        )
        wanted = (nats * weights).sum() / weights.sum()
    else:
        nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        wanted = (nats * weights[:, 0]).sum() / weights.sum()
    found = log_loss(logits.numpy(), targets.numpy(), weights.numpy(), is_independent)
    assert found == pytest.approx(float(wanted))


@pytest.mark.parametrize("is_independent", [False, True])
def test_no_other_temperature_is_better(is_independent):
    logits, *rest = answers(is_independent)
    best = fit_temperature(logits, *rest, is_independent)
    losses = {t: log_loss(logits / t, *rest, is_independent) for t in np.geomspace(0.1, 100, 3000)}
    assert best == pytest.approx(min(losses, key=losses.__getitem__), rel=5e-3)
    assert log_loss(logits / best, *rest, is_independent) <= min(losses.values())


def test_what_is_all_right_has_a_bound():
    targets = np.eye(3)
    assert np.isfinite(fit_temperature(targets, targets, np.ones((3, 1)), False))
