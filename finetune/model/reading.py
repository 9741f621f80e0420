"""What a head sees of an encoder: a pooled vector, or the last layer's patch tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from extract.encoders.anatomy import Anatomy
from extract.encoders.encoder import pool_layer
from extract.encoders.outline import Network

TOKENS = "tokens"  # beside the pools of finetune.config.POOLS


class Reader:
    """Runs an encoder and takes what the head sees. Gradients pass.

    A pool is what ``extract`` stores under its name, for it is made by the same functions.

    Args:
        network: the encoder, with its weights or without.
        anatomy: of the network as it is now, so of the kept blocks of a cut one.
        what: one of ``finetune.config.POOLS``, or "tokens".
    """

    def __init__(self, network: Network, anatomy: Anatomy, what: str) -> None:
        self.network, self.anatomy, self.what = network, anatomy, what
        self.encoder: nn.Module = network.module
        self._listening = False
        self._last: Any = None
        if anatomy.taps and what not in ("head", "proj"):
            tap = self.encoder.get_submodule(anatomy.taps[-1].module)
            tap.register_forward_hook(self._take)

    def _take(self, module: object, inputs: object, output: Any) -> None:
        # Gradient checkpointing runs the block again in the backward pass; nobody reads that.
        if self._listening:
            self._last = output[0] if isinstance(output, tuple) else output

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, size, size) -> a pool (B, D) float32, or tokens (B, T, D)."""
        if self.what in ("head", "proj"):
            return self.network(images)[self.what].float()
        last = self._run(images)
        if self.what == TOKENS:
            return self._tokens(last)
        anatomy = self.anatomy
        if not anatomy.taps:  # a map of timm's, normed by timm
            return last.float().mean(dim=(2, 3))
        pooled = pool_layer(
            self.network,
            anatomy,
            anatomy.norm_rule,
            anatomy.n_layers - 1,
            last,
            next(self.encoder.parameters()).dtype,
        )
        return pooled[self.what]

    def _run(self, images: Tensor) -> Tensor:
        """The last layer's output.

        Raises:
            RuntimeError: the forward pass didn't call the layer's module.
        """
        if not self.anatomy.taps:
            _, maps = self.network.maps(images, self.anatomy.norm_rule == "last stage")
            return maps[-1]
        self._listening = True
        try:
            self.network(images)
        finally:
            self._listening = False
        last, self._last = self._last, None
        if last is None:
            raise RuntimeError(f"{self.anatomy.taps[-1].module} isn't called as one module")
        return last

    def _tokens(self, last: Tensor) -> Tensor:
        """(B, T, D) patch tokens, raw: the encoder's final norm isn't applied.

        Where each stage has a norm of its own (SEEM), that one is part of the stage.
        """
        anatomy = self.anatomy
        layout = anatomy.taps[-1].layout if anatomy.taps else "BDHW"
        if anatomy.norm_rule == "each stage":
            last = self.network.norm_stage(anatomy.n_layers - 1, last)
        if layout == "tokens":
            return last[:, anatomy.n_prefix :]
        if layout == "BDHW":
            return last.flatten(2).transpose(1, 2)
        return last.flatten(1, -2)


def average_by_sample(vectors: Tensor, sample: Tensor) -> Tensor:
    """(B, D) vectors of images -> (n, D) means over the images of each sample.

    A product of matrices and no ``index_add``, which on a GPU sums in another order each time. In
    the vectors' own type also under autocast.

    Args:
        vectors: (B, D).
        sample: (B,) 0..n-1, each at least once.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        member = nn.functional.one_hot(sample).T.to(vectors.dtype)  # (n, B)
        return (member @ vectors) / member.sum(dim=1, keepdim=True)
