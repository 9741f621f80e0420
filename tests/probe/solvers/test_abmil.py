"""Attention over bags, against a plain torch loop over single bags, and against what it must be."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from cache.aggregate import aggregate_rows
from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL
from probe.bags import Bags
from probe.solvers import abmil
from probe.solvers.abmil import Course, Rate, Scales, train
from probe.solvers.epochs import epoch_orders, first_weights
from probe.solvers.outputs import Outputs

N, WIDTH, HIDDEN = 21, 5, 4
RATES = [Rate(1e-2, 0.5), Rate(3e-3, 0.0)]


def make_bags(n=N, width=WIDTH, seed=0, most=6):
    """Bags of 1 to ``most`` rows, in float16."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, n)
    x = rng.normal(1, 2, (counts.sum(), width)).astype(np.float16)
    return Bags(x, np.concatenate([[0], np.cumsum(counts)]), np.arange(len(x)))


def make_labels(task, n=N):
    rng = np.random.default_rng(5)
    if task == MULTI_LABEL:
        labels = rng.integers(0, 2, (n, 3))
        labels[::4, 1] = MISSING
        return labels
    return rng.integers(0, 2 if task == BINARY else 3, n)


def train_toys(task=BINARY, bags=None, samples=None, rates=RATES, seed=3, **course):
    bags = bags or make_bags()
    samples = np.arange(len(bags.counts)) if samples is None else samples
    outputs = Outputs(task, 2 if task == BINARY else 3)
    settings = {"hidden": HIDDEN, "dropout": 0.3, "batch_size": 8, "iterations": 25, **course}
    targets = outputs.targets(make_labels(task, len(samples)))
    scales = Scales.of(bags, samples)
    return train(bags, samples, targets, rates, seed, outputs, Course(**settings), scales)


def rows_of(bags, sample):
    return bags.x[bags.starts[sample] : bags.starts[sample + 1]].astype(np.float64)


class OneBag(nn.Module):
    """Ilse et al. 2018, equation 9, in float64: rows of one bag to logits and attention."""

    def __init__(self, n_logits, seed, mean, scale, scale_of_means):
        super().__init__()
        self.v, self.u = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.w, self.head = nn.Linear(HIDDEN, 1, bias=False), nn.Linear(WIDTH, n_logits)
        self.mean, self.scale, self.scale_of_means = map(
            torch.from_numpy, (mean, scale, scale_of_means)
        )
        first = torch.from_numpy(first_weights(WIDTH, n_logits + 2 * HIDDEN, seed))
        bound = HIDDEN**-0.5
        w = np.random.default_rng((seed, 2)).uniform(-bound, bound, HIDDEN)
        ends = [0, n_logits, n_logits + HIDDEN, n_logits + 2 * HIDDEN]
        with torch.no_grad():
            for layer, start, stop in zip(
                (self.head, self.v, self.u), ends[:-1], ends[1:], strict=True
            ):
                layer.weight.copy_(first[start:stop, :-1])
                layer.bias.copy_(first[start:stop, -1])
            self.w.weight.copy_(torch.from_numpy(w[None].astype(np.float32)))
        self.double()

    def forward(self, rows, mask=1.0):
        h = (rows - self.mean) / self.scale
        attention = torch.softmax(
            self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h)) * mask), 0
        )
        pooled = (attention * (rows - self.mean) / self.scale_of_means).sum(dim=0)
        return self.head(pooled), attention[:, 0]


def loss_of(task, logits, label):
    if task == BINARY:
        return nn.functional.binary_cross_entropy_with_logits(logits[0], label.double())
    if task == MULTI_LABEL:
        known = label != MISSING
        each = nn.functional.binary_cross_entropy_with_logits(
            logits, label.double(), reduction="none"
        )
        return each[known].sum() / len(label)
    return nn.functional.cross_entropy(logits[None], label[None])


