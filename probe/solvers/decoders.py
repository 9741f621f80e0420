"""Heads that turn maps of tokens into maps of logits, and their losses.

``linear`` is one matrix on each token, DINOv2's and DINOv3's with batch norm before it
(eval/segmentation/models/heads/linear_head.py of facebookresearch/dinov3 at 6876159). ``ms`` is the
same on several layers side by side, resized to the first one's grid. ``unet`` is that of Baharoon et
al. 2023 (MohammedSB/DINOv2ForRadiology, eval/segmentation/utils.py:71-126): four blocks that double
the grid from the last layer's, D -> D/2 -> D/4 -> D/8 -> classes, each with the next earlier layer
beside it.

Maps are resized by one matrix for rows and one for columns, whose numbers are torch's own
interpolation of unit vectors. On one core a map of 32 x 32 becomes 256 x 256 eight times as fast,
gradient included, and on CUDA the gradient is the same each time, which that of ``interpolate``
isn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from probe.arrays import Doubles, Ints

if TYPE_CHECKING:
    import torch

LINEAR, MS, UNET = HEADS = ("linear", "ms", "unet")
N_LAYERS = {LINEAR: 1, MS: 4, UNET: 5}  # the last so many, where none are named
N_BLOCKS = 4  # of a U-Net
STD = 0.01  # of the first weights of linear heads, in all three releases
CE, DICE, BOTH = LOSSES = ("ce", "dice", "ce+dice")
SMOOTH = 1e-5  # MONAI's, above and below
IGNORED = 255  # in masks


@dataclass(frozen=True)
class Form:
    """What a head is."""

    name: str  # one of HEADS
    batch_norm: bool = True  # of linear and ms: before the weights
    dropout: float = 0.0  # of linear and ms: whole features of an image
    # Of a U-Net: its last block ends as the others do, so that no logit is below 0.
    ends_in_relu: bool = False


class MapHead:
    """One head: its modules, and how maps go through them."""

    def __init__(
        self, form: Form, widths: Sequence[int], n_classes: int, seed: int, device: str = "cpu"
    ) -> None:
        """
        Args:
            form: what it is.
            widths: of the layers' tokens, the first layer's first.
            n_classes: C.
            seed: of first weights; torch's own generator stays as it is.
            device: where it works.
        """
        import torch
        from torch import nn

        self.form = form
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if form.name == UNET:
                self.modules = _unet_modules(form, widths, n_classes)
            else:
                width = sum(widths) if form.name == MS else widths[-1]
                last = nn.Linear(width, n_classes)
                nn.init.normal_(last.weight, std=STD)
                nn.init.zeros_(last.bias)
                norm = nn.BatchNorm1d(width) if form.batch_norm else nn.Identity()
                self.modules = nn.ModuleDict({"norm": norm, "last": last})
        self.modules.to(device)

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.modules.parameters())

    def __call__(
        self, maps: Sequence[torch.Tensor], draw: torch.Generator | None = None
    ) -> torch.Tensor:
        """(n, C, h', w') logits, on the first layer's grid or of a U-Net one 16 times as fine.

        Args:
            maps: of each layer (n, h, w, D).
            draw: of dropout, in training.
        """
        import torch

        if self.form.name == UNET:
            return self._unet(maps)
        x = maps[-1]
        if self.form.name == MS:
            grid = _grid(maps[0])
            x = torch.cat([_to_last(resize(_to_second(own), grid)) for own in maps], dim=-1)
        if draw is not None and self.form.dropout:
            stays = torch.rand(len(x), 1, 1, x.shape[-1], generator=draw) >= self.form.dropout
            x = x * (stays / (1 - self.form.dropout)).to(x.device)
        n, h, w, width = x.shape
        flat = self.modules["last"](self.modules["norm"](x.reshape(-1, width)))
        return _to_second(flat.view(n, h, w, -1))

    def _unet(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        x = _to_second(maps[-1])
        for number in range(N_BLOCKS):
            own = {name: self.modules[f"{name}{number}"] for name in ("up", "skip", "join")}
            beside = own["skip"](_to_second(maps[_beside(number, len(maps))]))
            x = own["up"](x)
            beside = resize(beside, _grid(_to_last(x)), aligned=True)
            x = own["join"](torch.cat([x, beside], dim=1))
        return x

    def on_input(self, logits: torch.Tensor, size: int) -> torch.Tensor:
        """(n, C, size, size) the logits over the encoder's square input."""
        return resize(logits, (size, size), "bicubic" if self.form.name == UNET else "bilinear")


def _beside(number: int, n_layers: int) -> int:
    """The layer beside a block of a U-Net: the next earlier; the first again where there are no more."""
    return max(n_layers - 2 - number, 0)


