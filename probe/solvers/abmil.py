"""Gated attention over the rows of a bag, trained with a linear head: Ilse, Tomczak and Welling 2018.

    z = sum_k a_k h_k,   a = softmax_k(w . (tanh(V h_k) * sigmoid(U h_k))),   logits = H z

h are a bag's standardised rows, V and U (L, D) with biases, as the authors' code has them and their
formula not, w (L,), H (O, D) with its intercept. A bias of w would change nothing.

With L = 0 every row has the same score, so a is 1 / K: the head sees the mean of the rows.

H is linear, so each row's H h_k is summed by attention, and z is never made: a step is two products
of the rows with all weights of all settings, and a softmax. The gradient is written down. Rows
of a batch's bags follow one another without padding; only their scores, one number a row, are laid
out as (bags, longest) for the softmax, in which what is no row is -inf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from probe.arrays import Doubles, Floats, Indices, Singles
from probe.bags import Bags
from probe.solvers.adamw import ALIGNED, BETAS, EPSILON
from probe.solvers.epochs import epoch_orders, first_weights
from probe.solvers.outputs import Outputs
from probe.solvers.standardise import Standard

if TYPE_CHECKING:
    import torch

PART_ROWS = 4096  # rows that are in work at one time, unless one bag has more


@dataclass(frozen=True)
class Course:
    """What a training needs to know."""

    hidden: int  # L
    dropout: float  # share of hidden units that a step leaves out
    batch_size: int  # bags
    iterations: int  # steps, whose rate falls to 0 by a cosine


class Rate(NamedTuple):
    """What differs between trainings that take their steps together."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Scales:
    """How rows are standardised: for attention as rows, for the head as the means of bags.

    Means of many rows vary far less than rows, and steps of one size would leave a head of their
    small numbers where it began.
    """

    of_rows: Standard
    by: Doubles  # (D,) a row's standard deviation over that of means

    @staticmethod
    def of(bags: Bags, samples: Indices) -> Scales:
        """Of training bags.

        Raises:
            RequestError: features that are not finite.
        """
        of_rows = Standard.of(bags.x[bags.rows_of(samples)])
        each = [bags.x[bags.rows_of(samples[i : i + 1])] for i in range(len(samples))]
        means = np.stack([own.mean(axis=0, dtype=np.float64) for own in each])
        return Scales(of_rows, of_rows.scale / Standard.of(means).scale)


@dataclass(frozen=True)
class Weights:
    """Of G settings side by side. D' is D, a 1 for biases, and zeros up to whole cache lines."""

    v: torch.Tensor  # (G, L, D')
    u: torch.Tensor  # (G, L, D')
    head: torch.Tensor  # (G, O, D'), of rows in units of ``by``
    w: torch.Tensor  # (G, L)
    by: torch.Tensor  # (D',) what is a row's 1 to the head

    @staticmethod
    def first(
        scales: Scales, hidden: int, n_logits: int, seed: int, n: int, device: str
    ) -> Weights:
        """As torch.nn.Linear begins; the same for all settings, and the head's whatever L is."""
        import torch

        width = len(scales.by)
        of_rows = first_weights(width, n_logits + 2 * hidden, seed)
        wide, by = np.zeros((len(of_rows), _wide(width))), np.ones(_wide(width))
        wide[:, : width + 1], by[:width] = of_rows, scales.by
        bound = 1 / math.sqrt(max(hidden, 1))
        w = np.random.default_rng((seed, 2)).uniform(-bound, bound, hidden).astype(np.float32)
        parts = np.split(wide, [n_logits, n_logits + hidden])

        def tensor(part: Floats) -> torch.Tensor:
            return torch.from_numpy(part.astype(np.float32)).to(device)

        head, v, u, w = (tensor(np.repeat(part[None], n, axis=0)) for part in (*parts, w))
        return Weights(v, u, head, w, tensor(by))

    @property
    def all(self) -> list[torch.Tensor]:
        return [self.v, self.u, self.head, self.w]


@dataclass(frozen=True)
class Layout:
    """Where the n rows of B bags lie in a table of B times the longest."""

    place: torch.Tensor  # (n,) in the flat table
    bag: torch.Tensor  # (n,) of each row, 0 to B - 1
    n_bags: int
    longest: int

    @staticmethod
    def of(counts: Indices, device: str) -> Layout:
        import torch

        bag, longest = np.repeat(np.arange(len(counts)), counts), int(counts.max(initial=1))
        within = np.arange(len(bag)) - np.repeat(np.cumsum(counts) - counts, counts)
        place, of_rows = (torch.from_numpy(of).to(device) for of in (bag * longest + within, bag))
        return Layout(place, of_rows, len(counts), longest)

    def _table(self, values: torch.Tensor, rest: float) -> torch.Tensor:
        table = values.new_full((self.n_bags * self.longest, *values.shape[1:]), rest)
        table[self.place] = values
        return table.view(self.n_bags, self.longest, *values.shape[1:])

    def softmax(self, scores: torch.Tensor) -> torch.Tensor:
        """(n, G), over the rows of each bag."""
        return self._table(scores, -math.inf).softmax(dim=1).flatten(0, 1)[self.place]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """(n, ...) to (B, ...) sums over the rows of each bag."""
        return self._table(values, 0).sum(dim=1)