def slow(task, bags, rate, seed, n_steps=25, size=8, dropout=0.3):
    """A loop over single bags, torch.optim.AdamW, one setting."""
    labels = torch.from_numpy(make_labels(task))
    all_rows = np.concatenate([rows_of(bags, i) for i in range(N)])
    means = np.stack([rows_of(bags, i).mean(axis=0) for i in range(N)])
    n_logits = 1 if task == BINARY else 3
    model = OneBag(n_logits, seed, all_rows.mean(axis=0), all_rows.std(axis=0), means.std(axis=0))
    optimizer = torch.optim.AdamW(model.parameters(), rate.lr, weight_decay=rate.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    chance, step = np.random.default_rng((seed, 3)), 0
    for order in epoch_orders(N, seed):
        for start in range(0, N - size + 1, size):
            optimizer.zero_grad()
            for i in order[start : start + size]:
                rows = torch.from_numpy(rows_of(bags, i))
                stays = chance.random((len(rows), HIDDEN), np.float32) >= dropout
                logits, _ = model(rows, torch.from_numpy(stays / (1 - dropout)))
                (loss_of(task, logits, labels[i]) / size).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step == n_steps:
                return model
    raise AssertionError("orders have no end")


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, MULTI_LABEL])
def test_it_is_a_plain_loop_over_single_bags(task):
    bags = make_bags()
    found = train_toys(task)
    logits, attention = found.logits(bags, np.arange(N)), found.attention(bags, np.arange(N))
    for g, rate in enumerate(RATES):
        model = slow(task, bags, rate, seed=3)
        pairs = zip((found.weights.v, found.weights.u), (model.v, model.u), strict=True)
        for own, layer in [*pairs, (found.weights.head, model.head)]:
            assert_allclose(own[g, :, :WIDTH], layer.weight.detach(), atol=1e-5)
            assert_allclose(own[g, :, WIDTH], layer.bias.detach(), atol=1e-5)
            assert not own[g, :, WIDTH + 1 :].any()
        assert_allclose(found.weights.w[g], model.w.weight[0].detach(), atol=1e-5)
        for i in range(N):
            own, weights = model(torch.from_numpy(rows_of(bags, i)))
            assert_allclose(logits[i, g], own.detach(), atol=1e-5)
            rows = slice(bags.starts[i], bags.starts[i + 1])
            assert_allclose(attention[rows, g], weights.detach(), atol=1e-5)
    n_of_model = sum(p.numel() for p in model.parameters())
    assert found.n_parameters == n_of_model


def test_a_bag_s_numbers_do_not_depend_on_its_neighbours():
    bags, found = make_bags(), train_toys()
    long = np.concatenate([bags.x[:3], *[bags.x] * 20])
    beside = Bags(long, np.array([0, 3, len(long)]), np.arange(len(long)))
    alone = Bags(bags.x[:3], np.array([0, 3]), np.arange(3))
    samples = np.arange(2)
    assert_allclose(found.logits(beside, samples)[:1], found.logits(alone, samples[:1]), atol=1e-6)
    own = found.attention(beside, samples)
    assert_allclose(own[:3], found.attention(alone, samples[:1]), atol=1e-6)
    assert_allclose(own[3:].sum(axis=0), 1, atol=1e-5)
    short = Bags(long[::-1].copy(), np.array([0, len(long) - 3, len(long)]), np.arange(len(long)))
    assert_allclose(found.logits(short, samples)[1], found.logits(alone, samples[:1])[0], atol=1e-6)


def test_the_order_of_rows_and_of_samples_does_not_matter():
    bags, found = make_bags(), train_toys()
    order = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(bags.starts[:-1], bags.starts[1:], strict=True)]
    )
    turned = Bags(bags.x[order], bags.starts, order)
    samples = np.random.default_rng(1).permutation(N)
    logits = found.logits(bags, np.arange(N))
    assert_allclose(found.logits(turned, samples), logits[samples], atol=1e-6)
    attention = found.attention(bags, np.arange(N))
    assert_allclose(found.attention(turned, np.arange(N)), attention[order], atol=1e-6)
    sums = np.add.reduceat(
        found.attention(bags, samples), np.append(0, np.cumsum(bags.counts[samples]))[:-1]
    )
    assert_allclose(sums, 1, atol=1e-6)


