"""Which parameters train, by mode, and which modules behave as in training.

The optimiser's groups follow: each part its rate, each layer its share of it, and what decays.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cache.errors import RequestError
from extract.encoders.outline import Network
from finetune.config import ModelConfig, TrainConfig
from finetune.model.adapters import is_adapter
from finetune.model.parts import Places


def choose_parameters(network: Network, config: ModelConfig, places: Places, name: str) -> None:
    """Set ``requires_grad`` of every parameter of an encoder.

    What the head's input doesn't depend on never trains.

    Args:
        network: the encoder, with its adapters.
        config: the mode.
        places: of its parameters.
        name: the encoder's, for messages.

    Raises:
        RequestError: the mode doesn't fit the encoder, or would train nothing of it.
    """
    if config.mode == "partial" and not places.known:
        raise RequestError(
            f"--mode partial: no module of {name} has a layer for its output, so --freeze-until "
            "can't count them; take --mode full, head, lora or bitfit"
        )
    if config.freeze_until is not None and config.freeze_until >= places.n_layers:
        raise RequestError(
            f"--freeze-until {config.freeze_until}: {name} has blocks 0 to {places.n_layers - 1}"
            f"{f' before --cut-after {config.cut_after}' if config.cut_after is not None else ''}; "
            "the first that trains is one of them"
        )
    if config.freeze_norm and not network.final_norms:
        raise RequestError(f"--freeze-norm: {name} has no norm behind its last layer")
    frozen = {id(p) for norm in network.final_norms for p in norm.parameters()}
    frozen = frozen if config.freeze_norm else set()
    n_training = 0
    for parameter_name, parameter in network.module.named_parameters():
        layer = places.parameters.get(parameter_name)
        trains = layer is not None and _trains(parameter_name, layer, config)
        trains = trains and id(parameter) not in frozen
        parameter.requires_grad_(trains)
        n_training += trains
    if config.encoder_trains and not n_training:
        raise _nothing_trains(config, name)


def _trains(name: str, layer: int, config: ModelConfig) -> bool:
    if config.mode == "partial":
        assert config.freeze_until is not None
        return layer >= config.freeze_until
    if config.mode == "lora":
        # peft keeps an adapted layer's own bias under base_layer ("lora_only" in its words).
        of_bias = config.lora is not None and config.lora.train_bias
        return is_adapter(name) or (of_bias and name.endswith("base_layer.bias"))
    if config.mode == "bitfit":
        # Zaken's term, not Swin's table of relative positions, which is called a bias too.
        return name.endswith("bias")
    return config.mode == "full"


def _nothing_trains(config: ModelConfig, name: str) -> RequestError:
    if config.mode == "bitfit":
        return RequestError(
            f"--mode bitfit: no parameter of {name} is a bias that the head's input depends on; "
            "take --mode full, partial or lora"
        )
    return RequestError(
        f"--mode {config.mode} should train the encoder, but no parameter of {name} would; take "
        "--mode head, or a smaller --freeze-until"
    )


# ---------------------------------------------------------------------------- training mode


def set_modules(encoder: nn.Module, config: ModelConfig, places: Places) -> None:
    """Put the training parts of an encoder into training mode, the frozen ones into eval mode.

    So dropout and stochastic depth of frozen blocks do nothing. With adapters or biases, every
    block trains.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, _BatchNorm):
            module.training = _updates(module, config)
        elif config.mode != "partial":
            module.training = config.encoder_trains
        elif any(True for _ in module.parameters()):
            module.training = any(p.requires_grad for p in module.parameters())
        else:
            assert config.freeze_until is not None
            module.training = places.modules.get(name, -1) >= config.freeze_until


def updates_batchnorm(encoder: nn.Module, config: ModelConfig) -> bool:
    """Whether training changes running statistics: then a batch's size changes the numbers."""
    norms = (module for module in encoder.modules() if isinstance(module, _BatchNorm))
    return any(_updates(norm, config) for norm in norms)


