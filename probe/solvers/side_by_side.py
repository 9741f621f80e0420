"""Models of one shape that are trained side by side: what they start from, AdamW, their loss.

M settings of one seed see the same batches. Their P parameters are one (M, P) tensor, of which
products take views, and AdamW a row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's
MOMENTUM = 0.1  # of BatchNorm1d's running statistics
CLIP = 5.0  # of each model's gradient norm: lciernik/attentive-layer-fusion attentive_probe.py:334


class Parameters(ABC):
    """The sizes of a model."""

    width: int  # D, of what batch norm sees

    @property
    @abstractmethod
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The parameters and their shapes, as torch's modules have them."""

    @property
    def n_parameters(self) -> int:
        return sum(map(math.prod, self.parts.values()))

    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of (M, P): each part with the models in front."""
        found, start = {}, 0
        for name, shape in self.parts.items():
            size = math.prod(shape)
            found[name] = flat[:, start : start + size].view(len(flat), *shape)
            start += size
        return found


Sizes = TypeVar("Sizes", bound=Parameters)


@dataclass(frozen=True)
class Rate:
    """How a model learns."""

    lr: float  # the first; it falls by a cosine
    weight_decay: float  # of all parameters
    dropout: float = 0.0  # of attention


class SideBySide(ABC, Generic[Sizes]):
    """M models of one shape, and what AdamW knows of them."""

    def __init__(self, shape: Sizes, first: torch.Tensor, rates: Sequence[Rate]) -> None:
        """
        Args:
            shape: of each.
            first: (P,) weights, the same for all.
            rates: (M,) how each learns.
        """
        import torch

        self.shape, self.rates = shape, list(rates)
        self.flat = first.repeat(len(rates), 1)  # (M, P)
        self._mean, self._square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._n_steps = first.new_zeros((), dtype=torch.float32)  # the operator's type
        self.running_mean = first.new_zeros(len(rates), shape.width)
        self.running_variance = first.new_ones(len(rates), shape.width)

    @abstractmethod
    def step(
        self, tokens: torch.Tensor, loss: Loss, draw: torch.Tensor | None, lrs: Sequence[float]
    ) -> None:
        """One step of each model on the same batch.

        Args:
            tokens: (B, T, D).
            loss: of the batch.
            draw: (B, T, H) uniform from 0 to 1, by which attention is dropped; None: nothing is.
            lrs: (M,) the models' learning rates.
        """

    @abstractmethod
    def answer(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(M, n, C) logits by the running statistics, and (M, n, T) attention, the mean over heads."""

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some of them."""
        self.rates = [self.rates[place] for place in places]
        self.flat, self._mean, self._square, self.running_mean, self.running_variance = (
            each[places]
            for each in (
                *(self.flat, self._mean, self._square),
                *(self.running_mean, self.running_variance),
            )
        )

    def is_finite(self) -> list[bool]:
        """Of each model, whether its numbers are."""
        finite = self.flat.isfinite().all(dim=1) & self.running_variance.isfinite().all(dim=1)
        return finite.tolist()

    def _observe(self, group: slice, mean: torch.Tensor, variance: torch.Tensor, n: int) -> None:
        """(m, 1, D) of a batch of n, into the running statistics of some models."""
        self.running_mean[group].lerp_(mean[:, 0], MOMENTUM)
        self.running_variance[group].lerp_(variance[:, 0] * (n / max(n - 1, 1)), MOMENTUM)

    def _move(self, group: slice, gradient: torch.Tensor, lrs: Sequence[float]) -> None:
        """AdamW, each model's gradient clipped to ``CLIP`` as clip_grad_norm_ does."""
        import torch

        norms = torch.linalg.vector_norm(gradient, dim=1)
        divisors = ((norms + 1e-6) / CLIP).clamp(min=1).float()
        for place, own, divisor in zip(
            range(group.start, group.stop), gradient, divisors, strict=True
        ):
            torch._fused_adamw_(  # type: ignore
                [self.flat[place]],
                [own],
                [self._mean[place]],
                [self._square[place]],
                [],
                [self._n_steps],
                lr=lrs[place],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=self.rates[place].weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
            )


@dataclass(frozen=True)
class Loss:
    """The weighted loss of one batch: cross-entropy, or of several labels binary cross-entropy.

    As torch's CrossEntropyLoss(weight): the weighted sum over the sum of weights.
    """

    targets: torch.Tensor  # (B, C) zeros and ones
    weights: torch.Tensor  # (B, 1), or (B, C) of several labels, 0 where one is missing
    is_independent: bool  # a sigmoid each

    def gradient(self, logits: torch.Tensor) -> torch.Tensor:
        """Of (M, B, C) logits."""
        scores = logits.sigmoid() if self.is_independent else logits.softmax(dim=2)
        return (scores - self.targets) * (self.weights / self.weights.sum().clamp(min=1e-12))
