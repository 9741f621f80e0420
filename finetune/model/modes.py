"""Which parameters train, by mode, and which modules behave as in training."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cache.errors import RequestError
from extract.encoders.outline import Network
from finetune.config import ModelConfig
from finetune.model.adapters import is_adapter
from finetune.model.parts import Parts


def choose_parameters(network: Network, config: ModelConfig, parts: Parts, name: str) -> None:
    """Set ``requires_grad`` of every parameter of an encoder.

    What the head's input doesn't depend on never trains.

    Args:
        network: the encoder, with its adapters.
        config: the mode.
        parts: of its parameters.
        name: the encoder's, for messages.

    Raises:
        RequestError: the mode doesn't fit the encoder, or would train nothing of it.
    """
    if config.mode == "partial" and not parts.known:
        raise RequestError(
            f"--mode partial: no module of {name} has a layer for its output, so --freeze-until "
            "can't count them; take --mode full, head, lora or bitfit"
        )
    if config.freeze_until is not None and config.freeze_until >= parts.n_layers:
        raise RequestError(
            f"--freeze-until {config.freeze_until}: {name} has blocks 0 to {parts.n_layers - 1}"
            f"{f' before --cut-after {config.cut_after}' if config.cut_after is not None else ''}; "
            "the first that trains is one of them"
        )
    if config.freeze_norm and not network.final_norms:
        raise RequestError(f"--freeze-norm: {name} has no norm behind its last layer")
    frozen = {id(p) for norm in network.final_norms for p in norm.parameters()}
    frozen = frozen if config.freeze_norm else set()
    n_training = 0
    for parameter_name, parameter in network.module.named_parameters():
        layer = parts.parameters.get(parameter_name)
        trains = layer is not None and _trains(parameter_name, layer, config)
        trains = trains and id(parameter) not in frozen
        parameter.requires_grad_(trains)
        n_training += trains
    if n_training or not config.encoder_trains:
        return
    if config.mode == "bitfit":
        raise RequestError(
            f"--mode bitfit: no parameter of {name} is a bias that the head's input depends on; "
            "take --mode full, partial or lora"
        )
    raise RequestError(
        f"--mode {config.mode} should train the encoder, but no parameter of {name} would; take "
        "--mode head, or a smaller --freeze-until"
    )


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


# ---------------------------------------------------------------------------- training mode


def set_modules(encoder: nn.Module, config: ModelConfig, parts: Parts) -> None:
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
            module.training = parts.modules.get(name, -1) >= config.freeze_until


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
    own, adapters = {}, {}
    for name, parameter in encoder.named_parameters():
        (adapters if is_adapter(name) else own)[name] = parameter
    return Trains(*map(_part, (own, adapters, dict(head.named_parameters()))))


def _part(parameters: Mapping[str, nn.Parameter]) -> Part:
    training = {name: p for name, p in parameters.items() if p.requires_grad}
    frozen = [name for name in parameters if name not in training]
    n_training, n_all = (sum(p.numel() for p in of.values()) for of in (training, parameters))
    return Part(n_training, n_all, tuple(_short([*training], frozen)))


def _short(training: Sequence[str], frozen: Sequence[str]) -> list[str]:
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
    short = []
    for words, numbers in groups.items():
        ranges = [_range(sorted(set(column))) for column in zip(*numbers, strict=True)]
        short.append("".join(map("".join, itertools.zip_longest(words, ranges, fillvalue=""))))
    return short


def _prefixes(name: str) -> list[str]:
    """ "a.b.c" -> "a", "a.b", "a.b.c"."""
    return list(itertools.accumulate(name.split("."), lambda before, part: f"{before}.{part}"))


def _range(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 1 and len(numbers) == last - first + 1:
        return f"{first}..{last}"
    return ",".join(map(str, numbers))