class Forward(NamedTuple):
    """What G settings make of the n rows of B bags."""

    tanh: torch.Tensor  # (n, G, L)
    sigmoid: torch.Tensor  # (n, G, L)
    gated: torch.Tensor  # (n, G, L), of dropout what is left
    attention: torch.Tensor  # (n, G)
    values: torch.Tensor  # (n, G, O)
    logits: torch.Tensor  # (B, G, O)


def _forward(
    x: torch.Tensor, layout: Layout, weights: Weights, mask: torch.Tensor | None = None
) -> Forward:
    """Of (n, D') rows; ``mask`` (n, 1, L) is of dropout, and the same for all settings."""

    def times(w: torch.Tensor) -> torch.Tensor:
        return (x @ w.flatten(0, 1).T).view(len(x), *w.shape[:2])

    tanh, sigmoid = times(weights.v).tanh_(), times(weights.u).sigmoid_()
    gated = tanh * sigmoid
    if mask is not None:
        gated *= mask
    scores = (gated.transpose(0, 1) @ weights.w[..., None])[..., 0].T
    attention, values = layout.softmax(scores), times(weights.head * weights.by)
    logits = layout.sum(attention[..., None] * values)
    return Forward(tanh, sigmoid, gated, attention, values, logits)


def _gradients(
    x: torch.Tensor,
    layout: Layout,
    weights: Weights,
    mask: torch.Tensor | None,
    wanted: torch.Tensor,
    outputs: Outputs,
) -> list[torch.Tensor]:
    """Of the sum of losses, by the weights in the order of ``Weights.all``; ``wanted`` is (O, B)."""
    found = _forward(x, layout, weights, mask)
    of_logits = outputs.gradient(found.logits.permute(1, 2, 0).contiguous(), wanted)
    error = of_logits.permute(2, 0, 1)[layout.bag]  # (n, G, O)
    of_values = found.attention[..., None] * error
    of_attention = (found.values * error).sum(dim=-1)
    mean = layout.sum(found.attention * of_attention)[layout.bag]
    of_scores = found.attention * (of_attention - mean)  # (n, G)
    of_w = (of_scores.T[:, None] @ found.gated.transpose(0, 1))[:, 0]
    of_gated = of_scores[..., None] * weights.w
    if mask is not None:
        of_gated *= mask
    of_gated *= found.sigmoid
    of_u = of_gated * found.tanh * (1 - found.sigmoid)
    of_v = of_gated * (1 - found.tanh.square())

    def times(of: torch.Tensor) -> torch.Tensor:
        return (of.flatten(1).T @ x).view(*of.shape[1:], x.shape[1])

    return [times(of_v), times(of_u), times(of_values).mul_(weights.by), of_w]


@dataclass(frozen=True)
class Models:
    """G trained settings of one seed."""

    weights: Weights
    scales: Scales  # of train
    outputs: Outputs
    device: str

    def logits(self, bags: Bags, samples: Indices) -> Singles:
        """(n, G, O) of some samples."""
        shape = 0, *self.weights.head.shape[:2]
        return np.concatenate(
            [np.empty(shape, np.float32), *(f.logits.cpu() for f in self._each(bags, samples))]
        )

    def scores(self, bags: Bags, samples: Indices) -> list[Doubles | None]:
        """Of each setting (n, C); None: it diverged."""
        logits = self.logits(bags, samples)
        each = zip(*self.weights.all, strict=True)
        are_finite = [all(bool(w.isfinite().all()) for w in own) for own in each]
        return [
            self.outputs.scores(logits[:, g]) if is_finite else None
            for g, is_finite in enumerate(are_finite)
        ]

    def attention(self, bags: Bags, samples: Indices) -> Singles:
        """(R, G) of the rows of some samples, in the order of ``Bags.rows_of``; 1 in each bag."""
        empty = np.empty((0, len(self.weights.w)), np.float32)
        each = self._each(bags, samples)
        return np.concatenate([empty, *(found.attention.cpu() for found in each)])

    def _each(self, bags: Bags, samples: Indices) -> Iterator[Forward]:
        for part in bags.parts(samples, PART_ROWS):
            x, layout = _take(bags, samples[part], self.scales, self.device)
            yield _forward(x, layout, self.weights)

    @property
    def n_parameters(self) -> int:
        """Of one setting."""
        width = len(self.scales.by) + 1
        _, hidden, _ = self.weights.v.shape
        return (2 * hidden + self.outputs.n_logits) * width + hidden


