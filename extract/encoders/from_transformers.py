"""Vision models of transformers. An extra: ``pip install 'medprobe[transformers]'``.

Which model types, and what of each is read, is the literal table below (checked on transformers
5.23.0). Layers are the blocks' outputs; the encoder's final norm is applied to every block's
tokens, as everywhere (``hidden_states`` of transformers is before it: ``--layer-norm none``).
"""

import inspect
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from extract.encoders import checkpoints
from extract.encoders.anatomy import Anatomy, Tap
from extract.encoders.outline import Network, Outline
from extract.encoders.sizes import suggest_sizes
from extract.encoders.table import Entry


@dataclass(frozen=True)
class ModelType:
    """What to read of one model type."""

    model: str  # class in transformers
    config: str  # class of its configuration
    norm: str  # the final norm: the end of its module's name
    has_cls: bool = True
    n_prefix: str = "1"  # a number, or "1+registers"
    options: Mapping[str, Any] | None = None  # of the class


NO_POOLER = {"add_pooling_layer": False}  # a layer of the classifier, absent from most files

MODEL_TYPES = {
    "vit": ModelType("ViTModel", "ViTConfig", "layernorm", options=NO_POOLER),
    "vit_msn": ModelType("ViTMSNModel", "ViTMSNConfig", "layernorm"),
    # ViTMAEModel hides 75 % of the patches, in inference too; its encoder is a plain ViT.
    "vit_mae": ModelType("ViTModel", "ViTConfig", "layernorm", options=NO_POOLER),
    "deit": ModelType("DeiTModel", "DeiTConfig", "layernorm", n_prefix="2", options=NO_POOLER),
    "dinov2": ModelType("Dinov2Model", "Dinov2Config", "layernorm"),
    "dinov2_with_registers": ModelType(
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        "layernorm",
        n_prefix="1+registers",
    ),
    "dinov3_vit": ModelType("DINOv3ViTModel", "DINOv3ViTConfig", "norm", n_prefix="1+registers"),
    "clip_vision_model": ModelType(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", "post_layernorm"
    ),
    "siglip_vision_model": ModelType(
        "SiglipVisionModel", "SiglipVisionConfig", "post_layernorm", has_cls=False, n_prefix="0"
    ),
}
# Models of images and texts -> the model type of their image side.
IMAGE_SIDE = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


class TransformersNetwork(Network):
    """One of MODEL_TYPES."""

    def __init__(self, module: nn.Module, kind: ModelType) -> None:
        super().__init__(module)
        self.kind = kind
        self.norm = find_norm(module, kind)
        parameters = inspect.signature(module.forward).parameters
        resizes = "interpolate_pos_encoding" in parameters
        self.options = {"interpolate_pos_encoding": True} if resizes else {}

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        output = self.module(pixel_values=images, **self.options)
        if self.kind.model == "CLIPVisionModelWithProjection":
            head = self.norm(output.last_hidden_state[:, 0])
            return {"head": head, "proj": output.image_embeds}
        pooled = getattr(output, "pooler_output", None)
        return {"head": output.last_hidden_state[:, 0] if pooled is None else pooled}

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens)


def outline(entry: Entry, size: int | None) -> Outline:
    """What one of transformers' models gives at a size.

    Args:
        entry: ``config`` holds the configuration, as ``config.json`` has it.
        size: side of the input, pixels; None means the encoder's own.

    Raises:
        RequestError: transformers is missing, or the model type or size can't be used.
    """
    transformers = import_transformers()
    values = dict(entry.config)
    model_type = values.pop("model_type", None)
    if model_type in IMAGE_SIDE:
        projection = values.get("projection_dim")
        values = dict(values.get("vision_config") or {})
        values |= {"projection_dim": projection} if projection else {}
        model_type = IMAGE_SIDE[model_type]
    if model_type not in MODEL_TYPES:
        raise RequestError(
            f"{entry.encoder} is of transformers' model type {model_type!r}; medprobe reads "
            f"{', '.join([*MODEL_TYPES, *IMAGE_SIDE])}; others through file.py:make_encoder"
        )
    kind = MODEL_TYPES[model_type]
    # What a saved configuration says of itself isn't what builds the network.
    values = {n: v for n, v in values.items() if n not in SAVED_REMARKS and not n.startswith("_")}
    config = getattr(transformers, kind.config)(**values)
    own_size: int = (
        config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    )
    chosen = size or own_size

    def make() -> nn.Module:
        return getattr(transformers, kind.model)(config, **kind.options or {}).eval()

    with torch.device("meta"):
        model = make()

    def try_size(at: int) -> Anatomy:
        return _study(model, kind, config, at)

    try:
        anatomy = try_size(chosen)
    except (AssertionError, ValueError, RuntimeError) as error:
        near = suggest_sizes(chosen, own_size, try_size)
        raise RequestError(
            f"{entry.encoder} doesn't take --size {chosen} ({checkpoints.first_line(error)}); "
            f"nearest valid: {near}; its own size is {own_size}"
        ) from error

    def build() -> Network:
        return TransformersNetwork(make(), kind)

    def load(
        tensors: dict[str, Tensor], source: str, layout: str | None
    ) -> tuple[Network, list[str]]:
        model, said = _load(getattr(transformers, kind.model), config, kind, tensors, source)
        return TransformersNetwork(model.eval(), kind), said

    return Outline(
        size=chosen,
        own_size=own_size,
        arguments={"model_type": model_type, **values},
        statistics=entry.statistics,
        anatomy=anatomy,
        place=entry.weights,
        build=build,
        load=load,
        licence=entry.licence,
    )


