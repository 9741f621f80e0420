"""open_clip's image towers, with their projection. Only the image side is built and loaded.

So BiomedCLIP's tower needs neither its text model nor that model's library.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from open_clip.model import (
    CLIPVisionCfg,
    _build_vision_tower,  # the one function that builds a tower alone; under test
    resize_pos_embed,
)
from torch import Tensor, nn

from cache import RequestError
from extract.encoders import checkpoints
from extract.encoders.anatomy import Anatomy, Statistics, Tap
from extract.encoders.families import study
from extract.encoders.from_timm import TimmNetwork, check_patches
from extract.encoders.outline import Network, Outline
from extract.encoders.sizes import suggest_sizes
from extract.encoders.table import Entry
from extract.encoders.weights import OPEN_CLIP, Hub, Place, Url
from extract.names import near_names

RESNET_STAGES = ("avgpool", "layer1", "layer2", "layer3", "layer4")  # the stem ends in its pool


class ClipNetwork(Network):
    """open_clip's own VisionTransformer: the projection is taken off and run by us.

    ``head`` is then what the tower gives without it, by the very same operations.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__(tower)
        self.tower: Any = tower
        self.tower.register_parameter("projection", self.tower.proj)
        self.tower.proj = None
        self.tower.output_tokens = False

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        head = self.tower(images)
        return {"head": head, "proj": head @ self.tower.projection}

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        return self.tower.ln_post(tokens)

    def norm_pooled(self, vectors: Tensor) -> Tensor:
        return self.tower.ln_post(vectors)


