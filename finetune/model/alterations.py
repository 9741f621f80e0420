"""What is altered of an encoder before it trains: where it ends, what it drops, what it computes twice.

Decapitation is an encoder that ends after one of its blocks (Huix et al. 2024). Stochastic depth
(Huang et al. 2016) is as asked for and not as an architecture has it by default: timm builds Swin
with a rate of 0.1, most others without. With gradient checkpointing blocks run a second time in the
backward pass, instead of being kept.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from cache.commands.names import first_line
from cache.errors import RequestError
from extract.encoders.anatomy import Anatomy
from extract.encoders.libraries.families import RAW_MAPS, TimmModel
from extract.encoders.outline import Network
from finetune.model.reading import Reader


def cut_after(network: Network, anatomy: Anatomy, block: int, name: str) -> Anatomy:
    """Delete every block behind one, in place; they aren't computed any more.

    The encoder's final norm then works on the last kept block, as DINOv2's does in the paper. Where
    it has another width (Swin, FocalNet), there is none.

    Args:
        network: changed in place.
        anatomy: of the whole encoder.
        block: the last that is kept, from 0.
        name: the encoder's, for messages.

    Returns:
        The anatomy of what is left, but for the widths of ``head`` and ``proj``.

    Raises:
        RequestError: no such block, or the encoder isn't a row of blocks.
    """
    container = _blocks(network.module, anatomy)
    if container is None:
        raise RequestError(
            f"--cut-after is for transformers, whose blocks stand in one row; {name} "
            f"({anatomy.family}) takes --mode full, head{', partial' if anatomy.taps else ''} or "
            "bitfit without it"
        )
    if block >= anatomy.n_layers:
        raise RequestError(
            f"--cut-after {block}: {name} has blocks 0 to {anatomy.n_layers - 1}; the last one cuts "
            "nothing off"
        )
    del container[block + 1 :]
    trunk: TimmModel = getattr(network, "model", network.module)
    if anatomy.norm_rule == "each stage":
        del trunk.stage_norms[block + 1 :]
    elif anatomy.width[block] != anatomy.width[-1]:
        trunk.norm = nn.Identity()
    taps = anatomy.taps[: block + 1]
    return dataclasses.replace(anatomy, width=anatomy.width[: block + 1], taps=taps)


def _blocks(module: nn.Module, anatomy: Anatomy) -> nn.Sequential | nn.ModuleList | None:
    """The container whose items are the layers, in order; None where there is none."""
    if not anatomy.known or anatomy.family in RAW_MAPS or len(anatomy.taps) < 2:
        return None
    parent, _, number = anatomy.taps[0].module.rpartition(".")
    names = [f"{parent}.{i}" for i in range(anatomy.n_layers)]
    last = anatomy.taps[-1].module
    if number != "0" or [tap.module for tap in anatomy.taps[:-1]] != names[:-1]:
        return None
    # SEEM's last map is known as the output of an Identity behind the last stage.
    if last != names[-1] and any(True for _ in module.get_submodule(last).parameters()):
        return None
    container = module.get_submodule(parent)
    if not isinstance(container, nn.Sequential | nn.ModuleList):
        return None
    return container if len(container) == len(names) else None


# What residual blocks of timm's and transformers' call it; without a rate, an Identity or None
# stands there.
DROPS = ("drop_path", "drop_path1", "drop_path2")


def set_drop_path(encoder: nn.Module, rate: float, name: str) -> None:
    """Drop residual branches at random in training: never the first block's, the last's by ``rate``.

    The rates rise in equal steps between, as timm has it.

    Args:
        encoder: changed in place; no parameter is.
        rate: 0 to below 1; 0 takes out what the architecture brings.
        name: the encoder's, for messages.

    Raises:
        RequestError: it has no place for it.
    """
    blocks = [
        (module, places)
        for module in encoder.modules()
        for places in [[place for place in DROPS if hasattr(module, place)]]
        if places
    ]
    if rate and not blocks:
        raise RequestError(f"--drop-path: {name} has no stochastic depth; leave the flag out")
    from timm.layers.drop import DropPath  # here, for timm takes its time

    for (block, places), of_block in zip(
        blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True
    ):
        for place in places:
            if of_block:
                setattr(block, place, DropPath(of_block))
            elif getattr(block, place) is not None:  # None: its block asks before it calls
                setattr(block, place, nn.Identity())


def checkpoint_gradients(network: Network, name: str) -> None:
    """Let an encoder's own library do it. The numbers stay, memory gives way to time.

    Raises:
        RequestError: the library can't for this encoder.
    """
    model: Any = getattr(network, "model", network.module)  # a trunk of timm's, or all
    # transformers; the second is the older name, which newer releases warn about.
    for enable in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
        if hasattr(model, enable) and model.supports_gradient_checkpointing:
            getattr(model, enable)({"use_reentrant": False})
            return
    # open_clip's ModifiedResNet has the method, and passes it over.
    if hasattr(model, "set_grad_checkpointing") and type(model).__name__ != "ModifiedResNet":
        try:
            model.set_grad_checkpointing()
        except AssertionError:  # timm's families that have none
            pass
        else:
            return
    raise RequestError(
        f"--grad-checkpointing: {name} ({type(model).__name__}) has none; leave the flag out and "
        "take a smaller --micro-batch"
    )


def try_checkpointing(reader: Reader, size: int, name: str) -> None:
    """Switch it on and make sure that what the head sees still comes out.

    timm's ResNet then runs its stages' blocks one by one, so that no module's output is the layer;
    open_clip's rarer blocks fail.

    Args:
        reader: of an encoder on the meta device.
        size: side of its images.
        name: the encoder's, for messages.

    Raises:
        RequestError: it doesn't.
    """
    checkpoint_gradients(reader.network, name)
    parameter = next(reader.encoder.parameters())
    images = torch.zeros(1, 3, size, size, device=parameter.device)
    try:
        with torch.enable_grad():
            reader(images)
    except (RuntimeError, TypeError) as error:
        raise RequestError(
            f"--grad-checkpointing: with it {name} doesn't give its last layer "
            f"({first_line(error)}); take --pool head, or leave the flag out and take a smaller "
            "--micro-batch"
        ) from error
