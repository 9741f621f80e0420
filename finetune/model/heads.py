"""The linear head, as ``probe --kind adamw`` starts it."""

import torch
from torch import nn

from probe.solvers.epochs import first_weights


def linear_head(width: int, n_logits: int, seed: int) -> nn.Linear:
    """(B, D) -> (B, O), with the first weights of the same probe on cached features.

    Args:
        width: D.
        n_logits: O.
        seed: of the weights.
    """
    weights = torch.from_numpy(first_weights(width, n_logits, seed))  # the intercept comes last
    head = nn.Linear(width, n_logits, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        head.weight.copy_(weights[:, :-1])
        head.bias.copy_(weights[:, -1])
    return head
