"""open_clip's image towers, with their projection. Only the image side is built and loaded.

So BiomedCLIP's tower needs neither its text model nor that model's library.
"""

import dataclasses
import types
import warnings
from collections.abc import Mapping
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import (
    CLIPVisionCfg,
    _build_vision_tower,  # the one function that builds a tower alone; under test
    resize_pos_embed,
)
from torch import Tensor, nn

from cache import RequestError
from cache.commands.names import first_line, near_names
from extract.encoders.anatomy import Anatomy, Statistics, Tap
from extract.encoders.libraries.families import study
from extract.encoders.libraries.timm import TimmNetwork, check_patches
from extract.encoders.outline import Loaded, Network, Outline, recording
from extract.encoders.sizes import SizeError, near_sizes
from extract.encoders.table.entry import Entry
from extract.encoders.weights import checkpoints
from extract.encoders.weights.published import OPEN_CLIP, Hub, Place, Url

RESNET_STAGES = ("avgpool", "layer1", "layer2", "layer3", "layer4")  # the stem ends in its pool


class ClipNetwork(Network):
    """open_clip's own VisionTransformer: the projection is taken off and run by us.

    ``head`` is then what the tower gives without it, by the very same operations.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__(tower, tower.ln_post)
        self.tower = tower
        self.tower.register_parameter("projection", self.tower.proj)
        self.tower.proj = None

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        head = self.tower(images)
        return {"head": head, "proj": head @ self.tower.projection}

    def file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"visual.{'proj' if name == 'projection' else name}": value
            for name, value in tensors.items()
        }


class ClipResNetwork(Network):
    """open_clip's ModifiedResNet: its attention pool is pool and projection in one."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        return {"proj": self.module(images)}

    def file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"visual.{name}": value for name, value in tensors.items()}


def outline(entry: Entry, size: int | None) -> Outline:
    """What an open_clip tower gives at a size.

    Args:
        entry: ``network`` is "MODEL" or "MODEL/TAG", or ``config`` holds the model's
            configuration as ``open_clip_config.json`` has it.
        size: side of the input, pixels; None means the encoder's own.

    Raises:
        RequestError: unknown model or tag, or a size that the tower doesn't take.
    """
    config, published = _configuration(entry)
    own_size = _own_size(entry, config)
    size = size or own_size

    def try_size(at: int) -> Anatomy:
        with torch.device("meta"):
            tower = _tower(config, at).eval()
            # SigLIP's own 384 isn't a multiple of its patches of 14: the last pixels are unseen.
            if at != own_size:
                _check_size(tower, at)
            _set_size(tower, at)
        return _study(tower, at, config["embed_dim"])

    try:
        anatomy = try_size(size)
    except RequestError as error:
        raise RequestError(f"{entry.encoder} can't be used: {error}") from error
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        why = first_line(error)
        near = [] if size == own_size else near_sizes(size, own_size, try_size)
        if not near:
            raise _unbuildable(entry, why) from error
        raise SizeError(entry.encoder, size, why, near, own_size) from error
    except (
        TypeError,
        AttributeError,
        LookupError,
    ) as error:  # of a configuration that asks for more
        raise _unbuildable(entry, f"{type(error).__name__}: {first_line(error)}") from error
    if not anatomy.n_layers:
        raise _unbuildable(entry, "it has no layers")

    def build() -> Network:
        tower = _tower(config, size)
        _set_size(tower, size)
        return _network(tower.eval())

    def load(tensors: dict[str, Tensor], source: str, layout: str | None) -> Loaded:
        tower = _tower(config, size)
        said = checkpoints.load_strictly(
            tower,
            tensors,
            source=source,
            classifier=(),
            filter_fn=_resize_positions,
            layout=layout or "open_clip",
        )
        _set_size(tower, size)
        return _network(tower.eval()), said

    return Outline(
        size=size,
        own_size=own_size,
        arguments={
            "vision": config["vision_cfg"],
            "embed_dim": config["embed_dim"],
            "quick_gelu": config.get("quick_gelu", False),
            "size": size,
        },
        statistics=entry.statistics or _statistics(published),
        anatomy=anatomy,
        place=entry.weights or _place(published),
        build=build,
        load=load,
        licence=entry.pretraining.licence,
    )


