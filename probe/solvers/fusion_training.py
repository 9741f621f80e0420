"""Training attentive fusion: tokens as it sees them, batches, schedule; the steps are in fusion.py.

Settings of one seed see the same batches and the same noise, so whatever doesn't depend on what is
learnt is made once a step for all of them. Features stay as they are stored; a batch alone is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cache.task import MISSING
from probe.arrays import Doubles, Floats, Indices, Ints, Singles
from probe.solvers.epochs import epoch_orders
from probe.solvers.fusion import NORM_EPSILON, Models, Shape, first_weights
from probe.solvers.outputs import Outputs
from probe.solvers.side_by_side import Loss, Rate, SideBySide
from probe.solvers.standardise import Standard, chunks

if TYPE_CHECKING:
    import torch

LAST_LR = 1e-6  # linear_probe.py:71-103
SHARE_WITH_NOISE = 0.5  # of the samples of a batch: data_utils.py:16-28
N_BATCHES = 5  # that an epoch has at least: data_loader.py:22-73
SMALLEST_BATCH = 17  # as large as the release's search goes down
TOKEN_BYTES = 2**20  # tokens that are normed at one time
# Tokens without noise are made once, where all of them are so few.
HELD_BYTES = 2**28
ANSWERED = 1024  # samples that are answered at one time


def batch_size_of(n: int, most: int) -> int:
    """Samples of a batch: at least ``N_BATCHES`` full ones, the last one half full or more.

    The largest that is so, ``most`` or little more (data_loader.py: adjust_batch_size). The release
    ends with batches of one where n is under 85, which batch norm can't take: there the batches are
    fewer.
    """
    smallest = min(SMALLEST_BATCH, most)
    if n // most >= N_BATCHES and _is_filled(n, most):
        return most
    for n_batches in range(max(n // most, N_BATCHES), 0, -1):
        for size in range(n // n_batches + 1, smallest - 1, -1):
            if n // size >= n_batches and _is_filled(n, size):
                return size
    return n


def _is_filled(n: int, size: int) -> bool:
    return n % size == 0 or 2 * (n % size) >= size


# ---------------------------------------------------------------------------- tokens


@dataclass(frozen=True)
class Noise:
    """What is added to the tokens of half of the samples: normal, of each number by itself."""

    size: float  # its length in shares of a token's; or, ``is_absolute``, each number's deviation
    is_absolute: bool = False


class Source(Protocol):
    """Where a training's tokens come from."""

    dtype: str  # of all that is computed
    device: str
    standard: Standard | None
    n_tokens: int  # T
    width: int  # D

    def __len__(self) -> int: ...

    def take(
        self, rows: Indices, noise: Noise | None = None, draw: torch.Generator | None = None
    ) -> torch.Tensor:
        """(n, T, D) as the model sees them."""
        ...