def _unet_modules(form: Form, widths: Sequence[int], n_classes: int) -> torch.nn.ModuleDict:
    from torch import nn

    whole = widths[-1]
    sizes = [whole, *(max(whole // 2**i, 1) for i in range(1, N_BLOCKS)), n_classes]
    modules: dict[str, nn.Module] = {}

    def block(n_in: int, n_out: int, *, is_plain: bool = False) -> nn.Module:
        conv = nn.Conv2d(n_in, n_out, 3, padding=1)
        return conv if is_plain else nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())

    for number, (n_in, n_out) in enumerate(pairwise(sizes)):
        is_plain = number == N_BLOCKS - 1 and not form.ends_in_relu
        modules[f"up{number}"] = nn.ConvTranspose2d(n_in, n_out, 2, stride=2)
        modules[f"skip{number}"] = block(widths[_beside(number, len(widths))], n_out)
        modules[f"join{number}"] = block(2 * n_out, n_out, is_plain=is_plain)
    return nn.ModuleDict(modules)


def _grid(maps: torch.Tensor) -> tuple[int, int]:
    return maps.shape[1], maps.shape[2]


def _to_second(x: torch.Tensor) -> torch.Tensor:
    """(n, h, w, D) as (n, D, h, w); nothing is copied."""
    return x.permute(0, 3, 1, 2)


def _to_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


# ---------------------------------------------------------------------------- resizing


def resize(
    x: torch.Tensor, to: tuple[int, int], how: str = "bilinear", *, aligned: bool = False
) -> torch.Tensor:
    """(..., h, w) to (..., h', w'), as ``torch.nn.functional.interpolate`` does.

    Args:
        x: maps.
        to: h', w'.
        how: "bilinear" or "bicubic".
        aligned: whether corners lie on corners (``align_corners``).
    """
    (h, w), like = x.shape[-2:], (x.device, x.dtype)
    if (h, w) == to:
        return x
    rows, columns = (_matrix(n, m, how, aligned).to(*like) for n, m in zip((h, w), to, strict=True))
    return rows @ (x @ columns.T)


@lru_cache(maxsize=64)
def _matrix(n: int, m: int, how: str, aligned: bool) -> torch.Tensor:
    """(m, n) what n numbers are multiplied by to become m."""
    import torch
    from torch.nn import functional

    units = torch.eye(n).view(1, n, n, 1)  # each a map of one column
    found = functional.interpolate(units, (m, 1), mode=how, align_corners=aligned)
    return found[0, :, :, 0].T.contiguous()


# ---------------------------------------------------------------------------- losses


def loss_of(
    logits: torch.Tensor, wanted: torch.Tensor, name: str, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean loss of a batch, or the sum of both.

    Cross-entropy is the mean over pixels. Dice is MONAI's ``DiceLoss(softmax=True,
    to_onehot_y=True)``: of each image and class 1 - (2 both + e) / (predicted + true + e), the mean
    over images and classes, the background's among them; ignored pixels are in no sum.

    Args:
        logits: (n, C, H, W).
        wanted: (n, H, W) int64 class numbers; IGNORED counts nowhere.
        name: one of LOSSES.
        weights: (C,) of classes: of pixels in cross-entropy, of classes in Dice; None: alike.
    """
    import torch
    from torch.nn import functional

    total = logits.new_zeros(())
    is_known = wanted != IGNORED
    if name != DICE:
        losses = functional.cross_entropy(
            logits, wanted, weights, ignore_index=IGNORED, reduction="sum"
        )
        if weights is None:
            n = is_known.sum()
        else:
            n = weights[wanted.where(is_known, 0)].where(is_known, 0).sum()
        total = total + losses / n.clamp(min=torch.finfo(logits.dtype).eps)
    if name != CE:
        classes = torch.arange(logits.shape[1], device=wanted.device)
        true = wanted[:, None] == classes[:, None, None]  # ignored pixels are of none
        seen = logits.softmax(dim=1) * is_known[:, None]
        both, of_each = (seen * true).sum(dim=(2, 3)), (seen + true).sum(dim=(2, 3))
        losses = 1 - (2 * both + SMOOTH) / (of_each + SMOOTH)  # (n, C)
        share = torch.ones_like(losses[0]) if weights is None else weights
        total = total + (losses @ share).mean() / share.sum()
    return total


def balanced_weights(n_pixels: Ints) -> Doubles:
    """(C,) weights by which classes of so many pixels weigh alike; their mean over pixels is 1.

    A class that has none weighs nothing.
    """
    has = n_pixels > 0
    return has * n_pixels.sum() / (max(int(has.sum()), 1) * np.maximum(n_pixels, 1))


# ---------------------------------------------------------------------------- what val chooses by


def value_of(counts: Ints, by: str, background: int | None) -> float:
    """How well masks fit, higher is better; nan where no class is in any image.

    Args:
        counts: (n, 3, C) pixels that are both predicted and true, predicted, and true.
        by: "dice": of each class its mean over the images that have it, and of these the mean;
            "dice_jaccard": the mean of Dice and Jaccard of each; "miou": of each class the Jaccard
            of all images' pixels, as DINOv3 has it.
        background: a class that isn't counted; None: all are.
    """
    if by == "miou":
        both, predicted, true = counts.sum(axis=0)
        either = predicted + true - both
        each = np.where(either > 0, both / np.maximum(either, 1), np.nan)
    else:
        both, predicted, true = counts.transpose(1, 0, 2)
        dice = 2 * both / np.maximum(predicted + true, 1)
        values = dice if by == "dice" else (dice + dice / (2 - dice)) / 2
        has = true > 0
        n = has.sum(axis=0)
        each = np.where(n > 0, (values * has).sum(axis=0) / np.maximum(n, 1), np.nan)
        each = each if background is None else np.delete(each, background)
    each = each[~np.isnan(each)]
    return float(each.mean()) if len(each) else float("nan")
