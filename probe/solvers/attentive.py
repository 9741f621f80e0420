"""Efficient probing: queries that attend to an image's patch tokens, and a linear head.

The model (arXiv 2506.10178; billpsomas/efficient-probing at 3a87bff, poolings/ep.py): N tokens x_n of
width D, Q learnt queries q_j, no projection of queries or keys, values W x_n cut into Q slices of
D / Q numbers; query j pools the j-th slice:

    a_j = softmax_n(q_j . x_n / sqrt(D)),   y_j = sum_n a_jn (W x_n)_j,   logits = H norm(y) + b

``norm`` is batch norm without scale and shift. Attention is linear in the values, so tokens are pooled
first and projected then: one product with W an image, not one a token, and gradients are written
down, as in ``probe.solvers.fusion``. What is left are four products of the tokens with Q vectors of
D, two there and two back, for all models side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probe.arrays import Doubles, Indices, Singles
from probe.solvers.fusion_training import Noise, Training
from probe.solvers.side_by_side import Loss, Parameters, Rate, SideBySide
from probe.solvers.standardise import Standard, chunks, refuse_infinite

if TYPE_CHECKING:
    import torch

NORM_EPSILON = 1e-6  # ep.py's BatchNorm1d(affine=False)
QUERY_SPREAD = 0.02  # ep.py
# Tokens in work at one time: on a processor they and their attention stay in its cache.
PART_BYTES = {"cpu": 2**21, "gpu": 2**28}
POOLED_BYTES = 2**28  # of models that go through a batch together
TAKEN_BYTES = 2**21
READ_BYTES = 2**26  # of tokens that are read at one time to measure them


@dataclass(frozen=True)
class Shape(Parameters):
    """The sizes of a model."""

    n_queries: int  # Q, a divisor of D
    width: int  # D
    n_classes: int  # C

    @cached_property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The parameters and their shapes; slice j of the values are rows j D / Q and on."""
        return {
            "queries": (self.n_queries, self.width),
            "values": (self.width, self.width),
            "head": (self.n_classes, self.width),
            "head_bias": (self.n_classes,),
        }


def first_weights(shape: Shape, seed: int) -> Singles:
    """(P,) queries normal of ``QUERY_SPREAD``, layers as torch.nn.Linear begins."""
    rng = np.random.default_rng((seed, 0))
    found: list[Singles] = []
    for name, size in shape.parts.items():
        if name == "queries":
            part = QUERY_SPREAD * rng.standard_normal(size)
        else:
            part = rng.uniform(-1, 1, size) / math.sqrt(shape.width)
        found.append(part.astype(np.float32).ravel())
    return np.concatenate(found)


