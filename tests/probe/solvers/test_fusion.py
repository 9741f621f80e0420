"""Attentive fusion against a plain torch module, written as papers' code reads."""

import numpy as np
import pytest
import torch
from looking import some
from torch import nn

from cache.task import BINARY, MISSING, MULTI_CLASS, MULTI_LABEL
from probe.solvers import fusion_training
from probe.solvers.fusion import Models, Shape, first_weights
from probe.solvers.fusion_training import (
    LAST_LR,
    Course,
    Noise,
    Tokens,
    Training,
    batch_size_of,
    loss_weights,
)
from probe.solvers.outputs import Outputs
from probe.solvers.side_by_side import CLIP, Loss, Rate
from probe.solvers.standardise import Standard

RATES = [Rate(1e-2, 1e-1, 0.0), Rate(3e-3, 1e-3, 0.3)]
SHAPE = Shape(5, 16, 3)


class Plain(nn.Module):
    """One model: every token's key and value, by torch's own layers."""

    def __init__(self, shape):
        super().__init__()
        width, inner = shape.width, shape.n_heads * shape.head_width
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(width) for _ in range(3))
        self.batch_norm = nn.BatchNorm1d(width)
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out, self.head = nn.Linear(inner, width), nn.Linear(width, shape.n_classes)
        self.n_heads, self.kept = shape.n_heads, 1

    def forward(self, tokens):
        def heads(x):
            return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)

        q = heads(self.q(self.norm_q(self.query.expand(len(tokens), -1, -1))))
        k, v = heads(self.k(self.norm_k(tokens))), heads(self.v(self.norm_v(tokens)))
        self.attention = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=3)
        pooled = (self.attention * self.kept) @ v
        return self.head(self.batch_norm(self.out(pooled.transpose(1, 2).flatten(1))))

    def named(self):
        """The parameters in the order of ``Shape.parts``."""
        norms = (self.norm_q, self.norm_k, self.norm_v, self.batch_norm)
        return [
            self.query,
            *(p for norm in norms for p in (norm.weight, norm.bias)),
            *(self.q.weight, self.k.weight, self.v.weight),
            *(self.out.weight, self.out.bias, self.head.weight, self.head.bias),
        ]


def plain_from(shape, flat):
    model = Plain(shape).to(flat.dtype)
    with torch.no_grad():
        for parameter, part in zip(model.named(), shape.split(flat[None]).values(), strict=True):
            parameter.copy_(part.view(parameter.shape))
    return model


def kept(draw, dropout):
    """(B, H, 1, T) what a plain model's attention is multiplied by."""
    return ((draw >= dropout) / (1 - dropout)).permute(0, 2, 1)[:, :, None]


def normed(tokens):
    return nn.functional.layer_norm(tokens, tokens.shape[2:])


def batch(shape=SHAPE, n=13, seed=0):
    """Tokens, labels, and draws that drop attention; float64."""
    made = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n, shape.n_tokens, shape.width, generator=made, dtype=torch.float64)
    labels = torch.randint(shape.n_classes, (n,), generator=made)
    shape = n, shape.n_tokens, shape.n_heads
    return tokens, labels, torch.rand(shape, generator=made, dtype=torch.float64)


def first(shape=SHAPE, seed=0):
    """Weights whose norms aren't 1 and 0 any more, so that each has its say."""
    made = torch.Generator().manual_seed(seed)
    flat = torch.from_numpy(first_weights(shape, seed)).double()
    return flat + 0.1 * torch.randn(len(flat), generator=made, dtype=torch.float64)


def loss_of(labels, weights, n_classes=3):
    return Loss(nn.functional.one_hot(labels, n_classes).double(), weights[labels][:, None], False)


WEIGHTS = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)


@pytest.mark.parametrize("part_bytes", [2**22, 2**12, 1], ids=["whole", "parts", "one by one"])
def test_gradients_are_those_of_a_plain_module(part_bytes):
    tokens, labels, draw = batch()
    models = Models(SHAPE, first(), RATES, part_bytes)
    loss = loss_of(labels, WEIGHTS)
    found = torch.cat(
        [models.gradients(slice(i, i + 1), normed(tokens), loss, draw) for i in range(2)]
    )
    together = Models(SHAPE, first(), RATES, part_bytes)
    both = together.gradients(slice(0, 2), normed(tokens), loss, draw)
    assert torch.allclose(both, found, rtol=1e-9, atol=1e-10)
    for own, rate, place in zip(found, RATES, range(2), strict=True):
        plain = plain_from(SHAPE, first())
        plain.kept = kept(draw, rate.dropout)
        nn.CrossEntropyLoss(weight=WEIGHTS)(plain(tokens), labels).backward()
        wanted = [p.grad.flatten() for p in plain.named() if p.grad is not None]
        assert torch.allclose(own, torch.cat(wanted), rtol=1e-7, atol=1e-9)
        norm = plain.batch_norm
        assert torch.allclose(models.running_mean[place], norm.running_mean)
        assert torch.allclose(models.running_variance[place], norm.running_var)


