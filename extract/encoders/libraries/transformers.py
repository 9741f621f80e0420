"""Vision models of transformers. An extra: ``pip install 'medprobe[transformers]'``.

Which model types, and what of each is read, is the literal table below (checked on transformers
5.23.0). Layers are the blocks' outputs; the encoder's final norm is applied to every block's
tokens, as everywhere (``hidden_states`` of transformers is before it: ``--layer-norm none``).

Long because the table stands with the few functions that its rows name.
"""

import contextlib
import inspect
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.anatomy import Anatomy, Tap
from extract.encoders.outline import Loaded, Network, Outline, recording
from extract.encoders.sizes import SizeError
from extract.encoders.table.entry import Entry
from extract.encoders.weights.published import Hub, cached_file, config_file
from extract.encoders.weights.tensor_names import Misfit, name_faults
from extract.encoders.weights.wrappings import unwrap


@dataclass(frozen=True)
class ModelType:
    """What to read of one model type."""

    model: str  # class in transformers
    config: str  # class of its configuration
    # Names of the encoder's tensors begin with the prefix in files that hold more than the encoder,
    # and with a part in its own files; what begins otherwise lies beside it.
    prefix: str
    parts: tuple[str, ...]  # as older and newer releases of transformers name them
    norm: str = "layernorm"  # the final norm: the end of its module's name
    has_cls: bool = True
    n_prefix: int = 1  # prefix tokens; the configuration's registers come on top
    mean_head: bool = False  # the model's own classifiers see the mean token
    without_projection: str = ""  # the class without projection, where ``model`` has one
    options: Mapping[str, Any] | None = None  # of the class


NO_POOLER = {"add_pooling_layer": False}  # a layer of the classifier, absent from most files
VIT_PARTS = ("embeddings", "encoder", "layers", "layernorm")
CLIP_PARTS = ("embeddings", "pre_layrnorm", "encoder", "post_layernorm")  # transformers' spelling

MODEL_TYPES = {
    "vit": ModelType("ViTModel", "ViTConfig", "vit", VIT_PARTS, options=NO_POOLER),
    "vit_msn": ModelType("ViTMSNModel", "ViTMSNConfig", "vit", VIT_PARTS),
    # ViTMAEModel hides 75 % of the patches, in inference too; its encoder is a plain ViT.
    "vit_mae": ModelType("ViTModel", "ViTMAEConfig", "vit", VIT_PARTS, options=NO_POOLER),
    # The second prefix token is the one for distillation.
    "deit": ModelType("DeiTModel", "DeiTConfig", "deit", VIT_PARTS, n_prefix=2, options=NO_POOLER),
    "ijepa": ModelType(
        "IJepaModel",
        "IJepaConfig",
        "ijepa",
        VIT_PARTS,
        has_cls=False,
        n_prefix=0,
        mean_head=True,
        options=NO_POOLER,
    ),
    "dinov2": ModelType("Dinov2Model", "Dinov2Config", "dinov2", VIT_PARTS),
    "dinov2_with_registers": ModelType(
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        "dinov2_with_registers",
        VIT_PARTS,
    ),
    "dinov3_vit": ModelType(
        "DINOv3ViTModel", "DINOv3ViTConfig", "model", ("embeddings", "layer", "norm"), norm="norm"
    ),
    "clip_vision_model": ModelType(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        "vision_model",
        (*CLIP_PARTS, "visual_projection"),
        norm="post_layernorm",
        without_projection="CLIPVisionModel",
    ),
    "metaclip_2_vision_model": ModelType(
        "MetaClip2VisionModelWithProjection",
        "MetaClip2VisionConfig",
        "vision_model",
        (*CLIP_PARTS, "visual_projection"),
        norm="post_layernorm",
        without_projection="MetaClip2VisionModel",
    ),
    # No class token: a learnt query gathers the patches (its head).
    "siglip_vision_model": ModelType(
        "SiglipVisionModel",
        "SiglipVisionConfig",
        "vision_model",
        ("embeddings", "encoder", "post_layernorm", "head"),
        norm="post_layernorm",
        has_cls=False,
        n_prefix=0,
    ),
}
# What a block of these calls the norm between its attention and its MLP.
NORM2_NAMES = ("layernorm_after", "layer_norm2", "norm2")
# Models of images and texts -> the model type of their image side.
IMAGE_SIDE = {
    "clip": "clip_vision_model",
    "metaclip_2": "metaclip_2_vision_model",
    "siglip": "siglip_vision_model",
}
CLIP_PROJECTION = 512  # of a CLIP whose configuration doesn't say