class Models(SideBySide[Shape]):
    """M models of one shape, which go through a batch together, in parts of few images."""

    def __init__(
        self,
        shape: Shape,
        first: torch.Tensor,
        rates: Sequence[Rate],
        part_bytes: int | None = None,
    ) -> None:
        """``part_bytes``: of tokens that are in work at one time; the rest is any model's."""
        super().__init__(shape, first, rates)
        self._part_bytes = part_bytes or PART_BYTES["cpu" if first.device.type == "cpu" else "gpu"]

    def _groups(self, n: int) -> Iterator[slice]:
        """Models whose pooled tokens of n images are held together."""
        own = n * self.flat.element_size() * self.shape.n_queries * self.shape.width
        return chunks(len(self.flat), max(1, POOLED_BYTES // own))

    def _parts(self, tokens: torch.Tensor) -> list[slice]:
        n_bytes = tokens[0].numel() * tokens.element_size()
        return [*chunks(len(tokens), max(1, self._part_bytes // n_bytes))]

    def step(
        self, tokens: torch.Tensor, loss: Loss, draw: torch.Tensor | None, lrs: Sequence[float]
    ) -> None:
        """``draw`` is nothing to it: no attention is dropped."""
        self._n_steps.add_(1)
        for group in self._groups(len(tokens)):
            self._move(group, self.gradients(group, tokens, loss), lrs)

    def gradients(self, group: slice, tokens: torch.Tensor, loss: Loss) -> torch.Tensor:
        """(m, P) gradients of some of the models; their running statistics are updated, too."""
        import torch

        own = self.flat[group]
        gradient = torch.empty_like(own)
        w, g = self.shape.split(own), self.shape.split(gradient)
        n, models, n_queries, width = len(tokens), len(own), self.shape.n_queries, self.shape.width
        keys, values = self._keys(w), self._values(w)

        parts = self._parts(tokens)
        attention = tokens.new_empty(n, tokens.shape[1], len(keys))
        pooled = tokens.new_empty(n, len(keys), width)  # (B, m * Q, D)
        for rows in parts:
            _attend(tokens[rows], keys, attention[rows])
            torch.bmm(attention[rows].transpose(1, 2), tokens[rows], out=pooled[rows])
        out = _project(pooled, values, models)  # (m, B, D)

        # Batch norm and head.
        variance, mean = torch.var_mean(out, dim=1, correction=0, keepdim=True)
        self._observe(group, mean, variance, n)
        scale = (variance + NORM_EPSILON).rsqrt_()
        normed = out.sub_(mean).mul_(scale)
        logits = torch.baddbmm(w["head_bias"][:, None], normed, w["head"].transpose(1, 2))
        of_logits = loss.gradient(logits)  # (m, B, C)
        torch.bmm(of_logits.transpose(1, 2), normed, out=g["head"])
        torch.sum(of_logits, dim=1, out=g["head_bias"])
        of_out = of_logits.bmm(w["head"])  # (m, B, D)
        along = (of_out * normed).mean(dim=1, keepdim=True)
        of_out.sub_(of_out.mean(dim=1, keepdim=True)).sub_(normed.mul_(along)).mul_(scale)

        # Values and attention.
        of_slices = of_out.view(models, n, n_queries, -1).transpose(1, 2).flatten(0, 1)
        g["values"].copy_(
            of_slices.transpose(1, 2).bmm(pooled.transpose(0, 1)).view(g["values"].shape)
        )
        del pooled, out, normed
        of_keys = torch.zeros_like(keys)
        for rows in parts:
            part, own_attention = tokens[rows], attention[rows]
            of_pooled = of_slices[:, rows].bmm(values)  # (m * Q, b, D)
            of_attention = part.bmm(of_pooled.permute(1, 2, 0))  # (b, N, m * Q)
            of_scores = of_attention.mul_(own_attention)
            of_scores -= own_attention * of_scores.sum(dim=1, keepdim=True)
            of_keys.addmm_(of_scores.view(-1, len(keys)).T, part.reshape(-1, width))
        torch.mul(of_keys.view(g["queries"].shape), width**-0.5, out=g["queries"])
        return gradient

    def answer(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, n_tokens, _ = tokens.shape
        logits = tokens.new_empty(len(self.flat), n, self.shape.n_classes)
        attentions = tokens.new_empty(len(self.flat), n, n_tokens)
        for group in self._groups(1):
            own = self.flat[group]
            w = self.shape.split(own)
            keys, values = self._keys(w), self._values(w)
            scale = (self.running_variance[group] + NORM_EPSILON).rsqrt()
            for rows in self._parts(tokens):
                attention = _attend(tokens[rows], keys)
                pooled = attention.transpose(1, 2).bmm(tokens[rows])
                out = _project(pooled, values, len(own)) - self.running_mean[group][:, None]
                seen = out * scale[:, None]
                logits[group, rows] = seen.bmm(w["head"].transpose(1, 2)) + w["head_bias"][:, None]
                by_query = attention.unflatten(2, (len(own), -1))
                attentions[group, rows] = by_query.mean(dim=3).permute(2, 0, 1)
        return logits, attentions

    def _keys(self, w: dict[str, torch.Tensor]) -> torch.Tensor:
        """(m * Q, D) what tokens are multiplied by."""
        return w["queries"].flatten(0, 1) * self.shape.width**-0.5

    def _values(self, w: dict[str, torch.Tensor]) -> torch.Tensor:
        """(m * Q, D / Q, D)"""
        return w["values"].reshape(-1, self.shape.width // self.shape.n_queries, self.shape.width)


def _attend(
    tokens: torch.Tensor, keys: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """(b, N, m * Q) attention of (b, N, D) tokens, 1 over the N."""
    import torch

    scores = tokens.reshape(-1, tokens.shape[2]) @ keys.T
    return torch.softmax(scores.view(*tokens.shape[:2], -1), 1, out=out)


def _project(pooled: torch.Tensor, values: torch.Tensor, models: int) -> torch.Tensor:
    """(m, B, D) of (B, m * Q, D) pooled tokens: each query's slice, side by side."""
    slices = pooled.transpose(0, 1).bmm(values.transpose(1, 2))  # (m * Q, B, D / Q)
    return slices.view(models, -1, *slices.shape[1:]).transpose(1, 2).flatten(2)


# ---------------------------------------------------------------------------- tokens


class Stored(Protocol):
    """(n, N, D) tokens of n images: an array, a float16 map, or what reads them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Moments:
    """Sums over the tokens of each image, from which any set of images is standardised."""

    n_tokens: int
    sums: Doubles  # (n, D)
    squares: Doubles  # (n, D)

    @staticmethod
    def of(tokens: Stored) -> Moments:
        """Each token is read once.

        Raises:
            RequestError: tokens that aren't finite.
        """
        n, n_tokens, width = tokens.shape
        sums, squares = np.empty((n, width)), np.empty((n, width))
        for rows in chunks(n, max(1, READ_BYTES // (8 * n_tokens * width))):
            part = np.asarray(tokens[rows], np.float64)
            sums[rows] = part.sum(axis=1)
            squares[rows] = np.einsum("ind,ind->id", part, part)
        refuse_infinite(sums.sum(axis=0))
        return Moments(n_tokens, sums, squares)

    def standard(self, rows: Indices) -> Standard:
        """Each channel's mean and deviation over the tokens of some images; 1 where it is constant."""
        n = len(rows) * self.n_tokens
        mean = self.sums[rows].sum(axis=0) / n
        square = self.squares[rows].sum(axis=0) / n
        variance = square - mean**2
        varies = variance > 1e-9 * square  # below: what float16 of one value, and sums, leave
        return Standard(mean, np.sqrt(np.where(varies, variance, 1.0)))


class Patches:
    """Patch tokens as the model sees them: float32, standardised by channel or as they are."""

    dtype = "float32"  # of all that is computed

    def __init__(self, x: Stored, standard: Standard | None = None, device: str = "cpu") -> None:
        """
        Args:
            x: (n, N, D).
            standard: of the channels; None: tokens are taken as they are.
            device: where they go.
        """
        import torch

        self.x, self.standard, self.device = x, standard, device
        _, self.n_tokens, self.width = x.shape
        self._dtype = getattr(torch, self.dtype)
        self._standard = None
        if standard:
            parts = -standard.mean / standard.scale, 1 / standard.scale
            self._standard = [torch.from_numpy(part).to(device, self._dtype) for part in parts]

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(
        self, rows: Indices, noise: Noise | None = None, draw: torch.Generator | None = None
    ) -> torch.Tensor:
        """(n, N, D); a few images at a time, which stay in the processor's cache."""
        import torch

        shape = len(rows), self.n_tokens, self.width
        found = torch.empty(shape, dtype=self._dtype, device=self.device)
        for part in chunks(len(rows), max(1, TAKEN_BYTES // (4 * self.n_tokens * self.width))):
            own = found[part]
            own.copy_(torch.from_numpy(np.ascontiguousarray(self.x[rows[part]])))
            if self._standard:
                shift, factor = self._standard
                torch.addcmul(shift, own, factor, out=own)
        return found


class PatchTraining(Training):
    """Models of one seed and several settings; ``tokens`` are ``Patches``."""

    def __init__(self, n_queries: int, *given: Any) -> None:
        """``n_queries``, and what ``Training`` takes."""
        self._n_queries = n_queries
        super().__init__(*given)

    def _begin(
        self, on_device: Callable[[Singles], torch.Tensor], rates: Sequence[Rate], seed: int
    ) -> Models:
        shape = Shape(self._n_queries, self.tokens.width, self.outputs.n_logits)
        return Models(shape, on_device(first_weights(shape, seed)), rates)