def test_what_changes_nothing_has_no_gradient():
    """What norm_k adds cancels in the softmax, what out adds in batch norm. In float32 a plain loop's
    rounding moves both, for AdamW divides by its size."""
    tokens, labels, draw = batch()
    models = Models(SHAPE, first(), RATES)
    gradient = models.gradients(slice(0, 2), normed(tokens), loss_of(labels, WEIGHTS), draw)
    still = {name for name, part in SHAPE.split(gradient).items() if not part.any()}
    assert still == {"norm_k_shift", "out_bias"}


def test_fifty_steps_lead_where_a_plain_loop_does():
    """In float64, with the same first weights, batches and dropped attention."""
    n_steps, part_bytes = 50, 2**12
    models = Models(SHAPE, first(), RATES, part_bytes)
    plains = [plain_from(SHAPE, first()) for _ in RATES]
    optimizers = [
        torch.optim.AdamW(plain.named(), rate.lr, weight_decay=rate.weight_decay)
        for plain, rate in zip(plains, RATES, strict=True)
    ]
    for i in range(n_steps):
        tokens, labels, draw = batch(seed=i)
        lrs = [rate.lr * (1 - i / n_steps) for rate in RATES]
        models.step(normed(tokens), loss_of(labels, WEIGHTS), draw, lrs)
        for plain, optimizer, rate, lr in zip(plains, optimizers, RATES, lrs, strict=True):
            plain.kept, optimizer.param_groups[0]["lr"] = kept(draw, rate.dropout), lr
            optimizer.zero_grad()
            nn.CrossEntropyLoss(weight=WEIGHTS)(plain(tokens), labels).backward()
            nn.utils.clip_grad_norm_(plain.named(), CLIP)
            optimizer.step()
    tokens, *_ = batch(n=9, seed=99)
    logits, attention = models.answer(normed(tokens))
    for place, plain in enumerate(some(plains)):
        wanted = torch.cat([p.detach().flatten() for p in plain.named()])
        assert torch.allclose(models.flat[place], wanted, rtol=0, atol=1e-5)
        assert torch.allclose(models.running_mean[place], plain.batch_norm.running_mean, atol=1e-5)
        assert torch.allclose(
            models.running_variance[place], plain.batch_norm.running_var, atol=1e-5
        )
        plain.kept = 1
        assert torch.allclose(logits[place], plain.eval()(tokens), rtol=0, atol=1e-5)
        assert torch.allclose(attention[place], plain.attention.mean(dim=(1, 2)), atol=1e-5)


# ViT-S and -B of 12 layers and two pools, -L of 24, one class: counted from the modules of the paper.
@pytest.mark.parametrize(
    ("n_tokens", "width", "n_classes", "wanted"),
    [
        (24, 384, 2, 4 * 384 * 768 + 384 * 10 + 385 * 2),
        (24, 768, 5, 4_726_272 + 769 * 5),
        (48, 1024, 9, 4 * 1024 * 2016 + 1024 * 10 + 1025 * 9),
    ],
)
def test_parameters_are_as_many_as_the_papers(n_tokens, width, n_classes, wanted):
    shape = Shape(n_tokens, width, n_classes)
    assert shape.n_parameters == wanted == len(first_weights(shape, 0))
    assert sum(p.numel() for p in Plain(shape).parameters()) == wanted


# ---------------------------------------------------------------------------- training


def samples(task=MULTI_CLASS, n=60, widths=(12, 12, 12, 12), seed=0):
    """Stored features of several places and labels that hang together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, sum(widths))).astype(np.float16)
    signal = x[:, :3].astype(np.float32) + 0.3 * rng.normal(size=(n, 3))
    if task == MULTI_LABEL:
        labels = (signal > 0).astype(np.int64)
        labels[rng.random(labels.shape) < 0.2] = MISSING
        return x, labels
    return x, signal.argmax(axis=1) if task == MULTI_CLASS else (signal[:, 0] > 0).astype(np.int64)


class Precise(Tokens):
    """In float64: AdamW's first steps have the sign of a gradient, which rounding may turn."""

    dtype = "float64"


def train(rates, task=MULTI_CLASS, course=None, widths=(12, 12, 12, 12), seed=3, **more):
    x, labels = samples(task, widths=widths)
    outputs = Outputs(task, 2 if task == BINARY else 3, one_logit=False)
    course = course or Course(20, 2, 16, Noise(0.3), True)
    tokens = Precise(x, widths, **more)
    training = Training(tokens, np.arange(40), labels[:40], outputs, course, rates, seed)
    training.run(training.n_steps)
    return training, tokens


