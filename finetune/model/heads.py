"""Heads: a linear one, as ``probe --kind adamw`` starts it, or a DeiT.

A whole supervised DeiT-B as the head reads the encoder's patch tokens (Huix et al. 2024). As in
their code (defaults/models.py:392-596, utils/transformers/deit.py:215-248): tokens go through a
linear layer and a norm to DeiT's width, its patch embedding is passed by, its own class token and
its resampled positions are added, and a new linear layer reads the class token.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cache.errors import RequestError
from extract.encoders.encoder import Weights, describe, find_weights, load_network
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


DEIT = "deit_base_patch16_224.fb_in1k"
DEIT_SIZE = 224


class DeitHead(nn.Module):
    """Patch tokens to logits.

    Args:
        deit: timm's VisionTransformer without classifier; its patch embedding is taken off.
        width: of the tokens that come in.
        n_tokens: of an image, a square number.
        classifier: of DeiT's class token.
    """

    def __init__(self, deit: Any, width: int, n_tokens: int, classifier: nn.Linear) -> None:
        super().__init__()
        self.project = nn.Linear(width, deit.embed_dim)
        self.norm = nn.LayerNorm(deit.embed_dim)
        deit.patch_embed = nn.Identity()
        deit.pos_embed = nn.Parameter(_resample(deit.pos_embed.detach(), math.isqrt(n_tokens)))
        self.deit = deit
        self.classifier = classifier

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, width) -> DeiT's class token (B, 768) behind its last norm."""
        deit = self.deit
        tokens = self.norm(self.project(tokens))
        tokens = torch.cat([deit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = deit.norm_pre(deit.pos_drop(tokens + deit.pos_embed))
        if deit.grad_checkpointing:
            from timm.models import checkpoint_seq  # here, for timm takes its time

            tokens = checkpoint_seq(deit.blocks, tokens)
        else:
            tokens = deit.blocks(tokens)
        return deit.norm(tokens)[:, 0]

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, width) -> logits (B, O)."""
        return self.classifier(self.embed(tokens))


def check_deit(shape: tuple[int, ...], head_weights: str, name: str) -> None:
    """Whether a DeiT can read an encoder's tokens, and its weights are known.

    Raises:
        RequestError: tokens that are no square grid, or a weight file that isn't there.
    """
    n_tokens = shape[0]
    if math.isqrt(n_tokens) ** 2 != n_tokens:
        raise RequestError(
            f"--head deit: the {n_tokens} patch tokens of {name} are no square grid; take --head "
            "linear"
        )
    find_deit(head_weights, download=False)


def find_deit(head_weights: str, seed: int = 0, *, download: bool) -> Weights:
    """Where the weights that a DeiT begins with are.

    Args:
        head_weights: "pretrained", "random" or a file.
        seed: of random ones.
        download: get published ones that aren't here.

    Raises:
        RequestError: they can't be had.
    """
    try:
        return find_weights(describe(DEIT, DEIT_SIZE), head_weights, seed, download=download)
    except RequestError as error:
        raise RequestError(str(error).replace("--weights", "--head-weights")) from error


def build_deit(
    shape: tuple[int, ...], head_weights: str, n_logits: int, seed: int
) -> tuple[DeitHead, str]:
    """The head with its weights.

    Args:
        shape: (T, D) of an image's tokens.
        head_weights: "pretrained", "random" (by the seed) or a file.
        n_logits: O.
        seed: of the new layers.

    Returns:
        The head, and the SHA-256 of DeiT's weights as read.

    Raises:
        RequestError: weights that can't be had, or don't fit.
    """
    weights = find_deit(head_weights, seed, download=True)
    network, digest, _ = load_network(describe(DEIT, DEIT_SIZE), weights)
    n_tokens, width = shape
    deit: Any = network.module
    classifier = linear_head(deit.embed_dim, n_logits, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DeitHead(deit, width, n_tokens, classifier), digest


def _resample(positions: Tensor, side: int) -> Tensor:
    """Positions (1, 1 + P, D) of a class token and a square of patches, for another square.

    Plain bicubic, as published: timm's own would antialias on the way to a smaller grid.
    """
    first, grid = positions[:, :1], positions[:, 1:]
    old = math.isqrt(grid.shape[1])
    grid = grid.transpose(1, 2).unflatten(2, (old, old))
    grid = nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)
