"""Heads trained step by step, against torch's own modules and optimisers on the same batches."""

import dataclasses

import numpy as np
import pytest
import torch
from looking import some
from torch import nn

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL
from probe.kinds import heads
from probe.kinds.adamw import AdamW, fit_heads
from probe.kinds.heads import Heads, fit_grid
from probe.metrics.classification import UNNORMALISED, accuracy, auc
from probe.solvers import adamw as solver
from probe.solvers import epochs, sgd
from probe.solvers.adamw import Diverged
from probe.solvers.epochs import check_epochs, epoch_orders
from probe.solvers.outputs import Outputs
from probe.solvers.sgd import image_batches

TASKS = [(MULTI_CLASS, 3), (BINARY, 2), (MULTI_LABEL, 4)]
SHORT = AdamW(lr=1e-2, batch_size=16, iterations=240, seeds=(0, 5))


def toys(task, n_classes, n=75, width=6, seed=0):
    """Features and labels that hang together, of any task."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)).astype(np.float32)
    logits = features @ rng.normal(size=(width, n_classes)) + rng.normal(size=(n, n_classes))
    labels = (logits > 0).astype(np.int64) if task == MULTI_LABEL else logits.argmax(axis=1)
    return features, labels


def torch_loss(task, one_logit, summed=False):
    """The papers' losses in torch's words: (logits, labels) -> loss."""
    if task == MULTI_LABEL:
        scale = 1 if not summed else None
        bce = nn.functional.binary_cross_entropy_with_logits
        return lambda z, y: bce(z, y.float()) * (scale or len(y))
    if task == BINARY and one_logit:
        return lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float())
    return nn.functional.cross_entropy


def linear_from(first):
    layer = nn.Linear(first.shape[1] - 1, len(first))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(first[:, :-1]))
        layer.bias.copy_(torch.from_numpy(first[:, -1]))
    return layer


def slow_adamw(x, y, val_x, val_y, task, n_classes, config, seed):
    """Wu & Papiez's loop: nn.Linear, torch.optim.AdamW, ExponentialLR, one seed."""
    outputs = Outputs(task, n_classes, config.one_logit)
    layer = linear_from(epochs.first_weights(x.shape[1], outputs.n_logits, seed))
    optimizer = torch.optim.AdamW(layer.parameters(), config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    loss_of = torch_loss(task, config.one_logit)
    n_batches = len(x) // config.batch_size
    n_epochs = config.iterations // n_batches
    best, kept, n_steps, orders = -1.0, None, 0, epoch_orders(len(x), seed)
    for epoch in range(n_epochs):
        order = next(orders)
        for i in range(n_batches):
            rows = order[i * config.batch_size : (i + 1) * config.batch_size]
            optimizer.zero_grad()
            loss_of(layer(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])).backward()
            optimizer.step()
            n_steps += 1
            if n_steps % 200 == 0:
                schedule.step()
        if epoch % (n_epochs // min(10, n_epochs)) == 0 or epoch == n_epochs - 1:
            with torch.no_grad():
                scores = outputs.scores(layer(torch.from_numpy(val_x)).numpy())
            value = accuracy(scores, val_y, task)
            if value > best:
                best, kept = value, (n_steps, layer.weight.detach().clone().numpy())
    return kept


@pytest.mark.parametrize(("task", "n_classes"), TASKS)
def test_adamw_is_torchs_with_the_same_batches(task, n_classes):
    x, y = toys(task, n_classes)
    val_x, val_y = toys(task, n_classes, n=40, seed=1)
    wide = np.hstack([x, x[::-1]])  # another width, another loop; and twice the same matrix
    found = fit_heads(
        [x, wide, x], y, [val_x, np.hstack([val_x] * 2), val_x], val_y, task, n_classes, SHORT
    )
    for fit, seed in zip(found[0], SHORT.seeds, strict=True):
        iteration, weights = slow_adamw(x, y, val_x, val_y, task, n_classes, SHORT, seed)
        assert fit.seed == seed
        assert fit.iteration == iteration
        np.testing.assert_allclose(fit.weights.T, weights, atol=1e-4)
    np.testing.assert_allclose(found[0][0].weights, found[2][0].weights, atol=1e-6)
    assert found[1][0].weights.shape == (12, Outputs(task, n_classes).n_logits)
    assert np.abs(found[0][0].weights - found[0][1].weights).max() > 1e-3  # seeds differ


def test_a_head_is_the_same_alone_and_beside_others():
    x, y = toys(MULTI_CLASS, 3)
    alone = dataclasses.replace(SHORT, seeds=(5,))
    (both,) = fit_heads([x], y, [x], y, MULTI_CLASS, 3, SHORT)
    ((one,),) = fit_heads([x], y, [x], y, MULTI_CLASS, 3, alone)
    np.testing.assert_allclose(both[1].weights, one.weights, atol=1e-6)


def test_checks_are_where_the_released_loop_has_them():
    assert check_epochs(150, 10) == [*range(0, 150, 15), 149]
    assert check_epochs(19, 10) == list(range(19))  # 19 // 10 is 1
    assert check_epochs(3, 10) == [0, 1, 2]
    assert check_epochs(7, None) == list(range(7))


def test_the_plan_of_wu2025():
    assert AdamW().plan(546) == (15_000 // 8, 8)  # BreastMNIST
    with pytest.raises(
        RequestError, match="40 training images fill no batch of 64.*--batch-size 40"
    ):
        AdamW().plan(40)
    with pytest.raises(RequestError, match="at least as many with --iterations, found 5"):
        AdamW(iterations=5).plan(546)


def test_rates():
    wu = AdamW()
    assert [wu.rate(0, i, 1) for i in (0, 199, 200, 400)] == pytest.approx(
        [1e-3, 1e-3, 9e-4, 8.1e-4]
    )
    cosine = AdamW(lr=1.0, schedule="cosine", iterations=None, epochs=100)
    # timm's scheduler is told the epoch that has ended: epochs 0 and 1 have the full rate.
    assert [cosine.rate(e, 0, 100) for e in (0, 1, 51)] == pytest.approx([1, 1, 0.5])


def test_early_stopping_keeps_the_lowest_val_loss():
    x, y = toys(MULTI_CLASS, 3, n=60)
    val_x, val_y = toys(MULTI_CLASS, 3, n=30, seed=9)
    config = AdamW(
        lr=0.3, batch_size=16, iterations=None, epochs=100, schedule="cosine", drop_last=False,
        n_checks=None, patience=5, choose_by="loss", one_logit=False, seeds=(1, 2),
    )  # fmt: skip
    (fits,) = fit_heads([x], y, [val_x], val_y, MULTI_CLASS, 3, config)
    for fit in some(fits):
        values = [value for _, value in fit.checks]
        best = int(np.argmin(values))
        assert fit.iteration == (best + 1) * 4  # 60 images are 4 batches, the last of 12
        assert len(values) == best + 6  # five more, none better
        logs = np.log(fit.predict_scores(val_x)[np.arange(30), val_y])
        assert values[best] == pytest.approx(-logs.mean(), rel=1e-4)


def test_val_loss_by_batches():
    np.testing.assert_allclose(solver._shares(5, 2), [1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3])
    np.testing.assert_allclose(solver._shares(5, None), [0.2] * 5)


def test_a_missing_label_counts_nothing():
    x, y = toys(MULTI_LABEL, 3)
    y[:10, 1] = -1
    outputs = Outputs(MULTI_LABEL, 3)
    logits = np.random.default_rng(0).normal(size=y.shape)
    gradient = outputs.gradient(torch.tensor(logits.T), torch.tensor(outputs.targets(y).T))
    assert (gradient[1, :10] == 0).all()
    assert (gradient[1, 10:] != 0).all()
    losses = outputs.losses(logits, outputs.targets(y))
    known = nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(np.maximum(y, 0.0)), reduction="none"
    ).numpy()
    np.testing.assert_allclose(losses, np.where(y == -1, 0, known).mean(axis=1))
    fit_heads([x], y, [x], y, MULTI_LABEL, 3, SHORT)


def test_sigmoids_of_classes_that_exclude_one_another_are_no_probabilities():
    found = {
        (task, by): Outputs(task, n, one_logit=False, by_sigmoid=by).score_type
        for task, n in [*TASKS, (ORDINAL, 5)]
        for by in (False, True)
    }
    assert {key for key, word in found.items() if word == UNNORMALISED} == {
        (MULTI_CLASS, True), (ORDINAL, True),
    }  # fmt: skip


@pytest.mark.parametrize("by_sigmoid", [False, True])
def test_scores_are_torchs(by_sigmoid):
    logits = np.random.default_rng(0).normal(size=(5, 3)) * 50
    found = Outputs(MULTI_CLASS, 3, by_sigmoid=by_sigmoid).scores(logits)
    z = torch.from_numpy(logits)
    np.testing.assert_allclose(found, z.sigmoid() if by_sigmoid else z.softmax(1), atol=1e-12)


def test_what_no_head_can_be_trained_on():
    x, y = toys(MULTI_CLASS, 3)
    with pytest.raises(RequestError, match="needs two classes, found only class 1 among the 75"):
        fit_heads([x], np.ones_like(y), [x], y, MULTI_CLASS, 3, SHORT)
    bad = x.copy()
    bad[3, 2] = np.nan
    with pytest.raises(RequestError, match="found inf or nan in column 2"):
        fit_heads([bad], y, [x], y, MULTI_CLASS, 3, SHORT)
    with pytest.raises(RequestError, match="chosen on val images, found none"):
        fit_heads([x], y, [x[:0]], y[:0], MULTI_CLASS, 3, SHORT)
    several, labels = toys(MULTI_LABEL, 3)
    unknown = np.where([False, False, True], -1, labels)
    with pytest.raises(RequestError, match="a label is known of no val image"):
        fit_heads([several], labels, [several], unknown, MULTI_LABEL, 3, SHORT)


def test_a_head_that_diverges_leaves_the_others_alone():
    x, y = toys(MULTI_CLASS, 3)
    huge = np.sign(x) * np.float32(3e38)  # logits overflow
    config = dataclasses.replace(SHORT, seeds=(0, 5))
    (alone,) = fit_heads([x], y, [x], y, MULTI_CLASS, 3, config)
    beside, gone = fit_heads([x, huge], y, [x, huge], y, MULTI_CLASS, 3, config)
    n_batches = len(x) // config.batch_size
    assert gone == [Diverged(0, n_batches), Diverged(5, n_batches)]  # the first check
    for one, other in zip(alone, beside, strict=True):
        assert one.iteration == other.iteration
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)