@pytest.mark.parametrize("task", [BINARY, MULTI_CLASS, MULTI_LABEL])
def test_a_training_is_that_of_a_plain_loop(task):
    """The whole of it: order, schedule, weights of classes, noise, short last batches."""
    course = Course(20, 2, 16, Noise(0.3), is_balanced=True)
    training, tokens = train([RATES[0]], task, course)
    _, labels = samples(task)
    again = Training(tokens, np.arange(40), labels[:40], training.outputs, course, [RATES[0]], 3)
    shape = again.models.shape
    model = plain_from(shape, again.models.flat[0])
    optimizer = torch.optim.AdamW(model.named(), RATES[0].lr, weight_decay=RATES[0].weight_decay)
    noise = torch.Generator().manual_seed(6)
    known = torch.from_numpy(labels[:40])
    for i in range(training.n_steps):
        rows = next(again._batches)
        fallen = (1 + np.cos(np.pi * i / training.n_steps)) / 2
        optimizer.param_groups[0]["lr"] = LAST_LR + fallen * (RATES[0].lr - LAST_LR)
        optimizer.zero_grad()
        logits, own = model(tokens.raw(rows, course.noise, noise)), known[rows]
        if task == MULTI_LABEL:
            counts = [(known == value).sum(dim=0) for value in (0, 1)]
            weights = [sum(counts) / (2 * count) for count in counts]
            each = torch.where(own == 1, weights[1], weights[0]) * (own != MISSING)
            nats = nn.functional.binary_cross_entropy_with_logits(
                logits, own.clamp(min=0).double(), reduction="none"
            )
            loss = (nats * each).sum() / each.sum()
        else:
            balanced = 40 / (shape.n_classes * torch.bincount(known))
            loss = nn.functional.cross_entropy(logits, own, balanced.double())
        loss.backward()
        for still in (model.norm_k.bias, model.out.bias):  # of rounding alone
            assert still.grad.abs().max() < 1e-14
            still.grad.zero_()
        nn.utils.clip_grad_norm_(model.named(), CLIP)
        optimizer.step()
    (logits,), attention = training.answer(tokens)
    with torch.no_grad():
        wanted = model.eval()(tokens.raw(np.arange(60)))
    assert np.abs(logits - wanted.numpy()).max() < 1e-5
    assert np.abs(attention - model.attention.detach().mean(dim=(1, 2)).numpy()).max() < 1e-5


def test_models_together_are_each_alone():
    rates = [*RATES, Rate(1e-2, 1e-1, 0.1)]
    together, _ = train(rates)
    for place, rate in enumerate(rates):
        alone, _ = train([rate])
        assert torch.allclose(together.models.flat[place], alone.models.flat[0], atol=1e-6)
    again, _ = train(rates)
    assert torch.equal(together.models.flat, again.models.flat)
    other, _ = train(rates, seed=4)
    assert not torch.allclose(together.models.flat, other.models.flat, atol=1e-2)


def test_those_that_are_dropped_change_nothing_of_the_rest():
    x, labels = samples()
    outputs, course = Outputs(MULTI_CLASS, 3), Course(20, 2, 16, Noise(0.3), True)
    rates = [Rate(1e-2, 1e-3, 0.3), Rate(1e-2, 1e-3, 0.0), Rate(1e-3, 1e-3, 0.1)]
    own = Precise(x, (12,) * 4), np.arange(40), labels[:40], outputs, course
    whole, some_of_them = (Training(*own, rates, 0) for _ in range(2))
    whole.run(whole.n_steps)
    some_of_them.run(7)
    some_of_them.models.keep([1, 2])
    some_of_them.run(whole.n_steps)
    assert torch.allclose(some_of_them.models.flat, whole.models.flat[1:], atol=1e-6)


class Watched:
    """Features that count how many rows are read at one time."""

    def __init__(self, x):
        self.x, self.most = x, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        self.most = max(self.most, len(rows))
        return self.x[rows]


def test_few_rows_are_read_at_one_time_and_it_changes_nothing(monkeypatch):
    x, labels = samples()
    outputs, course = Outputs(MULTI_CLASS, 3), Course(20, 2, 16, None, True)

    def answers(of):
        tokens = Precise(of, (12,) * 4)
        training = Training(tokens, np.arange(40), labels[:40], outputs, course, RATES, 0)
        training.run(training.n_steps)
        return training.answer(tokens)[0]

    whole, watched = answers(x), Watched(x)
    monkeypatch.setattr(fusion_training, "HELD_BYTES", 0)
    monkeypatch.setattr(fusion_training, "ANSWERED", 8)
    monkeypatch.setattr(fusion_training, "TOKEN_BYTES", 4 * 4 * 12 * 5)
    assert np.allclose(answers(watched), whole, atol=1e-9)
    assert watched.most == 5