def test_without_hidden_units_it_is_a_linear_head_on_the_means():
    bags = make_bags()
    of_rows = np.repeat(np.arange(N), bags.counts)
    means = Bags(aggregate_rows(bags.x, of_rows, N, "mean"), np.arange(N + 1), np.arange(N))
    found = train_toys(hidden=0)
    x = (means.x - found.scales.of_rows.mean) / found.scales.of_rows.scale * found.scales.by
    assert_allclose(x.std(axis=0), 1, atol=1e-5)
    head = found.weights.head[0].numpy()
    logits = found.logits(bags, np.arange(N))
    assert_allclose(logits[:, 0], x @ head[:, :WIDTH].T + head[:, WIDTH], atol=1e-5)
    assert_allclose(found.attention(bags, np.arange(N))[:, 0], 1 / bags.counts[of_rows], atol=1e-6)
    outputs, course = found.outputs, Course(0, 0.3, 8, 25)
    again = train(
        *(means, np.arange(N), outputs.targets(make_labels(BINARY)), RATES, 3),
        *(outputs, course, found.scales),
    )
    assert_allclose(again.weights.head, found.weights.head, atol=1e-5)
    assert_allclose(again.logits(means, np.arange(N)), logits, atol=1e-5)


def test_settings_and_parts_change_nothing(monkeypatch):
    bags, whole = make_bags(), train_toys()
    alone = train_toys(rates=RATES[1:])
    monkeypatch.setattr(abmil, "PART_ROWS", 7)
    parted = train_toys()
    samples = np.arange(N)
    assert_allclose(alone.logits(bags, samples)[:, 0], whole.logits(bags, samples)[:, 1], atol=1e-5)
    assert_allclose(parted.logits(bags, samples), whole.logits(bags, samples), atol=1e-5)
    parts = list(bags.parts(samples, 7))
    assert max(part.stop - part.start for part in parts) > 1
    assert [i for part in parts for i in range(N)[part]] == samples.tolist()
    assert [*bags.parts(np.array([2, 5]), 1)] == [slice(0, 1), slice(1, 2)]


def test_seeds_differ_and_repeat():
    bags, samples = make_bags(), np.arange(N)
    first, again, other = (train_toys(seed=s).logits(bags, samples) for s in (0, 0, 1))
    assert (first == again).all()
    assert np.abs(first - other).max() > 1e-3
    assert train_toys().logits(bags, samples[:0]).shape == (0, 2, 1)


def test_a_setting_that_diverges_takes_no_other_with_it():
    bags, samples = make_bags(), np.arange(N)
    found = train_toys(rates=[Rate(1e38, 0.0), RATES[1]])
    assert [scores is None for scores in found.scores(bags, samples)] == [True, False]
    logits = found.logits(bags, samples)[:, 1]
    assert_allclose(logits, train_toys().logits(bags, samples)[:, 1], atol=1e-5)


def test_attention_finds_the_row_that_decides():
    """One row of twelve tells the class; the others are noise of the same size."""
    rng = np.random.default_rng(0)
    n, k = 500, 12
    labels, place = rng.integers(0, 4, n), rng.integers(0, k, n)
    x = rng.normal(size=(n, k, 8)).astype(np.float32)
    x[np.arange(n), place, 0] = 6  # says where to look, not what is there
    x[np.arange(n), place, 1] = np.where(labels % 2, 1.5, -1.5)
    x[np.arange(n), place, 2] = np.where(labels // 2, 1.5, -1.5)
    bags = Bags(x.reshape(-1, 8), np.arange(n + 1) * k, np.arange(n * k))
    outputs, learnt, asked = Outputs(MULTI_CLASS, 4), np.arange(400), np.arange(400, n)
    targets, scales = outputs.targets(labels[:400]), Scales.of(bags, learnt)
    right = {}
    for hidden in (16, 0):
        course = Course(hidden, 0.25, 32, 300)
        found = train(bags, learnt, targets, [Rate(1e-2, 0.01)], 0, outputs, course, scales)
        (scores,) = found.scores(bags, asked)
        assert scores is not None
        right[hidden] = (scores.argmax(axis=1) == labels[400:]).mean()
        if hidden:
            largest = found.attention(bags, asked)[:, 0].reshape(-1, k).argmax(axis=1)
            assert (largest == place[400:]).mean() > 0.95
    assert right[16] > 0.95
    assert right[0] < 0.85