# What configurations hold besides the network that is run here: training, classifiers, decoders,
# and how DETR and its like take their maps.
NOT_OF_NETWORK = {
    "attention_dropout",
    "attention_probs_dropout_prob",
    "apply_layernorm",
    "decoder_hidden_size",
    "decoder_intermediate_size",
    "decoder_num_attention_heads",
    "decoder_num_hidden_layers",
    "drop_path_rate",
    "encoder_stride",
    "hidden_dropout_prob",
    "initializer_factor",
    "initializer_range",
    "mask_ratio",
    "norm_pix_loss",
    "out_features",
    "out_indices",
    "pooler_act",
    "pooler_output_size",
    "pos_embed_jitter",
    "pos_embed_rescale",
    "pos_embed_shift",
    "reshape_hidden_states",
    "stage_names",
    "use_mask_token",
}
# Read by the networks though their configurations don't list it.
UNLISTED = {"head_dim"}

# Tensors that no forward pass of ours reads: the numbers 0, 1, 2... that older releases saved, and
# the token that stood for hidden patches in training.
UNREAD = ("position_ids", "mask_token")


# ---------------------------------------------------------------------------- network


class TransformersNetwork(Network):
    """One of MODEL_TYPES."""

    def __init__(self, module: nn.Module, kind: ModelType) -> None:
        super().__init__(module, _find_norm(module, kind))
        self.kind = kind
        parameters = inspect.signature(module.forward).parameters
        resizes = "interpolate_pos_encoding" in parameters
        self.options = {"interpolate_pos_encoding": True} if resizes else {}
        # DINOv3's rotary frequencies stay in float32 at any precision, in transformers as here.
        self.frequencies = [
            (part, part.inv_freq)
            for part in module.modules()
            if isinstance(getattr(part, "inv_freq", None), Tensor)
        ]

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        for part, frequencies in self.frequencies:
            if part.inv_freq.dtype != frequencies.dtype:
                part.inv_freq = frequencies.to(images.device)
        output = self.module(pixel_values=images, **self.options)
        tokens = output.last_hidden_state
        projected = getattr(output, "image_embeds", None)
        if projected is not None:
            return {"head": self.norm_pooled(tokens[:, 0]), "proj": projected}
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return {"head": pooled}
        if self.kind.mean_head:
            return {"head": tokens.mean(dim=1)}
        return {"head": tokens[:, 0]} if self.kind.has_cls else {}  # SigLIP without its head


