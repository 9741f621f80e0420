"""Efficient probing against a plain torch module, written as the paper's code reads."""

import numpy as np
import pytest
import torch
from looking import some
from torch import nn

from cache.errors import RequestError
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL
from probe.solvers import attentive
from probe.solvers.attentive import Models, Moments, Patches, PatchTraining, Shape, first_weights
from probe.solvers.fusion_training import Course, loss_weights
from probe.solvers.outputs import Outputs
from probe.solvers.side_by_side import CLIP, Loss, Rate
from probe.solvers.standardise import Standard

RATES = [Rate(1e-2, 1e-1), Rate(3e-3, 1e-3)]
SHAPE = Shape(4, 16, 3)
N_TOKENS = 9
WEIGHTS = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)


class Plain(nn.Module):
    """One model: every token's value, by torch's own layers."""

    def __init__(self, shape):
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(shape.n_queries, shape.width))
        self.values = nn.Linear(shape.width, shape.width, bias=False)
        self.norm = nn.BatchNorm1d(shape.width, affine=False, eps=1e-6)
        self.head = nn.Linear(shape.width, shape.n_classes)

    def forward(self, tokens):
        n, _, width = tokens.shape
        scores = self.queries @ tokens.transpose(1, 2) / width**0.5  # (n, Q, N)
        self.attention = scores.softmax(dim=2)
        values = self.values(tokens).unflatten(2, (len(self.queries), -1))  # (n, N, Q, d)
        pooled = torch.einsum("bqn,bnqd->bqd", self.attention, values)
        return self.head(self.norm(pooled.reshape(n, width)))

    def named(self):
        """The parameters in the order of ``Shape.parts``."""
        return [self.queries, self.values.weight, self.head.weight, self.head.bias]


def plain_from(shape, flat):
    model = Plain(shape).to(flat.dtype)
    with torch.no_grad():
        for parameter, part in zip(model.named(), shape.split(flat[None]).values(), strict=True):
            parameter.copy_(part[0])
    return model


def batch(shape=SHAPE, n=13, seed=0):
    """Tokens in float64, and labels."""
    made = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n, N_TOKENS, shape.width, generator=made, dtype=torch.float64)
    labels = torch.randint(shape.n_classes, (n,), generator=made)
    return tokens, labels


def first(shape=SHAPE, seed=0):
    """Queries of which attention is anything but even."""
    flat = torch.from_numpy(first_weights(shape, seed)).double()
    shape.split(flat[None])["queries"].mul_(50)
    return flat


def loss_of(labels, n_classes=3):
    wanted = nn.functional.one_hot(labels, n_classes).double()
    return Loss(wanted, WEIGHTS[labels][:, None], False)


@pytest.mark.parametrize("part_bytes", [2**22, 2**12, 1], ids=["whole", "parts", "one by one"])
def test_gradients_are_those_of_a_plain_module(part_bytes):
    tokens, labels = batch()
    models = Models(SHAPE, first(), RATES, part_bytes)
    found = models.gradients(slice(0, 2), tokens, loss_of(labels))
    for place, own in enumerate(found):
        plain = plain_from(SHAPE, first())
        nn.CrossEntropyLoss(weight=WEIGHTS)(plain(tokens), labels).backward()
        wanted = torch.cat([p.grad.flatten() for p in plain.named()])
        assert torch.allclose(own, wanted, rtol=1e-8, atol=1e-12)
        assert torch.allclose(models.running_mean[place], plain.norm.running_mean)
        assert torch.allclose(models.running_variance[place], plain.norm.running_var)


@pytest.mark.parametrize("pooled_bytes", [2**28, 1], ids=["together", "model by model"])
def test_fifty_steps_lead_where_a_plain_loop_does(pooled_bytes, monkeypatch):
    """In float64, with the same first weights, and batches."""
    monkeypatch.setattr(attentive, "POOLED_BYTES", pooled_bytes)
    n_steps = 50
    models = Models(SHAPE, first(), RATES, 2**12)
    plains = [plain_from(SHAPE, first()) for _ in RATES]
    optimizers = [
        torch.optim.AdamW(plain.parameters(), rate.lr, weight_decay=rate.weight_decay)
        for plain, rate in zip(plains, RATES, strict=True)
    ]
    for step in range(n_steps):
        tokens, labels = batch(seed=step)
        models.step(tokens, loss_of(labels), None, [rate.lr for rate in RATES])
        for plain, optimizer in zip(plains, optimizers, strict=True):
            optimizer.zero_grad()
            nn.CrossEntropyLoss(weight=WEIGHTS)(plain(tokens), labels).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), CLIP)
            optimizer.step()
    tokens, _ = batch(n=40, seed=n_steps)
    logits, attention = models.answer(tokens)
    for place, plain in enumerate(plains):
        wanted = torch.cat([p.detach().flatten() for p in plain.named()])
        assert torch.allclose(models.flat[place], wanted, rtol=0, atol=1e-6)
        with torch.no_grad():
            assert torch.allclose(logits[place], plain.eval()(tokens), rtol=0, atol=1e-6)
        assert torch.allclose(attention[place], plain.attention.mean(dim=1), atol=1e-6)


