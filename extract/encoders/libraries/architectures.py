"""Encoders that no library has, built from timm's parts and with timm's methods.

* SEEM's FocalNet: Zou et al. 2023 (https://arxiv.org/abs/2304.06718), code and configuration in
  github.com/UX-Decoder/Segment-Everything-Everywhere-All-At-Once,
  demo_code/xdecoder/backbone/focal_dw.py and demo_code/configs/seem/seem_focalt_lang.yaml
  (commit be64340).
* BiomedGPT's image trunk: Zhang et al. 2023 (https://arxiv.org/abs/2305.17100), code in
  github.com/taokz/BiomedGPT, models/ofa/unify_transformer.py; the ResNet itself is OFA's,
  github.com/OFA-Sys/OFA, models/ofa/resnet.py.

All are headless and fully convolutional; ``forward_head`` is the mean over the last map.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from timm.layers.norm import LayerNorm2d
from timm.models._features import feature_take_indices
from timm.models.focalnet import FocalNet, FocalNetBlock
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

# ---------------------------------------------------------------------------- SEEM


# `size_divisibility` of the original. It pads images to it, and odd maps on one edge before it
# halves them; a side that needs neither is asked for here.
SEEM_MULTIPLE = 32


class SeemFocalNetBlock(FocalNetBlock):
    """timm's block with a depthwise 3x3 convolution before each half, and other norms.

    The norms stand *behind* the residual sum. timm (as FocalNet for classification) norms the
    branch, before layer scale and sum: the same tensors, another function.
    """

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, use_post_norm=True, **options)
        self.dw1 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.dw2 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, D, H, W), in and out
        x = x + self.dw1(x)
        x = self.norm1_post(x + self.ls1(self.modulation(x)))
        x = x + self.dw2(x)
        return self.norm2_post(x + self.ls2(self.mlp(x)))


class SeemFocalNet(FocalNet):
    """SEEM's FocalNet: timm's with SEEM's blocks, stem and one norm a stage.

    Stages give their maps raw; ``stage_norms[i]`` is the norm of stage i's map, which nothing but
    the output passes (the next stage takes the raw map). The last one takes the place of timm's
    ``norm``, which does nothing here.
    """

    def __init__(self, embed_dim: int = 96, depths: Sequence[int] = (2, 2, 6, 2)) -> None:
        # Overlapping downsampling: USE_CONV_EMBED of the configuration.
        super().__init__(
            num_classes=0, embed_dim=embed_dim, depths=tuple(depths), use_overlap_down=True
        )
        norm_layer = partial(LayerNorm2d, eps=1e-5)  # torch's default eps, which the original has
        widths = [embed_dim * 2**i for i in range(len(depths))]
        stages: Any = self.layers
        for stage, width in zip(stages, widths, strict=True):
            stage.blocks = nn.ModuleList(
                SeemFocalNetBlock(
                    width,
                    focal_level=3,  # FOCAL_LEVELS: windows 3, 5 and 7; the global mean is a fourth
                    focal_window=3,
                    normalize_modulator=True,  # SCALING_MODULATOR
                    layerscale_value=1e-4,
                    norm_layer=norm_layer,
                )
                for _ in stage.blocks
            )
        # timm's overlapping stem pads by 2, SEEM's by 3.
        self.stem.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3)
        self.norm = nn.Identity()
        self.stage_norms = nn.ModuleList(norm_layer(width) for width in widths)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / 32, W / 32), normed.

        Raises:
            ValueError: H or W isn't a multiple of 32.
        """
        _check_sides(*x.shape[-2:])
        return self.stage_norms[-1](super().forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """As timm's, but ``norm`` puts every map through its own stage's norm."""
        _check_sides(*x.shape[-2:])
        final, maps = super().forward_intermediates(
            x, indices, stop_early=stop_early, output_fmt=output_fmt
        )
        taken, last = feature_take_indices(len(self.layers), indices)
        if norm:
            maps = [self.stage_norms[i](m) for i, m in zip(taken, maps, strict=True)]
        if intermediates_only:
            return maps
        whole = not stop_early or last == len(self.layers) - 1
        return self.stage_norms[-1](final) if whole else final, maps


def _seem_focalnet_tiny(size: int | None = None) -> nn.Module:
    if size is not None:
        _check_sides(size)
    return SeemFocalNet()


def _check_sides(*sides: int) -> None:
    for side in sides:
        if side % SEEM_MULTIPLE or not side:
            raise ValueError(f"a side of {side} px isn't a multiple of {SEEM_MULTIPLE}")


# ---------------------------------------------------------------------------- BiomedGPT


class ResNetTrunk(ResNet):
    """A bottleneck ResNet up to ``layer3``: 1024 channels at stride 16, no classifier.

    OFA's ResNet is torchvision's in this: stride in the 3x3 convolution, one 7x7 stem convolution,
    convolutions without bias, BatchNorm with eps 1e-5 (1e-3 under ``--sync-bn``, which the scripts
    for pre-training and fine-tuning don't give).

    Args:
        depths: blocks of layer1, layer2 and layer3.
        channels: of the three layers before the bottlenecks widen them fourfold.
    """

    def __init__(self, depths: tuple[int, ...], channels: tuple[int, ...] = (64, 128, 256)) -> None:
        block: Any = Bottleneck  # a class, where timm's annotation says an instance
        super().__init__(block, depths, num_classes=0, channels=channels, zero_init_last=False)
        self.layer4 = nn.Sequential()  # timm's forward_features runs it; empty, it does nothing

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """As timm's, with 4 maps: after the stem, layer1, layer2 and layer3."""
        taken, _ = feature_take_indices(4, indices)
        return super().forward_intermediates(
            x, taken, norm, stop_early, output_fmt, intermediates_only
        )


def _resnet_trunk(*depths: int) -> Callable[..., nn.Module]:
    def make(size: int | None = None) -> nn.Module:
        return ResNetTrunk(depths)  # takes any size

    return make


# ---------------------------------------------------------------------------- by name


# Name -> a function that builds it without weights. It may be given the side of its input in
# pixels, and raises ValueError where the architecture doesn't take it. timm's `feature_info` of the
# model says what each map's stride and width are.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "seem_focalnet_tiny": _seem_focalnet_tiny,
    # Depths up to layer3 as in unify_transformer.py: BiomedGPT tiny has a ResNet-50, medium and
    # base a ResNet-101, large a ResNet-152.
    "biomedgpt_resnet50": _resnet_trunk(3, 4, 6),
    "biomedgpt_resnet101": _resnet_trunk(3, 4, 23),
    "biomedgpt_resnet152": _resnet_trunk(3, 8, 36),
}