def find_configuration(entry: Entry) -> dict[str, Any]:
    """The configuration of a whole model, image side and text side.

    Raises:
        RequestError: open_clip has no such model or tag.
    """
    return _configuration(entry)[0]


def _configuration(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's configuration, and what is published about its weights."""
    if entry.config:
        return dict(entry.config), {}
    model, _, tag = entry.network.partition("/")
    known = open_clip.list_models()
    config = open_clip.get_model_config(model) if model in known else None
    if config is None:
        typed = entry.network.replace("/", "-")  # as in "ViT-B/16", the papers' spelling
        near = near_names(typed, known, "`open_clip.list_models()` has them all")
        raise RequestError(f"open_clip has no model {model!r}; {near}")
    if not tag:
        return config, {}
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:  # open_clip takes other spellings of a tag; here one encoder has one name
        raise RequestError(
            f"open_clip's {model} has no weights {tag!r}; it has {', '.join(tags) or 'none'}"
        )
    published = open_clip.get_pretrained_cfg(model, tag)
    # Other activations give other features, and nothing fails (open_clip #771, #915).
    if published.get("quick_gelu") and not config.get("quick_gelu"):
        raise RequestError(
            f"the weights {tag!r} were trained with QuickGELU, which {model} lacks; "
            f"use open_clip:{model}-quickgelu/{tag}"
        )
    return config, published


def _own_size(entry: Entry, config: Mapping[str, Any]) -> int:
    try:
        vision = CLIPVisionCfg(**config["vision_cfg"])
    except TypeError as error:  # an entry of a newer open_clip's
        raise _unbuildable(entry, first_line(error)) from error
    name = vision.timm_model_name
    if name and not timm.is_model(name):
        raise _unbuildable(entry, f"this timm has no architecture {name!r}")
    sides = vision.image_size
    sides = {sides} if isinstance(sides, int) else {*sides}
    if len(sides) > 1:
        words = " x ".join(map(str, sorted(sides)))
        raise RequestError(f"{entry.encoder} takes images of {words} px; here they are square")
    return sides.pop()


def _unbuildable(entry: Entry, why: str) -> RequestError:
    return RequestError(
        f"{entry.encoder} can't be built as its configuration says ({why}) by this open_clip "
        f"({open_clip.__version__}) and timm ({timm.__version__})"
    )


def _statistics(published: Mapping[str, Any]) -> Statistics | None:
    if not published.get("mean") or not published.get("std"):
        return None
    return Statistics(
        tuple(published["mean"]), tuple(published["std"]), published.get("interpolation", "bicubic")
    )


def _place(published: Mapping[str, Any]) -> Place | None:
    if published.get("hf_hub"):
        repository, _, file = published["hf_hub"].rpartition("/")
        stem, _, end = file.rpartition(".")
        # As open_clip itself does: the same tensors without pickles, where a repository has them.
        safe = (f"{stem}.safetensors",) if end in ("bin", "pth") else ()
        files = OPEN_CLIP if file in ("", OPEN_CLIP[-1]) else (*safe, file)
        return Hub(repository, files)
    return Url(published["url"]) if published.get("url") else None


def _tower(config: Mapping[str, Any], size: int) -> Any:
    vision = dict(config["vision_cfg"])
    if not vision.get("timm_model_name"):  # timm's trunks get their size afterwards
        vision["image_size"] = size
    vision["timm_model_pretrained"] = False
    vision["output_tokens"] = False  # of CoCa: its caption's, beside the vector
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's, about its own names
        return _build_vision_tower(
            config["embed_dim"], CLIPVisionCfg(**vision), config.get("quick_gelu", False)
        )


def _check_size(tower: Any, size: int) -> None:
    """Refuse what would be cut off, or couldn't be loaded.

    Raises:
        ValueError: the tower doesn't take this size.
    """
    if hasattr(tower, "trunk"):
        check_patches(tower.trunk, size)
    elif not hasattr(tower, "transformer"):
        raise ValueError("the positions of its attention pool can't be resampled")
    elif any(size % patch for patch in tower.patch_size):
        raise ValueError(f"not a multiple of the patch size {tower.patch_size[0]}")


def _set_size(tower: Any, size: int) -> None:
    """Let timm resample its trunk's positions; towers of open_clip's own are built at the size."""
    trunk = getattr(tower, "trunk", None)
    built = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    if built and tuple(built) != (size, size) and hasattr(trunk, "set_input_size"):
        tower.set_input_size(size)


def _resize_positions(tensors: dict[str, Tensor], tower: Any) -> dict[str, Tensor]:
    name = "positional_embedding"
    if name in tensors and hasattr(tower, "grid_size"):
        whole = {f"visual.{name}": tensors[name]}
        resize_pos_embed(whole, types.SimpleNamespace(visual=tower))
        tensors = tensors | {name: whole[f"visual.{name}"]}
    return tensors


def _projection(tower: Any) -> nn.Module:
    """What a timm trunk's vector goes through last: layers of open_clip's, or its classifier.

    SigLIP's vector goes through nothing: it is compared with texts as it is, so ``proj`` is
    ``head``.
    """
    if len(tower.head):
        return tower.head
    return tower.trunk.get_classifier() if tower.trunk.num_classes else nn.Identity()


def _network(tower: Any) -> Network:
    if hasattr(tower, "trunk"):
        return TimmNetwork(tower.trunk, _projection(tower))
    return ClipNetwork(tower) if hasattr(tower, "transformer") else ClipResNetwork(tower)


def _study(tower: Any, size: int, embed_dim: int) -> Anatomy:
    """How to read a tower on the meta device.

    Raises:
        RequestError: it gives no single vector, or pools in a way that isn't known.
    """
    if hasattr(tower, "trunk") and hasattr(tower.head, "pool"):
        raise RequestError("open_clip puts a pool of its own over timm's maps")
    stages = {n: m for n, m in tower.named_children() if n in RESNET_STAGES}
    with torch.inference_mode(), recording(stages) as runs:
        proj = tower(torch.empty(1, 3, size, size, device="meta"))
    if proj.ndim != 2:
        raise RequestError(f"its image tower gives {tuple(proj.shape[1:])} numbers an image")
    if hasattr(tower, "trunk"):
        anatomy = study(tower.trunk, size)
        return dataclasses.replace(
            anatomy,
            proj_width=embed_dim,
            n_parameters=sum(p.numel() for p in tower.parameters()),
            taps=tuple(Tap(f"trunk.{tap.module}", tap.layout) for tap in anatomy.taps),
        )
    common: dict[str, Any] = {
        "n_parameters": sum(p.numel() for p in tower.parameters()),
        "proj_width": embed_dim,
    }
    if not hasattr(tower, "transformer"):
        blocks, maps = [getattr(tower, name)[-1] for name in RESNET_STAGES[1:]], dict(runs)
        return Anatomy(
            family="open_clip.ModifiedResNet",
            norm_rule="none",
            width=tuple(module.bn3.num_features for module in (tower, *blocks)),
            taps=tuple(Tap(name, "BDHW") for name in RESNET_STAGES),
            grids=tuple((maps[name].shape[2], maps[name].shape[3]) for name in RESNET_STAGES),
            **common,
        )
    n_layers, width = len(tower.transformer.resblocks), tower.conv1.out_channels
    # Its final norm is of tokens, or of the pooled vector; CoCa's is of what the pool made of them.
    rule = "pooled" if tower.final_ln_after_pool else "tokens"
    return Anatomy(
        family="open_clip.VisionTransformer",
        norm_rule=rule if tower.attn_pool is None else "none",
        width=(width,) * n_layers,
        head_width=tower.proj.shape[0],
        n_prefix=1,
        has_cls=True,
        taps=tuple(Tap(f"transformer.resblocks.{i}", "tokens") for i in range(n_layers)),
        blocks=next((type(block).__name__ for block in tower.transformer.resblocks), ""),
        grids=(tuple(tower.grid_size),) * n_layers,
        norm2="ln_2",
        **common,
    )