class Tokens:
    """Vectors of several places, side by side as they are stored, as the model's tokens."""

    dtype = "float32"  # of all that is computed

    def __init__(
        self,
        x: Floats,
        widths: Sequence[int],
        standard: Standard | None = None,
        pads_first: bool = False,
        device: str = "cpu",
    ) -> None:
        """
        Args:
            x: (n, sum of widths); may be a float16 memmap.
            widths: (T,) of each place.
            standard: what each number is standardised by before a vector gets length 1; None: nothing.
            pads_first: narrow tokens are filled up with zeros before noise and norm, which see the
                zeros, as the release has it; else after, and only what is there is normed.
            device: where tokens are made.
        """
        import torch

        self.x, self.standard, self.pads_first, self.device = x, standard, pads_first, device
        self._standard = None
        if standard:
            of = standard.mean, 1 / standard.scale
            self._standard = [torch.from_numpy(part).to(device, self._dtype) for part in of]
        self.n_tokens, self.width = len(widths), max(widths)
        self._runs: list[tuple[int, slice, slice]] = []  # of one width: it, columns, tokens
        column = token = 0
        for width, run in groupby(widths):
            n = len([*run])
            columns = slice(column, column + n * width)
            self._runs.append((width, columns, slice(token, token + n)))
            column, token = columns.stop, token + n

    def __len__(self) -> int:
        return len(self.x)

    @property
    def _dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.dtype)

    def take(
        self, rows: Indices | slice, noise: Noise | None = None, draw: torch.Generator | None = None
    ) -> torch.Tensor:
        """(n, T, D) tokens as the model sees them: normed, but for scale and shift.

        Beyond a token's own width they are 0. A few samples at a time, so that they stay in the
        processor's cache.
        """
        import torch
        from torch.nn import functional

        places = np.arange(len(self.x))[rows]
        size = self.n_tokens, self.width
        found = torch.zeros(len(places), *size, dtype=self._dtype, device=self.device)
        for part in chunks(len(places), max(1, TOKEN_BYTES // (4 * math.prod(size)))):
            tokens = self.raw(places[part], noise, draw)
            for width, _, own in self._runs:
                seen = self.width if self.pads_first else width
                normed = functional.layer_norm(tokens[:, own, :seen], (seen,), eps=NORM_EPSILON)
                found[part, own, :seen] = normed
        return found

    def raw(
        self, rows: Indices, noise: Noise | None = None, draw: torch.Generator | None = None
    ) -> torch.Tensor:
        """(n, T, D) tokens of length 1, before any norm, filled up with zeros; with noise."""
        import torch
        from torch.nn import functional

        stored = torch.from_numpy(self.x[rows]).to(self.device, self._dtype)
        if self._standard:
            mean, factor = self._standard
            stored = (stored - mean).mul_(factor)
        found = [
            functional.pad(
                functional.normalize(stored[:, columns].unflatten(1, (-1, width)), dim=2),
                (0, self.width - width),
            )
            for width, columns, _ in self._runs
        ]
        tokens = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        if noise is None:
            return tokens
        is_noisy = torch.rand(len(rows), generator=draw) < SHARE_WITH_NOISE
        added = torch.randn(
            (int(is_noisy.sum()), *tokens.shape[1:]), generator=draw, dtype=self._dtype
        )
        for width, _, own in self._runs:
            added[:, own] *= noise.size if noise.is_absolute else noise.size / math.sqrt(width)
            if not self.pads_first:
                added[:, own, width:] = 0
        tokens[is_noisy.to(self.device)] += added.to(self.device)
        return tokens


# ---------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Course:
    """What all models of a training have in common."""

    n_steps: int  # at least; whole epochs
    n_epochs: int  # at least
    batch_size: int  # at most, see ``batch_size_of``
    noise: Noise | None
    is_balanced: bool  # each class, or value of a label, weighs as much as the others


def loss_weights(labels: Ints, outputs: Outputs, is_balanced: bool) -> Singles:
    """(n, 1), or (n, C) of several labels, what each counts in the loss; a missing label 0.

    Balanced: n / (C * n_c) of class c (linear_probe.py:216-240), and of each of several labels the
    same of its two values, among what is known.
    """
    if not outputs.is_independent:
        counts = np.bincount(labels, minlength=outputs.n_classes)
        weights = len(labels) / (outputs.n_classes * np.maximum(counts, 1))
        found = weights[labels][:, None] if is_balanced else np.ones((len(labels), 1))
        return found.astype(np.float32)
    is_known, ones = labels != MISSING, labels == 1
    if not is_balanced:
        return is_known.astype(np.float32)
    n_known, n_ones = is_known.sum(axis=0), ones.sum(axis=0)
    of_ones, of_zeros = (n_known / (2 * np.maximum(n, 1)) for n in (n_ones, n_known - n_ones))
    return (np.where(ones, of_ones, of_zeros) * is_known).astype(np.float32)


class Training:
    """Models of one seed and several settings, trained together on the same samples."""

    def __init__(
        self,
        tokens: Source,
        rows: Indices,
        labels: Ints,
        outputs: Outputs,
        course: Course,
        rates: Sequence[Rate],
        seed: int,
        batch_size: int | None = None,
    ) -> None:
        """
        Args:
            tokens: of all samples.
            rows: (n,) those to train on.
            labels: (n,) or (n, C), theirs.
            outputs: what logits stand for; one for each class.
            course: what the models have in common.
            rates: (M,) what they differ in.
            seed: of first weights, order, noise and dropped attention.
            batch_size: exactly; None: what ``batch_size_of`` makes of the course's.
        """
        import torch

        def on_device(found: Singles) -> torch.Tensor:
            return torch.from_numpy(found).to(tokens.device, getattr(torch, tokens.dtype))

        self.tokens, self.rows, self.outputs, self.course = tokens, rows, outputs, course
        self._targets = on_device(np.nan_to_num(outputs.targets(labels)))
        self._weights = on_device(loss_weights(labels, outputs, course.is_balanced))
        self.batch_size = batch_size or batch_size_of(len(rows), course.batch_size)
        n_batches = -(-len(rows) // self.batch_size)
        n_epochs = max(course.n_epochs, -(-course.n_steps // n_batches))
        self.n_steps, self.n_done = n_epochs * n_batches, 0
        self.models: SideBySide[Any] = self._begin(on_device, rates, seed)
        self._batches = self._endless(seed)
        n_bytes = 4 * len(rows) * tokens.n_tokens * tokens.width
        is_held = course.noise is None and n_bytes <= HELD_BYTES
        self._held = tokens.take(rows) if is_held else None
        # Apart, so that models with dropped attention change nothing for those without.
        self._noise = torch.Generator().manual_seed(2 * seed)
        self._dropping = torch.Generator().manual_seed(2 * seed + 1)

    def _begin(
        self, on_device: Callable[[Singles], torch.Tensor], rates: Sequence[Rate], seed: int
    ) -> SideBySide[Any]:
        """The models at their first weights."""
        shape = Shape(self.tokens.n_tokens, self.tokens.width, self.outputs.n_logits)
        return Models(shape, on_device(first_weights(shape, seed)), rates)

    def _endless(self, seed: int) -> Iterator[Indices]:
        for order in epoch_orders(len(self.rows), seed):
            for start in range(0, len(order), self.batch_size):
                yield order[start : start + self.batch_size]

    def _take(self, batch: Indices) -> torch.Tensor:
        if self._held is not None:
            return self._held[batch]
        return self.tokens.take(self.rows[batch], self.course.noise, self._noise)

    def run(self, until: int) -> None:
        """Take steps, up to this one."""
        import torch

        while self.n_done < until:
            batch = next(self._batches)
            tokens = self._take(batch)
            rates, draw = self.models.rates, None
            if any(rate.dropout for rate in rates):
                shape = len(batch), self.tokens.n_tokens, self.models.shape.n_heads
                draw = torch.rand(shape, generator=self._dropping).to(tokens.device)
            loss = Loss(self._targets[batch], self._weights[batch], self.outputs.is_independent)
            fallen = (1 + math.cos(math.pi * self.n_done / self.n_steps)) / 2
            lrs = [LAST_LR + fallen * (rate.lr - LAST_LR) for rate in rates]
            self.models.step(tokens, loss, draw, lrs)
            self.n_done += 1

    def answer(
        self, tokens: Source, rows: Indices | None = None, noise: Noise | None = None
    ) -> tuple[Doubles, Singles]:
        """(M, n, C) logits, and (n, T) attention of the first model, the mean over its heads.

        Args:
            tokens: of the samples.
            rows: those to answer; None: all.
            noise: that is added to them, as the release does to val.
        """
        rows = np.arange(len(tokens)) if rows is None else rows
        logits = np.empty((len(self.models.rates), len(rows), self.outputs.n_logits))
        attention = np.empty((len(rows), tokens.n_tokens), np.float32)
        fitting = HELD_BYTES // (4 * tokens.n_tokens * tokens.width)
        for part in chunks(len(rows), min(ANSWERED, max(1, fitting))):
            seen = tokens.take(rows[part], noise, self._noise)
            found, attended = self.models.answer(seen)
            logits[:, part] = found.cpu().numpy()
            attention[part] = attended[0].cpu().numpy()
        return logits, attention
