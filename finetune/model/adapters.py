"""LoRA (Hu et al. 2022) by ``peft``, put into an encoder's own modules.

peft is an extra, imported late: ``pip install 'medprobe[finetune]'``.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cache.errors import RequestError
from extract.encoders.anatomy import Anatomy
from extract.encoders.weights.tensor_names import some
from finetune.config import LoraConfig

# Linear layers of a transformer's blocks that get adapters by default: the input projections of
# attention and both sides of the MLP, as Baharoon et al. 2023 have it (qkv, fc1, fc2; of ViT-g
# w12, w3 too), by every name that timm's, open_clip's and transformers' modules give them.
TARGETS = (
    *("qkv", "q_proj", "k_proj", "v_proj", "query", "key", "value"),
    *("fc1", "fc2", "fc1_g", "fc1_x", "lin1", "lin2", "c_fc", "c_proj"),
    *("w12", "w3", "weights_in", "weights_out", "gate_proj", "up_proj", "down_proj"),
    *("intermediate.dense", "output.dense"),
)
# Ends in "output.dense" too, and is attention's output projection.
NOT_TARGETS = ("attention.output.dense",)

ADAPTER = "default"  # peft's name of the only one
MARK = ".lora_"  # in the name of every parameter of an adapter


class SplitAttention(nn.Module):
    """open_clip's self-attention with a linear layer where torch has a bare parameter.

    ``nn.MultiheadAttention`` never calls its projections, so no adapter can sit there. peft's own
    way is to add the update to the frozen weights and to take it off again in each forward pass:
    in float32 the frozen weights then wander, by one rounding a step.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.n_heads = attention.num_heads
        width = attention.embed_dim
        assert attention.batch_first
        self.qkv = nn.Linear(width, 3 * width, device="meta")
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = nn.Linear(width, width, device="meta")
        self.out_proj.weight = attention.out_proj.weight
        self.out_proj.bias = attention.out_proj.bias

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Self-attention (B, T, D) -> (B, T, D), called as torch's is."""
        assert key is query
        assert value is query
        qkv = self.qkv(query).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv.unbind(0), attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


# What `SplitAttention` calls otherwise than the file's names.
RENAMED = {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias"}


def add_adapters(encoder: nn.Module, anatomy: Anatomy, config: LoraConfig, name: str) -> None:
    """Put adapters into an encoder, in place. At first they change nothing: B is zero.

    Args:
        encoder: its modules keep their names; those that get an adapter move into ``base_layer``.
        anatomy: of the encoder: by default only its layers get adapters, no head of its own.
        config: rank, scale and targets.
        name: the encoder's, for messages.

    Raises:
        RequestError: peft isn't installed, or nothing has a target's name.
    """
    peft = _import_peft()
    module: Any
    if anatomy.family == "open_clip.VisionTransformer":
        for tap in anatomy.taps:
            module = encoder.get_submodule(tap.module)
            if isinstance(module.attn, nn.MultiheadAttention):
                module.attn = SplitAttention(module.attn)
    targets = _find_targets(encoder, anatomy, config.targets, name)
    for module in encoder.modules():
        # timm's BEiT, EVA-02 and Swin V2 pass by their layer's own call to add a bias, unless told
        # to add it afterwards; the adapter would be passed by too.
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about models that peft has a table for
        peft.inject_adapter_in_model(
            peft.LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                target_modules=targets,
                bias="none",  # what trains is chosen in modes.py
            ),
            encoder,
            ADAPTER,
        )


def merged_tensors(encoder: nn.Module) -> dict[str, Tensor]:
    """An encoder's ``state_dict``, each adapter added to its layer, under the names of before.

    The encoder is left as it is. Only one layer at a time is copied.
    """
    adapted = {n: m for n, m in encoder.named_modules() if hasattr(m, "base_layer")}
    inside = tuple(f"{name}." for name in adapted)
    tensors = {n: t for n, t in encoder.state_dict().items() if not n.startswith(inside)}
    for name, module in adapted.items():
        layer: Any = copy.deepcopy(module).float().cpu()
        layer.merge()
        for part, tensor in layer.get_base_layer().state_dict().items():
            tensors[f"{name}.{part}"] = tensor
    for name, module in encoder.named_modules():
        if isinstance(module, SplitAttention):
            for ours, theirs in RENAMED.items():
                tensors[f"{name}.{theirs}"] = tensors.pop(f"{name}.{ours}")
    return tensors


def is_adapter(parameter: str) -> bool:
    """Whether a parameter, by its name, is an adapter's."""
    return MARK in parameter


def check_reached(encoder: nn.Module, reached: Mapping[str, int], name: str) -> None:
    """Refuse adapters that the head's input doesn't depend on: they would never learn.

    Raises:
        RequestError: there is one.
    """
    idle = [n for n, _ in encoder.named_parameters() if is_adapter(n) and n not in reached]
    if idle:
        layers = sorted({n.partition(MARK)[0] for n in idle})
        raise RequestError(
            f"--lora-targets: {name} doesn't call {some(layers)}, or what the head sees lies "
            "before; an adapter there gets no gradient; name other layers, or leave "
            "--lora-targets out"
        )


def _import_peft() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations, at import
            import peft
    except ImportError as error:
        raise RequestError(
            "--mode lora needs the package peft: pip install 'medprobe[finetune]'"
        ) from error
    return peft


def _find_targets(
    encoder: nn.Module, anatomy: Anatomy, wish: tuple[str, ...], name: str
) -> list[str]:
    """Full names of the layers that get adapters."""
    layers = {n: m for n, m in encoder.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    inside = tuple(f"{tap.module}." for tap in anatomy.taps)
    if wish:
        found = [n for n in layers if _ends(n, wish)]
        idle = [target for target in wish if not any(_ends(n, (target,)) for n in layers)]
        if not idle:
            return found
        asked = f"--lora-targets: {name} has no layer {some(idle)}"
    else:
        found = [
            n
            for n, layer in layers.items()
            if isinstance(layer, nn.Linear)
            and (not inside or n.startswith(inside))
            and _ends(n, TARGETS)
            and not _ends(n, NOT_TARGETS)
        ]
        if found:
            return found
        asked = f"--mode lora: no linear layer of {name} is known as one of attention or MLP"
    counts = Counter(n.rpartition(".")[2] for n, m in layers.items() if isinstance(m, nn.Linear))
    words = ", ".join(f"{end} ({n})" for end, n in counts.most_common(8))
    raise RequestError(
        f"{asked}; its linear layers: {words or 'none'}"
        f"{'; name some with --lora-targets' if words and not wish else ''}"
        f"{'' if words else '; take --mode full, partial or bitfit'}"
    )


def _ends(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)
