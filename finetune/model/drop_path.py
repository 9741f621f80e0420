"""Stochastic depth (Huang et al. 2016), as asked for and not as an architecture has it by default.

timm builds Swin with a rate of 0.1, most others without.
"""

import torch
from torch import nn

from cache.errors import RequestError

# What residual blocks of timm's and transformers' call it; without a rate, an Identity or None
# stands there.
NAMES = ("drop_path", "drop_path1", "drop_path2")


def set_drop_path(encoder: nn.Module, rate: float, name: str) -> None:
    """Drop residual branches at random in training: never the first block's, the last's by ``rate``.

    The rates rise in equal steps between, as timm has it.

    Args:
        encoder: changed in place; no parameter is.
        rate: 0 to below 1; 0 takes out what the architecture brings.
        name: the encoder's, for messages.

    Raises:
        RequestError: it has no place for it.
    """
    blocks = [
        (module, places)
        for module in encoder.modules()
        for places in [[place for place in NAMES if hasattr(module, place)]]
        if places
    ]
    if rate and not blocks:
        raise RequestError(f"--drop-path: {name} has no stochastic depth; leave the flag out")
    from timm.layers.drop import DropPath  # here, for timm takes its time

    for (block, places), of_block in zip(
        blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True
    ):
        for place in places:
            if of_block:
                setattr(block, place, DropPath(of_block))
            elif getattr(block, place) is not None:  # None: its block asks before it calls
                setattr(block, place, nn.Identity())
