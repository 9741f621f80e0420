"""What each family of encoders gives at each layer, and which norm belongs there.

The table decides numbers, so it is literal (checked on timm 1.0.31, one or more models a class):

* block tokens, normed before pooling: ViT, CLIP, DINO, DINOv2/v3, DeiT, SigLIP. The encoder's
  final norm is applied to every block's tokens, as DINOv2's ``get_intermediate_layers`` does.
* block tokens, normed after pooling: encoders whose own norm is ``fc_norm`` on the pooled vector
  (EVA-02 MIM, BEiT, timm's test_vit2). ``mean`` of the last layer then equals ``head``. Their
  ``norm`` is an Identity, so asking timm for normed layers gives raw ones.
* blocks, raw: SAM. Its neck is a projection to 256 channels and only in ``head``.
* stages, each with a norm of its own: SEEM's FocalNet, whose decoder takes all four.
* stages, the last one normed: Swin, FocalNet, CoAtNet and MaxViT.
* maps, raw: CNNs, ConvNeXt, Hiera. Every map that timm returns.

A class that isn't here is stored raw, and says so.

Layers are tapped with hooks and pooled at once: kept maps cost 26 MB an image for VGG-16. Where a
family isn't made of ``blocks``, the modules to tap are found by asking timm for its intermediate
maps once, on the meta device (shapes only), and looking whose output each map is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.anatomy import Anatomy, Grid, Tap
from extract.encoders.outline import recording

TimmModel = Any  # an nn.Module with timm's methods, which have no common type

TOKENS = {"VisionTransformer", "VisionTransformerDistilled", "Eva", "Beit"}
# Of these, the blocks whose ``norm2`` is of the tokens after attention, and what their MLP sees. In
# others of timm's it is of a branch (ResPostBlock, EvaBlockPostNorm), or isn't (Parallel...).
PRE_NORM_BLOCKS = {"Block", "EvaBlock"}
RAW_BLOCKS = {"VisionTransformerSAM"}
EACH_STAGE_NORMED = {"SeemFocalNet"}
LAST_STAGE_NORMED = {"SwinTransformer", "SwinTransformerV2", "FocalNet", "MaxxVit"}
# Stages whose maps timm copies before it returns them, so that find_taps can't recognise them.
STAGES = {
    "SwinTransformer": ("layers", "BHWD"),
    "SwinTransformerV2": ("layers", "BHWD"),
}
RAW_MAPS = {
    "ByobNet",
    "ConvNeXt",
    "DenseNet",
    "EfficientNet",
    "Hiera",
    "InceptionV3",
    "MobileNetV3",
    "NormFreeNet",
    "RegNet",
    "ResNet",
    "ResNetTrunk",
    "ResNetV2",
    "VGG",
    "Xception",
    "XceptionAligned",
}


def study(model: TimmModel, size: int) -> Anatomy:
    """Find out how to read a timm model, without weights or arithmetic.

    Args:
        model: a headless timm model on the meta device, in eval mode.
        size: side of its input, pixels.

    Raises:
        RequestError: the model doesn't take this size, or can't give intermediate layers.
    """
    family = type(model).__name__
    if not hasattr(model, "forward_intermediates"):
        raise RequestError(f"timm's {family} gives no intermediate layers, so it can't be used")
    head_width = _head_width(model, size)
    common: dict[str, Any] = {
        "family": family,
        "head_width": head_width,
        "n_parameters": sum(p.numel() for p in model.parameters()),
    }
    if family in TOKENS:
        n_layers = len(model.blocks)
        blocks = next((type(block).__name__ for block in model.blocks), "")
        grid = _patch_grid(model, size) if n_layers else None
        return Anatomy(
            norm_rule="pooled" if _is_identity(model.norm) else "tokens",
            width=(model.embed_dim,) * n_layers,
            n_prefix=model.num_prefix_tokens,
            # A prefix token isn't a class token: registers and pool tokens are prefix tokens too.
            has_cls=model.num_prefix_tokens > 0 and getattr(model, "cls_token", None) is not None,
            taps=tuple(Tap(f"blocks.{i}", "tokens") for i in range(n_layers)),
            blocks=blocks,
            grids=(grid,) * n_layers,
            norm2="norm2" if blocks in PRE_NORM_BLOCKS else "",
            **common,
        )
    found, maps = find_taps(model, size)
    return Anatomy(
        norm_rule=_stage_rule(family),
        known=family in RAW_BLOCKS | EACH_STAGE_NORMED | LAST_STAGE_NORMED | RAW_MAPS,
        width=tuple(m.shape[1] for m in maps),
        grids=tuple((m.shape[2], m.shape[3]) for m in maps),
        taps=found,
        **common,
    )


def _stage_rule(family: str) -> str:
    if family in EACH_STAGE_NORMED:
        return "each stage"
    return "last stage" if family in LAST_STAGE_NORMED else "none"


def _is_identity(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def _head_width(model: TimmModel, size: int) -> int:
    with torch.inference_mode():
        images = torch.empty(1, 3, size, size, device="meta")
        head = model.forward_head(model.forward_features(images), pre_logits=True)
    return head.flatten(1).shape[1]


def _patch_grid(model: TimmModel, size: int) -> Grid:
    """Rows and columns of the patches, as timm lays its first block's out."""
    images = torch.empty(1, 3, size, size, device="meta")
    with torch.inference_mode():
        (first,) = model.forward_intermediates(
            images, indices=[0], stop_early=True, intermediates_only=True
        )
    return first.shape[2], first.shape[3]


def find_taps(model: TimmModel, size: int) -> tuple[tuple[Tap, ...], list[Tensor]]:
    """The modules whose outputs are timm's intermediate maps.

    A map and the output it comes from share their storage; of several modules that share it (an
    activation in place, a block's last child) the last to run holds the value timm keeps.

    Args:
        model: on the meta device.
        size: side of the input, pixels.

    Returns:
        One tap a map, or () where some map is no module's output; and the maps (1, D, H, W),
        without values.
    """
    images = torch.empty(1, 3, size, size, device="meta")
    modules = {name: module for name, module in model.named_modules() if name}
    with torch.inference_mode(), recording(modules) as runs:
        maps = model.forward_intermediates(images, intermediates_only=True, norm=False)
    if type(model).__name__ in STAGES:
        name, layout = STAGES[type(model).__name__]
        return tuple(Tap(f"{name}.{i}", layout) for i in range(len(maps))), maps
    taps = []
    for wanted in maps:
        same = [
            (name, out)
            for name, out in runs
            if isinstance(out, Tensor) and _storage(out) == _storage(wanted)
        ]
        layout = _layout(same[-1][1], wanted) if same else None
        if layout is None:
            return (), maps
        taps.append(Tap(same[-1][0], layout))
    # The plain forward pass must run each tapped module once, with the same output.
    with torch.inference_mode(), recording({t.module: modules[t.module] for t in taps}) as runs:
        model.forward_features(images)
    for tap, wanted in zip(taps, maps, strict=True):
        outputs = [out for name, out in runs if name == tap.module]
        if len(outputs) != 1 or outputs[0].numel() != wanted.numel():
            return (), maps
    return tuple(taps), maps


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _layout(output: Tensor, wanted: Tensor) -> str | None:
    """How a module's output is laid out, given the (1, D, H, W) view of it that timm keeps."""
    _, width, height, columns = wanted.shape
    if output.shape == wanted.shape and output.stride() == wanted.stride():
        return "BDHW"
    if output.ndim == 4 and output.permute(0, 3, 1, 2).shape == wanted.shape:
        return "BHWD"
    if output.shape == (1, height * columns, width):
        return "BTD"
    return None
