"""The network that is trained: an encoder, a head, and what of them trains."""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache.checked_json import read_checked, write_checked
from cache.errors import RequestError
from cache.places import memory_root
from extract.encoders.encoder import Description, Weights, load_network
from extract.encoders.outline import Network
from extract.encoders.outline_memory import surroundings
from finetune.config import ModelConfig, TrainConfig
from finetune.model import modes
from finetune.model.adapters import add_adapters, check_reached, merged_tensors
from finetune.model.alterations import (
    checkpoint_gradients,
    cut_after,
    set_drop_path,
    try_checkpointing,
)
from finetune.model.heads import DeitHead, build_deit, check_deit, linear_head
from finetune.model.modes import Trains
from finetune.model.parts import Parts, find_parts
from finetune.model.reading import TOKENS, Reader, average_by_sample

PASSED = "trainable.json"  # in the folder of what commands remember


class Classifier(nn.Module):
    """Backbone and head: images to logits.

    ``encoder`` and ``head`` are its only modules. The encoder runs without autograd where nothing
    of it trains.

    Args:
        reader: of the encoder.
        head: ``nn.Linear`` of a pool, or a ``DeitHead``.
        config: what trains.
        parts: of the encoder's parameters.
        head_digest: SHA-256 of a DeiT head's weights as read; None for the linear head.
    """

    def __init__(
        self,
        reader: Reader,
        head: nn.Module,
        config: ModelConfig,
        parts: Parts,
        head_digest: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = reader.encoder
        self.head = head
        self.reader, self.config, self.parts = reader, config, parts
        self.head_digest = head_digest

    def forward(self, images: Tensor, sample: Tensor | None = None) -> Tensor:
        """One forward pass.

        Args:
            images: (B, 3, size, size), normalised.
            sample: (B,) int64, the number 0..n-1 of each image's sample (slices of a volume). What
                the last linear layer sees is averaged by sample.

        Returns:
            (B, O) logits; (n, O) with ``sample``.
        """
        trains = self.config.encoder_trains and torch.is_grad_enabled()
        with torch.set_grad_enabled(trains):
            seen = self.reader(images)
        vectors, last = seen, self.head
        if isinstance(self.head, DeitHead):
            vectors, last = self.head.embed(seen), self.head.classifier
        if sample is not None:
            vectors = average_by_sample(vectors, sample)
        return last(vectors)

    def set_training(self) -> None:
        """``train()`` for what trains: frozen parts stay in eval mode, BatchNorm as configured."""
        self.train()
        modes.set_modules(self.encoder, self.config, self.parts)


def check_model(description: Description, config: ModelConfig) -> None:
    """Refuse what can't be trained, before any weight is read.

    What passed once passes again, as long as libraries and code are the same.

    Raises:
        RequestError: one line with what is possible.
    """
    root = memory_root()
    if root is None or description.entry.library == "user":
        _sketch(description, config)
        return
    known = read_checked(root / PASSED)
    asked = repr(
        (description.entry, description.size, config, surroundings(Path(__file__).parents[1]))
    )
    name = hashlib.sha256(asked.encode()).hexdigest()
    if name not in known:
        _sketch(description, config)
        write_checked(root / PASSED, {**known, name: True})


def build_classifier(
    description: Description,
    weights: Weights,
    config: ModelConfig,
    n_logits: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Classifier, str]:
    """Build the network with its weights, on the CPU in float32; what trains is chosen.

    The linear head starts as that of ``probe --kind adamw`` does by the same seed.

    Args:
        description: of the encoder (``extract.encoders.encoder.describe``).
        weights: of the encoder (``find_weights``).
        config: what the network is, and what of it trains.
        n_logits: O.
        seed: of the head and of adapters.
        say: told what loading did.

    Returns:
        The classifier, and the SHA-256 of the encoder's weights as read.

    Raises:
        RequestError: as ``check_model``, or the weights don't fit.
    """
    parts = _sketch(description, config)
    network, digest, said = load_network(description, weights)
    for line in said:
        say(line)
    if description.outline.load is None:
        network = copy.deepcopy(network)  # the user's own code made it, once for all runs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = _assemble(network, description, config)
    modes.choose_parameters(network, config, parts, description.typed)
    head, head_digest = _make_head(config, parts, n_logits, seed)
    if config.grad_checkpointing and config.encoder_trains:
        checkpoint_gradients(network, description.typed)
    if config.grad_checkpointing and isinstance(head, DeitHead):
        head.deit.set_grad_checkpointing()
    return Classifier(reader, head, config, parts, head_digest), digest


def _sketch(description: Description, config: ModelConfig) -> Parts:
    """Build the encoder without values and find out where its parameters work.

    Raises:
        RequestError: something can't be done with this encoder.
    """
    name, outline = description.typed, description.outline
    if outline.load is None:  # a user's own module may hold more than its tensors: no meta device
        network = copy.deepcopy(outline.build())
    else:
        with torch.device("meta"):
            network = outline.build()
    reader = _assemble(network, description, config)
    parts = find_parts(reader, description.size)
    if config.lora is not None:
        check_reached(network.module, parts.parameters, name)
    modes.choose_parameters(network, config, parts, name)
    if config.head == "deit":
        check_deit(parts.shape, config.head_weights, name)
    if config.grad_checkpointing and config.encoder_trains:
        try_checkpointing(reader, description.size, name)
    return parts


def _assemble(network: Network, description: Description, config: ModelConfig) -> Reader:
    """Everything that changes modules, in place and in the one order."""
    name, anatomy = description.typed, description.anatomy
    if config.cut_after is not None:
        anatomy = cut_after(network, anatomy, config.cut_after, name)
    what = TOKENS if config.head == "deit" else config.pool
    pools = {
        "head": anatomy.head_width is not None,
        "cls": anatomy.has_cls,
        "mean": True,
        "proj": anatomy.proj_width is not None,
    }
    if not pools.get(what, True):
        possible = ", ".join(pool for pool, there in pools.items() if there)
        raise RequestError(f"--pool {what}: {name} has none; it has {possible}")
    if config.lora is not None:
        add_adapters(network.module, anatomy, config.lora, name)
    set_drop_path(network.module, config.drop_path, name)
    # A protocol may take an encoder's layers before its final norm.
    return Reader(network, dataclasses.replace(anatomy, norm_rule=description.norm_rule), what)


def _make_head(
    config: ModelConfig, parts: Parts, n_logits: int, seed: int
) -> tuple[nn.Module, str | None]:
    if config.head == "deit":
        return build_deit(parts.shape, config.head_weights, n_logits, seed)
    return linear_head(parts.shape[0], n_logits, seed), None


def start_head_anew(classifier: Classifier, n_logits: int, seed: int) -> None:
    """Freeze the encoder as it is, and put a head with its first weights on it, in place.

    Args:
        classifier: trained or not, on any device.
        n_logits: O.
        seed: of the head.
    """
    device = next(classifier.parameters()).device
    head, _ = _make_head(classifier.config, classifier.parts, n_logits, seed)
    classifier.head = head.to(device)
    classifier.encoder.requires_grad_(False)
    classifier.config = dataclasses.replace(
        classifier.config,
        mode="head",
        lora=None,
        freeze_until=None,
        freeze_norm=False,
        drop_path=0.0,
        batchnorm="eval",
    )


# ---------------------------------------------------------------------------- asked of a classifier


def what_trains(classifier: Classifier) -> Trains:
    """Counts and names of what trains.

    Raises:
        RequestError: the mode should train the encoder, and nothing of it would.
    """
    found = modes.count_parameters(classifier.encoder, classifier.head)
    n_training = found.encoder.n_training + found.adapters.n_training
    if classifier.config.encoder_trains and not n_training:
        raise RequestError(
            f"--mode {classifier.config.mode} should train the encoder, but none of its "
            f"{found.encoder.n_all:_} parameters has a gradient"
        )
    return found


def load_trained(classifier: Classifier, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Put what a training changed into a classifier: weights that train, and buffers.

    Args:
        classifier: with the weights that it began with; what is frozen stays.
        tensors: as ``trained_tensors`` gave them.
        where: they are from, for messages.

    Raises:
        RequestError: they are another network's.
    """
    wanted = {name: tuple(t.shape) for name, t in trained_tensors(classifier).items()}
    if wanted != {name: tuple(t.shape) for name, t in tensors.items()}:
        raise RequestError(f"{where} holds weights of another network; train anew with --overwrite")
    classifier.load_state_dict(dict(tensors), strict=False)


def trained_tensors(classifier: Classifier) -> dict[str, Tensor]:
    """The weights that train, and the buffers."""
    frozen = {name for name, p in classifier.named_parameters() if not p.requires_grad}
    state = classifier.state_dict()
    return {name: tensor for name, tensor in state.items() if name not in frozen}


def updates_batchnorm(classifier: Classifier) -> bool:
    """Whether training changes running statistics, and so depends on the batch at once."""
    return modes.updates_batchnorm(classifier.encoder, classifier.config)


def check_gradients(classifier: Classifier) -> None:
    """Make sure, after the first backward pass, that something reached the encoder.

    Raises:
        RequestError: every gradient of the encoder is absent or zero.
    """
    training = [p for p in classifier.encoder.parameters() if p.requires_grad]
    reached = any(p.grad is not None and bool(p.grad.any()) for p in training)
    if classifier.config.encoder_trains and not reached:
        raise RequestError(
            f"--mode {classifier.config.mode}: after the first backward pass the gradients of all "
            f"{len(training)} trained tensors of the encoder are zero, so it would never learn; "
            "check its forward pass for detach(), no_grad() or a head that starts at zero"
        )


def parameter_groups(
    classifier: Classifier, train: TrainConfig, encoder_lr: float
) -> list[dict[str, Any]]:
    """Groups of the parameters that train, for an optimiser of torch's.

    With ``layer_decay`` d, layer i of n has d ** (n - i) of the encoder's rate, the stem d ** (n + 1),
    and what stands behind the last layer goes with that layer: the numbers of timm's
    ``param_groups_layer_decay`` for a ViT with its classifier, but by ``Parts``, and so for every
    library.

    Args:
        classifier: only what requires gradients is taken.
        train: rates and decay.
        encoder_lr: the encoder's rate of this run.

    Returns:
        Dictionaries of ``params``, ``lr``, ``weight_decay``, ``part`` ("encoder" or "head") and
        ``scale``, the layer's factor that ``lr`` holds already.

    Raises:
        RequestError: ``layer_decay`` for an encoder whose layers aren't known.
    """
    parts, rates = classifier.parts, {"encoder": encoder_lr, "head": train.head_lr or encoder_lr}
    if train.layer_decay < 1 and not parts.known:
        raise RequestError(
            "--layer-decay: no module of this encoder has a layer for its output, so its layers "
            "can't be told apart; leave the flag out"
        )
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for full_name, parameter in classifier.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, name = full_name.partition(".")
        scale = 1.0
        if part == "encoder" and train.layer_decay < 1:
            layer = min(parts.parameters[name], parts.n_layers - 1)
            scale = train.layer_decay ** (parts.n_layers - layer)
        decays = train.decay_1d or (parameter.ndim > 1 and not name.endswith("bias"))
        group = {
            "params": [],
            "lr": rates[part] * scale,
            "weight_decay": train.weight_decay if decays else 0.0,
            "part": part,
            "scale": scale,
        }
        groups.setdefault((part, scale, decays), group)["params"].append(parameter)
    return list(groups.values())


def export_encoder(classifier: Classifier) -> dict[str, Tensor]:
    """The encoder's tensors, as ``extract --model ... --size ... --weights FILE`` takes them.

    Adapters are merged; the classifier is left as it is. Of a cut encoder there are only the kept
    blocks, and ``extract`` refuses the file as one with missing tensors: its layers are those of
    whole encoders.

    Returns:
        Name -> tensor on the CPU, contiguous, floating ones in float32.
    """
    tensors = classifier.reader.network.file_tensors(merged_tensors(classifier.encoder))
    return {
        name: (t.float() if t.is_floating_point() else t).detach().cpu().contiguous().clone()
        for name, t in tensors.items()
    }