def test_constant_features_name_the_larger_class():
    y = np.array([0] * 20 + [1] * 10)
    x = np.ones((30, 4), np.float32)
    (fits,) = fit_heads([x], y, [x], y, BINARY, 2, dataclasses.replace(SHORT, iterations=400))
    assert (fits[0].predict_scores(x)[:, 0] > 0.5).all()


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"lr": np.nan}, {"batch_size": 0}, {"seeds": ()}])
def test_adamw_settings_are_checked(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong)).split("_")[0]):
        AdamW(**wrong)


# The grid.

GRID = Heads(lrs=(0.05, 0.5), n_last=(1, 2), batch_size=16, epochs=2, iterations=15)


def slow_grid(blocks, y, width, n_blocks, task, n_classes, config):
    """DINOv2's loop: a module for each head, losses summed, one SGD, CosineAnnealingLR."""
    n = Outputs(task, n_classes, config.one_logit).n_logits
    layers, groups = [], []
    for n_last in config.n_last:
        for with_mean in (False, True):
            columns = slice((n_blocks - n_last) * width, (n_blocks + with_mean) * width)
            for lr in config.lrs:
                d = columns.stop - columns.start
                first = sgd.first_weights(d, n, config.seed).T
                layer = linear_from(np.hstack([first, np.zeros((n, 1), np.float32)]))
                layers.append((columns, layer))
                scaled = lr * config.batch_size / 256 if config.scale_lr else lr
                groups.append({"params": layer.parameters(), "lr": scaled})
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0)
    n_steps = config.epochs * config.iterations
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps, eta_min=0)
    loss_of = torch_loss(task, config.one_logit, config.loss == "sum")
    batches = image_batches(len(blocks), config.batch_size, config.seed)
    for _ in range(n_steps):
        rows = next(batches)
        x, aims = torch.from_numpy(blocks[rows]), torch.from_numpy(y[rows])
        optimizer.zero_grad()
        sum(loss_of(layer(x[:, columns]), aims) for columns, layer in layers).backward()
        optimizer.step()
        schedule.step()
    return layers