def _updates(norm: nn.Module, config: ModelConfig) -> bool:
    if config.batchnorm != "auto":
        return config.batchnorm == "train"
    return config.mode == "full" or any(p.requires_grad for p in norm.parameters())


# ---------------------------------------------------------------------------- what trains


N_NAMES = 8  # that are written out


@dataclass(frozen=True)
class Part:
    """Parameters of one part of a classifier."""

    n_training: int
    n_all: int
    names: tuple[str, ...]  # of what trains, many as one: "blocks.6..11", "norm"

    def __str__(self) -> str:
        if not self.n_all:
            return "none"
        words = f"{self.n_training:_} of {self.n_all:_} ({self.n_training / self.n_all:.2%})"
        more = len(self.names) - N_NAMES
        names = [*self.names[:N_NAMES], *([f"and {more} more"] if more > 0 else [])]
        return words + (f": {', '.join(names)}" if names else "")


@dataclass(frozen=True)
class Trains:
    """What of a classifier trains. Adapters are counted apart from the encoder that they are in."""

    encoder: Part
    adapters: Part
    head: Part


def count_parameters(encoder: nn.Module, head: nn.Module) -> Trains:
    """What trains, in numbers and names."""
    named = list(encoder.named_parameters())
    own, adapters = [], []
    for name, parameter in named:
        item = (name, parameter.numel(), parameter.requires_grad)
        (adapters if is_adapter(name) else own).append(item)
    of_head = [(n, p.numel(), p.requires_grad) for n, p in head.named_parameters()]
    return Trains(*(_part(items) for items in (own, adapters, of_head)))


def check_gradients(encoder: nn.Module, mode: str) -> None:
    """Make sure, after the first backward pass, that something flows back into the encoder.

    Args:
        encoder: some parameters of which should have gradients.
        mode: for the message.

    Raises:
        RequestError: every gradient is absent or zero.
    """
    training = [p for p in encoder.parameters() if p.requires_grad]
    if any(p.grad is not None and bool(p.grad.any()) for p in training):
        return
    raise RequestError(
        f"--mode {mode}: after the first backward pass the gradients of all {len(training)} "
        "trained tensors of the encoder are zero, so it would never learn; check its forward pass "
        "for detach(), no_grad() or a head that starts at zero"
    )


def _part(items: list[tuple[str, int, bool]]) -> Part:
    training = [(name, n) for name, n, trains in items if trains]
    frozen = [name for name, _, trains in items if not trains]
    return Part(
        sum(n for _, n in training),
        sum(n for _, n, _ in items),
        tuple(_short([name for name, _ in training], frozen)),
    )


def _short(training: list[str], frozen: list[str]) -> list[str]:
    """Few names for many: the outermost modules that train whole, numbered ones as ranges."""
    whole: dict[str, None] = {}
    prefixes_of_frozen = {prefix for name in frozen for prefix in _prefixes(name)}
    for name in training:
        free = (p for p in _prefixes(name) if p not in prefixes_of_frozen)
        whole[next(free, name)] = None
    # blocks is one name where all its blocks train; blocks.6, blocks.7 become blocks.6..7.
    groups: dict[tuple[str, ...], list[list[int]]] = {}
    for name in whole:
        parts = re.split(r"\b(\d+)\b", name)
        groups.setdefault(tuple(parts[::2]), []).append([int(n) for n in parts[1::2]])
    return [_join(words, numbers) for words, numbers in groups.items()]


def _prefixes(name: str) -> list[str]:
    """ "a.b.c" -> "a", "a.b", "a.b.c"."""
    return list(itertools.accumulate(name.split("."), lambda before, part: f"{before}.{part}"))


def _join(words: tuple[str, ...], numbers: Iterable[list[int]]) -> str:
    columns = zip(*numbers, strict=True)
    ranges = [_range(sorted(set(column))) for column in columns]
    return "".join(itertools.chain(*itertools.zip_longest(words, ranges, fillvalue="")))


def _range(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 1 and len(numbers) == last - first + 1:
        return f"{first}..{last}"
    return ",".join(map(str, numbers))


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