def import_transformers() -> Any:
    """The library, quiet: what loading finds is said by us.

    Raises:
        RequestError: it isn't installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations, at import
            import transformers
    except ImportError as error:
        raise RequestError(
            "this encoder needs the package transformers: pip install 'medprobe[transformers]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


# ---------------------------------------------------------------------------- configuration


def read_config(name: str, published: Mapping[str, Any]) -> tuple[str, ModelType, Any]:
    """The network that a ``config.json`` describes.

    Only what builds the network is taken from it, so no remark of whoever saved it (an attention
    implementation, a type, what to return) has an effect.

    Args:
        name: the encoder's, for messages.
        published: content of the file.

    Returns:
        The model type of the image side, what is read of it, and transformers' configuration.

    Raises:
        RequestError: transformers is missing or too old, or the network can't be built.
    """
    transformers = import_transformers()
    model_type = published.get("model_type")
    side = IMAGE_SIDE.get(str(model_type), str(model_type))
    if side not in MODEL_TYPES:
        raise RequestError(
            f"{name} is of transformers' model type {model_type!r}; medprobe reads "
            f"{', '.join([*MODEL_TYPES, *IMAGE_SIDE])}; others through file.py:make_encoder"
        )
    if "AutoModel" in (published.get("auto_map") or {}):
        raise RequestError(
            f"{name} is built by code of its own repository, which is never run; "
            "write a file.py:make_encoder that builds it"
        )
    if published.get("quantization_config"):
        raise RequestError(f"{name} has quantised weights, and only plain tensors are read")
    kind = MODEL_TYPES[side]
    values = dict(published)
    if side != model_type:
        # Older files hold both, and transformers lets the second one win.
        values = dict(published.get("vision_config_dict") or published.get("vision_config") or {})
        values["projection_dim"] = published.get("projection_dim") or CLIP_PROJECTION
    saved_as = published.get("architectures") or ()
    if kind.without_projection and any(
        n == kind.without_projection or n.endswith("ForImageClassification") for n in saved_as
    ):
        kind = replace(kind, model=kind.without_projection, parts=CLIP_PARTS)
    for needed in (kind.model, kind.config):
        if not hasattr(transformers, needed):
            raise RequestError(
                f"{name} needs {needed}, which transformers {transformers.__version__} lacks: "
                "pip install --upgrade transformers"
            )
    config_class = getattr(transformers, kind.config)
    known = _network_names(config_class)
    try:
        config = config_class(**{n: v for n, v in values.items() if n in known})
        sides = [_side(config.image_size), _side(config.patch_size)]
    except Exception as error:  # its validators have exceptions of their own
        raise RequestError(
            f"transformers {transformers.__version__} can't build {name} from its configuration: "
            f"{_one_line(error)}"
        ) from error
    if config.num_channels != 3:
        raise RequestError(f"{name} takes images of {config.num_channels} channels, not of 3")
    config.image_size, config.patch_size = sides
    return side, kind, config


def _network_names(config_class: Any) -> set[str]:
    """Which values of a configuration build the network, as it is run here."""
    of_every_model = import_transformers().PretrainedConfig().to_dict()
    return config_class().to_dict().keys() - of_every_model.keys() - NOT_OF_NETWORK | UNLISTED


def _side(size: Any) -> int:
    """Of a square, which configurations write as one number or as two."""
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"{size} isn't square")
    return sides.pop()


def network_values(config: Any) -> dict[str, Any]:
    """What builds the network, where it isn't transformers' default.

    So it makes no difference whether a file lists the defaults, as newer releases do.
    """
    default = type(config)()
    names = sorted(_network_names(type(config)))
    values = {n: getattr(config, n) for n in names if hasattr(config, n)}
    return {n: v for n, v in values.items() if v != getattr(default, n, None)}


# ---------------------------------------------------------------------------- literal and published


def fetch_published(entry: Entry) -> None:
    """Fetch the repository's ``config.json`` for ``check_published``, if it can be had."""
    if isinstance(entry.weights, Hub):
        with contextlib.suppress(RequestError):
            config_file(entry.weights.repository, "config.json")


def check_published(entry: Entry) -> None:
    """Compare the table's literal configuration with the published one, where that is cached.

    A wrong activation or epsilon fits every weight and makes other features.

    Raises:
        RequestError: they build different networks.
    """
    if not isinstance(entry.weights, Hub):
        return
    path = cached_file(entry.weights.repository, "config.json")
    if path is None:
        return
    try:
        published = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} isn't readable JSON: {error}") from error
    ours, theirs = (
        {"model class": kind.model}
        | {n: getattr(config, n) for n in _network_names(type(config)) if hasattr(config, n)}
        for _, kind, config in (
            read_config(entry.encoder, entry.config),
            read_config(f"{path} of {entry.encoder}", published),
        )
    )
    different = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if different:
        words = "; ".join(
            f"{n} is {ours.get(n)!r} here and {theirs.get(n)!r} there" for n in different
        )
        raise RequestError(
            f"medprobe's configuration of {entry.encoder} isn't the one that "
            f"{entry.weights.repository} publishes: {words}. Please report it; --model "
            f"transformers:{entry.weights.repository} takes the published one"
        )


# ---------------------------------------------------------------------------- outline