# Positions that old files list (0, 1, 2...) and the token that stood for hidden patches in training.
UNUSED = ("position_ids", "mask_token")

SAVED_REMARKS = {
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "model_type",
    "problem_type",
    "torch_dtype",
    "transformers_version",
}


def import_transformers() -> Any:
    """The library, quiet.

    Raises:
        RequestError: it isn't installed.
    """
    # Its own requests to the hub are never wanted: files are fetched and read by us.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        import transformers
    except ImportError as error:
        raise RequestError(
            "this encoder needs the package transformers: pip install 'medprobe[transformers]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def find_norm(model: nn.Module, kind: ModelType) -> nn.Module:
    """The encoder's final norm, wherever a version of transformers keeps it."""
    found = [
        (name.count("."), name, module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == kind.norm and isinstance(module, nn.LayerNorm)
    ]
    return min(found, key=lambda item: item[:2])[2]  # the outermost: SigLIP's head has one too


def _find_blocks(model: nn.Module, n_layers: int) -> str:
    """Name of the list of blocks: the outermost list of this length."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    return min(names, key=lambda name: name.count("."))


def _study(model: nn.Module, kind: ModelType, config: Any, size: int) -> Anatomy:
    patch = config.patch_size
    if size % patch:
        raise ValueError(f"not a multiple of the patch size {patch}")
    n_layers, width = config.num_hidden_layers, config.hidden_size
    registers = getattr(config, "num_register_tokens", 0)
    n_prefix = 1 + registers if kind.n_prefix == "1+registers" else int(kind.n_prefix)
    blocks = _find_blocks(model, n_layers)
    shapes: list[torch.Size] = []
    handle = model.get_submodule(f"{blocks}.0").register_forward_hook(
        lambda module, inputs, output: shapes.append(first_tensor(output).shape)
    )
    try:
        with torch.inference_mode():
            vectors = TransformersNetwork(model, kind)(torch.empty(1, 3, size, size, device="meta"))
    finally:
        handle.remove()
    n_tokens = n_prefix + (size // patch) ** 2
    if shapes != [torch.Size((1, n_tokens, width))]:
        raise RequestError(
            f"transformers' {kind.model} gives blocks of {[tuple(s) for s in shapes]} instead of "
            f"(1, {n_tokens}, {width}): this version of transformers isn't known to medprobe"
        )
    return Anatomy(
        family=f"transformers.{kind.model}",
        norm_rule="tokens",
        known=True,
        n_layers=n_layers,
        width=(width,) * n_layers,
        head_width=vectors["head"].shape[1],
        n_prefix=n_prefix,
        has_cls=kind.has_cls,
        taps=tuple(Tap(f"{blocks}.{i}", "tokens") for i in range(n_layers)),
        n_parameters=sum(p.numel() for p in model.parameters()),
        proj_width=vectors["proj"].shape[1] if "proj" in vectors else None,
    )


def first_tensor(output: Any) -> Tensor:
    """A block's tokens: some versions of transformers wrap them into a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _load(
    model_class: Any,
    config: Any,
    kind: ModelType,
    tensors: dict[str, Tensor],
    source: str,
) -> tuple[nn.Module, list[str]]:
    """transformers renames (its releases name modules anew); only strictness is ours."""
    said: list[str] = []
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        said.append("names mapped by the rule \"strip 'module.'\"")
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    try:
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            output_loading_info=True,
            dtype=torch.float32,
            **kind.options or {},
        )
    except Exception as error:  # a wrong shape is an exception of its own
        raise RequestError(
            f"{source} doesn't fit transformers' {kind.model}: {checkpoints.first_line(error)}; "
            "give the file of this very model"
        ) from error
    faults = []
    for words, names in [("missing", "missing_keys"), ("misshapen", "mismatched_keys")]:
        wrong = sorted(str(item) for item in report.get(names, ()))
        wrong = [name for name in wrong if not name.endswith(UNUSED)]
        if wrong:
            faults.append(f"{len(wrong)} tensors are {words} ({', '.join(wrong[:3])})")
    own = set(model.state_dict())
    unexpected = sorted(n for n in report.get("unexpected_keys", ()) if not n.endswith(UNUSED))
    # A tensor beside the image encoder is another part of the file (texts, classifier, decoder);
    # one that is named like the encoder's own means that this isn't its file.
    roots = {name.partition(".")[0] for name in own}
    alien = [name for name in unexpected if name.partition(".")[0] in roots]
    if alien:
        faults.append(f"{len(alien)} don't belong ({', '.join(alien[:3])})")
    if faults:
        raise RequestError(
            f"{source} doesn't fit transformers' {kind.model}: {'; '.join(faults)}; give the file "
            "of this very model"
        )
    if unexpected:
        groups = Counter(name.partition(".")[0] for name in unexpected)
        words = ", ".join(f"{group} ({n} tensors)" for group, n in groups.items())
        said.append(f"dropped: {words}")
    return model, said
