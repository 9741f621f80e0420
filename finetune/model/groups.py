"""The optimiser's groups: each part its rate, each layer its share of it, and what decays."""

from typing import Any

from torch import nn

from cache.errors import RequestError
from finetune.config import TrainConfig
from finetune.model.parts import Places


def make_groups(
    encoder: nn.Module, head: nn.Module, places: Places, train: TrainConfig, encoder_lr: float
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimiser of torch's.

    With ``layer_decay`` d, layer i of n has d ** (n - i) of the encoder's rate, the stem d ** (n + 1),
    and what stands behind the last layer goes with that layer: the numbers of timm's
    ``param_groups_layer_decay`` for a ViT with its classifier, but by ``Places``, and so for every
    library.

    Args:
        encoder: only what requires gradients is taken.
        head: likewise.
        places: of the encoder's parameters.
        train: rates and decay.
        encoder_lr: the encoder's rate of this run.

    Returns:
        Dictionaries of ``params``, ``lr``, ``weight_decay``, ``part`` ("encoder" or "head") and
        ``scale``, the layer's factor that ``lr`` holds already.

    Raises:
        RequestError: ``layer_decay`` for an encoder whose layers aren't known.
    """
    if train.layer_decay < 1 and not places.known:
        raise RequestError(
            "--layer-decay: no module of this encoder has a layer for its output, so its layers "
            "can't be told apart; leave the flag out"
        )
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part, module, rate in [
        ("encoder", encoder, encoder_lr),
        ("head", head, train.head_lr or encoder_lr),
    ]:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = _scale(places, name, train.layer_decay) if part == "encoder" else 1.0
            decays = train.decay_1d or (parameter.ndim > 1 and not name.endswith("bias"))
            group = groups.setdefault(
                (part, scale, decays),
                {
                    "params": [],
                    "lr": rate * scale,
                    "weight_decay": train.weight_decay if decays else 0.0,
                    "part": part,
                    "scale": scale,
                },
            )
            group["params"].append(parameter)
    return list(groups.values())


def _scale(places: Places, name: str, decay: float) -> float:
    layer = min(places.parameters[name], places.n_layers - 1)
    return decay ** (places.n_layers - layer) if decay < 1 else 1.0