def outline(entry: Entry, size: int | None) -> Outline:
    """What one of transformers' models gives at a size.

    Args:
        entry: ``config`` holds the configuration, as ``config.json`` has it.
        size: side of the input, pixels; None means the encoder's own.

    Raises:
        RequestError: transformers is missing, or the model type or size can't be used.
    """
    transformers = import_transformers()
    model_type, kind, config = read_config(entry.encoder, entry.config)
    model_class = getattr(transformers, kind.model)
    own_size = entry.size or config.image_size
    chosen = size or own_size
    # SigLIP's own 384 isn't a multiple of 14: its last pixels are unseen, as in its pretraining.
    patch = config.patch_size
    if chosen % patch and chosen != own_size:
        below = chosen // patch * patch
        near = [s for s in (below, below + patch) if s > 0]
        why = f"not a multiple of the patch size {patch}"
        raise SizeError(entry.encoder, chosen, why, near, own_size)

    def make() -> nn.Module:
        return model_class(config, **kind.options or {}).eval()

    try:
        with torch.device("meta"):
            model = make()
        anatomy = _study(model, kind, config, chosen)
    except RequestError:
        raise
    except Exception as error:  # a configuration can be wrong in any way
        raise RequestError(
            f"transformers {transformers.__version__} can't run {entry.encoder} at --size "
            f"{chosen}: {_one_line(error)}"
        ) from error

    def build() -> Network:
        return TransformersNetwork(make(), kind)

    def load(tensors: dict[str, Tensor], source: str, layout: str | None) -> Loaded:
        check_published(entry)
        # transformers renames (its releases name modules anew); only strictness is ours.
        fit = partial(_fit, model_class, config, kind, source)
        model, said = unwrap(tensors, fit, source)
        return TransformersNetwork(model, kind), said

    return Outline(
        size=chosen,
        own_size=own_size,
        arguments={"model_type": model_type, **network_values(config)},
        statistics=entry.statistics,
        anatomy=anatomy,
        place=entry.weights,
        build=build,
        load=load,
        licence=entry.pretraining.licence,
    )


def _study(model: nn.Module, kind: ModelType, config: Any, size: int) -> Anatomy:
    n_layers, width = config.num_hidden_layers, config.hidden_size
    n_prefix = kind.n_prefix + getattr(config, "num_register_tokens", 0)
    side = size // config.patch_size
    n_tokens = n_prefix + side**2
    blocks = _find_blocks(model, kind, n_layers)
    names = [f"{blocks}.{i}" for i in range(n_layers)]
    block = model.get_submodule(names[0]) if names else None
    with torch.inference_mode(), recording({n: model.get_submodule(n) for n in names}) as runs:
        vectors = TransformersNetwork(model, kind)(torch.empty(1, 3, size, size, device="meta"))
    # Older releases wrap a block's tokens into a tuple.
    tokens = [output[0] if isinstance(output, tuple) else output for _, output in runs]
    shapes = [tuple(t.shape) for t in tokens]
    if shapes != [(1, n_tokens, width)] * n_layers:
        raise _unknown_release(kind, f"its blocks give {shapes[:2]}, not {(1, n_tokens, width)}")
    return Anatomy(
        family=f"transformers.{kind.model}",
        norm_rule="tokens",
        width=(width,) * n_layers,
        head_width=vectors["head"].shape[1] if "head" in vectors else None,
        n_prefix=n_prefix,
        has_cls=kind.has_cls,
        taps=tuple(Tap(name, "tokens") for name in names),
        n_parameters=sum(p.numel() for p in model.parameters()),
        proj_width=vectors["proj"].shape[1] if "proj" in vectors else None,
        blocks="" if block is None else type(block).__name__,
        grids=((side, side),) * n_layers,
        norm2=next((name for name in NORM2_NAMES if hasattr(block, name)), ""),
    )


def _find_norm(model: nn.Module, kind: ModelType) -> nn.Module:
    """The encoder's final norm, wherever a release of transformers keeps it."""
    found = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == kind.norm and isinstance(module, nn.LayerNorm)
    }
    if not found:
        raise _unknown_release(kind, f"it has no {kind.norm}")
    return found[_outermost(found)]


