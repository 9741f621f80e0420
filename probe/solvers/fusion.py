"""Attentive fusion of many vectors of a sample, several settings of one seed trained at once.

The model (lciernik/attentive-layer-fusion at ef86a87, src/tasks/attentive_probe.py): T tokens of a
sample, one learned query, multi-head attention over the tokens, batch norm, a linear head. Written
as there, keys and values are two products of all tokens with (D, H * d) matrices. Here both are
gone, exactly, gradients too:

* The query is one for all samples, so a head's logit is x . (g * W'q): the query is folded into the
  keys, and a head's key is one vector of D. What norm_k adds is the same for all tokens, and cancels.
* Attention is linear in the values, so tokens are pooled first and projected then: one product a
  sample, not T. Dropped attention doesn't sum to 1, so what norm_v adds is weighted by its sum.
* Norms without their scales don't depend on what is learnt: keys, values and all settings share them.

Nothing is differentiated that no gradient is asked of. The gradients are written down, so that a
batch goes through in parts, and pooled vectors (T times the tokens' size, for H = T) are never held
for all of it. M models are M * H heads side by side in the same products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from probe.arrays import Singles
from probe.solvers.side_by_side import Loss, Parameters, Rate, SideBySide
from probe.solvers.standardise import chunks

if TYPE_CHECKING:
    import torch

NORM_EPSILON = 1e-5  # of both norms
QUERY_SPREAD = 0.02  # attentive_probe.py:254
# Pooled vectors that are in work at one time: on a processor they stay in its cache.
PART_BYTES = {"cpu": 2**22, "gpu": 2**30}


@dataclass(frozen=True)
class Shape(Parameters):
    """The sizes of a model. D is the width of the widest token."""

    n_tokens: int  # T
    width: int  # D
    n_classes: int  # C

    @property
    def n_heads(self) -> int:
        """H: as many as tokens, which is the release's rule."""
        return self.n_tokens

    @property
    def head_width(self) -> int:
        """d of a head: twice what would fill D."""
        return 2 * max(1, self.width // self.n_heads)

    @cached_property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The parameters and their shapes, as torch's modules have them."""
        width, inner = self.width, self.n_heads * self.head_width
        norms = {
            f"{norm}_{what}": (width,)
            for norm in ("norm_q", "norm_k", "norm_v", "batch_norm")
            for what in ("scale", "shift")
        }
        return {
            "query": (width,),
            **norms,
            "q": (inner, width),
            "k": (inner, width),
            "v": (inner, width),
            "out": (width, inner),
            "out_bias": (width,),
            "head": (self.n_classes, width),
            "head_bias": (self.n_classes,),
        }


def first_weights(shape: Shape, seed: int) -> Singles:
    """(P,) torch's own: layers uniform within 1 / sqrt of their inputs, norms 1 and 0."""
    rng = np.random.default_rng((seed, 0))
    found: list[Singles] = []
    for name, size in shape.parts.items():
        if name == "query":
            part = QUERY_SPREAD * rng.standard_normal(size)
        elif "norm" in name:
            part = np.full(size, float(name.endswith("scale")))
        else:
            n_inputs = shape.parts[name.removesuffix("_bias")][1]
            part = rng.uniform(-1, 1, size) / math.sqrt(n_inputs)
        found.append(part.astype(np.float32).ravel())
    return np.concatenate(found)


class Models(SideBySide[Shape]):
    """M models of one shape, and what AdamW knows of them.

    A few go through a step together, then the next: as many as keep what they pool in the
    processor's cache, but one at least, and of one a part of the batch. On a GPU that is all of them.
    """

    def __init__(
        self,
        shape: Shape,
        first: torch.Tensor,
        rates: Sequence[Rate],
        part_bytes: int | None = None,
    ) -> None:
        """``part_bytes``: of pooled vectors that are in work at one time; the rest is any model's."""
        super().__init__(shape, first, rates)
        self._part_bytes = part_bytes or PART_BYTES["cpu" if first.device.type == "cpu" else "gpu"]

    def _groups(self, n: int) -> Iterator[slice]:
        """Models that go through n samples together."""
        size = max(1, self._part_bytes // self._bytes_of(n))
        return chunks(len(self.flat), size)

    def _parts(self, n: int, n_models: int) -> list[slice]:
        """The samples that go through so many models at one time."""
        return [*chunks(n, max(1, self._part_bytes // self._bytes_of(n_models)))]

    def _bytes_of(self, n: int) -> int:
        return n * self.flat.element_size() * self.shape.n_heads * self.shape.width

    # ------------------------------------------------------------ training

    def step(
        self, tokens: torch.Tensor, loss: Loss, draw: torch.Tensor | None, lrs: Sequence[float]
    ) -> None:
        self._n_steps.add_(1)
        for group in self._groups(len(tokens)):
            self._move(group, self.gradients(group, tokens, loss, draw), lrs)

    def gradients(
        self, group: slice, tokens: torch.Tensor, loss: Loss, draw: torch.Tensor | None
    ) -> torch.Tensor:
        """(m, P) gradients of some of the models; their running statistics are updated, too."""
        import torch

        own = self.flat[group]
        w, folded = self.shape.split(own), Folded.of(self.shape, own)
        # Of norm_k's shift, which cancels in the softmax, and of out's, which batch norm takes away,
        # it stays 0, as it truly is: AdamW would make whole steps of what rounding leaves.
        gradient = torch.zeros_like(own)
        g, shape = self.shape.split(gradient), self.shape
        models, heads, width, n = len(own), shape.n_heads, shape.width, len(tokens)
        inner = heads * shape.head_width
        rates = self.rates[group]
        is_dropped = any(rate.dropout for rate in rates)

        def kept_in(rows: slice) -> torch.Tensor | None:
            return None if draw is None or not is_dropped else kept_of(draw[rows], rates)

        parts = self._parts(n, models)
        attentions: list[torch.Tensor] = []
        pools: list[torch.Tensor | None] = []
        values = tokens.new_empty(models, n, inner)
        for rows in parts:
            part, kept = tokens[rows], kept_in(rows)
            attention = folded.attend(part)
            used = attention if kept is None else attention * kept
            pooled = pool(used, part)
            values[:, rows] = folded.project(pooled, None if kept is None else used.sum(dim=1))
            attentions.append(attention)
            pools.append(pooled if len(parts) == 1 else None)
            del pooled
        out = torch.baddbmm(w["out_bias"][:, None], values, w["out"].transpose(1, 2))  # (m, B, D)

        # Batch norm and head.
        variance, mean = torch.var_mean(out, dim=1, correction=0, keepdim=True)
        self._observe(group, mean, variance, n)
        scale = (variance + NORM_EPSILON).rsqrt_()
        normed = out.sub_(mean).mul_(scale)
        seen = normed * w["batch_norm_scale"][:, None] + w["batch_norm_shift"][:, None]
        logits = torch.baddbmm(w["head_bias"][:, None], seen, w["head"].transpose(1, 2))
        of_logits = loss.gradient(logits)  # (m, B, C)
        torch.bmm(of_logits.transpose(1, 2), seen, out=g["head"])
        torch.sum(of_logits, dim=1, out=g["head_bias"])
        of_seen = of_logits.bmm(w["head"])  # (m, B, D)
        torch.sum(of_seen, dim=1, out=g["batch_norm_shift"])
        torch.sum(of_seen * normed, dim=1, out=g["batch_norm_scale"])
        shift, slope = g["batch_norm_shift"][:, None] / n, g["batch_norm_scale"][:, None] / n
        of_out = of_seen.sub_(shift).sub_(normed.mul_(slope))
        of_out *= scale * w["batch_norm_scale"][:, None]
        torch.bmm(of_out.transpose(1, 2), values, out=g["out"])
        of_values = of_out.bmm(w["out"]).view(models, n, heads, -1).transpose(1, 2)
        del of_out, values, out, normed, seen

        # Attention. What was pooled is pooled again where it isn't held.
        of_keys = torch.zeros_like(folded.keys)
        of_folded = torch.zeros_like(folded.values)  # (m * H, d, D): of v, but for norm_v's scale
        of_shifts = torch.zeros_like(folded.shifts)
        for rows, attention, held in zip(parts, attentions, pools, strict=True):
            part, kept = tokens[rows], kept_in(rows)
            used = attention if kept is None else attention * kept
            pooled = pool(used, part) if held is None else held
            of_own = of_values[:, :, rows].reshape(models * heads, len(part), -1)  # (m * H, b, d)
            of_folded.baddbmm_(of_own.transpose(1, 2), pooled)
            of_pooled = of_own.bmm(folded.values)  # (m * H, b, D)
            of_attention = part.bmm(of_pooled.permute(1, 2, 0))  # (b, T, m * H)
            if kept is None:
                of_shifts += of_own.sum(dim=1, keepdim=True)  # attention sums to 1
            else:
                of_shifts += used.sum(dim=1).T[:, None].bmm(of_own)
                of_attention += (of_own * folded.shifts).sum(dim=2).T[:, None]
                of_attention *= kept
            of_scores = of_attention.mul_(attention)
            of_scores -= attention * of_scores.sum(dim=1, keepdim=True)
            of_keys.addmm_(of_scores.view(-1, models * heads).T, part.view(-1, width))
        folded.unfold(w, g, of_keys, of_folded, of_shifts)
        return gradient

    # ------------------------------------------------------------ answers

    def answer(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        models, n, shape = len(self.flat), len(tokens), self.shape
        logits = tokens.new_empty(models, n, shape.n_classes)
        attentions = tokens.new_empty(models, n, shape.n_tokens)
        for group in self._groups(n):
            own = self.flat[group]
            w, folded = shape.split(own), Folded.of(shape, own)
            scale = (self.running_variance[group] + NORM_EPSILON).rsqrt()
            for rows in self._parts(n, len(own)):
                attention = folded.attend(tokens[rows])
                values = folded.project(pool(attention, tokens[rows]), None)
                out = torch.baddbmm(w["out_bias"][:, None], values, w["out"].transpose(1, 2))
                seen = (out - self.running_mean[group][:, None]) * scale[:, None]
                seen = seen * w["batch_norm_scale"][:, None] + w["batch_norm_shift"][:, None]
                logits[group, rows] = seen.bmm(w["head"].transpose(1, 2)) + w["head_bias"][:, None]
                by_head = attention.unflatten(2, (len(own), -1))
                attentions[group, rows] = by_head.mean(dim=3).permute(2, 0, 1)
        return logits, attentions


def pool(attention: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(m * H, b, D) what each head pools, of (b, T, m * H) attention and (b, T, D) tokens."""
    return attention.transpose(1, 2).bmm(tokens).transpose(0, 1)


def kept_of(draw: torch.Tensor, rates: Sequence[Rate]) -> torch.Tensor:
    """(b, T, m * H) what dropped attention is multiplied by."""
    dropped = draw.new_tensor([rate.dropout for rate in rates])[:, None]
    return ((draw[:, :, None] >= dropped) / (1 - dropped)).flatten(2)


@dataclass(frozen=True)
class Folded:
    """Of m models what a step computes once: the query in the keys, scales in keys and values."""

    shape: Shape
    normed: torch.Tensor  # (m, D) the query, normed
    spread: torch.Tensor  # (m, 1) what it was multiplied by then
    scaled: torch.Tensor  # (m, D) as q sees it
    q: torch.Tensor  # (m, H, 1, d), divided by the root of d
    asked: torch.Tensor  # (m, H, D) keys without norm_k's scale
    keys: torch.Tensor  # (m * H, D)
    values: torch.Tensor  # (m * H, d, D)
    shifts: torch.Tensor  # (m * H, 1, d) what norm_v's shift adds to the values

    @classmethod
    def of(cls, shape: Shape, flat: torch.Tensor) -> Folded:
        """Of (m, P) parameters."""
        import torch

        w, models, heads, width = shape.split(flat), len(flat), shape.n_heads, shape.width
        centred = w["query"] - w["query"].mean(dim=1, keepdim=True)
        spread = centred.square().mean(dim=1, keepdim=True).add(NORM_EPSILON).rsqrt()
        normed = centred * spread
        scaled = normed * w["norm_q_scale"] + w["norm_q_shift"]
        q = torch.bmm(w["q"], scaled[:, :, None]).view(models, heads, 1, -1)
        q = q * shape.head_width**-0.5
        asked = torch.matmul(q, w["k"].view(models, heads, -1, width))[:, :, 0]
        keys = (asked * w["norm_k_scale"][:, None]).view(models * heads, width)
        values = (w["v"] * w["norm_v_scale"][:, None]).view(models * heads, -1, width)
        shifts = torch.bmm(w["v"], w["norm_v_shift"][:, :, None]).view(models * heads, 1, -1)
        return cls(shape, normed, spread, scaled, q, asked, keys, values, shifts)

    def attend(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, T, m * H) attention of (b, T, D) tokens."""
        logits = tokens.view(-1, tokens.shape[2]) @ self.keys.T
        return logits.view(*tokens.shape[:2], -1).softmax(dim=1)

    def project(self, pooled: torch.Tensor, sums: torch.Tensor | None) -> torch.Tensor:
        """(m, b, H * d) the heads' values side by side.

        Args:
            pooled: (m * H, b, D).
            sums: (b, m * H) of attention, where it was dropped; None: 1.
        """
        values = pooled.bmm(self.values.transpose(1, 2))  # (m * H, b, d)
        values += self.shifts if sums is None else sums.T[:, :, None] * self.shifts
        by_model = values.view(len(self.normed), -1, *values.shape[1:])
        return by_model.transpose(1, 2).flatten(2)

    def unfold(
        self,
        w: Mapping[str, torch.Tensor],
        g: Mapping[str, torch.Tensor],
        of_keys: torch.Tensor,
        of_values: torch.Tensor,
        of_shifts: torch.Tensor,
    ) -> None:
        """Fill the gradients ``g`` of what was folded, by those of what it became."""
        import torch

        models, heads, width = len(self.normed), self.shape.n_heads, self.shape.width
        of_values, of_shifts = of_values.view(w["v"].shape), of_shifts.view(models, -1, 1)
        torch.sum(of_values * w["v"], dim=1, out=g["norm_v_scale"])
        torch.bmm(w["v"].transpose(1, 2), of_shifts, out=g["norm_v_shift"].unsqueeze(2))
        torch.mul(of_values, w["norm_v_scale"][:, None], out=g["v"])
        g["v"].addcmul_(of_shifts, w["norm_v_shift"][:, None])
        of_keys = of_keys.view(models, heads, width)
        torch.sum(of_keys * self.asked, dim=1, out=g["norm_k_scale"])
        of_asked = (of_keys * w["norm_k_scale"][:, None])[:, :, None]  # (m, H, 1, D)
        torch.mul(self.q.transpose(2, 3), of_asked, out=g["k"].view(models, heads, -1, width))
        k = w["k"].view(models, heads, -1, width)
        of_q = torch.matmul(k, of_asked.transpose(2, 3)).view(models, -1, 1)
        of_q = of_q * self.shape.head_width**-0.5
        torch.mul(of_q, self.scaled[:, None], out=g["q"])
        of_scaled = torch.bmm(w["q"].transpose(1, 2), of_q)[:, :, 0]
        g["norm_q_shift"].copy_(of_scaled)
        torch.mul(of_scaled, self.normed, out=g["norm_q_scale"])
        of_normed = of_scaled * w["norm_q_scale"]
        along = (of_normed * self.normed).mean(dim=1, keepdim=True) * self.normed
        of_query = of_normed - of_normed.mean(dim=1, keepdim=True) - along
        torch.mul(of_query, self.spread, out=g["query"])