@pytest.mark.parametrize(
    ("queries", "width", "n_classes", "n"),
    [(128, 1152, 1000, 2_627_560), (32, 768, 1000, 1_383_400)],
    ids=["the log's ViT-L row", "ViT-B"],
)
def test_as_many_weights_as_the_release_counts(queries, width, n_classes, n):
    assert Shape(queries, width, n_classes).n_parameters == n


def test_first_weights_are_the_release_s():
    shape = Shape(32, 384, 7)
    parts = shape.split(torch.from_numpy(first_weights(shape, 3))[None])
    assert parts["queries"].std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("values", "head"):
        bound = 384**-0.5
        assert 0.9 * bound < parts[name].abs().max() <= bound
    assert not np.array_equal(first_weights(shape, 3), first_weights(shape, 4))


def test_any_images_are_standardised_from_sums():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (20, 5, 6)).astype(np.float16)
    x[..., 4] = np.float16(0.1)  # constant
    moments = Moments.of(x)
    for rows in some([np.arange(20), np.array([3, 7, 8])]):
        found = moments.standard(rows)
        wanted = Standard.of(x[rows].reshape(-1, 6))
        np.testing.assert_allclose(found.mean, wanted.mean)
        np.testing.assert_allclose(found.scale, wanted.scale, rtol=1e-6)
    taken = Patches(x, moments.standard(np.arange(20))).take(np.array([4, 2])).numpy()
    all_of = moments.standard(np.arange(20))
    np.testing.assert_allclose(taken, all_of(x[[4, 2]]), atol=1e-5)
    assert taken.dtype == np.float32


def test_tokens_that_are_not_finite_are_refused():
    x = np.zeros((3, 2, 4), np.float16)
    x[1, 1, 2] = np.nan
    with pytest.raises(RequestError, match="finite"):
        Moments.of(x)


def where_it_is(n=360, n_classes=4, seed=0):
    """Images one token of which tells the class, anywhere; the mean over tokens hardly does."""
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, 30, 16)), np.arange(n) % n_classes
    place = rng.integers(30, size=n)
    x[np.arange(n), place, 0] = 8
    x[np.arange(n), place, 1 + labels] += 6
    return x.astype(np.float16), labels


@pytest.mark.parametrize("task", [MULTI_CLASS, BINARY, MULTI_LABEL])
def test_it_finds_the_token_that_tells(task):
    n_classes = 2 if task == BINARY else 4
    x, labels = where_it_is(n_classes=n_classes)
    if task == MULTI_LABEL:
        labels = np.eye(4, dtype=np.int64)[labels]
        labels[::9, 2] = -1  # missing
    outputs = Outputs(task, n_classes, one_logit=False)
    course = Course(150, 1, 40, None, True)
    given = Patches(x), np.arange(300), labels[:300], outputs, course, [Rate(1e-2, 1e-2)], 0
    training = PatchTraining(4, *given)
    assert training.batch_size <= 40
    training.run(training.n_steps)
    (logits,), attention = training.answer(training.tokens, np.arange(300, 360))
    wanted = outputs.targets(labels[300:])
    right = logits.argmax(axis=1) == wanted.argmax(axis=1)
    known = ~np.isnan(wanted).any(axis=1)
    assert right[known].mean() > 0.9
    place = (x[300:, :, 0] > 4).argmax(axis=1)
    assert (attention.argmax(axis=1) == place).mean() > 0.9
    assert attention.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_setting_does_not_depend_on_those_beside_it():
    x, labels = where_it_is()
    outputs, course = Outputs(MULTI_CLASS, 4), Course(20, 1, 40, None, False)

    def answered(rates):
        given = Patches(x), np.arange(100), labels[:100], outputs, course, rates, 0
        training = PatchTraining(4, *given)
        training.run(training.n_steps)
        return training.answer(training.tokens)[0]

    together = answered([RATES[0], Rate(1e-4, 0)])
    np.testing.assert_allclose(together[0], answered(RATES[:1])[0], atol=1e-3)
    assert loss_weights(labels, outputs, False).max() == 1