def _find_blocks(model: nn.Module, kind: ModelType, n_layers: int) -> str:
    """Name of the list of blocks."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    }
    if not found:
        raise _unknown_release(kind, f"it has no list of {n_layers} blocks")
    return _outermost(found)


def _outermost(modules: Mapping[str, nn.Module]) -> str:
    return min(modules, key=lambda name: (name.count("."), name))


def _unknown_release(kind: ModelType, why: str) -> RequestError:
    version = import_transformers().__version__
    return RequestError(
        f"medprobe doesn't know the {kind.model} of transformers {version} ({why}); "
        "install the version named in pyproject.toml"
    )


# ---------------------------------------------------------------------------- weights


def _fit(
    model_class: Any,
    config: Any,
    kind: ModelType,
    source: str,
    tensors: dict[str, Tensor],
) -> tuple[nn.Module, list[str]]:
    """The model with a file's tensors, and what was done.

    Raises:
        Misfit: names, shapes or types don't fit.
    """
    said: list[str] = []
    own = {name: tensor for name, tensor in tensors.items() if _belongs(name, kind)}
    unreal = [n for n, t in own.items() if not t.is_floating_point() and not n.endswith(UNREAD)]
    if unreal:
        kinds = ", ".join(f"{n} is of {own[n].dtype}".replace("torch.", "") for n in unreal[:2])
        raise _misfit(source, kind, [f"{kinds} instead of float32"])
    beside = [n for n in tensors if n not in own and not n.endswith(UNREAD)]
    try:
        # What it initialises beside the file is refused below, but for tokens that nothing reads.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=own,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
                dtype=torch.float32,
                **kind.options or {},
            )
    except Exception as error:  # another model's file can break a conversion in any way
        raise _misfit(source, kind, [_one_line(error)]) from error
    faults = _faults(model, own, report)
    if faults:
        raise _misfit(source, kind, faults)
    if beside:
        groups = Counter(_group(name, kind) for name in beside)
        words = (f"{group} ({n} tensor{'s' * (n > 1)})" for group, n in sorted(groups.items()))
        said.append(f"dropped: {', '.join(words)}")
    return model.eval(), said


def _belongs(name: str, kind: ModelType) -> bool:
    """Whether a tensor of a file is the encoder's, by its name."""
    beginning, _, rest = name.partition(".")
    if beginning == kind.prefix:
        return not rest.startswith("pooler.")
    return beginning in kind.parts


def _group(name: str, kind: ModelType) -> str:
    """The part of a model that a tensor beside the encoder is of."""
    return ".".join(name.split(".")[: 2 if name.startswith(f"{kind.prefix}.") else 1])


def _faults(model: nn.Module, own: Mapping[str, Tensor], report: Mapping[str, Any]) -> list[str]:
    """Why a loaded model isn't the file's, in words."""
    expected = {n: t for n, t in model.state_dict().items() if not n.endswith(UNREAD)}
    faults = [
        f"{name} is {tuple(found)} instead of {tuple(needed)}"
        for name, found, needed in sorted(report["mismatched_keys"])
        if name in expected
    ][:2]
    missing = sorted(n for n in report["missing_keys"] if n in expected)
    extra = sorted(n for n in report["unexpected_keys"] if not n.endswith(UNREAD))
    faults += name_faults(missing, len(expected), extra)
    if faults:
        return faults
    # Renaming, splitting and joining keep the count: were a tensor left out or taken twice without
    # a word in the report, it would show here.
    given = sum(t.numel() for n, t in own.items() if not n.endswith(UNREAD))
    needed = sum(t.numel() for t in expected.values())
    if given != needed:
        faults.append(f"it holds {given} numbers for the encoder's {needed}")
    everything = itertools.chain(model.named_parameters(), model.named_buffers())
    if any(tensor.is_meta for _, tensor in everything):
        faults.append("this release of transformers leaves tensors without values")
    return faults


def _misfit(source: str, kind: ModelType, faults: list[str]) -> Misfit:
    return Misfit(
        f"{source} doesn't fit transformers' {kind.model}: {'; '.join(faults)}; give the file "
        "of this very model"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