@pytest.mark.parametrize("pads_first", [False, True])
def test_narrow_tokens_are_filled_up(pads_first):
    widths = (4, 4, 6, 3)
    x, _ = samples(widths=widths)
    tokens = Tokens(x, widths, pads_first=pads_first)
    rows = np.array([5, 2])
    found = tokens.take(rows)
    assert found.shape == (2, 4, 6)
    start = 0
    for place, width in enumerate(some(widths)):
        own = nn.functional.normalize(torch.from_numpy(x[rows, start : start + width]).float())
        padded = nn.functional.pad(own, (0, 6 - width))
        assert torch.allclose(tokens.raw(rows)[:, place], padded)
        wanted = nn.functional.layer_norm(padded, (6,))
        if not pads_first:
            wanted = nn.functional.pad(nn.functional.layer_norm(own, (width,)), (0, 6 - width))
        assert torch.allclose(found[:, place], wanted, atol=1e-6)
        start += width


def test_numbers_may_be_standardised_first():
    x, _ = samples(widths=(12, 12))
    standard = Standard.of(x)
    rows = np.array([3, 50])
    found = Tokens(x, (12, 12), standard).raw(rows)
    wanted = torch.from_numpy(standard(x)[rows]).view(2, 2, 12)
    assert torch.allclose(found, nn.functional.normalize(wanted, dim=2), atol=1e-6)


@pytest.mark.parametrize(("noise", "wanted"), [(Noise(0.5), 0.5), (Noise(0.1, True), 0.1 * 30)])
def test_noise_is_as_long_as_it_says(noise, wanted):
    x, _ = samples(n=400, widths=(900, 900))
    tokens = Tokens(x, (900, 900))
    rows = np.arange(400)
    added = tokens.raw(rows, noise, torch.Generator().manual_seed(0)) - tokens.raw(rows)
    lengths = added.norm(dim=2)
    is_noisy = lengths[:, 0] > 0
    assert 150 < int(is_noisy.sum()) < 250
    assert torch.allclose(lengths[is_noisy], torch.tensor(wanted), rtol=0.15)
    assert not lengths[~is_noisy].any()


def test_weights_of_classes_and_of_labels():
    labels = np.array([0, 0, 0, 1])
    found = loss_weights(labels, Outputs(MULTI_CLASS, 3), is_balanced=True)
    assert np.allclose(found[:, 0], [4 / 9, 4 / 9, 4 / 9, 4 / 3])
    several = np.array([[1, 0], [0, 0], [0, MISSING], [0, 0]])
    found = loss_weights(several, Outputs(MULTI_LABEL, 2), is_balanced=True)
    assert np.allclose(found, [[2, 1 / 2], [2 / 3, 1 / 2], [2 / 3, 0], [2 / 3, 1 / 2]])


# n=499 and 4708 as adjust_batch_size of the release answers; under 85 it answers 1.
@pytest.mark.parametrize(
    ("n", "size"), [(499, 90), (4708, 856), (10240, 2048), (85, 17), (84, 21), (34, 17), (20, 20)]
)
def test_batches_are_many_and_filled(n, size):
    assert batch_size_of(n, 2048) == size


@pytest.mark.parametrize(("most", "times"), [(3, 5), (8, 2), (64, 2)])
def test_no_batch_is_of_one_sample_or_much_larger_than_asked(most, times):
    for n in range(2, 600):
        size = batch_size_of(n, most)
        assert size > 1
        assert n % size != 1
        assert size < times * most or n < 5 * most


def test_a_large_gradient_is_clipped_before_its_moments():
    """Of each model by itself; AdamW forgets a gradient's size, but not beside the next one's."""
    models = Models(SHAPE, first(), RATES)
    gradients = [torch.randn(2, SHAPE.n_parameters).double() * size for size in (100.0, 0.01)]
    for gradient in gradients:
        models._n_steps.add_(1)
        models._move(slice(0, 2), gradient.clone(), [1e-2, 1e-2])
    for place, rate in enumerate(RATES):
        plain = nn.Parameter(first())
        optimizer = torch.optim.AdamW([plain], 1e-2, weight_decay=rate.weight_decay)
        for gradient in gradients:
            plain.grad = gradient[place].clone()
            nn.utils.clip_grad_norm_([plain], CLIP)
            optimizer.step()
        assert torch.allclose(models.flat[place], plain.detach(), atol=1e-6)


def test_small_widths_epochs_and_missing_labels():
    assert Shape(24, 10, 2).head_width == 2  # the release has 0 there
    training, _ = train(RATES, course=Course(2, 7, 16, None, True))
    assert training.n_steps == 7 * 2
    labels = np.array([[1, MISSING], [0, 1]])
    found = loss_weights(labels, Outputs(MULTI_LABEL, 2), is_balanced=False)
    assert found.tolist() == [[1, 0], [1, 1]]