class ClipResNetwork(Network):
    """open_clip's ModifiedResNet: its attention pool is pool and projection in one."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        return {"proj": self.module(images)}


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
    own_size = entry.size or CLIPVisionCfg(**config["vision_cfg"]).image_size
    own_size = own_size if isinstance(own_size, int) else own_size[0]
    size = size or own_size

    def try_size(at: int) -> Anatomy:
        with torch.device("meta"):
            tower = _tower(config, at).eval()
            _set_size(tower, own_size, at)
        return _study(tower, at)

    try:
        anatomy = try_size(size)
    except RequestError:
        raise
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        near = suggest_sizes(size, own_size, try_size)
        raise RequestError(
            f"{entry.encoder} doesn't take --size {size} ({checkpoints.first_line(error)}); "
            f"nearest valid: {near}; its own size is {own_size}"
        ) from error

    def build() -> Network:
        tower = _tower(config, size)
        _set_size(tower, own_size, size)
        return _network(tower.eval())

    def load(
        tensors: dict[str, Tensor], source: str, layout: str | None
    ) -> tuple[Network, list[str]]:
        tower = _tower(config, size)
        said = checkpoints.load_strictly(
            tower,
            tensors,
            source=source,
            classifier=(),
            filter_fn=_resize_positions,
            layout=layout or "open_clip",
        )
        _set_size(tower, own_size, size)
        return _network(tower.eval()), said

    return Outline(
        size=size,
        own_size=own_size,
        arguments={"vision": config["vision_cfg"], "quick_gelu": config.get("quick_gelu", False)}
        | {"size": size},
        statistics=entry.statistics or _statistics(published),
        anatomy=anatomy,
        place=entry.weights or _place(published),
        build=build,
        load=load,
        licence=entry.licence,
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
    config = open_clip.get_model_config(model) if "hf-hub" not in model else None
    if config is None:
        near = near_names(model, open_clip.list_models(), "`open_clip.list_models()` has them all")
        raise RequestError(f"open_clip has no model {model!r}; {near}")
    if not tag:
        return config, {}
    tags = open_clip.list_pretrained_tags_by_model(model)
    published = open_clip.get_pretrained_cfg(model, tag)
    if not published:
        raise RequestError(
            f"open_clip's {model} has no weights {tag!r}; it has {', '.join(tags) or 'none'}"
        )
    # Other activations give other features, and nothing fails (open_clip #771, #915).
    trained, built = published.get("quick_gelu", False), config.get("quick_gelu", False)
    if trained and not built and not config["vision_cfg"].get("timm_model_name"):
        raise RequestError(
            f"the weights {tag!r} were trained with QuickGELU, which {model} lacks; "
            f"use open_clip:{model}-quickgelu/{tag}"
        )
    return config, published


def _statistics(published: Mapping[str, Any]) -> Statistics | None:
    if not published.get("mean") or not published.get("std"):
        return None
    return Statistics(
        tuple(published["mean"]), tuple(published["std"]), published.get("interpolation", "bicubic")
    )


def _place(published: Mapping[str, Any]) -> Place | None:
    if published.get("hf_hub"):
        repository, _, file = published["hf_hub"].rpartition("/")
        return Hub(repository, (file,) if file else OPEN_CLIP)
    return Url(published["url"]) if published.get("url") else None


def _tower(config: Mapping[str, Any], size: int) -> Any:
    vision = dict(config["vision_cfg"])
    timm_model = vision.get("timm_model_name")
    if not timm_model:  # timm's trunks get their size afterwards, where they have one
        vision["image_size"] = size
    vision["timm_model_pretrained"] = False
    vision["patch_dropout"] = 0.0
    return _build_vision_tower(
        config["embed_dim"], CLIPVisionCfg(**vision), config.get("quick_gelu", False)
    )


def _set_size(tower: Any, own_size: int, size: int) -> None:
    """Let timm resample its trunk's positions; towers of open_clip's own are built at the size."""
    trunk = getattr(tower, "trunk", None)
    if trunk is not None and size != own_size and hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=size)


def _resize_positions(tensors: dict[str, Tensor], tower: Any) -> dict[str, Tensor]:
    name = "positional_embedding"
    if name in tensors and hasattr(tower, "grid_size"):
        whole = {f"visual.{name}": tensors[name]}
        resize_pos_embed(whole, types.SimpleNamespace(visual=tower))
        tensors = tensors | {name: whole[f"visual.{name}"]}
    return tensors


def _projection(tower: Any) -> nn.Module | None:
    """What a timm trunk's vector goes through last: layers of open_clip's, or its classifier."""
    if len(tower.head):
        return tower.head
    return tower.trunk.get_classifier() if tower.trunk.num_classes else None


def _network(tower: Any) -> Network:
    if hasattr(tower, "trunk"):
        return TimmNetwork(tower.trunk, _projection(tower))
    return ClipNetwork(tower) if hasattr(tower, "transformer") else ClipResNetwork(tower)


def _study(tower: Any, size: int) -> Anatomy:
    """How to read a tower on the meta device."""
    n_parameters = sum(p.numel() for p in tower.parameters())
    with torch.inference_mode():
        proj = tower(torch.empty(1, 3, size, size, device="meta"))
    proj_width = (proj[0] if isinstance(proj, tuple) else proj).shape[-1]
    if hasattr(tower, "trunk"):
        if hasattr(tower.head, "pool"):
            raise RequestError("open_clip's attention pools over timm's maps can't be used")
        check_patches(tower.trunk, size)
        anatomy = study(tower.trunk, size)
        if _projection(tower) is None:
            return anatomy
        return dataclasses.replace(
            anatomy,
            proj_width=proj_width,
            n_parameters=n_parameters,
            taps=tuple(Tap(f"trunk.{tap.module}", tap.layout) for tap in anatomy.taps),
        )
    common: dict[str, Any] = {"n_parameters": n_parameters, "proj_width": proj_width}
    if not hasattr(tower, "transformer"):
        blocks = [getattr(tower, name)[-1] for name in RESNET_STAGES[1:]]
        widths = [module.bn3.num_features for module in (tower, *blocks)]
        return Anatomy(
            family="open_clip.ModifiedResNet",
            norm_rule="none",
            known=True,
            n_layers=5,
            width=tuple(widths),
            head_width=None,
            n_prefix=0,
            has_cls=False,
            taps=tuple(Tap(name, "BDHW") for name in RESNET_STAGES),
            **common,
        )
    patch = tower.patch_size[0]
    if size % patch:
        raise ValueError(f"not a multiple of the patch size {patch}")
    n_layers, width = len(tower.transformer.resblocks), tower.conv1.out_channels
    rule = "pooled" if tower.final_ln_after_pool else "tokens"
    return Anatomy(
        family="open_clip.VisionTransformer",
        norm_rule=rule if tower.attn_pool is None else "none",
        known=True,
        n_layers=n_layers,
        width=(width,) * n_layers,
        head_width=tower.ln_post.weight.shape[0],
        n_prefix=1,
        has_cls=True,
        taps=tuple(Tap(f"transformer.resblocks.{i}", "tokens") for i in range(n_layers)),
        **common,
    )