@pytest.mark.parametrize(("task", "n_classes"), TASKS)
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_the_grid_is_dinov2s(task, n_classes, loss):
    blocks, y = toys(task, n_classes, width=15)  # three blocks' class tokens of 5... and a mean
    config = dataclasses.replace(GRID, loss=loss, one_logit=loss == "sum")
    fits = fit_grid(blocks, y, 2, True, task, n_classes, config)
    expected = slow_grid(blocks, y, 5, 2, task, n_classes, config)
    assert [(f.n_last, f.with_mean, f.lr) for f in fits] == [
        (n, m, lr) for n in (1, 2) for m in (False, True) for lr in GRID.lrs
    ]
    for fit, (columns, layer) in zip(fits, expected, strict=True):
        assert fit.columns == columns
        np.testing.assert_allclose(fit.weights.T, layer.weight.detach(), atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(fit.intercept, layer.bias.detach(), atol=1e-4, rtol=1e-4)


def test_every_image_is_seen_once_before_any_is_seen_twice():
    batches = image_batches(10, 4, 0)
    seen = np.concatenate([next(batches) for _ in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_the_head_is_chosen_on_val_and_diverged_ones_are_not():
    blocks, y = toys(MULTI_CLASS, 3, width=15)
    val, val_y = toys(MULTI_CLASS, 3, width=15, n=50, seed=4)
    config = dataclasses.replace(GRID, lrs=(1e-3, 0.5, 1e39))
    fits = fit_grid(blocks, y, 2, True, MULTI_CLASS, 3, config)
    best, values = heads.choose(fits, val, val_y, "auc")
    assert [np.isnan(v) for v in values] == [False, False, True] * 4
    assert values[best] == max(v for v in values if v == v)
    assert values[best] == pytest.approx(auc(fits[best].predict_scores(val), val_y, MULTI_CLASS))
    once, again = heads.refit_one(fits[best], blocks, y, config, every=1)
    assert np.abs(once.weights - again.weights).max() > 1e-4  # after one epoch of two
    np.testing.assert_allclose(again.weights, fits[best].weights, atol=1e-6)
    with pytest.raises(RequestError, match="all 4 heads diverged.*1e\\+39"):
        heads.choose([f for f in fits if f.lr == 1e39], val, val_y, "acc")
    with pytest.raises(RequestError, match="a class is absent there.*--choose-by acc"):
        heads.choose(fits[:2], val[:1], val_y[:1], "auc")


def test_a_network_without_class_tokens_has_one_input():
    x, y = toys(MULTI_CLASS, 3)
    config = dataclasses.replace(GRID, n_last=(1,))
    fits = fit_grid(x, y, 1, False, MULTI_CLASS, 3, config)
    assert [(f.n_last, f.with_mean, f.lr) for f in fits] == [(1, False, 0.05), (1, False, 0.5)]
    with pytest.raises(RequestError, match="last 2 blocks need as many layers, found 1"):
        fit_grid(x, y, 1, False, MULTI_CLASS, 3, GRID)
