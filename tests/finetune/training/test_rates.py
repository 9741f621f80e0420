"""Learning rates against torch's and timm's schedulers."""

import math

import pytest
import torch

from finetune.config import TrainConfig
from finetune.training.rates import Length, count_drops, rate_factor
from probe.kinds.adamw import AdamW


def factors(config, part, n, n_warmup=0, n_drops=0):
    return [rate_factor(config, Length(1, 1, n, n_warmup), part, i, n_drops) for i in range(n)]


def stepped(scheduler, optimiser, n):
    found = []
    for _ in range(n):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


def optimiser():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def test_decay_is_torchs_exponential_every_200_steps_and_of_the_head_alone():
    o = optimiser()
    scheduler = torch.optim.lr_scheduler.StepLR(o, step_size=200, gamma=0.9)
    config = TrainConfig(schedule="decay")
    assert factors(config, "head", 1000) == pytest.approx(stepped(scheduler, o, 1000))
    assert set(factors(config, "encoder", 1000)) == {1.0}


@pytest.mark.parametrize("part", ["head", "encoder"])
def test_cosine_is_torchs(part):
    o = optimiser()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50)
    config = TrainConfig(schedule="cosine")
    assert factors(config, part, 50) == pytest.approx(stepped(scheduler, o, 50), abs=1e-12)


def test_warmup_reaches_the_full_rate_in_its_last_step():
    found = factors(TrainConfig(schedule="constant"), "head", 8, n_warmup=4)
    assert found == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_plateau_drops_when_torchs_does(seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 6, (60,), generator=generator).div(6).tolist()
    o = optimiser()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(o, mode="max", factor=0.1, patience=2)
    config = TrainConfig(schedule="plateau", plateau_checks=2)
    for n in range(1, 61):
        scheduler.step(values[n - 1])
        # torch stops at a change of 1e-8, long after which nothing is left to compare.
        n_drops = count_drops(config, values[:n])
        found = rate_factor(config, Length(1, 1, 60), "encoder", n, n_drops)
        assert max(found, 1e-8) == pytest.approx(max(o.param_groups[0]["lr"], 1e-8))


def test_other_schedules_know_no_plateau():
    assert count_drops(TrainConfig(schedule="cosine"), [0.5] * 50) == 0
    constant = TrainConfig(schedule="constant")
    assert math.isclose(rate_factor(constant, Length(1, 1, 10), "head", 9, 0), 1)


def test_cosine_by_epoch_is_that_of_probes_adamw():
    """Doerrich et al. 2024: the head of a frozen encoder has the same rates here and there."""
    config, probed = TrainConfig(schedule="cosine-epochs"), AdamW(lr=1.0, schedule="cosine")
    n_epochs, n_batches = 7, 3
    n = n_epochs * n_batches
    found = [rate_factor(config, Length(1, n_epochs, n_batches), "head", i, 0) for i in range(n)]
    assert found == pytest.approx([probed.rate(i // n_batches, i, n_epochs) for i in range(n)])
    assert found[: 2 * n_batches] == [1.0] * 6
    assert found[-1] > 0