def train(
    bags: Bags,
    samples: Indices,
    targets: Singles,
    rates: Sequence[Rate],
    seed: int,
    outputs: Outputs,
    course: Course,
    scales: Scales,
    device: str = "cpu",
) -> Models:
    """Train all settings on the same batches, from the same weights, with the same dropout.

    A setting's numbers don't depend on the others, but for the last digits of sums.

    Args:
        bags: of a file.
        samples: (N,) numbers of those that are trained on.
        targets: (N, O), see ``Outputs.targets``.
        rates: G settings.
        seed: of first weights, order and dropout.
        outputs: what the logits mean.
        course: the rest.
        scales: of these samples.
        device: where, as torch names it.

    """
    import torch

    weights = Weights.first(scales, course.hidden, outputs.n_logits, seed, len(rates), device)
    step = _Steps(weights, rates)
    chance = np.random.default_rng((seed, 3))
    batches = _batches(len(samples), course.batch_size, seed)
    for iteration, batch in zip(range(course.iterations), batches, strict=False):
        own, gradient = samples[batch], [torch.zeros_like(w) for w in weights.all]
        for part in bags.parts(own, PART_ROWS):
            x, layout = _take(bags, own[part], scales, device)
            wanted = torch.from_numpy(targets[batch[part]].T.copy()).to(device)  # (O, B)

            mask = _dropped(chance, len(x), course, device)
            more = _gradients(x, layout, weights, mask, wanted, outputs)
            for of, own_part in zip(gradient, more, strict=True):
                of.add_(own_part, alpha=1 / len(own))
        step(gradient, (1 + math.cos(math.pi * iteration / course.iterations)) / 2)
    return Models(weights, scales, outputs, device)


def _batches(n: int, size: int, seed: int) -> Iterator[Indices]:
    """Of n samples; what doesn't fill an epoch's last batch is left out, unless it is all there is."""
    size = min(size, n)
    for order in epoch_orders(n, seed):
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def _dropped(
    chance: np.random.Generator, n_rows: int, course: Course, device: str
) -> torch.Tensor | None:
    """(n, 1, L) 0, or the inverse of the share that stays."""
    import torch

    if not (course.hidden and course.dropout):
        return None
    stays = chance.random((n_rows, 1, course.hidden), np.float32) >= course.dropout
    return torch.from_numpy(stays / np.float32(1 - course.dropout)).to(device)


def _take(bags: Bags, samples: Indices, scales: Scales, device: str) -> tuple[torch.Tensor, Layout]:
    """(n, D') standardised rows of some samples. All of a file's would be twice what is stored."""
    import torch

    rows, width = bags.rows_of(samples), bags.x.shape[1]
    x = np.zeros((len(rows), _wide(width)), np.float32)
    x[:, :width] = bags.x[rows]
    x[:, :width] -= scales.of_rows.mean.astype(np.float32)
    x[:, :width] /= scales.of_rows.scale.astype(np.float32)
    x[:, width] = 1
    return torch.from_numpy(x).to(device), Layout.of(bags.counts[samples], device)


def _wide(width: int) -> int:
    """D'."""
    return -(-(width + 1) // ALIGNED) * ALIGNED


class _Steps:
    """torch.optim.AdamW of each setting at its own rate, see ``probe.solvers.adamw``."""

    def __init__(self, weights: Weights, rates: Sequence[Rate]) -> None:
        self._rates = rates
        self._own = [[w[g] for w in weights.all] for g in range(len(rates))]
        self._means = [[w.new_zeros(w.shape) for w in own] for own in self._own]
        self._squares = [[w.new_zeros(w.shape) for w in own] for own in self._own]
        self._n_steps = [[w.new_zeros(()) for w in own] for own in self._own]

    def __call__(self, gradient: Sequence[torch.Tensor], share: float) -> None:
        import torch

        for g, rate in enumerate(self._rates):
            for n in self._n_steps[g]:
                n += 1
            torch._fused_adamw_(  # type: ignore
                self._own[g],
                [of[g] for of in gradient],
                self._means[g],
                self._squares[g],
                [],
                self._n_steps[g],
                lr=rate.lr * share,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=rate.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
