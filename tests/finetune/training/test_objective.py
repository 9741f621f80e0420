"""Losses against torch's own, and what val decides by."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cache.errors import RequestError
from cache.task import Task
from finetune.config import TrainConfig
from finetune.training.objective import make_objective

CLASSES = ("a", "b", "c")
LABELS = np.array([0, 2, 1, 1, 0])


def test_several_classes_are_learned_by_cross_entropy():
    objective = make_objective(Task("multi-class", CLASSES), LABELS, TrainConfig())
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = objective.losses(logits, torch.from_numpy(objective.targets(LABELS)))
    wanted = F.cross_entropy(logits, torch.from_numpy(LABELS), reduction="none")
    torch.testing.assert_close(found, wanted)


def test_two_classes_have_one_logit_or_two():
    labels = np.array([0, 1, 1])
    one = make_objective(Task("binary-class", ("a", "b")), labels, TrainConfig())
    two = make_objective(Task("binary-class", ("a", "b")), labels, TrainConfig(one_logit=False))
    assert (one.n_logits, two.n_logits) == (1, 2)
    logits = torch.tensor([[0.3], [-2.0], [1.0]])
    found = one.losses(logits, torch.from_numpy(one.targets(labels)))
    wanted = F.binary_cross_entropy_with_logits(
        logits[:, 0], torch.tensor([0.0, 1, 1]), reduction="none"
    )
    torch.testing.assert_close(found, wanted)
    pair = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(two.losses(pair, torch.from_numpy(two.targets(labels))), wanted)
    np.testing.assert_allclose(one.scores(logits.numpy()), two.scores(pair.numpy()), atol=1e-7)


def test_a_missing_label_counts_nothing():
    labels = np.array([[1, -1, 0], [0, 1, 1]])
    objective = make_objective(Task("multi-label, binary-class", CLASSES), labels, TrainConfig())
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    losses = objective.losses(logits, torch.from_numpy(objective.targets(labels)))
    each = F.binary_cross_entropy_with_logits(
        logits, torch.tensor([[1.0, 0, 0], [0, 1, 1]]), reduction="none"
    )
    torch.testing.assert_close(losses, torch.stack([(each[0, 0] + each[0, 2]) / 3, each[1].mean()]))
    losses.sum().backward()
    assert logits.grad[0, 1] == 0
    assert torch.isfinite(logits.grad).all()


def test_the_published_sum_of_several_labels_is_a_batch_times_the_mean():
    labels = np.eye(3, dtype=int)
    summed, mean = (
        make_objective(
            Task("multi-label, binary-class", CLASSES), labels, TrainConfig(multi_label_loss=how)
        )
        for how in ("sum", "mean")
    )
    assert summed.weight(128) == 128 * mean.weight(128)
    one_label = make_objective(
        Task("multi-class", CLASSES), LABELS, TrainConfig(multi_label_loss="sum")
    )
    assert one_label.weight(128) == 1 / 128


def test_continuous_labels_are_learned_around_their_mean():
    ages = np.array([20.0, 40.0, 60.0])
    objective = make_objective(Task("regression", ()), ages, TrainConfig(choose_by="loss"))
    targets = objective.targets(ages)
    assert targets.mean() == pytest.approx(0)
    np.testing.assert_allclose(objective.scores(targets)[:, 0], ages, rtol=1e-6)
    judged = objective.judge(targets, ages)
    assert judged["mae"] == pytest.approx(0, abs=1e-5)


def test_auto_chooses_by_task_as_huix_et_al_do():
    config = TrainConfig(choose_by="auto")
    chosen = {
        task: make_objective(Task(task, CLASSES), LABELS, config).choose_by
        for task in ("multi-class", "ordinal-regression")
    }
    assert chosen == {"multi-class": "balanced_accuracy", "ordinal-regression": "kappa"}
    two = make_objective(Task("binary-class", ("a", "b")), np.array([0, 1]), config)
    assert two.choose_by == "auc"


def test_the_lowest_loss_and_the_highest_accuracy_win():
    by = {
        name: make_objective(Task("multi-class", CLASSES), LABELS, TrainConfig(choose_by=name))
        for name in ("loss", "acc")
    }
    assert by["loss"].rank({"loss": 0.1}) > by["loss"].rank({"loss": 0.2})
    assert by["acc"].rank({"acc": 0.9}) > by["acc"].rank({"acc": 0.8})


def test_logits_that_overflow_have_no_rank():
    objective = make_objective(Task("multi-class", CLASSES), LABELS, TrainConfig())
    judged = objective.judge(np.full((5, 3), np.nan, np.float32), LABELS)
    assert np.isnan(objective.rank(judged))


@pytest.mark.parametrize(
    ("task", "labels", "config", "match"),
    [
        ("multi-class", np.zeros(4, int), TrainConfig(), "two classes, found only a among the 4"),
        ("regression", np.ones(4), TrainConfig(choose_by="loss"), "one number"),
        ("regression", np.arange(4.0), TrainConfig(), "--choose-by loss"),
        ("multi-class", LABELS, TrainConfig(choose_by="kappa"), "ordered classes"),
    ],
)
def test_what_cannot_be_learned_is_refused(task, labels, config, match):
    with pytest.raises(RequestError, match=match):
        make_objective(Task(task, CLASSES), labels, config)
